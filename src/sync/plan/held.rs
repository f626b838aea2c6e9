//! Why a database is left as it is: for people, for metrics, and how to lift it.
//!
//! Every reason has one line of text, one label that never carries free text, and the command or
//! the edit that lifts it (`held/lift.rs`). Leaves it to the gates which reason holds.

mod lift;

use jiff::Timestamp;

use crate::api::names::{CommitId, DatabaseRef, RequestName};
use crate::api::postgres::Phase;
use crate::sync::drift::Override;
use crate::sync::problem::Problem;

/// Why a database is left as it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Held {
    /// What is desired cannot be taken as it stands.
    Refused(Vec<Problem>),
    /// The same change failed before.
    Failed {
        /// The commit that asked for it.
        commit: CommitId,
        /// The request that failed.
        request: RequestName,
        /// What the server or the operator said.
        words: String,
    },
    /// Whoever approves requests there denied the same change before.
    Denied {
        /// The commit that asked for it.
        commit: CommitId,
        /// The request that was denied.
        request: RequestName,
        /// What was said about it.
        words: String,
    },
    /// Our request waits for somebody's approval.
    Approval(RequestName),
    /// Somebody deleted our request before it ended.
    Deleted(RequestName),
    /// Somebody else's request is pending or running there.
    OtherRequest(RequestName),
    /// Our own request of an older commit has to finish first.
    Finishing {
        /// The request.
        request: RequestName,
        /// The commit that asked for it, when the request says so.
        commit: Option<CommitId>,
    },
    /// No window is open.
    Window {
        /// The window that says so.
        window: String,
        /// When it may next be done.
        opens: Option<Timestamp>,
    },
    /// A lower wave is not proven.
    Wave {
        /// That wave.
        lower: i32,
        /// A database of it.
        waiting_for: DatabaseRef,
    },
    /// As many databases as may change at once are changing.
    Limit {
        /// How many are.
        running: u32,
        /// How many may.
        max: u32,
    },
    /// As many databases of the same commit failed as may.
    RolloutStopped {
        /// One that failed.
        by: DatabaseRef,
    },
    /// Somebody changed values; the policy says to report that only.
    DriftReported(Vec<String>),
    /// Somebody changed values that only a restart brings back.
    DriftNeedsRestart(Vec<String>),
    /// Somebody keeps changing a value that we keep correcting.
    Contested(String),
    /// Something stronger than every file of ours sets the value on some node.
    Overridden(Override),
    /// A field of the object belongs to another tool.
    FieldOwned {
        /// The tool's name in managedFields.
        manager: String,
        /// The field.
        path: String,
    },
    /// The document forbids restarts, and the API cannot remove a parameter without allowing them.
    RestartForbidden(Vec<String>),
    /// What is sent would take files away that the document says nothing about.
    WouldLose {
        /// Their names.
        files: Vec<String>,
        /// Where they stand.
        place: String,
    },
    /// Another repository configures it.
    ClaimedBy {
        /// That repository.
        repository: String,
        /// Whether it still exists.
        exists: bool,
    },
    /// Its namespace does not admit documents of this repository.
    NotAdmitted,
    /// Somebody froze it.
    Frozen {
        /// When that ends; never by itself when absent.
        until: Option<Timestamp>,
        /// Who.
        who: String,
        /// Why.
        why: String,
    },
    /// The repository is suspended.
    Suspended,
    /// The repository only plans.
    PlanOnly,
    /// The source as a whole is stalled.
    Stalled,
    /// Somebody else paused it.
    Paused(String),
    /// It is not Ready, and the document says to wait for that.
    NotReady(Option<Phase>),
    /// There is no such database yet.
    Absent,
    /// Something about it cannot be read.
    Unknown(String),
    /// The API server, or admission there, refuses what was to be written.
    NotTaken(String),
}

/// How a hold weighs in a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// It goes on by itself.
    Waiting,
    /// A person, a window or another tool has to do something.
    Held,
    /// The document has to be corrected.
    Refused,
    /// The change was tried and failed.
    Failed,
}

