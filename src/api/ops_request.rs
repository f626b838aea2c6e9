//! `PostgresOpsRequest` (ops.kubedb.com/v1alpha1): one operation on one database.
//!
//! The whole spec is immutable; the API server enforces KubeDB's rules by CEL. Types other than
//! `Reconfigure` and `Restart` are accepted and stay Pending with a condition that says so.
//! Leaves admission and execution to `ops`. Never holds progress in the spec.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::conditions::{Condition, Conditioned};
use super::duration::Length;
use super::names::{DatabaseRef, RequestName, USER_CONF};
use super::postgres::{SecretRef, Tuning};

/// What is to be done.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "ops.kubedb.com",
    version = "v1alpha1",
    kind = "PostgresOpsRequest",
    plural = "postgresopsrequests",
    shortname = "pgops",
    category = "ops",
    category = "kubedb",
    category = "appscode",
    namespaced,
    status = "PostgresOpsRequestStatus",
    doc = "One operation on one PostgreSQL database.",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(
        name = "Database",
        type_ = "string",
        json_path = ".spec.databaseRef.name",
        priority = 1
    ),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("spec is immutable: create another request"))]
#[x_kube(
    validation = Rule::new("self.type != 'Reconfigure' || has(self.configuration)")
        .message("spec.configuration is required for type Reconfigure")
)]
#[x_kube(
    validation = Rule::new(
        "self.type != 'Reconfigure' || !has(self.configuration) \
         || (has(self.configuration.removeCustomConfig) && self.configuration.removeCustomConfig) \
         || has(self.configuration.configSecret) || has(self.configuration.tuning) \
         || (has(self.configuration.applyConfig) && 'user.conf' in self.configuration.applyConfig)"
    ).message("at least one of spec.configuration.removeCustomConfig, configSecret, applyConfig['user.conf'] and tuning is required for type Reconfigure")
)]
pub struct PostgresOpsRequestSpec {
    /// The database, in the request's own namespace.
    pub database_ref: DatabaseName,
    /// What to do.
    #[serde(rename = "type")]
    pub type_: OpsType,
    /// What to change, for `Reconfigure`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Reconfiguration>,
    /// Bounds each wait of the execution; 2 minutes for each pod when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Length>,
    /// Whether the database must be Ready first.
    #[serde(default)]
    pub apply: Apply,
    /// How often a failed execution is tried again; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_retries: Option<i32>,
    /// Fields of the other types: accepted, kept.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A database by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DatabaseName {
    /// Name of the `Postgres` object.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// `spec.configuration` of a request. The three inputs may be given together: removal first, then
/// the Secret, then the settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.removeCustomConfig) && self.removeCustomConfig && has(self.restart) && self.restart == 'false')")
        .message("configuration.restart 'false' cannot be combined with removeCustomConfig")
)]
pub struct Reconfiguration {
    /// Inputs of pgtune.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning: Option<Tuning>,
    /// Becomes `spec.configuration.secretName` of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_secret: Option<SecretRef>,
    /// Settings merged into `spec.configuration.inline`: key `user.conf`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 8))]
    pub apply_config: Option<BTreeMap<String, String>>,
    /// Drops the database's Secret and inline configuration first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_custom_config: Option<bool>,
    /// Whether to restart: only where a parameter needs it, always, or not at all.
    #[serde(default)]
    pub restart: Restart,
}

/// Types of operation (KubeDB's).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[allow(missing_docs)] // KubeDB's names; only the first two are carried out
pub enum OpsType {
    Reconfigure,
    Restart,
    UpdateVersion,
    HorizontalScaling,
    VerticalScaling,
    VolumeExpansion,
    ReconfigureTLS,
    RotateAuth,
    ReconnectStandby,
    ForceFailOver,
    SetRaftKeyPair,
    StorageMigration,
    RotatePrincipalKey,
    EnableWALEncryption,
    // One that a later version of KubeDB knows: somebody else's operation. Never written by us, and
    // not in our definition, whose form words of documentation here would change.
    #[serde(other)]
    #[schemars(skip)]
    Other,
}

/// Whether the database must be Ready before a request is carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Apply {
    /// The request stays Pending until the database is Ready.
    #[default]
    IfReady,
    /// Whatever the database's phase.
    Always,
}

