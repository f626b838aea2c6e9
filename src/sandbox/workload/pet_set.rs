//! The definition of KubeDB's PetSet, for a sandbox that is to serve it.
//!
//! Made from the types that the provisioner writes, with the defaults that KubeDB's webhook fills
//! in. In a cluster the definition is KubeDB's; this one is installed nowhere else.

use anyhow::{Context as _, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use crate::api::PetSet;

/// Where the spec is in the definition.
const SPEC: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";

/// The definition.
///
/// # Errors
/// The types have changed so that a default has no place.
pub fn definition() -> Result<CustomResourceDefinition> {
    let mut definition = serde_json::to_value(PetSet::crd())?;
    let spec = definition.pointer_mut(SPEC).context("the definition of PetSet has no spec")?;
    spec["required"] = json!(["selector", "serviceName", "template"]);
    let fields = spec.get_mut("properties").and_then(Value::as_object_mut);
    let fields = fields.context("the definition of PetSet has no fields")?;
    for (name, default) in [
        ("podManagementPolicy", json!("OrderedReady")),
        ("replicas", json!(1)),
        ("revisionHistoryLimit", json!(10)),
        ("updateStrategy", json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})),
    ] {
        let field = fields.get_mut(name).with_context(|| format!("PetSet has no {name}"))?;
        field["default"] = default;
    }
    Ok(serde_json::from_value(definition)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_kubedbs_as_far_as_clients_see_it() {
        let definition = definition().unwrap();
        assert_eq!(definition.metadata.name.as_deref(), Some("petsets.apps.k8s.appscode.com"));
        let version = &definition.spec.versions[0];
        let shown = serde_json::to_value(version).unwrap();
        assert_eq!(shown["subresources"]["scale"]["specReplicasPath"], ".spec.replicas");
        let spec = &shown["schema"]["openAPIV3Schema"]["properties"]["spec"];
        assert_eq!(spec["required"], json!(["selector", "serviceName", "template"]));
        let fields = &spec["properties"];
        assert_eq!(fields["replicas"]["default"], 1);
        assert_eq!(fields["podPlacementPolicy"]["properties"]["name"]["type"], "string");
    }
}
