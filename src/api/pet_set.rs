//! `PetSet` (apps.k8s.appscode.com/v1): KubeDB's StatefulSet, whose pods a policy can place.
//!
//! A fork of the StatefulSet as a custom resource: its spec is a StatefulSet's with a little more,
//! its status is a StatefulSet's. The kind is KubeDB's to define, so it is not among
//! [`super::crds`]; a sandbox that is to serve it takes the definition from here. Leaves choosing
//! between the two kinds to `provision`.

use k8s_openapi::api::apps::v1::{StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::LocalObjectReference;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The pods that are to be there. `distributed`, pods in several clusters at once, is KubeDB's
/// and left as it is.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "apps.k8s.appscode.com",
    version = "v1",
    kind = "PetSet",
    plural = "petsets",
    namespaced,
    status = "StatefulSetStatus",
    scale(spec_replicas_path = ".spec.replicas", status_replicas_path = ".status.replicas"),
    doc = "Pods with consistent identities, placed by a policy."
)]
#[serde(rename_all = "camelCase")]
pub struct PetSetSpec {
    /// What a StatefulSet says, field by field.
    #[serde(flatten)]
    pub set: StatefulSetSpec,
    /// The PlacementPolicy (of the whole cluster, same group) that rules for each pod's place are
    /// computed from; without one the template alone says where pods go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_placement_policy: Option<LocalObjectReference>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_fields_of_a_stateful_set_stand_beside_the_policy() {
        let written = json!({
            "apiVersion": "apps.k8s.appscode.com/v1", "kind": "PetSet",
            "metadata": {"name": "orders"},
            "spec": {
                "replicas": 3, "serviceName": "orders-pods", "distributed": false,
                "podPlacementPolicy": {"name": "default"},
                "selector": {"matchLabels": {"app": "orders"}},
                "template": {"spec": {"containers": [{"name": "postgres"}]}},
            },
            "status": {"replicas": 2, "currentRevision": "orders-1"},
        });
        let mut set: PetSet = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(set.spec.set.replicas, Some(3));
        assert_eq!(set.spec.pod_placement_policy.as_ref().unwrap().name, "default");
        assert_eq!(set.status.as_ref().unwrap().replicas, 2);
        set.spec.set.replicas = Some(4);
        let back = serde_json::to_value(&set).unwrap();
        assert_eq!(back["spec"]["replicas"], 4);
        assert_eq!(back["spec"]["template"], written["spec"]["template"]);
        assert_eq!(back["spec"]["podPlacementPolicy"], json!({"name": "default"}));
        set.spec.pod_placement_policy = None;
        let back = serde_json::to_value(&set).unwrap();
        assert!(back["spec"].get("podPlacementPolicy").is_none());
    }

    #[test]
    fn the_kind_is_not_ours_to_define() {
        let ours = super::super::crds();
        assert!(ours.iter().all(|crd| crd.spec.group != "apps.k8s.appscode.com"));
    }
}
