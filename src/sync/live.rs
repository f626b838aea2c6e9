//! What is observed of each database that a document names or that we hold a claim on.
//!
//! Values only: `observe.rs` fills them, `drift.rs` and `plan.rs` think about them. Three states,
//! because what is not known must never be mistaken for what is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;

use crate::api::claim::Claim;
use crate::api::conditions;
use crate::api::names::{DatabaseRef, RepositoryRef, RequestName, annotations, digest};
use crate::api::ops_request::{OpsPhase, PostgresOpsRequest, condition};
use crate::api::ownership::FieldOwned;
use crate::api::postgres::{Phase, Tuning};
use crate::instance::protocol::RoleSetting;
use crate::pgconf::{Catalogue, Layers, Name, Settings};

/// What is observed of each database.
pub type Observed = BTreeMap<DatabaseRef, Live>;

/// What is observed of one database.
#[derive(Clone, Debug)]
pub enum Live {
    /// There is no such object.
    Absent,
    /// Something about it could not be read; nothing is planned upon that.
    Unknown(String),
    /// It is there.
    Present(Box<Present>),
}

/// A database that is there.
#[derive(Clone, Debug, Default)]
pub struct Present {
    /// UID of the object.
    pub uid: String,
    /// `spec.version`.
    pub version: String,
    /// Version of the servers, as `15.18`, where the object's status says it.
    pub reported: Option<String>,
    /// Number of nodes.
    pub nodes: i32,
    /// The phase, none before the first status.
    pub phase: Option<Phase>,
    /// Whether it was Ready once.
    pub provisioned: bool,
    /// The message of the condition `Paused` while it is True.
    pub paused: Option<String>,
    /// The annotation `pgitops.dev/freeze`.
    pub freeze: Option<String>,
    /// The annotation `pgitops.dev/retry`.
    pub retry: Option<String>,
    /// The annotation `pgitops.dev/claim` as it stands there, for compare-and-swap.
    pub claim_text: Option<String>,
    /// The claim, if it is one of this very object.
    pub claim: Option<Claim>,
    /// Whether the claim's repository still exists.
    pub claimant_exists: bool,
    /// Whether its namespace admits documents of the repository's namespace.
    pub admitted: bool,
    /// What configures it.
    pub custom: Custom,
    /// All requests for it, oldest first.
    pub requests: Vec<Arc<PostgresOpsRequest>>,
    /// What its servers run, where the loop may look.
    pub running: Option<Running>,
    /// Whether somebody else runs its servers, as KubeDB does: then requests are carried out by
    /// rules that are not ours, and nobody gives proof.
    pub foreign: bool,
    /// Whether the API server did not take what was to be written there last.
    pub not_taken: bool,
    /// Fields of its custom configuration that a GitOps tool would write back.
    pub owners: Vec<FieldOwned>,
}

/// What configures a database.
#[derive(Clone, Debug, Default)]
pub struct Custom {
    /// `spec.configuration.secretName`.
    pub secret_name: Option<String>,
    /// Whether that Secret is one that sync rendered.
    pub secret_is_ours: bool,
    /// Files of that Secret other than `user.conf`, where KubeDB runs the servers: they may read
    /// them too (`user_hba.conf`).
    pub secret_files: Vec<String>,
    /// The same of `spec.configuration.inline`.
    pub inline_files: Vec<String>,
    /// `spec.configuration.tuning`.
    pub tuning: Option<Tuning>,
    /// What the layers hold. Provisioner and tuning as far as the operator's Secret shows them.
    pub layers: Layers,
    /// `inline.conf` of the operator's Secret: what the operator last rendered from
    /// `spec.configuration.inline`. `None` when there is no such Secret or key.
    pub rendered_inline: Option<Settings>,
    /// `postgresql.conf` of the operator's Secret: all that the operator last gave the servers.
    /// `None` when there is no such Secret or key, as with KubeDB.
    pub rendered: Option<Settings>,
}

