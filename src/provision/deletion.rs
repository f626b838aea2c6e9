//! What has to go when a `Postgres` is deleted, and in which order.
//!
//! The pods stop first, so that every server shuts down cleanly and no volume is taken from under
//! one; then volumes, as `deletionPolicy` says, until they are released: a new database of the same
//! name must not meet them; then what was made, credentials as the policy says, the finalizer last.
//! Each step is derived from what is seen, so that anybody can go on where somebody stopped.

use crate::api::Postgres;
use crate::api::names::finalizers;
use crate::api::postgres::DeletionPolicy;

use super::children::workload::{self, Workload};

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The object may not go; why.
    Hold(String),
    /// Tell the workload to have no nodes.
    Stop,
    /// Pods are still ending, or claims are still being released.
    Await(Vec<String>),
    /// Remove these data claims: while the object is there nobody else can claim their names.
    Unclaim(Vec<String>),
    /// Nothing more: we are done with it, somebody else still holds it.
    Done,
    /// Remove what was made, then the finalizer.
    Sweep {
        /// The credentials and the config Secrets that were rendered for it go too.
        secrets: bool,
    },
}

/// What a deletion has still to do away with.
#[derive(Clone, Copy, Debug)]
pub struct Remains<'a> {
    /// The nodes' workload.
    pub workload: Option<&'a Workload>,
    /// Pods that are there.
    pub pods: &'a [String],
    /// Data claims that are there.
    pub claims: &'a [DataClaim],
}

/// A data claim by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataClaim {
    /// Its name.
    pub name: String,
    /// Whether it is being deleted.
    pub going: bool,
}

/// The next step of a deletion; `None`: the object is not being deleted.
pub fn next(postgres: &Postgres, remains: Remains<'_>) -> Option<Removal> {
    let Remains { workload, pods, claims } = remains;
    postgres.metadata.deletion_timestamp.as_ref()?;
    let ours = |name: &String| name == finalizers::POSTGRES;
    if !postgres.metadata.finalizers.iter().flatten().any(ours) {
        return Some(Removal::Done);
    }
    let policy = policy(postgres);
    if policy == DeletionPolicy::DoNotTerminate {
        return Some(Removal::Hold(
            "spec.deletionPolicy is DoNotTerminate: the database goes on; set Halt, Delete or \
             WipeOut to let it go"
                .to_owned(),
        ));
    }
    if workload.is_some_and(|workload| workload::nodes(workload) > 0) {
        return Some(Removal::Stop);
    }
    if !pods.is_empty() {
        return Some(Removal::Await(pods.to_vec()));
    }
    match policy {
        DeletionPolicy::WipeOut => {
            Some(released(claims).unwrap_or(Removal::Sweep { secrets: true }))
        }
        DeletionPolicy::Delete => {
            Some(released(claims).unwrap_or(Removal::Sweep { secrets: false }))
        }
        DeletionPolicy::Halt | DeletionPolicy::DoNotTerminate => {
            Some(Removal::Sweep { secrets: false })
        }
    }
}

/// KubeDB's webhook makes Halt of whatever policy a halted database has: who halts it wants to have
/// it back. Nothing is as strong as that it cannot be deleted.
fn policy(postgres: &Postgres) -> DeletionPolicy {
    let said = postgres.spec.deletion_policy.unwrap_or_default();
    let halted = postgres.spec.other.get("halted").is_some_and(|halted| halted == true);
    if halted && said != DeletionPolicy::DoNotTerminate { DeletionPolicy::Halt } else { said }
}

/// What is to be done until no data claim is there; `None`: none is.
fn released(claims: &[DataClaim]) -> Option<Removal> {
    let names = |going: bool| -> Vec<String> {
        claims.iter().filter(|c| c.going == going).map(|c| c.name.clone()).collect()
    };
    let (staying, going) = (names(false), names(true));
    match (staying.is_empty(), going.is_empty()) {
        (false, _) => Some(Removal::Unclaim(staying)),
        (true, false) => Some(Removal::Await(going)),
        (true, true) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::blueprint::{Blueprint, Options};
    use super::super::sample::{MINIMAL, postgres};
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    /// `policy`: `halted` after it says so of the database.
    fn check(policy: &str, nodes: Option<i32>, pods: &[&str], claims: &[&str], expected: &str) {
        let mut postgres = postgres(MINIMAL);
        let (said, halted) = policy.split_once(' ').unwrap_or((policy, ""));
        postgres.spec.deletion_policy = serde_yaml::from_str(said).unwrap();
        postgres.spec.other.insert("halted".to_owned(), (halted == "halted").into());
        let kind = workload::WorkloadKind::StatefulSet;
        let blueprint = Blueprint::of(&postgres, &Options::default(), None, kind).unwrap();
        let workload = nodes.map(|nodes| workload::workload(&blueprint, nodes, None));
        let pods: Vec<String> = pods.iter().map(|pod| (*pod).to_owned()).collect();
        // `data-orders-0 (going)`
        let claim = |text: &&str| DataClaim {
            name: text.split(' ').next().unwrap().to_owned(),
            going: text.ends_with("(going)"),
        };
        let claims: Vec<DataClaim> = claims.iter().map(claim).collect();
        let remains = Remains { workload: workload.as_ref(), pods: &pods, claims: &claims };
        assert_eq!(next(&postgres, remains), None, "not being deleted");
        postgres.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert_eq!(next(&postgres, remains), Some(Removal::Done));
        postgres.metadata.finalizers = Some(vec!["kubedb.com".to_owned()]);
        let step = format!("{:?}", next(&postgres, remains).unwrap());
        assert!(step.starts_with(expected), "{policy} {nodes:?} {pods:?}: {step}");
    }

    #[test]
    fn pods_stop_first_and_the_policy_decides_about_the_rest() {
        let (one, going) = (&["data-orders-0"][..], &["data-orders-0 (going)"][..]);
        check("DoNotTerminate", Some(3), &["orders-0"], one, "Hold");
        check("Delete", Some(3), &["orders-0"], one, "Stop");
        check("Delete", Some(0), &["orders-0"], one, "Await([\"orders-0\"])");
        check("Delete", None, &["orders-0"], one, "Await");
        check("Delete", Some(0), &[], one, "Unclaim([\"data-orders-0\"])");
        check("Delete", Some(0), &[], going, "Await([\"data-orders-0\"])");
        check("Delete", Some(0), &[], &[], "Sweep { secrets: false }");
        check("Halt", Some(0), &[], one, "Sweep { secrets: false }");
        check("WipeOut", None, &[], one, "Unclaim");
        check("WipeOut", None, &[], &[], "Sweep { secrets: true }");
        check("~", None, &[], one, "Unclaim");
        check("~ halted", None, &[], one, "Sweep { secrets: false }");
        check("WipeOut halted", None, &[], &[], "Sweep { secrets: false }");
        check("DoNotTerminate halted", Some(3), &["orders-0"], one, "Hold");
    }
}
