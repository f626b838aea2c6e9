//! Services: an address for each, of a range that nothing listens on.

use super::each;
use crate::sandbox::store::Store;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Fills in the cluster IP and what goes with it.
pub fn prepare(store: &Store, old: Option<&Value>, service: &mut Value) {
    if !service["spec"].is_object() {
        service["spec"] = json!({});
    }
    if let Some(old) = old {
        for field in ["clusterIP", "clusterIPs"] {
            if service["spec"][field].is_null() && old["spec"][field] != Value::Null {
                service["spec"][field] = old["spec"][field].clone();
            }
        }
    }
    for port in each(&mut service["spec"], "ports") {
        if port["targetPort"].is_null() {
            port["targetPort"] = port["port"].clone();
        }
    }
    let spec = &service["spec"];
    if spec["type"] != "ExternalName" {
        if spec["clusterIP"].as_str().is_none_or(str::is_empty) {
            service["spec"]["clusterIP"] = json!(free_address(store));
        }
        service["spec"]["clusterIPs"] = json!([service["spec"]["clusterIP"]]);
        service["spec"]["ipFamilies"] = json!(["IPv4"]);
        service["spec"]["ipFamilyPolicy"] = json!("SingleStack");
        service["spec"]["internalTrafficPolicy"] = json!("Cluster");
    }
    if old.is_none() {
        service["status"] = json!({"loadBalancer": {}});
    }
}

/// The first free address of 10.96.0.0/16, the range of most clusters.
fn free_address(store: &Store) -> String {
    let taken: BTreeSet<&str> = store
        .range("services", None)
        .filter_map(|(_, s)| s["spec"]["clusterIP"].as_str())
        .collect();
    let all = (1..=u16::MAX).map(|n| format!("10.96.{}.{}", n >> 8, n & 255));
    all.into_iter().find(|a| !taken.contains(a.as_str())).unwrap_or_else(|| "None".into())
}
