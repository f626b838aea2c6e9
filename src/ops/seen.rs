//! What ops sees of one database: objects, Secrets, and every server.
//!
//! Plain values, so that the same decisions are made in a cluster and in a simulation. Whatever
//! could not be found out is there as `Unknown`, with the reason. Leaves reading to `observe` and
//! every decision to the other files.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::api::names::{Sequence, annotations};
use crate::api::{Postgres, PostgresOpsRequest};
use crate::instance::protocol::{
    DryRan, Facts, Proof, Restarted, Role, ServerState, SetId, Setting,
};
use crate::pgconf::{Catalogue, Settings, provisioned};

use super::journal::Journal;

/// Everything about one database, as of now.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The object; `None` when there is none.
    pub database: Option<Postgres>,
    /// All requests for it, oldest first.
    pub requests: Vec<PostgresOpsRequest>,
    /// The operator's config Secret; `None` when there is none.
    pub operator: Option<OperatorSecret>,
    /// The memory of the present or last rollout.
    pub journal: Kept,
    /// The Secrets that the object or an open request names, by name.
    pub user_confs: BTreeMap<String, UserConf>,
    /// The nodes that there should be, by pod.
    pub nodes: BTreeMap<String, Node>,
    /// What the step before this observation was answered, within the same pass.
    pub answers: Answers,
}

/// The operator's Secret `<db>-<uid6>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatorSecret {
    /// Key `inline.conf`.
    pub inline: String,
    /// Key `postgresql.conf`: the file that is in force, and that a new node begins with.
    pub file: String,
    /// Its resourceVersion.
    pub version: Option<String>,
}

/// The memory of a rollout, if there is one.
#[derive(Clone, Debug, Default)]
pub enum Kept {
    /// No rollout was ever begun, or its Secret is gone.
    #[default]
    Nothing,
    /// The memory, and the resourceVersion of its Secret.
    Journal(Box<Journal>, Option<String>),
    /// A Secret that we cannot read: somebody wrote into it.
    Broken(String),
}

/// A Secret of the owner that holds `user.conf`.
#[derive(Clone)]
pub enum UserConf {
    /// There is no such Secret.
    Absent,
    /// It has no key `user.conf`, or one that is not text.
    NoKey,
    /// Its text. It may hold a password (`primary_conninfo` of an extension, …).
    Text(SecretString),
}

impl std::fmt::Debug for UserConf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::NoKey => "NoKey",
            Self::Text(_) => "Text(..)",
        })
    }
}

/// A node that there should be.
#[derive(Clone, Debug)]
pub enum Node {
    /// Nothing is known of it now.
    Unknown(String),
    /// Its instance answered.
    Known(Box<Server>),
}

/// What an instance said.
#[derive(Clone, Debug)]
pub struct Server {
    /// Everything it knows without trying anything.
    pub facts: Facts,
    /// The parameters that matter to this rollout, by lower-cased name; empty while the server
    /// does not answer.
    pub settings: BTreeMap<String, Setting>,
}

/// What a step was answered. Only the last step of the same pass; a lost answer is asked for again.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Dry runs, by pod.
    pub dry_run: Option<BTreeMap<String, Result<DryRan, String>>>,
    /// Nodes whose server would not take a file, with its words.
    pub put_back: Option<(String, String)>,
    /// A restart.
    pub restarted: Option<Measured>,
    /// Proofs, by pod.
    pub proofs: Option<BTreeMap<String, Result<Proof, String>>>,
    /// A field of the object that belongs to another field manager.
    pub field_owned: Option<FieldOwned>,
}

pub use crate::api::ownership::FieldOwned;

/// A restart and what it cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The pod.
    pub node: String,
    /// Whether it is the primary.
    pub primary: bool,
    /// Client connections that were open when it was stopped.
    pub connections: u32,
    /// What the instance says.
    pub restarted: Restarted,
}

/// What a request must remember, in its annotation [`annotations::PROGRESS`]. Holds no values of
/// parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// When it was accepted, to the microsecond (conditions keep seconds).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Timestamp>,
    /// Names of the requests that this one was merged from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged_from: Vec<String>,
}