/// Whether a reconfiguration restarts the servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Restart {
    /// Where a parameter needs it.
    #[default]
    Auto,
    /// Every node.
    True,
    /// No node; what needs a restart stays pending.
    False,
}

/// How far a request has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PostgresOpsRequestStatus {
    /// One word for people and programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<OpsPhase>,
    /// The generation that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What happened, in order of first appearance.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// What the execution proved and measured, for whoever reports it; absent when KubeDB's own
    /// operator carried the request out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<ProofReport>,
    /// What others wrote.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Phases of a request (KubeDB's). Terminal: `Successful`, `Failed`, `Skipped`, `Denied`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[allow(missing_docs)] // KubeDB's names
pub enum OpsPhase {
    #[default]
    Pending,
    Progressing,
    Successful,
    WaitingForApproval,
    Failed,
    Approved,
    Denied,
    Skipped,
    // One that a later version of KubeDB wrote: open, as far as anybody here knows. Never written
    // by us, and not in our definition.
    #[serde(other)]
    #[schemars(skip)]
    Other,
}

/// Types of conditions on a request that more than one loop reads.
pub mod condition {
    /// Names the requests that were merged into this one, separated by commas.
    pub const MERGED_FROM: &str = "MergedFromOps";
    /// Why it ended Skipped.
    pub const SKIPPED: &str = "Skipped";
    /// Why it ended Failed.
    pub const FAILED: &str = "Failed";
    /// Why it ended Denied.
    pub const DENIED: &str = "Denied";
}

impl OpsPhase {
    /// Whether nothing more will happen.
    pub fn is_terminal(self) -> bool {
        self.end().is_some()
    }

    /// The phase's name when nothing more will happen; `None` before.
    pub fn end(self) -> Option<&'static str> {
        match self {
            Self::Successful => Some("Successful"),
            Self::Failed => Some("Failed"),
            Self::Skipped => Some("Skipped"),
            Self::Denied => Some("Denied"),
            Self::Pending
            | Self::Progressing
            | Self::WaitingForApproval
            | Self::Approved
            | Self::Other => None,
        }
    }
}

/// What an execution proved and measured. Written by `ops`, read by `sync` for the note and by
/// `pgitops status`. Holds no values of parameters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProofReport {
    /// Nodes on which everything was proven.
    pub proven: i32,
    /// Nodes there are.
    pub nodes: i32,
    /// Version of the server, as `PostgreSQL 15.18`.
    #[serde(default)]
    pub server_version: String,
    /// Nodes in the order in which they were restarted, each `<pod> standby` or `<pod> primary`;
    /// empty when none was.
    #[serde(default)]
    pub restarted: Vec<String>,
    /// Number of the configuration with which each of them was last started: tells a restart that
    /// stands in `restarted` from one that is still to be told.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub starts: BTreeMap<String, u64>,
    /// How long the primary accepted no writes, in milliseconds; absent when it was not restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes_paused_ms: Option<i64>,
    /// Client connections that the restarts cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_cut: Option<i64>,
    /// Whether the primary is the same pod as before.
    #[serde(default)]
    pub roles_unchanged: bool,
    /// Parameters that wait for a restart that was not asked for (`restart: false`).
    #[serde(default)]
    pub pending_restart: Vec<String>,
    /// Digest of the configuration in force at the end.
    #[serde(default)]
    pub configuration: String,
    /// The configuration that was in force before is in force again.
    #[serde(default)]
    pub rolled_back: bool,
    /// The server's own words, where it refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<String>,
    /// Milliseconds from acceptance to the end.
    #[serde(default)]
    pub duration_ms: i64,
}

impl PostgresOpsRequestSpec {
    /// Fields that are set and that nothing acts on, as paths below `spec`, sorted: those of other
    /// types, and texts to apply under another key than `user.conf`.
    pub fn unacted(&self) -> Vec<String> {
        // KubeDB's `restart: {}` says no more than the type.
        let said = |field: &&String| self.type_ != OpsType::Restart || *field != "restart";
        let mut paths: Vec<String> = self.other.keys().filter(said).cloned().collect();
        if let Some(configuration) = &self.configuration {
            if self.type_ == OpsType::Reconfigure {
                let keys = configuration.apply_config.iter().flat_map(BTreeMap::keys);
                let others = keys.filter(|key| *key != USER_CONF);
                paths.extend(others.map(|key| format!("configuration.applyConfig[{key:?}]")));
            } else {
                paths.push("configuration".to_owned());
            }
        }
        paths.sort();
        paths
    }
}

