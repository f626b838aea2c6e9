//! What the controller and an instance say to each other: version, calls, answers, refusals.
//!
//! Every call is a `POST` of JSON to [`Call::PATH`] and is answered with a [`Reply`]. A call that
//! changes something carries a [`Fence`]: the instance keeps the highest lease transitions it has
//! seen and refuses lower ones; an exact repeat (same request and step, same content) does nothing
//! and gets the answer of the first time, also after the instance itself was started again.
//! What can be asked without changing anything stands in `facts` and `proof`.
//! Leaves the sending to `client` and the doing to the other files. Never does I/O.

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

pub use facts::*;
pub use proof::*;

#[path = "protocol/facts.rs"]
mod facts;
#[path = "protocol/proof.rs"]
mod proof;

/// Version of this protocol. An instance is as old as its pod, the controller is not: new fields
/// get defaults and old ones stay, so that only a change of meaning raises this number.
pub const VERSION: u32 = 1;

/// Largest configuration file accepted, in bytes. Postgres' own sample has 30 kB.
pub const MAX_FILE: usize = 1024 * 1024;

/// Largest request body accepted, in bytes: a file at its limit, escaped by JSON, and the rest.
pub const MAX_BODY: usize = 4 * 1024 * 1024;

/// Largest text of a server that is repeated to anybody, in bytes.
pub const MAX_WORDS: usize = 4 * 1024;

/// A call: its address and the type of its answer.
pub trait Call: Serialize + DeserializeOwned + Send + Sync {
    /// Path below the control address.
    const PATH: &'static str;
    /// What [`Reply::Done`] carries.
    type Answer: Serialize + DeserializeOwned + Send + 'static;
}

/// Every answer to every call.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Reply<A> {
    /// It is done (now, or by an earlier call that this one repeats).
    Done {
        /// The answer.
        answer: A,
    },
    /// It goes on by itself; repeat the call to wait for the answer.
    Working,
    /// Nothing was done, and the same call will be refused again until something else changes.
    Refused {
        /// Why.
        refused: Refused,
    },
    /// It was tried and could not be finished; the same call tries again.
    Failed {
        /// What happened, in words for a person.
        words: String,
    },
}

/// Who asks for a change, and for which step of what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// `leaseTransitions` of the lease under which the caller acts; never goes down.
    pub lease_transitions: u64,
    /// UID of the request that is carried out, or `provision`.
    pub request: String,
    /// The step within that request, unique in it; a new attempt is a new step.
    pub step: String,
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Refused {
    /// A newer holder of the lease has already spoken.
    #[error("refused: a newer controller (lease transitions {seen}) has taken over")]
    Fenced {
        /// The highest transitions seen.
        seen: u64,
    },
    /// Another change is under way; only one at a time.
    #[error("refused: step {step} of {request} is under way on this instance")]
    Busy {
        /// Its request.
        request: String,
        /// Its step.
        step: String,
    },
    /// The step was already carried out with other content.
    #[error("refused: this step was already carried out with other content; use a new step")]
    OtherContent,
    /// The data folder holds a database already.
    #[error("refused: the data folder is not empty")]
    NotEmpty,
    /// The data folder holds no database yet.
    #[error("refused: the data folder is empty; initialise or join first")]
    Empty,
    /// The server has the other role.
    #[error("refused: this server is a {role}")]
    Role {
        /// `primary` or `standby`.
        role: String,
    },
    /// The server does not run, and this needs one that does.
    #[error("refused: the server does not run ({state})")]
    NotRunning {
        /// Its state, in words.
        state: String,
    },
    /// What was sent breaks a rule of the protocol.
    #[error("refused: {words}")]
    Invalid {
        /// Which one, and what to send instead.
        words: String,
    },
}

/// One version of a node's configuration file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SetId {
    /// Rises with every set that is written for this database, rollbacks included.
    pub sequence: u64,
    /// Digest of the text, as the controller computes it.
    pub digest: String,
}

impl SetId {
    /// Value of the parameter `pgitops.revision` while this set is loaded.
    #[must_use]
    pub fn revision(&self) -> String {
        format!("{}:{}", self.sequence, self.digest)
    }
}

/// A whole configuration file with its identity. Owned settings are not in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationSet {
    /// Sequence and digest. The digest is `[0-9A-Za-z:_-]{1,128}`.
    pub id: SetId,
    /// The text of `postgresql.conf`, at most [`MAX_FILE`] bytes. The instance adds its own lines
    /// after the last one, so line numbers are the caller's.
    pub text: String,
}

/// The superuser, who is also used for replication.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Credentials {
    /// Role name.
    pub username: String,
    /// Its password. Travels only inside mutual TLS.
    #[serde(serialize_with = "expose", deserialize_with = "conceal")]
    pub password: SecretString,
}

fn expose<S: Serializer>(secret: &SecretString, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(secret.expose_secret())
}

