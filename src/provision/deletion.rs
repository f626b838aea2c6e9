//! What has to go when a `Postgres` is deleted, and in which order.
//!
//! The pods stop first, so that every server shuts down cleanly and no volume is taken from under
//! one; then what was made goes; volumes and credentials as `deletionPolicy` says; the finalizer
//! last. Each step is derived from what is seen, so that anybody can go on where somebody stopped.

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
    /// Pods are still ending.
    Await(Vec<String>),
    /// Nothing more: we are done with it, somebody else still holds it.
    Done,
    /// Remove what was made, then the finalizer.
    Sweep {
        /// The volumes go too.
        claims: bool,
        /// So do the credentials and the config Secrets that were rendered for it.
        secrets: bool,
    },
}

/// The next step of a deletion; `None`: the object is not being deleted.
pub fn next(postgres: &Postgres, workload: Option<&Workload>, pods: &[String]) -> Option<Removal> {
    postgres.metadata.deletion_timestamp.as_ref()?;
    let ours = |name: &String| name == finalizers::POSTGRES;
    if !postgres.metadata.finalizers.iter().flatten().any(ours) {
        return Some(Removal::Done);
    }
    let policy = postgres.spec.deletion_policy.unwrap_or_default();
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
    Some(match policy {
        DeletionPolicy::WipeOut => Removal::Sweep { claims: true, secrets: true },
        DeletionPolicy::Delete => Removal::Sweep { claims: true, secrets: false },
        DeletionPolicy::Halt | DeletionPolicy::DoNotTerminate => {
            Removal::Sweep { claims: false, secrets: false }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::blueprint::{Blueprint, Options};
    use super::super::sample::{MINIMAL, postgres};
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    fn check(policy: &str, nodes: Option<i32>, pods: &[&str], expected: &str) {
        let mut postgres = postgres(MINIMAL);
        postgres.spec.deletion_policy = serde_yaml::from_str(policy).unwrap();
        let blueprint = Blueprint::of(&postgres, &Options::default(), None).unwrap();
        let workload = nodes.map(|nodes| workload::workload(&blueprint, nodes, None));
        let pods: Vec<String> = pods.iter().map(|pod| (*pod).to_owned()).collect();
        assert_eq!(next(&postgres, workload.as_ref(), &pods), None, "not being deleted");
        postgres.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert_eq!(next(&postgres, workload.as_ref(), &pods), Some(Removal::Done));
        postgres.metadata.finalizers = Some(vec!["kubedb.com".to_owned()]);
        let step = format!("{:?}", next(&postgres, workload.as_ref(), &pods).unwrap());
        assert!(step.starts_with(expected), "{policy} {nodes:?} {pods:?}: {step}");
    }

    #[test]
    fn pods_stop_first_and_the_policy_decides_about_the_rest() {
        check("DoNotTerminate", Some(3), &["orders-0"], "Hold");
        check("Delete", Some(3), &["orders-0"], "Stop");
        check("Delete", Some(0), &["orders-0"], "Await([\"orders-0\"])");
        check("Delete", None, &["orders-0"], "Await");
        check("Delete", Some(0), &[], "Sweep { claims: true, secrets: false }");
        check("Halt", Some(0), &[], "Sweep { claims: false, secrets: false }");
        check("WipeOut", None, &[], "Sweep { claims: true, secrets: true }");
        check("~", None, &[], "Sweep { claims: true, secrets: false }");
    }
}