impl PostgresOpsRequest {
    /// The database that the request is for.
    pub fn database(&self) -> DatabaseRef {
        let namespace = self.metadata.namespace.clone().unwrap_or_default();
        DatabaseRef { namespace, name: self.spec.database_ref.name.clone() }
    }

    /// The request's own name.
    pub fn request_name(&self) -> RequestName {
        RequestName(self.metadata.name.clone().unwrap_or_default())
    }

    /// The phase; a request without status is Pending.
    pub fn phase(&self) -> OpsPhase {
        self.status.as_ref().and_then(|status| status.phase).unwrap_or_default()
    }

    /// The conditions, none when there is no status yet.
    pub fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }

    /// An annotation's value.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations.as_ref().and_then(|map| map.get(name)).map(String::as_str)
    }

    /// Whether the API server was asked to delete it.
    pub fn is_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

impl Reconfiguration {
    /// The settings to merge, empty when there are none.
    pub fn settings(&self) -> &str {
        let text = self.apply_config.as_ref().and_then(|map| map.get(USER_CONF));
        text.map_or("", String::as_str)
    }

    /// Whether the database's custom configuration is dropped first.
    pub fn removes(&self) -> bool {
        self.remove_custom_config.unwrap_or(false)
    }
}

impl Conditioned for PostgresOpsRequest {
    fn conditions(&self) -> &[Condition] {
        Self::conditions(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_form_is_read_and_kept() {
        let yaml = "
databaseRef: {name: pg}
type: Reconfigure
apply: Always
timeout: 5m
maxRetries: 2
horizontalScaling: {replicas: 3}
configuration:
  restart: 'false'
  configSecret: {name: c}
  applyConfig: {user.conf: 'max_connections=230'}
  tuning: {profile: oltp, maxConnections: 100, storageType: ssd}
";
        let spec: PostgresOpsRequestSpec = serde_yaml::from_str(yaml).unwrap();
        let configuration = spec.configuration.clone().unwrap();
        assert_eq!(configuration.restart, Restart::False);
        assert_eq!(configuration.settings(), "max_connections=230");
        assert_eq!(spec.apply, Apply::Always);
        assert_eq!(serde_json::to_value(&spec).unwrap()["horizontalScaling"]["replicas"], 3);
        assert_eq!(spec.unacted(), ["horizontalScaling"]);
    }

    #[test]
    fn what_a_later_kubedb_says_is_read_and_not_defined_by_us() {
        let yaml = "
spec: {databaseRef: {name: pg}, type: Defragment, defragment: {level: 1}}
status: {phase: Queued, pausedBackups: [{name: b}]}
metadata: {name: r}
";
        let request: PostgresOpsRequest = serde_yaml::from_str(yaml).unwrap();
        assert_eq!((request.spec.type_, request.phase()), (OpsType::Other, OpsPhase::Other));
        assert!(!request.phase().is_terminal());
        use kube::CustomResourceExt as _;
        let definition = serde_json::to_string(&PostgresOpsRequest::crd()).unwrap();
        assert!(
            definition.contains("\"EnableWALEncryption\"") && !definition.contains("\"Other\"")
        );
    }

    #[test]
    fn what_nothing_acts_on_is_named() {
        let check = |yaml: &str, expected: &[&str]| {
            let yaml = format!("{{databaseRef: {{name: pg}}, {yaml}}}");
            let spec: PostgresOpsRequestSpec = serde_yaml::from_str(&yaml).unwrap();
            assert_eq!(spec.unacted(), expected, "{yaml}");
        };
        check("type: Restart, restart: {}", &[]);
        check("type: Restart, configuration: {restart: 'true'}", &["configuration"]);
        check("type: Reconfigure, restart: {}", &["restart"]);
        let keys = "{user.conf: a.b=1, user_hba.conf: x}";
        check(
            &format!("type: Reconfigure, tls: {{}}, configuration: {{applyConfig: {keys}}}"),
            &["configuration.applyConfig[\"user_hba.conf\"]", "tls"],
        );
    }
}
