//! The steps of a rollout, each complete: who carries one out has nothing left to decide.
//!
//! `rollout::next` makes them, `act::perform` carries out exactly one. Leaves what comes after to
//! the next look. Holds no behaviour but words for logs.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::names::RequestName;
use crate::api::ops_request::PostgresOpsRequestStatus;
use crate::api::{Condition, Postgres, PostgresOpsRequest};
use crate::instance::protocol::ConfigurationSet;

use super::admit;
use super::journal::Journal;
use super::proof::Expected;
use super::seen::Seen;

/// One step.
#[derive(Clone, Debug)]
pub enum Step {
    /// Says in a Pending request's status why it is not carried out (yet).
    Explain(Told),
    /// Ends a Pending request that another one makes needless.
    Skip(Told),
    /// Ends a request before anything was changed.
    Refuse(Told),
    /// Creates the request that several pending ones are merged into.
    Merge(Box<PostgresOpsRequest>),
    /// Puts our finalizer and memory on a request, before its first effect.
    Guard {
        /// The request.
        request: RequestName,
        /// Its finalizers, ours among them.
        finalizers: Vec<String>,
        /// Value of the annotation `pgitops.dev/progress`.
        progress: String,
        /// resourceVersion that was read.
        version: Option<String>,
    },
    /// Makes a request Progressing.
    Accept(Told),
    /// Tries files out on every node, beside the live server.
    DryRun {
        /// The files by pod, and how thoroughly.
        nodes: BTreeMap<String, Vec<Trial>>,
        /// How long all of it may take, in milliseconds.
        deadline_ms: u64,
    },
    /// Puts our condition `Paused` on the database.
    Pause {
        /// All conditions of the database, foreign ones kept.
        conditions: Vec<Condition>,
        /// resourceVersion that was read.
        version: Option<String>,
    },
    /// Keeps the previous configuration, and what else cannot be observed again.
    Keep(Box<Journal>),
    /// Writes `spec.configuration` of the database.
    WriteSpec(SpecPatch),
    /// Writes the operator's Secret.
    WriteOperator {
        /// Key `inline.conf`.
        inline: String,
        /// Key `postgresql.conf`.
        file: String,
        /// resourceVersion that was read.
        version: Option<String>,
    },
    /// Stores a file on nodes and makes their servers read it.
    Load {
        /// The files by pod.
        nodes: BTreeMap<String, ConfigurationSet>,
        /// How long all of it may take, in milliseconds.
        deadline_ms: u64,
    },
    /// CHECKPOINT on the primary, and its place kept in the journal.
    Lower {
        /// The primary's pod.
        node: String,
        /// The journal, to be amended.
        journal: Box<Journal>,
        /// How long it may take, in milliseconds.
        deadline_ms: u64,
    },
    /// CHECKPOINT on a standby.
    Restartpoint {
        /// The standby's pod.
        node: String,
        /// How long it may take, in milliseconds.
        deadline_ms: u64,
    },
    /// CHECKPOINT, then stop and start of one server.
    Restart(Box<RestartStep>),
    /// Writes what a restart cost into the request's status.
    Note(Told),
    /// Asks every node what is in force.
    Prove {
        /// What is to be found, by pod.
        nodes: BTreeMap<String, Expected>,
        /// How long all of it may take, in milliseconds.
        deadline_ms: u64,
    },
    /// Writes the verdict of the proofs into the request's status.
    Report(Told),
    /// Keeps the decision to go back.
    RollBack(Box<Journal>),
    /// Takes our condition `Paused` from the database.
    Resume {
        /// All conditions of the database but that one.
        conditions: Vec<Condition>,
        /// resourceVersion that was read.
        version: Option<String>,
    },
    /// Ends a request.
    Conclude(Told),
    /// Takes our finalizer from a request.
    Release {
        /// The request.
        request: RequestName,
        /// Its finalizers without ours.
        finalizers: Vec<String>,
        /// resourceVersion that was read.
        version: Option<String>,
    },
    /// Nothing can be done now.
    Wait {
        /// For what, in words.
        what: String,
        /// Where a change would be seen.
        on: Awaited,
    },
    /// There is nothing to do.
    Nothing,
}

/// Where a change that is waited for would be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// At the API server, which tells us.
    Objects,
    /// At a server, which has to be asked.
    Servers,
}

/// A new status of a request, whole.
#[derive(Clone, Debug)]
pub struct Told {
    /// The request.
    pub request: RequestName,
    /// Its status.
    pub status: PostgresOpsRequestStatus,
    /// resourceVersion that was read.
    pub version: Option<String>,
    /// The sentence that is also told as an event.
    pub sentence: String,
    /// The pod that it is about, where it is about one.
    pub pod: Option<String>,
}

