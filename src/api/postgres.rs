//! `Postgres` (kubedb.com/v1): a database as its owner describes it.
//!
//! The fields that pgitops acts on are typed; every other field of KubeDB's API is kept as it is
//! in `other` and named by [`PostgresSpec::unacted`]. Because of `other` the object must never be
//! written back whole: patch it. Fields after KubeDB's API reference (apimachinery v0.66).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaimSpec;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::conditions::{Condition, Conditioned};
use super::names::{ChildNames, DatabaseRef};

/// What the owner of a database wants.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kubedb.com",
    version = "v1",
    kind = "Postgres",
    plural = "postgreses",
    singular = "postgres",
    shortname = "pg",
    category = "datastore",
    category = "kubedb",
    category = "appscode",
    category = "all",
    namespaced,
    status = "PostgresStatus",
    doc = "A PostgreSQL database of one or more nodes.",
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.version"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must begin with a letter and hold only a-z, 0-9 and -"),
    validation = Rule::new("self.metadata.name.size() <= 48")
        .message("metadata.name must be 48 characters at most: pods, Services and Secrets append to it")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "!has(self.storageType) || self.storageType != 'Ephemeral' || !has(self.deletionPolicy) || self.deletionPolicy != 'Halt'"
    ).message("deletionPolicy Halt needs storageType Durable")
)]
#[x_kube(
    validation = Rule::new(
        "(has(self.storageType) ? self.storageType : 'Durable') == (has(oldSelf.storageType) ? oldSelf.storageType : 'Durable')"
    ).message("storageType is immutable")
)]
pub struct PostgresSpec {
    /// Version of the server: a major version (`15`), or a tag of the image.
    #[schemars(length(min = 1, max = 63))]
    pub version: String,
    /// Number of nodes: one primary and `replicas` - 1 standbys. 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub replicas: Option<i32>,
    /// Whether writes wait for a standby. Asynchronous when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streaming_mode: Option<StreamingMode>,
    /// Where the data lives: a volume claim, or a folder that goes with the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_type: Option<StorageType>,
    /// The volume claim of each node; needed for storageType Durable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub storage: Option<PersistentVolumeClaimSpec>,
    /// The Secret with the superuser's credentials; `<name>-auth` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_secret: Option<AuthSecret>,
    /// Deprecated by KubeDB since v2026.1.19, still accepted: see [`PostgresSpec::secret_name`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_secret: Option<SecretRef>,
    /// Custom configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Configuration>,
    /// What the nodes' pods look like beyond what the provisioner decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub pod_template: Option<PodTemplate>,
    /// What becomes of volumes and Secrets when the object is deleted. Delete when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// Every other field of KubeDB's API: accepted, kept, not acted on.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// `spec.configuration`: custom configuration of the server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.inline) || self.inline.all(k, k == 'user.conf')")
        .message("configuration.inline accepts the key user.conf only")
)]
pub struct Configuration {
    /// Secret of the owner whose key `user.conf` is included; never written by an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// Settings that win over the Secret's: key `user.conf`, text as in postgresql.conf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 8))]
    pub inline: Option<BTreeMap<String, String>>,
    /// Inputs of pgtune.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning: Option<Tuning>,
    /// Fields that later versions of KubeDB may add.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Inputs of pgtune.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tuning {
    /// Kind of load: web, oltp, dw, mixed or desktop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Expected number of connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<i32>,
    /// Kind of storage: ssd, hdd or san.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_type: Option<String>,
    /// Takes tuning away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_auto_tune: Option<bool>,
    // What later versions of KubeDB may add: kept, because a request may have to say all of it
    // again. Words of documentation here, or a schema, would change our own definition.
    #[serde(flatten)]
    #[schemars(skip)]
    #[allow(missing_docs)]
    pub other: BTreeMap<String, Value>,
}

/// A Secret by name, in the object's own namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretRef {
    /// Name of the Secret.
    pub name: String,
}

/// `spec.authSecret`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthSecret {
    /// Name of the Secret; keys `username` and `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether somebody else creates and rotates it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub externally_managed: Option<bool>,
    /// Fields that nothing acts on.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// `spec.podTemplate`, as far as the provisioner takes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels and annotations of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<PodMetadata>,
    /// Placement and containers. Kept as written: its containers need no image here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<BTreeMap<String, Value>>,
    /// Fields that nothing acts on.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Labels and annotations of the pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodMetadata {
    /// Labels; those of the `kubedb.com` domain are left out.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// Whether writes wait for a standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StreamingMode {
    /// A commit waits for one standby.
    Synchronous,
    /// A commit waits for nobody.
    Asynchronous,
}

/// Where the data lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StorageType {
    /// A volume claim per node.
    Durable,
    /// An emptyDir: gone with the pod.
    Ephemeral,
}

/// What becomes of volumes and Secrets when the object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// The pods go, volumes and Secrets stay.
    Halt,
    /// Pods and volumes go, Secrets stay.
    #[default]
    Delete,
    /// Everything goes.
    WipeOut,
    /// The object cannot be deleted.
    DoNotTerminate,
}

/// What is observed of a database.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PostgresStatus {
    /// One word for people, derived from the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The generation that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Version of the primary's server, e.g. `15.18`; `spec.version` may name the major one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// Statements by several writers; each keeps the others'.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// What others wrote.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Phases of a database (KubeDB's).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Phase {
    /// Being set up.
    Provisioning,
    /// A backup is being restored.
    DataRestoring,
    /// Serves, and every node is well.
    Ready,
    /// Serves, but a node is missing or a check failed.
    Critical,
    /// Does not serve.
    NotReady,
    /// Stopped on purpose.
    Halted,
    /// Nobody knows.
    Unknown,
    /// One that a later version of KubeDB wrote: not Ready, whatever it means. Never written by us,
    /// and not in our definition.
    #[serde(other)]
    #[schemars(skip)]
    Other,
}

