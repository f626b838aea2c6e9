//! Names: newtypes that cannot be swapped, annotations and labels, and names derived from others.
//!
//! A repository and a commit are annotations, never labels: a SHA-256 id or a slash breaks a label
//! (63 characters, no slash). Leaves the objects to the files beside this one.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A database: the namespace and name of a `Postgres` object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DatabaseRef {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object, at most 63 characters.
    pub name: String,
}

impl DatabaseRef {
    /// A database by namespace and name.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for DatabaseRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A `ConfigRepository` object by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RepositoryRef {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
}

impl fmt::Display for RepositoryRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The full id of a commit: 40 (SHA-1) or 64 (SHA-256) lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommitId(String);

impl CommitId {
    /// Reads a full id.
    ///
    /// # Errors
    /// When the text is not 40 or 64 hex digits.
    pub fn parse(text: &str) -> Result<Self, NotACommit> {
        let hex = text.bytes().all(|b| b.is_ascii_hexdigit());
        if hex && (text.len() == 40 || text.len() == 64) {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        Err(NotACommit(text.chars().take(80).collect()))
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first seven digits, as git abbreviates for people.
    pub fn short(&self) -> &str {
        self.0.get(..7).unwrap_or(&self.0)
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for CommitId {
    type Error = NotACommit;
    fn try_from(text: String) -> Result<Self, NotACommit> {
        Self::parse(&text)
    }
}

impl From<CommitId> for String {
    fn from(id: CommitId) -> String {
        id.0
    }
}

/// A text that was to be a commit's id and is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "commit id {0:?} is not 40 or 64 hex digits; write the full id as `git rev-parse` prints it"
)]
pub struct NotACommit(String);

/// The name of a `PostgresOpsRequest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestName(pub String);

impl RequestName {
    /// The one name that the next request of ours for a database can have.
    ///
    /// A function of the database's UID and of our previous request for it, so that a stale cache
    /// or a second process can only ever try to create the same object again: requests form a
    /// chain without forks. 8 hex digits (32 bits) are enough: they only need to differ along one
    /// database's chain.
    pub fn successor(database: &DatabaseRef, uid: &str, previous: Option<&RequestName>) -> Self {
        let before = previous.map_or("", |name| name.0.as_str());
        let hash = digest(&[uid, before]);
        // 63 characters at most, as a pod or label may carry it: 54 + "-" + 8.
        let stem: String = database.name.chars().take(54).collect();
        Self(format!("{}-{}", stem.trim_end_matches('-'), &hash[..8]))
    }
}

impl fmt::Display for RequestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number of a configuration set on an instance: grows by one with every set, also with one
/// that rolls back. An instance never goes back to a lower number.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// SHA-256 over length-prefixed parts, in lower-case hex: no two lists of parts share a text.
pub fn digest(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Annotations that pgitops reads or writes.
pub mod annotations {
    /// On a `Postgres`: who configures it and what was applied; JSON of `api::claim::Claim`.
    pub const CLAIM: &str = "pgitops.dev/claim";
    /// On a `Postgres`: `<until> <who> <why>` stops everything for it (`-` for no end).
    pub const FREEZE: &str = "pgitops.dev/freeze";
    /// On a `ConfigRepository` or `Postgres`: any new value makes us look now.
    pub const REQUESTED_AT: &str = "pgitops.dev/requestedAt";
    /// On a `ConfigRepository`: the commit's id up to which a rewritten or shrunken source is
    /// acknowledged.
    pub const ACKNOWLEDGE: &str = "pgitops.dev/acknowledge";
    /// On a `Postgres`: any new value lifts the hold of a failed change.
    pub const RETRY: &str = "pgitops.dev/retry";
    /// On a request: the `ConfigRepository` (`namespace/name`) that emitted it.
    pub const REPOSITORY: &str = "pgitops.dev/repository";
    /// On a request: the commit that asked for it (full id).
    pub const COMMIT: &str = "pgitops.dev/commit";
    /// On a request: our request for this database before this one.
    pub const PREVIOUS: &str = "pgitops.dev/previous";
    /// On a request: digest of what is desired, the key of holds.
    pub const DESIRED: &str = "pgitops.dev/desired";
    /// On a request: digest of the configuration that it was planned from; when that has changed
    /// the request ends `Skipped` and is planned again.
    pub const BASE: &str = "pgitops.dev/base";
    /// On a request: what asked for it, `commit` or `drift`.
    pub const CAUSE: &str = "pgitops.dev/cause";
    /// On a request: JSON list of what it changes, each with name, before, after and class, so that
    /// a note can be written when the values before are gone. Values of the sensitive tier are
    /// hidden in it.
    pub const CHANGES: &str = "pgitops.dev/changes";
    /// On a request: JSON of the parameters that `allowUnsafe` admits, name to reason.
    pub const ALLOW_UNSAFE: &str = "pgitops.dev/allow-unsafe";
    /// On a request: what ops must remember across a crash; JSON, ops' own.
    pub const PROGRESS: &str = "pgitops.dev/progress";
    /// On a Namespace: repositories of these namespaces (comma-separated, or `*`) may configure
    /// databases here.
    pub const ALLOWED_FROM: &str = "pgitops.dev/allow-from";
    /// On a Secret or condition of ours: the UID of the database that it belongs to.
    pub const DATABASE_UID: &str = "pgitops.dev/database-uid";
}

/// Labels, after KubeDB's names (`kubedb.com` API reference).
pub mod labels {
    /// Always [`NAME_VALUE`] on what belongs to a `Postgres`.
    pub const NAME: &str = "app.kubernetes.io/name";
    /// Value of [`NAME`].
    pub const NAME_VALUE: &str = "postgreses.kubedb.com";
    /// The database's name.
    pub const INSTANCE: &str = "app.kubernetes.io/instance";
    /// Always [`MANAGED_BY_VALUE`].
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// Value of [`MANAGED_BY`].
    pub const MANAGED_BY_VALUE: &str = "kubedb.com";
    /// `database` on children.
    pub const COMPONENT: &str = "app.kubernetes.io/component";
    /// `primary` or `standby` on pods.
    pub const ROLE: &str = "kubedb.com/role";
    /// The pod's name, set by the StatefulSet controller.
    pub const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
    /// On config Secrets that sync rendered: the database's name.
    pub const RENDERED_FOR: &str = "pgitops.dev/rendered-for";
}

/// Finalizers.
pub mod finalizers {
    /// KubeDB's finalizer on a `Postgres`; ours to remove where our provisioner runs.
    pub const POSTGRES: &str = "kubedb.com";
    /// Stands on a request before its first effect, so that deletion rolls back first.
    pub const REQUEST: &str = "pgitops.dev/rollout";
    /// Stands on a `ConfigRepository` so that its deletion releases its databases.
    pub const REPOSITORY: &str = "pgitops.dev/release";
}

/// Field managers: who wrote a field, for everyone who reads `managedFields`.
pub mod managers {
    /// What is created, patched or replaced, whichever loop does it; of a `Postgres` that is
    /// nothing but sync's claim where `sync` runs alone.
    pub const CLIENT: &str = "pgitops";
    /// What a person writes with one of the commands.
    pub const PERSON: &str = "pgitops-cli";
    /// What `ops` applies.
    pub const OPS: &str = "pgitops-ops";
    /// What `provision` applies.
    pub const PROVISION: &str = "pgitops-provision";
}

/// The key of user configuration in Secrets, in `configuration.inline` and in `applyConfig`: the
/// only one that KubeDB accepts.
pub const USER_CONF: &str = "user.conf";
/// The key of inline configuration in the operator's Secret.
pub const INLINE_CONF: &str = "inline.conf";
/// The key of tuned configuration in the operator's Secret.
pub const PGTUNE_CONF: &str = "pgtune.conf";
/// The key of the whole rendered file in the operator's Secret: seeds an empty volume.
pub const RENDERED_CONF: &str = "postgresql.conf";
/// The container that runs the server.
pub const CONTAINER: &str = "postgres";
/// Port of the server.
pub const POSTGRES_PORT: u16 = 5432;
/// Port of the instance's control API.
pub const CONTROL_PORT: u16 = 8743;

/// Names of a database's children (KubeDB's names where it has them).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildNames {
    /// Workload, ServiceAccount, PDB and primary Service.
    pub database: String,
    /// The credentials, unless `spec.authSecret.name` says otherwise.
    pub auth: String,
    /// The operator's config Secret `<db>-<last 6 of the UID>`; never changes.
    pub operator_config: String,
    /// What ops keeps to roll back to.
    pub previous_config: String,
    /// Service of the standbys.
    pub standby_service: String,
    /// Headless Service that gives every pod a name.
    pub pods_service: String,
    /// CA certificate, and the instance's certificate and key; mounted.
    pub instance_certificate: String,
    /// CA, and the controller's certificate and key; never mounted.
    pub client_certificate: String,
}

impl ChildNames {
    /// The names of the children of a database with this name and UID.
    pub fn of(database: &str, uid: &str) -> Self {
        let tail: String = uid.chars().skip(uid.chars().count().saturating_sub(6)).collect();
        // 63 characters at most in total, as KubeDB cuts it.
        let stem: String = database.chars().take(62 - tail.len()).collect();
        let operator_config = format!("{stem}-{tail}");
        Self {
            database: database.to_owned(),
            auth: format!("{database}-auth"),
            previous_config: format!("{operator_config}-previous"),
            operator_config,
            standby_service: format!("{database}-standby"),
            pods_service: format!("{database}-pods"),
            instance_certificate: format!("{database}-instance-cert"),
            client_certificate: format!("{database}-instance-client"),
        }
    }

    /// The name of pod `ordinal`.
    pub fn pod(&self, ordinal: i32) -> String {
        format!("{}-{ordinal}", self.database)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_form_a_chain_of_short_names() {
        let db = DatabaseRef::new("demo", "a".repeat(63));
        let first = RequestName::successor(&db, "uid-1", None);
        let second = RequestName::successor(&db, "uid-1", Some(&first));
        assert_ne!(first, second);
        assert_eq!(first, RequestName::successor(&db, "uid-1", None));
        assert_ne!(first, RequestName::successor(&db, "uid-2", None));
        assert!(second.0.len() <= 63, "{second}");
    }

    #[test]
    fn a_commit_is_a_full_id() {
        assert!(CommitId::parse(&"a".repeat(40)).is_ok());
        assert!(CommitId::parse(&"A".repeat(64)).is_ok());
        assert!(CommitId::parse("4f2a9c1").is_err());
        assert!(CommitId::parse(&"g".repeat(40)).is_err());
    }

    #[test]
    fn parts_of_a_digest_do_not_run_into_each_other() {
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
    }

    #[test]
    fn the_operator_secret_has_kubedbs_name() {
        let names = ChildNames::of("orders", "6ba7b810-9dad-11d1-80b4-00c04fd430c8");
        assert_eq!(names.operator_config, "orders-d430c8");
        assert!(ChildNames::of(&"x".repeat(63), "abcdefgh").operator_config.len() <= 63);
    }
}