/// A file to be tried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The file's text.
    pub text: String,
    /// Also allocate the shared memory.
    pub allocate: bool,
    /// Also start a scratch server.
    pub boot: bool,
}

/// A write of `spec.configuration`.
#[derive(Clone, Debug, PartialEq)]
pub enum SpecPatch {
    /// Server-side apply: fields are set.
    Apply(Value),
    /// JSON merge patch: fields are taken away as well.
    Merge(Value),
}

/// A restart with everything that it needs.
#[derive(Clone, Debug)]
pub struct RestartStep {
    /// The pod.
    pub node: String,
    /// Whether it is the primary.
    pub primary: bool,
    /// The file to start with.
    pub candidate: ConfigurationSet,
    /// The file to start with if that fails: the one on disk now.
    pub fallback: ConfigurationSet,
    /// Client connections that are open now.
    pub connections: u32,
    /// Whether the server runs, so that a CHECKPOINT can shorten its stop.
    pub running: bool,
    /// Bounds CHECKPOINT, stop and start, each, in milliseconds.
    pub deadline_ms: u64,
}

/// What became of a step.
#[derive(Clone, Debug)]
pub enum Evidence {
    /// It was carried out: look again.
    Done(Touched),
    /// Look again then, or when something changes.
    Wait(Timestamp),
    /// Look again when something changes.
    Nothing,
}

/// What a step may have changed: the rest need not be read again within the pass, and what was
/// written comes with the answer of the API server. Every write is guarded by the version that was
/// read, so that what is old at most makes one fail.
#[derive(Clone, Debug)]
pub enum Touched {
    /// Nothing: it only asked.
    Nothing,
    /// A request, as it stands now.
    Request(Box<PostgresOpsRequest>),
    /// The database's object, as it stands now.
    Database(Box<Postgres>),
    /// The memory of the rollout, as it stands now.
    Memory(Box<Secret>),
    /// The operator's Secret, as it stands now.
    Operator(Box<Secret>),
    /// Objects and Secrets, by somebody else: a write found them changed. No server did anything.
    Objects,
    /// What servers have read, by a call that was answered; no object.
    Servers,
    /// Servers, by a call that takes its time; everything is read again.
    Everything,
}

impl Step {
    /// Type and phase of the request that the step ends, for counting; `None` for all others.
    pub fn ended(&self, seen: &Seen) -> Option<(&'static str, &'static str)> {
        let (Self::Skip(told) | Self::Refuse(told) | Self::Conclude(told)) = self else {
            return None;
        };
        let request = seen.requests.iter().find(|r| r.request_name() == told.request)?;
        Some((admit::carried_out(request)?, told.status.phase?.end()?))
    }

    /// The request that the step writes to, where it is one.
    pub fn request(&self) -> Option<&RequestName> {
        match self {
            Self::Explain(told)
            | Self::Skip(told)
            | Self::Refuse(told)
            | Self::Accept(told)
            | Self::Note(told)
            | Self::Report(told)
            | Self::Conclude(told) => Some(&told.request),
            Self::Guard { request, .. } | Self::Release { request, .. } => Some(request),
            Self::Merge(_)
            | Self::DryRun { .. }
            | Self::Pause { .. }
            | Self::Keep(_)
            | Self::WriteSpec(_)
            | Self::WriteOperator { .. }
            | Self::Load { .. }
            | Self::Lower { .. }
            | Self::Restartpoint { .. }
            | Self::Restart(_)
            | Self::Prove { .. }
            | Self::RollBack(_)
            | Self::Resume { .. }
            | Self::Wait { .. }
            | Self::Nothing => None,
        }
    }

    /// The step's word in logs and events.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Explain(_) => "Explain",
            Self::Skip(_) => "Skipped",
            Self::Refuse(_) => "Refused",
            Self::Merge(_) => "Merged",
            Self::Guard { .. } => "Guarded",
            Self::Accept(_) => "Accepted",
            Self::DryRun { .. } => "DryRun",
            Self::Pause { .. } => "Paused",
            Self::Keep(_) => "Kept",
            Self::WriteSpec(_) => "SpecWritten",
            Self::WriteOperator { .. } => "SecretWritten",
            Self::Load { .. } => "Loaded",
            Self::Lower { .. } => "Checkpoint",
            Self::Restartpoint { .. } => "Restartpoint",
            Self::Restart(_) => "Restart",
            Self::Note(_) => "Restarted",
            Self::Prove { .. } => "Prove",
            Self::Report(_) => "Proven",
            Self::RollBack(_) => "RollBack",
            Self::Resume { .. } => "Resumed",
            Self::Conclude(_) => "Concluded",
            Self::Release { .. } => "Released",
            Self::Wait { .. } => "Wait",
            Self::Nothing => "Nothing",
        }
    }
}