impl Progress {
    /// Of a request; empty when it has none.
    pub fn of(request: &PostgresOpsRequest) -> Self {
        let text = request.annotation(annotations::PROGRESS).unwrap_or_default();
        serde_json::from_str(text).unwrap_or_default()
    }

    /// The annotation's value.
    pub fn render(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Seen {
    /// The rollout's memory, if it is that of this request.
    pub fn journal_of(&self, uid: &str) -> Option<&Journal> {
        match &self.journal {
            Kept::Journal(journal, _) if journal.uid == uid => Some(journal),
            Kept::Journal(..) | Kept::Nothing | Kept::Broken(_) => None,
        }
    }

    /// The request of this UID.
    pub fn request(&self, uid: &str) -> Option<&PostgresOpsRequest> {
        self.requests.iter().find(|request| request.metadata.uid.as_deref() == Some(uid))
    }

    /// Servers that answered, by pod.
    pub fn servers(&self) -> impl Iterator<Item = (&str, &Server)> {
        self.nodes.iter().filter_map(|(name, node)| match node {
            Node::Known(server) => Some((name.as_str(), server.as_ref())),
            Node::Unknown(_) => None,
        })
    }

    /// Nodes of which nothing is known, and why.
    pub fn unknown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.nodes.iter().filter_map(|(name, node)| match node {
            Node::Unknown(why) => Some((name.as_str(), why.as_str())),
            Node::Known(_) => None,
        })
    }

    /// The only node that is a primary; `None` when there is none or more than one.
    pub fn primary(&self) -> Option<(&str, &Server)> {
        let mut primaries = self.servers().filter(|(_, server)| server.is_primary());
        let first = primaries.next()?;
        primaries.next().is_none().then_some(first)
    }

    /// The highest sequence number that any node has seen.
    pub fn highest(&self) -> Sequence {
        self.servers().map(|(_, server)| server.highest()).max().unwrap_or_default()
    }

    /// The major version of the servers, or the one that the object asks for.
    pub fn major(&self) -> Option<u32> {
        let of_servers =
            self.servers().find_map(|(_, server)| Some(server.facts.version.as_ref()?.major()));
        let database = self.database.as_ref();
        of_servers.or_else(|| provisioned::major(&database?.spec.version))
    }

    /// What servers of this version know; `None` for a version that we have no table for.
    pub fn catalogue(&self) -> Option<&'static Catalogue> {
        Catalogue::for_major(self.major()?)
    }
}

impl Server {
    /// Takes the writes: by SQL where the server runs, by its last role where it does not.
    pub fn is_primary(&self) -> bool {
        match &self.facts.live {
            Some(live) => !live.in_recovery,
            None => matches!(self.facts.role, Some(Role::Primary)),
        }
    }

    /// Runs and answers SQL.
    pub fn is_running(&self) -> bool {
        matches!(self.facts.state, ServerState::Running) && self.facts.live.is_some()
    }

    /// The set that the next start would use.
    pub fn on_disk(&self) -> Option<&SetId> {
        self.facts.sets.staged.as_ref().or(self.facts.sets.running.as_ref())
    }

    /// Whether the last start was made with a set above this number.
    pub fn started_after(&self, base: Sequence) -> bool {
        self.facts.sets.last_started.as_ref().is_some_and(|set| set.sequence > base.0)
    }

    /// The highest sequence number seen here.
    pub fn highest(&self) -> Sequence {
        let sets = &self.facts.sets;
        let failed = self.facts.last_fallback.as_ref().map(|fallback| &fallback.failed);
        let all = [sets.running.as_ref(), sets.staged.as_ref(), sets.last_started.as_ref(), failed];
        Sequence(all.into_iter().flatten().map(|set| set.sequence).max().unwrap_or_default())
    }

    /// A parameter as the server has it.
    pub fn setting(&self, name: &str) -> Option<&Setting> {
        self.settings.get(&name.to_ascii_lowercase())
    }
}

/// A server's words as they may be shown: without the sensitive values of these settings, and no
/// longer than a condition's message can be.
pub fn shown(words: &str, settings: &[&Settings]) -> String {
    let hidden = settings.iter().fold(words.to_owned(), |text, s| s.hide_in(&text));
    hidden.trim().chars().take(crate::api::conditions::MESSAGE_LIMIT / 2).collect()
}
