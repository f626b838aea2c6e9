//! Who else writes a database's custom configuration, as its `managedFields` tell.
//!
//! A field that somebody wrote by hand is taken over by whoever acts on a request. What a tool
//! holds by server-side apply, or what a GitOps tool wrote, would be written back again and again.
//! Leaves what follows from that to the loops. Never asks for an object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

use super::Postgres;
use super::names::managers;

/// A field of the object that another field manager would write back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldOwned {
    /// The manager.
    pub manager: String,
    /// The field's path: `spec.configSecret` or `spec.configuration.` and one of [`FIELDS`].
    pub path: String,
}

/// The fields of `spec.configuration` that make up the custom configuration.
pub const FIELDS: [&str; 3] = ["secretName", "inline", "tuning"];

/// Managers of tools that write what they own again and again, by what their names begin with.
const GITOPS_TOOLS: [&str; 6] =
    ["argocd", "kustomize-controller", "helm", "flux", "fleet", "kubedb-gitops"];

impl FieldOwned {
    /// Whether the manager is known as a tool that writes its fields back.
    pub fn is_of_a_gitops_tool(&self) -> bool {
        GITOPS_TOOLS.iter().any(|tool| self.manager.starts_with(tool))
    }

    /// The last part of the path.
    pub fn field(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or_default()
    }
}

/// Every field of the custom configuration that somebody else would write back, in the order of
/// the entries.
pub fn foreign_owners(database: &Postgres) -> Vec<FieldOwned> {
    let entries = database.metadata.managed_fields.as_deref().unwrap_or_default();
    let mut all = Vec::new();
    for entry in entries {
        let manager = entry.manager.as_deref().unwrap_or_default();
        let ours = manager.starts_with(managers::CLIENT) || manager == managers::OPS;
        let by_hand = manager.starts_with("kubectl");
        let applies = entry.operation.as_deref() == Some("Apply");
        for path in owned_paths(entry) {
            let owned = FieldOwned { manager: manager.to_owned(), path };
            if !ours && !by_hand && (applies || owned.is_of_a_gitops_tool()) {
                all.push(owned);
            }
        }
    }
    all
}

/// The fields of the custom configuration that an entry owns.
fn owned_paths(entry: &ManagedFieldsEntry) -> Vec<String> {
    if entry.subresource.as_deref().is_some_and(|s| !s.is_empty()) {
        return Vec::new();
    }
    let Some(spec) = entry.fields_v1.as_ref().and_then(|fields| fields.0.get("f:spec")) else {
        return Vec::new();
    };
    let old_form = spec.get("f:configSecret").map(|_| "spec.configSecret".to_owned());
    let configuration = spec.get("f:configuration");
    let owns = |field: &&str| {
        configuration.is_some_and(|fields| fields.get(format!("f:{field}")).is_some())
    };
    let fields = FIELDS.into_iter().filter(owns);
    old_form.into_iter().chain(fields.map(|f| format!("spec.configuration.{f}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_would_write_a_field_back_is_named() {
        let check = |manager: &str, operation: &str, fields: &str, expected: &[&str]| {
            let yaml = format!(
                "metadata: {{name: pg, managedFields: [{{manager: {manager}, operation: \
                 {operation}, fieldsType: FieldsV1, fieldsV1: {fields}}}]}}\nspec: {{version: '15'}}"
            );
            let postgres: Postgres = serde_yaml::from_str(&yaml).unwrap();
            let owners = foreign_owners(&postgres);
            let paths: Vec<&str> = owners.iter().map(|owned| owned.path.as_str()).collect();
            assert_eq!(paths, expected, "{manager} {operation}");
        };
        let both = "{'f:spec': {'f:configSecret': {}, 'f:configuration': \
                    {'f:tuning': {}, 'f:secretName': {}, 'f:inline': {}}}}";
        let paths = [
            "spec.configSecret",
            "spec.configuration.secretName",
            "spec.configuration.inline",
            "spec.configuration.tuning",
        ];
        check("argocd-controller", "Update", both, &paths);
        check("some-tool", "Apply", both, &paths);
        check("some-tool", "Update", both, &[]);
        check("kubectl", "Apply", both, &[]);
        check("pgitops", "Update", both, &[]);
        check("pgitops-ops", "Apply", both, &[]);
        check("argocd-controller", "Apply", "{'f:metadata': {'f:labels': {}}}", &[]);
    }
}
