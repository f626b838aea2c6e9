//! The one place that chooses what kind of object runs the nodes.
//!
//! A StatefulSet with OnDelete and Parallel: nothing but us and the owner replaces a pod, and all
//! pods start at once because roles do not come from their order. (KubeDB has a PetSet of the same
//! fields; where a cluster serves that API it will be chosen here, once, and recorded.)
//! Leaves the pods to `pod`. Never changes what the API server lets nobody change.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::super::blueprint::Blueprint;
use super::super::same;
use super::pod::DATA_VOLUME;

/// What runs the nodes.
pub type Workload = StatefulSet;

/// The workload of a database with so many nodes.
pub fn workload(blueprint: &Blueprint, nodes: i32, live: Option<&Workload>) -> Workload {
    let Blueprint { owner, storage, template, .. } = blueprint;
    let claims = storage.as_ref().map(|claim| {
        vec![PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(DATA_VOLUME.to_owned()),
                labels: Some(owner.labels()),
                ..ObjectMeta::default()
            },
            spec: Some(claim.clone()),
            status: None,
        }]
    });
    // Claims are immutable: what was first asked for stays.
    let claims = match live.and_then(|live| live.spec.as_ref()) {
        Some(spec) => spec.volume_claim_templates.clone(),
        None => claims,
    };
    StatefulSet {
        metadata: owner.child(&owner.names.database),
        spec: Some(StatefulSetSpec {
            replicas: Some(nodes),
            pod_management_policy: Some("Parallel".to_owned()),
            selector: LabelSelector {
                match_labels: Some(owner.selector()),
                ..LabelSelector::default()
            },
            service_name: Some(owner.names.pods_service.clone()),
            template: template.clone(),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                rolling_update: None,
            }),
            volume_claim_templates: claims,
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}

/// Whether the spec asks for other volumes than the workload was made with.
pub fn other_storage(blueprint: &Blueprint, live: &Workload) -> bool {
    let claims = live.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_ref());
    let live = claims.and_then(|claims| claims.first()).and_then(|claim| claim.spec.as_ref());
    match (live, &blueprint.storage) {
        (Some(live), Some(wanted)) => !same::holds(live, wanted),
        (None, None) => false,
        (Some(_), None) | (None, Some(_)) => true,
    }
}

/// How many nodes it is to have.
pub fn nodes(workload: &Workload) -> i32 {
    workload.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::super::super::blueprint::Options;
    use super::super::super::sample::{MINIMAL, postgres};
    use super::*;

    fn blueprint(spec: &str) -> Blueprint {
        Blueprint::of(&postgres(spec), &Options::default(), None).unwrap()
    }

    #[test]
    fn claims_stay_as_they_were_first_made() {
        let small = workload(&blueprint(MINIMAL), 3, None);
        let larger = MINIMAL.replace("1Gi", "2Gi");
        let again = workload(&blueprint(&larger), 3, Some(&small));
        assert!(same::holds(&small, &again));
        assert!(other_storage(&blueprint(&larger), &small));
        assert!(!other_storage(&blueprint(MINIMAL), &small));
        assert!(!other_storage(&blueprint(&MINIMAL.replace("1Gi", "1024Mi")), &small));
    }

    #[test]
    fn ephemeral_nodes_have_no_claims() {
        let made = workload(&blueprint("{version: '15', storageType: Ephemeral}"), 1, None);
        assert!(made.spec.unwrap().volume_claim_templates.is_none());
    }
}