fn conceal<'de, D: Deserializer<'de>>(from: D) -> Result<SecretString, D::Error> {
    String::deserialize(from).map(SecretString::from)
}

/// Makes a new, empty database here and starts it as a primary.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Initialise {
    /// Who asks.
    pub fence: Fence,
    /// Superuser to create.
    pub credentials: Credentials,
}

/// Copies the primary's database here and starts it as a standby.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Join {
    /// Who asks.
    pub fence: Fence,
    /// Where the primary may be reached: names and addresses, tried in this order.
    pub primary_hosts: Vec<String>,
    /// Its port.
    pub primary_port: u16,
    /// Superuser, for the copy and for streaming.
    pub credentials: Credentials,
}

/// Makes a standby stream from another place, by reload. Says what shall be so: a repeat is carried
/// out again, and changes nothing where it is so already.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Follow {
    /// Who asks.
    pub fence: Fence,
    /// As in [`Join`].
    pub primary_hosts: Vec<String>,
    /// As in [`Join`].
    pub primary_port: u16,
    /// New credentials, where they changed.
    pub credentials: Option<Credentials>,
}

/// Makes a standby the primary (`pg_promote`).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Promote {
    /// Who asks.
    pub fence: Fence,
    /// How long promotion may take, in milliseconds.
    pub deadline_ms: u64,
}

/// The answer where there is nothing to say but that it is so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// Stores a set and makes the running server read it (SIGHUP). All or nothing: a set with an
/// entry that the server would not take is put back before the server has seen it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Load {
    /// Who asks.
    pub fence: Fence,
    /// What to load.
    pub set: ConfigurationSet,
    /// How long the server may take to read it, in milliseconds.
    pub deadline_ms: u64,
}

/// Answer to [`Load`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Loaded {
    /// `pgitops.revision` of a running session is that of the set.
    Loaded {
        /// From the signal until the revision was seen, in milliseconds.
        took_ms: u64,
        /// Parameters that wait for a restart now (`pending_restart`; see postgres' own traps).
        pending_restart: Vec<String>,
    },
    /// The server would not take the file (`pg_file_settings`), or did not within the deadline.
    /// The previous file is back in place and loaded.
    PutBack {
        /// The entries it rejects.
        rejected: Vec<FileError>,
        /// The same, as text for a person.
        words: String,
    },
    /// The server does not run; the set is stored and the next start uses it.
    Stored,
}

/// Runs `CHECKPOINT` (a restartpoint on a standby).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Who asks.
    pub fence: Fence,
    /// How long it may take, in milliseconds.
    pub deadline_ms: u64,
}

/// Stops the server fast and starts it with `candidate`; if that does not start, with `fallback`,
/// at once and without being told. Goes on to its end when the caller or the instance goes away.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Restart {
    /// Who asks.
    pub fence: Fence,
    /// The set to start with.
    pub candidate: ConfigurationSet,
    /// The set to start with otherwise.
    pub fallback: ConfigurationSet,
    /// How long the stop may take before it is enforced (immediate shutdown), in milliseconds.
    pub stop_deadline_ms: u64,
    /// How long a start may take until connections are accepted, in milliseconds.
    pub start_deadline_ms: u64,
}

/// Answer to [`Restart`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Restarted {
    /// Runs on the candidate.
    Restarted {
        /// Start of the postmaster.
        started_at: jiff::Timestamp,
        /// From the signal until the process was gone, in milliseconds.
        stop_ms: u64,
        /// From the start of the process until a connection was accepted, in milliseconds.
        start_ms: u64,
        /// Whether the stop had to be enforced (crash recovery followed).
        forced: bool,
    },
    /// The candidate did not start; runs on the fallback.
    FellBack {
        /// The server's own words about the candidate.
        words: String,
        /// Start of the postmaster.
        started_at: jiff::Timestamp,
        /// From the first signal until connections were accepted again, in milliseconds.
        gap_ms: u64,
    },
    /// Neither started. The instance goes on trying.
    Down {
        /// The server's own words about the candidate.
        words: String,
        /// The server's own words about the fallback.
        fallback_words: String,
    },
}

macro_rules! calls {
    ($($call:ty => $path:literal, $answer:ty;)*) => {
        $(impl Call for $call {
            const PATH: &'static str = $path;
            type Answer = $answer;
        })*
    };
}

calls! {
    AskFacts => "/v1/facts", Facts;
    AskTimeline => "/v1/timeline", Timeline;
    AskSettings => "/v1/settings", Settings;
    Prove => "/v1/prove", Proof;
    DryRun => "/v1/dry-run", DryRan;
    Initialise => "/v1/initialise", Done;
    Join => "/v1/join", Done;
    Follow => "/v1/follow", Done;
    Promote => "/v1/promote", Done;
    Load => "/v1/load", Loaded;
    Checkpoint => "/v1/checkpoint", Done;
    Restart => "/v1/restart", Restarted;
}