/// What the servers of a database run, as each node reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// Node → what it reports of the parameters that were asked for.
    pub nodes: BTreeMap<String, BTreeMap<Name, Report>>,
    /// What ALTER ROLE and ALTER DATABASE set of them, as any node has it.
    pub roles: BTreeSet<RoleSetting>,
    /// Whether there is more of it than an instance tells.
    pub more_roles: bool,
}

/// What a node reports of one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// `reset_val` of `pg_settings`.
    pub value: String,
    /// The file that the value comes from, when it comes from one.
    pub file: Option<String>,
    /// The server's own flag: another value waits for a restart. It can stick, and it can miss.
    pub pending: bool,
    /// The command line of the server sets it: no file and no restart changes it.
    pub fixed: bool,
}

impl Report {
    /// Whether ALTER SYSTEM set it, which is stronger than every file of ours.
    pub fn is_from_alter_system(&self) -> bool {
        self.file.as_deref().is_some_and(|file| file.ends_with("postgresql.auto.conf"))
    }
}

/// Digest of the custom configuration that a request is planned from: what the owner's Secret and
/// the inline text set. The annotation `pgitops.dev/base`, which `ops` works out in the same way.
pub fn base_digest(user: &Settings, inline: &Settings) -> String {
    digest(&[&user.render(), &inline.render()])
}

impl Present {
    /// The catalogue of its major version.
    pub fn catalogue(&self) -> Option<&'static Catalogue> {
        Catalogue::for_version(&self.version)
    }

    /// The server's version as people read it: in full where the object's status says it or once a
    /// request has proven it, whoever asked for that request; until then what the spec says.
    pub fn server_version(&self) -> String {
        if let Some(reported) = &self.reported {
            return format!("PostgreSQL {reported}");
        }
        let proofs = self.requests.iter().rev().filter_map(|r| r.status.as_ref()?.proof.as_ref());
        let mut versions = proofs.map(|proof| proof.server_version.clone());
        // A proof of another major version is from before an upgrade.
        let of_now = |version: &String| {
            let major = |text: &str| text.split(['.', ' ']).next().map(str::to_owned);
            version.strip_prefix("PostgreSQL ").and_then(major) == major(&self.version)
        };
        versions.find(of_now).unwrap_or_else(|| format!("PostgreSQL {}", self.version))
    }

    /// A request of this name.
    pub fn request(&self, name: &RequestName) -> Option<&Arc<PostgresOpsRequest>> {
        self.requests.iter().find(|request| request.request_name() == *name)
    }

    /// The request that carries another one out: itself, or the one into which KubeDB merged it,
    /// however often.
    pub fn carrier<'a>(&'a self, request: &'a PostgresOpsRequest) -> &'a PostgresOpsRequest {
        let mut carrier = request;
        // Each step leads to another request, so that there are no more of them.
        for _ in &self.requests {
            if carrier.phase() != OpsPhase::Skipped {
                break;
            }
            let name = carrier.request_name();
            let Some(into) = self.requests.iter().find(|r| is_merged_from(r, &name)) else { break };
            carrier = into;
        }
        carrier
    }

    /// Whether it is frozen at `now`, until when, by whom and why.
    pub fn frozen(&self, now: Timestamp) -> Option<Freeze> {
        Freeze::parse(self.freeze.as_deref()?).filter(|f| f.until.is_none_or(|until| until > now))
    }

    /// Names of managed parameters.
    pub fn managed(&self) -> BTreeSet<Name> {
        let names = self.claim.iter().flat_map(|claim| &claim.managed);
        names.filter_map(|name| Name::new(name).ok()).collect()
    }
}

/// The annotation `pgitops.dev/freeze: "<until> <who> <why>"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freeze {
    /// When it ends; never by itself when absent.
    pub until: Option<Timestamp>,
    /// Who froze it.
    pub who: String,
    /// Why.
    pub why: String,
}