/// Types of conditions on a `Postgres`.
pub mod condition {
    /// Setting up began.
    pub const PROVISIONING_STARTED: &str = "ProvisioningStarted";
    /// Every node is there and replicates.
    pub const REPLICA_READY: &str = "ReplicaReady";
    /// The primary answers.
    pub const ACCEPTING_CONNECTION: &str = "AcceptingConnection";
    /// The checks pass.
    pub const READY: &str = "Ready";
    /// It was Ready once.
    pub const PROVISIONED: &str = "Provisioned";
    /// A request is being carried out: nothing that derives from the spec is changed meanwhile.
    pub const PAUSED: &str = "Paused";
    /// `spec.configuration` was edited directly; a request has to load it.
    pub const CONFIGURATION_PENDING: &str = "ConfigurationPending";
    /// Names fields of the spec that nothing acts on.
    pub const FIELDS_NOT_ACTED_ON: &str = "FieldsNotActedOn";
}

impl PostgresSpec {
    /// Number of nodes.
    pub fn nodes(&self) -> i32 {
        self.replicas.unwrap_or(1).max(1)
    }

    /// The owner's config Secret, in the new form or the old one (`configSecret` counts where
    /// `configuration.secretName` is absent: KubeDB's conversion rule).
    pub fn secret_name(&self) -> Option<&str> {
        let new = self.configuration.as_ref().and_then(|c| c.secret_name.as_deref());
        new.or(self.config_secret.as_ref().map(|s| s.name.as_str())).filter(|s| !s.is_empty())
    }

    /// The inline configuration's text, empty when there is none.
    pub fn inline(&self) -> &str {
        let inline = self.configuration.as_ref().and_then(|c| c.inline.as_ref());
        inline.and_then(|map| map.get(super::names::USER_CONF)).map_or("", String::as_str)
    }

    /// The inputs of pgtune, if it is to be used at all.
    pub fn tuning(&self) -> Option<&Tuning> {
        self.configuration.as_ref()?.tuning.as_ref()
    }

    /// Fields that are set and that nothing acts on, as paths below `spec`, sorted.
    pub fn unacted(&self) -> Vec<String> {
        let mut paths: Vec<String> = self.other.keys().cloned().collect();
        if let Some(configuration) = &self.configuration {
            paths.extend(configuration.other.keys().map(|key| format!("configuration.{key}")));
        }
        if let Some(auth) = &self.auth_secret {
            // KubeDB's webhook fills these two in with their only useful value.
            let filled_in = |key: &&String| *key != "kind" && *key != "apiGroup";
            paths.extend(auth.other.keys().filter(filled_in).map(|k| format!("authSecret.{k}")));
        }
        if let Some(template) = &self.pod_template {
            paths.extend(template.other.keys().map(|key| format!("podTemplate.{key}")));
        }
        paths.sort();
        paths
    }
}

impl Postgres {
    /// Namespace and name.
    pub fn database(&self) -> DatabaseRef {
        let namespace = self.metadata.namespace.clone().unwrap_or_default();
        DatabaseRef { namespace, name: self.metadata.name.clone().unwrap_or_default() }
    }

    /// UID; empty only for an object that was never stored.
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Names of the children.
    pub fn children(&self) -> ChildNames {
        let mut names = ChildNames::of(&self.database().name, self.uid());
        if let Some(name) = self.spec.auth_secret.as_ref().and_then(|auth| auth.name.clone()) {
            names.auth = name;
        }
        names
    }

    /// The conditions, none when there is no status yet.
    pub fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }

    /// The phase, none before the first status.
    pub fn phase(&self) -> Option<Phase> {
        self.status.as_ref().and_then(|status| status.phase)
    }
}

/// A free-form object: the API server keeps what it does not know.
fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true
    })
}

impl Conditioned for Postgres {
    fn conditions(&self) -> &[Condition] {
        Self::conditions(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(yaml: &str) -> PostgresSpec {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[test]
    fn both_forms_of_the_config_secret_are_read() {
        assert_eq!(spec("{version: '15', configSecret: {name: a}}").secret_name(), Some("a"));
        let both = "{version: '15', configSecret: {name: a}, configuration: {secretName: b}}";
        assert_eq!(spec(both).secret_name(), Some("b"));
        assert_eq!(spec("{version: '15'}").secret_name(), None);
    }

    #[test]
    fn what_nothing_acts_on_is_kept_and_named() {
        let yaml = "{version: '15', sslMode: disable, monitor: {agent: x}, \
                    configuration: {later: 1, tuning: {}}, authSecret: {name: n, kind: Secret}}";
        let spec = spec(yaml);
        assert_eq!(spec.unacted(), ["configuration.later", "monitor", "sslMode"]);
        let back = serde_json::to_value(&spec).unwrap();
        assert_eq!(back["monitor"]["agent"], "x");
        assert_eq!(back["authSecret"]["kind"], "Secret");
    }

    #[test]
    fn a_phase_of_a_later_kubedb_is_read_and_not_defined_by_us() {
        let status: PostgresStatus = serde_yaml::from_str("{phase: Upgrading}").unwrap();
        assert_eq!(status.phase, Some(Phase::Other));
        use kube::CustomResourceExt as _;
        let definition = serde_json::to_string(&Postgres::crd()).unwrap();
        assert!(definition.contains("\"Critical\"") && !definition.contains("\"Other\""));
    }

    #[test]
    fn inline_is_the_text_below_its_only_key() {
        let spec = spec("{version: '15', configuration: {inline: {user.conf: 'work_mem=1MB'}}}");
        assert_eq!(spec.inline(), "work_mem=1MB");
    }
}
