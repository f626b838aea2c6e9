//! How a hold is lifted: the command to run or the edit to make.
//!
//! Leaves what the hold is and how it reads to `held.rs`. Never advises what would lose anything
//! silently.

use super::{Held, Override};
use crate::api::names::DatabaseRef;

impl Held {
    /// What lifts it, as a sentence that begins with a verb.
    pub fn lift(&self, database: &DatabaseRef) -> String {
        let DatabaseRef { namespace, name } = database;
        let retry = |d: &DatabaseRef| format!("run pgitops retry -n {} {}", d.namespace, d.name);
        let unset = |key: &str| format!("run kubectl annotate pg -n {namespace} {name} {key}-");
        match self {
            Self::Refused(problems) => {
                let first = problems.iter().find(|problem| problem.is_refusal());
                format!("fix {} and push", first.map_or("the document", |first| &first.file))
            }
            Self::Failed { .. } | Self::Denied { .. } | Self::Deleted(_) => {
                format!("push a correction or a revert, or {}", retry(database))
            }
            Self::Approval(request) => {
                format!("have kubectl get pgops -n {namespace} {request} approved, or delete it")
            }
            Self::OtherRequest(request) => {
                format!("wait for kubectl get pgops -n {namespace} {request}, or delete it")
            }
            Self::Finishing { .. } | Self::Limit { .. } => "wait".to_owned(),
            Self::Window { .. } => "wait, or change the windows in pgitops.yaml".to_owned(),
            Self::Wave { waiting_for, .. } => format!("see pgitops status {waiting_for}"),
            Self::RolloutStopped { by } => format!("correct {by}, or {}", retry(by)),
            Self::DriftReported(_) => "set drift: Enforce, or take the value into git".to_owned(),
            Self::DriftNeedsRestart(_) => {
                "push a commit, open a window, or set drift: EnforceWithRestart".to_owned()
            }
            Self::Contested(_) => format!("find who sets it, then {}", retry(database)),
            Self::Overridden(Override { nodes, cure, .. }) => {
                format!("run on {}: {cure}", nodes.join(", "))
            }
            Self::FieldOwned { manager, path } => {
                format!("make {manager} leave {path} alone (ignoreDifferences in Argo CD)")
            }
            Self::RestartForbidden(_) => "write restart: auto in the document".to_owned(),
            Self::WouldLose { files, place } => format!(
                "take {} out of {place} first, or push a document that takes nothing away",
                files.join(", ")
            ),
            Self::ClaimedBy { exists: true, .. } => "delete one of the two documents".to_owned(),
            Self::ClaimedBy { exists: false, .. } => unset("pgitops.dev/claim"),
            Self::NotAdmitted => format!(
                "annotate Namespace {namespace} with pgitops.dev/allow-from: <repository's namespace>"
            ),
            Self::Frozen { .. } => unset("pgitops.dev/freeze"),
            Self::Suspended => "run pgitops resume".to_owned(),
            Self::PlanOnly => "set spec.planOnly of the ConfigRepository to false".to_owned(),
            Self::Stalled => "see the ConfigRepository's condition Stalled".to_owned(),
            Self::Paused(_) => "wait for whoever paused it to resume it".to_owned(),
            Self::NotReady(_) => "wait, or write apply: Always in the document".to_owned(),
            Self::Absent => format!("create Postgres {database}"),
            Self::NotTaken(_) => {
                "mend what it names; a field that is not known needs a newer definition".to_owned()
            }
            Self::Unknown(_) => format!("see kubectl describe pg -n {namespace} {name}"),
        }
    }
}