impl Freeze {
    /// Reads the annotation. What cannot be read freezes without an end: a brake that somebody
    /// spelled wrongly is still a brake. Only an empty value is none.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        let cut = |text: &str| text.chars().take(200).collect::<String>();
        let mut words = text.splitn(3, char::is_whitespace);
        let first = words.next().unwrap_or_default();
        let until = first.parse::<Timestamp>().ok().or_else(|| end_of_day(first));
        if until.is_none() && first != "-" {
            return Some(Self { until: None, who: "somebody".to_owned(), why: cut(text) });
        }
        let who = words.next().unwrap_or("somebody");
        Some(Self { until, who: cut(who), why: cut(words.next().unwrap_or("no reason given")) })
    }
}

/// The end of a day in UTC: a freeze until a day includes it.
fn end_of_day(text: &str) -> Option<Timestamp> {
    let next = text.parse::<Date>().ok()?.tomorrow().ok()?;
    Some(next.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}

/// Whether a request was emitted by this repository.
pub fn is_ours(request: &PostgresOpsRequest, repository: &RepositoryRef) -> bool {
    request.annotation(annotations::REPOSITORY) == Some(repository.to_string().as_str())
}

/// Whether a request stands for another one.
fn is_merged_from(request: &PostgresOpsRequest, original: &RequestName) -> bool {
    let merged = conditions::find(request.conditions(), condition::MERGED_FROM);
    let mut names = merged.into_iter().flat_map(|merged| merged.message.split(','));
    names.any(|name| name.trim() == original.0)
}

/// Whether nothing more will happen to a request.
pub fn is_over(request: &PostgresOpsRequest) -> bool {
    request.phase().is_terminal()
}

/// Whether a request has not begun yet: nobody acts on it, so it may be taken back.
pub fn is_pending(request: &PostgresOpsRequest) -> bool {
    match request.phase() {
        OpsPhase::Pending | OpsPhase::WaitingForApproval => true,
        OpsPhase::Progressing
        | OpsPhase::Approved
        | OpsPhase::Successful
        | OpsPhase::Failed
        | OpsPhase::Denied
        | OpsPhase::Skipped
        | OpsPhase::Other => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merged_request_is_followed_to_the_last() {
        let request = |name: &str, phase: &str, from: &str| {
            let merged = format!(
                "[{{type: MergedFromOps, status: 'True', message: '{from}', \
                 lastTransitionTime: '2026-03-02T10:00:00Z'}}]"
            );
            let conditions = if from.is_empty() { "[]" } else { &merged };
            let yaml = format!(
                "metadata: {{name: {name}}}\nspec: {{databaseRef: {{name: pg}}, type: Reconfigure}}\n\
                 status: {{phase: {phase}, conditions: {conditions}}}"
            );
            Arc::new(serde_yaml::from_str::<PostgresOpsRequest>(&yaml).unwrap())
        };
        let requests = vec![
            request("a", "Skipped", ""),
            request("b", "Skipped", ""),
            request("m", "Skipped", "a, x"),
            request("n", "Successful", "m, y, b2"),
            request("c", "Failed", ""),
        ];
        let present = Present { requests, ..Present::default() };
        let check = |from: usize, to: &str| {
            let carrier = present.carrier(&present.requests[from]);
            assert_eq!(carrier.request_name().0, to, "{from}");
        };
        check(0, "n");
        check(1, "b");
        check(4, "c");
    }

    #[test]
    fn a_freeze_is_a_brake_even_when_it_is_misspelled() {
        fn check(text: &str, now: &str, expected: Option<(&str, &str)>) {
            let now: Timestamp = now.parse().unwrap();
            let freeze = Freeze::parse(text).filter(|f| f.until.is_none_or(|until| until > now));
            let got = freeze.as_ref().map(|freeze| (freeze.who.as_str(), freeze.why.as_str()));
            assert_eq!(got, expected, "{text:?}");
        }
        let now = "2026-03-02T12:00:00Z";
        check("2026-03-03T00:00:00Z ana incident 4711", now, Some(("ana", "incident 4711")));
        check("2026-03-02 ana incident", now, Some(("ana", "incident")));
        check("2026-03-01 ana incident", now, None);
        check("- ana incident", now, Some(("ana", "incident")));
        check("-", now, Some(("somebody", "no reason given")));
        check("tomorrow ana", now, Some(("somebody", "tomorrow ana")));
        check(" ", now, None);
    }
}
