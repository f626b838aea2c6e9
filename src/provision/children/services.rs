//! The ways to the servers.
//!
//! The primary's Service selects one pod by its name, so that a recreated primary serves as soon
//! as it is Ready, without a label that somebody has to put on it first.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::names::{CONTROL_PORT, POSTGRES_PORT, labels};

use super::Owner;

/// Service `<db>`: leads to this pod, to none before there was a primary.
pub fn primary(owner: &Owner, pod: Option<&str>) -> Service {
    let mut selector = owner.selector();
    match pod {
        Some(pod) => selector.insert(labels::POD_NAME.to_owned(), pod.to_owned()),
        None => selector.insert(labels::ROLE.to_owned(), "primary".to_owned()),
    };
    service(owner, &owner.names.database, selector, vec![port("primary", POSTGRES_PORT)])
}

/// Service `<db>-standby`: leads to the pods labelled so.
pub fn standbys(owner: &Owner) -> Service {
    let mut selector = owner.selector();
    selector.insert(labels::ROLE.to_owned(), "standby".to_owned());
    service(owner, &owner.names.standby_service, selector, vec![port("standby", POSTGRES_PORT)])
}

/// Service `<db>-pods`: headless, names every pod, Ready or not, because nodes that are not Ready
/// are the ones that look for each other.
pub fn pods(owner: &Owner) -> Service {
    let ports = vec![port("db", POSTGRES_PORT), port("control", CONTROL_PORT)];
    let mut service = service(owner, &owner.names.pods_service, owner.selector(), ports);
    if let Some(spec) = &mut service.spec {
        spec.cluster_ip = Some("None".to_owned());
        spec.publish_not_ready_addresses = Some(true);
    }
    service
}

/// The pod that the primary's Service selects: the last primary known.
pub fn selected(service: &Service) -> Option<&str> {
    let selector = service.spec.as_ref()?.selector.as_ref()?;
    selector.get(labels::POD_NAME).map(String::as_str)
}

fn service(
    owner: &Owner,
    name: &str,
    selector: BTreeMap<String, String>,
    ports: Vec<ServicePort>,
) -> Service {
    Service {
        metadata: owner.child(name),
        spec: Some(ServiceSpec {
            selector: Some(selector),
            ports: Some(ports),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(number),
        target_port: Some(IntOrString::Int(i32::from(number))),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}