impl Held {
    /// How it weighs.
    pub fn weight(&self) -> Weight {
        match self {
            Self::Failed { .. } => Weight::Failed,
            Self::Refused(_) | Self::Denied { .. } => Weight::Refused,
            Self::Deleted(_)
            | Self::Approval(_)
            | Self::OtherRequest(_)
            | Self::Window { .. }
            | Self::RolloutStopped { .. }
            | Self::DriftReported(_)
            | Self::DriftNeedsRestart(_)
            | Self::Contested(_)
            | Self::Overridden(_)
            | Self::FieldOwned { .. }
            | Self::RestartForbidden(_)
            | Self::WouldLose { .. }
            | Self::ClaimedBy { .. }
            | Self::NotAdmitted
            | Self::Frozen { .. }
            | Self::Suspended
            | Self::PlanOnly
            | Self::Stalled
            | Self::Paused(_)
            | Self::Unknown(_)
            | Self::NotTaken(_) => Weight::Held,
            Self::Finishing { .. }
            | Self::Wave { .. }
            | Self::Limit { .. }
            | Self::NotReady(_)
            | Self::Absent => Weight::Waiting,
        }
    }

    /// Whether nothing will come of it without a person: a note may close upon it.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Refused(_)
            | Self::Failed { .. }
            | Self::Denied { .. }
            | Self::RolloutStopped { .. } => true,
            Self::Deleted(_)
            | Self::Approval(_)
            | Self::OtherRequest(_)
            | Self::Finishing { .. }
            | Self::Window { .. }
            | Self::Wave { .. }
            | Self::Limit { .. }
            | Self::DriftReported(_)
            | Self::DriftNeedsRestart(_)
            | Self::Contested(_)
            | Self::Overridden(_)
            | Self::FieldOwned { .. }
            | Self::RestartForbidden(_)
            | Self::WouldLose { .. }
            | Self::ClaimedBy { .. }
            | Self::NotAdmitted
            | Self::Frozen { .. }
            | Self::Suspended
            | Self::PlanOnly
            | Self::Stalled
            | Self::Paused(_)
            | Self::NotReady(_)
            | Self::Absent
            | Self::Unknown(_)
            | Self::NotTaken(_) => false,
        }
    }

    /// When it opens by itself, as far as that is known.
    pub fn opens(&self) -> Option<Timestamp> {
        if let Self::Window { opens: at, .. } | Self::Frozen { until: at, .. } = self {
            return *at;
        }
        None
    }

    /// The word for metrics and programs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Refused(_) => "Refused",
            Self::Failed { .. } => "Failed",
            Self::Denied { .. } => "Denied",
            Self::Approval(_) => "Approval",
            Self::Deleted(_) => "Deleted",
            Self::OtherRequest(_) => "OtherRequest",
            Self::Finishing { .. } => "Finishing",
            Self::Window { .. } => "Window",
            Self::Wave { .. } => "Wave",
            Self::Limit { .. } => "Limit",
            Self::RolloutStopped { .. } => "RolloutStopped",
            Self::DriftReported(_) => "DriftReported",
            Self::DriftNeedsRestart(_) => "DriftNeedsRestart",
            Self::Contested(_) => "Contested",
            Self::Overridden(_) => "Overridden",
            Self::FieldOwned { .. } => "FieldOwned",
            Self::RestartForbidden(_) => "RestartForbidden",
            Self::WouldLose { .. } => "WouldLose",
            Self::ClaimedBy { .. } => "ClaimedBy",
            Self::NotAdmitted => "NotAdmitted",
            Self::Frozen { .. } => "Frozen",
            Self::Suspended => "Suspended",
            Self::PlanOnly => "PlanOnly",
            Self::Stalled => "Stalled",
            Self::Paused(_) => "Paused",
            Self::NotReady(_) => "NotReady",
            Self::Absent => "Absent",
            Self::Unknown(_) => "Unknown",
            Self::NotTaken(_) => "NotTaken",
        }
    }

    /// One line for people, without the database's name.
    pub fn text(&self) -> String {
        match self {
            Self::Refused(problems) => refusals(problems),
            Self::Failed { commit, request, words } => ended(commit, "failed", request, words),
            Self::Denied { commit, request, words } => ended(commit, "was denied", request, words),
            Self::Approval(request) => format!("request {request} waits for approval"),
            Self::Deleted(request) => format!("somebody deleted our request {request}"),
            Self::OtherRequest(request) => format!("request {request} of somebody else is open"),
            Self::Finishing { request, commit } => {
                let of = commit.as_ref().map(|commit| format!(" of {}", commit.short()));
                format!("request {request}{} finishes first", of.unwrap_or_default())
            }
            Self::Window { window, opens } => closed(window, *opens),
            Self::Wave { lower, waiting_for } => {
                format!("wave {lower} comes first; {waiting_for} is not proven")
            }
            Self::Limit { running, max } => {
                format!("{running} of at most {max} databases change now")
            }
            Self::RolloutStopped { by } => format!("the rollout stopped when {by} failed"),
            Self::DriftReported(names) => drifted(names, "drift is reported only"),
            Self::DriftNeedsRestart(names) => drifted(names, "correcting it may need a restart"),
            Self::Contested(name) => {
                format!("{name} was corrected three times within an hour; somebody else sets it")
            }
            Self::Overridden(Override { name, nodes, by, cure: _ }) => {
                format!("{name} is overridden by {by} on {}", nodes.join(", "))
            }
            Self::FieldOwned { manager, path } => format!("{path} is owned by {manager}"),
            Self::RestartForbidden(names) => {
                format!("{} cannot be taken away while restart is false", names.join(", "))
            }
            Self::WouldLose { files, place } => {
                format!("{} of {place} would be taken away with it", files.join(", "))
            }
            Self::ClaimedBy { repository, exists: true } => format!("{repository} configures it"),
            Self::ClaimedBy { repository, exists: false } => {
                format!("{repository} claimed it and is gone")
            }
            Self::NotAdmitted => "its namespace does not admit this repository".to_owned(),
            Self::Frozen { until: None, who, why } => format!("frozen by {who}: {why}"),
            Self::Frozen { until: Some(until), who, why } => {
                format!("frozen until {until} by {who}: {why}")
            }
            Self::Suspended => "the repository is suspended".to_owned(),
            Self::PlanOnly => "the repository only plans".to_owned(),
            Self::Stalled => "the repository is stalled".to_owned(),
            Self::Paused(words) => format!("somebody paused the database: {words}"),
            Self::NotReady(Some(Phase::Other)) => {
                "the database is in a phase that this version does not know, not Ready".to_owned()
            }
            Self::NotReady(Some(phase)) => format!("the database is {phase:?}, not Ready"),
            Self::NotReady(None) => "the database is not Ready yet".to_owned(),
            Self::Absent => "there is no such database yet".to_owned(),
            Self::Unknown(why) => format!("cannot tell: {why}"),
            Self::NotTaken(why) => format!("the API server did not take it: {why}"),
        }
    }

    /// The line for events and logs, which carry no values: neither a refused one nor a server's
    /// words about it.
    pub fn event_text(&self) -> String {
        match self {
            Self::Refused(problems) => {
                let first = problems.iter().find(|problem| problem.is_refusal());
                let place = first.map(Problem::place).unwrap_or_default();
                format!("refused; the first problem is at {place}")
            }
            Self::Failed { commit, request, words: _ } => ended(commit, "failed", request, ""),
            Self::Denied { commit, request, words: _ } => ended(commit, "was denied", request, ""),
            Self::NotTaken(_) => "the API server did not take it; the status says why".to_owned(),
            other => other.text(),
        }
    }
}

/// The first refusal, and how many more there are.
fn refusals(problems: &[Problem]) -> String {
    let mut refusals = problems.iter().filter(|problem| problem.is_refusal());
    let first = refusals.next().map(ToString::to_string).unwrap_or_default();
    match refusals.count() {
        0 => first,
        more => format!("{first} (and {more} more)"),
    }
}

/// What became of a commit's change, in which request, and what was said about it.
fn ended(commit: &CommitId, how: &str, request: &RequestName, words: &str) -> String {
    let words = if words.is_empty() { String::new() } else { format!(": {words}") };
    format!("the change of {} {how} in {request}{words}", commit.short())
}

/// Which window is closed, and for how long.
fn closed(window: &str, opens: Option<Timestamp>) -> String {
    let until = opens.map(|opens| format!("it opens {opens}"));
    let until = until.unwrap_or_else(|| "no opening within a year".to_owned());
    format!("window {window} is closed; {until}")
}

/// Which parameters somebody changed, and what follows.
fn drifted(names: &[String], then: &str) -> String {
    format!("somebody changed {}; {then}", names.join(", "))
}
