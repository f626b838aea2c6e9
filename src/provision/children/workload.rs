//! The one place that chooses what kind of object runs the nodes.
//!
//! OnDelete and Parallel either way: nothing but us and the owner replaces a pod, and all pods
//! start at once because roles do not come from their order. Whoever has a [`Workload`] asks it
//! for its spec; which of the two it is matters only where it is built, watched and written.
//! Leaves the pods to `pod`. Never changes what the API server lets nobody change.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};
use k8s_openapi::api::core::v1::{LocalObjectReference, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use crate::api::PetSet;
use crate::api::pet_set::PetSetSpec;

use super::super::blueprint::Blueprint;
use super::super::same;
use super::pod::DATA_VOLUME;

/// Which kind of object runs a database's nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadKind {
    /// Kubernetes' own.
    StatefulSet,
    /// KubeDB's: the same, and a policy can place each pod.
    PetSet,
}

impl WorkloadKind {
    /// The kind of a database: that of the workload it has, else that of the cluster (`served`).
    ///
    /// The kind is chosen once, and the live object is the record of it. A database that has a
    /// StatefulSet keeps it when the cluster begins to serve PetSets: to change over would be to
    /// delete the one before the other may claim its pods, a stop of all nodes that nobody asked
    /// for. Only a database whose workload is gone is given what is served now: one that was
    /// halted and made anew, or one whose PetSet went with KubeDB's definition. Pods and claims
    /// have the same names under both, so it finds its data again.
    pub fn of(live: Option<&Workload>, served: Self) -> Self {
        match live {
            Some(Workload::StatefulSet(_)) => Self::StatefulSet,
            Some(Workload::PetSet(_)) => Self::PetSet,
            None => served,
        }
    }
}

/// What runs the nodes.
#[derive(Clone, Debug)]
pub enum Workload {
    /// Kubernetes' own kind.
    StatefulSet(StatefulSet),
    /// KubeDB's kind.
    PetSet(PetSet),
}

impl Workload {
    /// What both kinds say; `None` for an object without a spec.
    pub fn spec(&self) -> Option<&StatefulSetSpec> {
        match self {
            Self::StatefulSet(set) => set.spec.as_ref(),
            Self::PetSet(set) => Some(&set.spec.set),
        }
    }
}

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
    let claims = match live.and_then(Workload::spec) {
        Some(spec) => spec.volume_claim_templates.clone(),
        None => claims,
    };
    let set = StatefulSetSpec {
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
    };
    let (metadata, status) = (owner.child(&owner.names.database), None);
    match blueprint.kind {
        WorkloadKind::StatefulSet => {
            Workload::StatefulSet(StatefulSet { metadata, spec: Some(set), status })
        }
        WorkloadKind::PetSet => {
            // The policy's constraints take the place of ours for the same domain (KubeDB's
            // controller); without a policy ours are all there are.
            let policy = blueprint.placement.clone();
            let pod_placement_policy = policy.map(|name| LocalObjectReference { name });
            let spec = PetSetSpec { set, pod_placement_policy };
            Workload::PetSet(PetSet { metadata, spec, status })
        }
    }
}

/// Whether the spec asks for other volumes than the workload was made with.
pub fn other_storage(blueprint: &Blueprint, live: &Workload) -> bool {
    let claims = live.spec().and_then(|spec| spec.volume_claim_templates.as_ref());
    let live = claims.and_then(|claims| claims.first()).and_then(|claim| claim.spec.as_ref());
    match (live, &blueprint.storage) {
        (Some(live), Some(wanted)) => !same::holds(live, wanted),
        (None, None) => false,
        (Some(_), None) | (None, Some(_)) => true,
    }
}

/// How many nodes it is to have.
pub fn nodes(workload: &Workload) -> i32 {
    workload.spec().and_then(|spec| spec.replicas).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::super::super::blueprint::Options;
    use super::super::super::sample::{MINIMAL, postgres};
    use super::*;

    const KINDS: [WorkloadKind; 2] = [WorkloadKind::StatefulSet, WorkloadKind::PetSet];

    fn blueprint(spec: &str, kind: WorkloadKind) -> Blueprint {
        Blueprint::of(&postgres(spec), &Options::default(), None, kind).unwrap()
    }

    fn json(workload: &Workload) -> serde_json::Value {
        match workload {
            Workload::StatefulSet(set) => serde_json::to_value(set).unwrap(),
            Workload::PetSet(set) => serde_json::to_value(set).unwrap(),
        }
    }

    #[test]
    fn claims_stay_as_they_were_first_made() {
        for kind in KINDS {
            let blueprint = |spec: &str| blueprint(spec, kind);
            let small = workload(&blueprint(MINIMAL), 3, None);
            let larger = MINIMAL.replace("1Gi", "2Gi");
            let again = workload(&blueprint(&larger), 3, Some(&small));
            assert_eq!(json(&small), json(&again));
            assert!(other_storage(&blueprint(&larger), &small));
            assert!(!other_storage(&blueprint(MINIMAL), &small));
            assert!(!other_storage(&blueprint(&MINIMAL.replace("1Gi", "1024Mi")), &small));
        }
    }

    #[test]
    fn ephemeral_nodes_have_no_claims() {
        for kind in KINDS {
            let blueprint = blueprint("{version: '15', storageType: Ephemeral}", kind);
            let made = workload(&blueprint, 1, None);
            assert!(made.spec().unwrap().volume_claim_templates.is_none());
        }
    }

    #[test]
    fn a_database_keeps_the_kind_that_it_was_made_with() {
        for made in KINDS {
            let live = workload(&blueprint(MINIMAL, made), 3, None);
            for served in KINDS {
                assert_eq!(WorkloadKind::of(Some(&live), served), made);
                assert_eq!(WorkloadKind::of(None, served), served);
            }
        }
    }

    #[test]
    fn a_pet_set_is_the_stateful_set_and_a_policy() {
        let placed = "{version: '15', storageType: Ephemeral, \
                      podTemplate: {spec: {podPlacementPolicy: {name: zones}}}}";
        for (spec, policy) in [(MINIMAL, None), (placed, Some("zones"))] {
            let [plain, mut pet] =
                KINDS.map(|kind| json(&workload(&blueprint(spec, kind), 3, None)));
            assert!(plain["spec"].get("podPlacementPolicy").is_none());
            assert_eq!(pet["apiVersion"], "apps.k8s.appscode.com/v1");
            assert_eq!(pet["kind"], "PetSet");
            let fields = pet["spec"].as_object_mut().unwrap();
            let named = fields.remove("podPlacementPolicy");
            assert_eq!(named, policy.map(|name| serde_json::json!({"name": name})));
            assert_eq!(pet["spec"], plain["spec"], "and nothing else");
            assert_eq!(pet["metadata"], plain["metadata"]);
        }
    }
}
