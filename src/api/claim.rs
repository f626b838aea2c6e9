//! The claim: sync's one annotation on a `Postgres`, and its only write to that object.
//!
//! It says which repository configures the database, what was applied last, and which parameters
//! are managed, so that a parameter which leaves the document can be told from one that was never
//! ours. Written by compare-and-swap; the first repository wins. Leaves its use to `sync`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::names::{CommitId, RequestName};
use super::ops_request::OpsPhase;

/// Who configures a database, and what was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// UID of the `ConfigRepository` that holds the claim.
    pub repository: String,
    /// `namespace/name` of that repository, for people.
    pub repository_name: String,
    /// UID of the database; a claim of another UID is no claim (a recreated database starts with
    /// no claim, hold or history).
    pub database: String,
    /// The commit whose document was proven last; none before the first proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<CommitId>,
    /// Digest of what was desired when `applied` was proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Whether the document of `applied` was of mode Replace.
    #[serde(default)]
    pub replace: bool,
    /// Names of managed parameters, lower case. Old ∪ new while a request runs, exact after proof.
    #[serde(default)]
    pub managed: BTreeSet<String>,
    /// Our last request for this database: the tail of the chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_request: Option<RequestName>,
    /// What `last_request` asked for. Written after the request was created, so that a request
    /// which is named here and gone was deleted by somebody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
}

/// What our last request asked for, and how it ended. Outlives the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// Digest of what was desired.
    pub digest: String,
    /// The commit that asked for it.
    pub commit: CommitId,
    /// Value of the annotation `pgitops.dev/retry` at that time: another one lifts the hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
    /// How the request ended; absent while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<OpsPhase>,
}

impl Claim {
    /// Reads the annotation's value; `None` when it is not a claim (a broken one is as good as
    /// none: it is written anew by the first repository that asks).
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The annotation's value: compact JSON with keys in a fixed order.
    pub fn render(&self) -> String {
        // A struct of strings, sets and options always serialises.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_survives_its_annotation() {
        let claim = Claim {
            repository: "r".into(),
            repository_name: "demo/config".into(),
            database: "d".into(),
            applied: CommitId::parse(&"0".repeat(40)).ok(),
            digest: Some("x".into()),
            replace: false,
            managed: ["work_mem".to_owned()].into(),
            last_request: Some(RequestName("orders-1".into())),
            asked: Some(Asked {
                digest: "y".into(),
                commit: CommitId::parse(&"1".repeat(40)).unwrap(),
                retry: None,
                ended: Some(OpsPhase::Failed),
            }),
        };
        assert_eq!(Claim::parse(&claim.render()), Some(claim));
        assert_eq!(Claim::parse("rubbish"), None);
    }
}
