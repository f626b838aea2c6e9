//! Writes: children, roles, instructions, status; and takes all of it away again.
//!
//! Everything is decided before; nothing is chosen here. What already is as it should be is not
//! written. Order matters and stands beside each step. Never overwrites a password or the
//! operator's config Secret, and never deletes a volume or a password unless told to.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::json;

use crate::api::names::{finalizers, labels, managers};
use crate::api::postgres::PostgresStatus;
use crate::api::{PetSet, Postgres};
use crate::cluster::client::Kind;
use crate::cluster::{self, Cluster, EventKind};
use crate::instance::certificates::{self, Certificates};

use super::Context;
use super::children::certificates::{Due, VALIDITY};
use super::children::workload::{Workload, WorkloadKind};
use super::children::{self, Children, Owner, auth_secret};
use super::deletion::Removal;
use super::observe::Seen;
use super::roles::Roles;
use super::same;
use super::status::Report;
use super::wanted::Wanted;

pub mod blocked;
pub mod instruct;

pub use instruct::instruct;

/// Why a pass could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// No certificates.
    #[error("make the certificates of the instances")]
    Certificates(#[from] certificates::Error),
    /// No randomness.
    #[error("make a password: the system gives no random bytes ({0})")]
    Random(getrandom::Error),
}

impl Error {
    /// What is said of it in a log: without the API server's words about an object.
    pub fn without_values(&self) -> String {
        match self {
            Self::Cluster(error) => error.without_values(),
            Self::Certificates(_) | Self::Random(_) => self.to_string(),
        }
    }
}

/// Writes the children, what others need first.
///
/// # Errors
/// The first failure ends the pass; the next one goes on from what it sees.
pub async fn apply(wanted: &Wanted, seen: &Seen, cx: &Context) -> Result<(), Error> {
    // Secrets before the pods that mount them: a pod that finds none waits for a minute.
    secrets(wanted, seen, cx).await?;
    let cluster = &cx.cluster;
    if let Some(children) = &wanted.children {
        let Children { account, pods, standbys, budget, workload } = children;
        // Account and names before the pods that carry them.
        if let Some(account) = account {
            ensure(cluster, seen.account.as_deref(), account).await?;
        }
        ensure(cluster, seen.pods.as_deref(), pods).await?;
        if let Some(standbys) = standbys {
            ensure(cluster, seen.standbys.as_deref(), standbys).await?;
        }
        ensure(cluster, seen.budget.as_deref(), budget).await?;
        // The pods last.
        ensure_workload(cluster, seen.workload.as_ref(), workload).await?;
    }
    // Not derived from the spec: it follows the primary, paused or not.
    ensure(cluster, seen.primary.as_deref(), &wanted.primary).await?;
    if let Some(standbys) = seen.standbys.as_ref().filter(|_| wanted.no_standbys) {
        let name = standbys.metadata.name.clone().unwrap_or_default();
        cluster.delete::<Service>(&seen.owner.database.namespace, &name, None).await?;
    }
    Ok(())
}

/// Applies an object that is not there or not as it should be.
async fn ensure<K: Kind>(
    cluster: &Cluster,
    live: Option<&K>,
    wanted: &K,
) -> Result<(), cluster::Error> {
    if live.is_some_and(|live| same::holds(live, wanted)) {
        return Ok(());
    }
    cluster.apply(managers::PROVISION, wanted, true).await.map(|_| ())
}

/// The same for the workload. What is wanted is always of the kind that is there.
async fn ensure_workload(
    cluster: &Cluster,
    live: Option<&Workload>,
    wanted: &Workload,
) -> Result<(), cluster::Error> {
    match (wanted, live) {
        (Workload::StatefulSet(wanted), Some(Workload::StatefulSet(live))) => {
            ensure(cluster, Some(live), wanted).await
        }
        (Workload::PetSet(wanted), Some(Workload::PetSet(live))) => {
            ensure(cluster, Some(live), wanted).await
        }
        (Workload::StatefulSet(wanted), None | Some(Workload::PetSet(_))) => {
            ensure(cluster, None, wanted).await
        }
        (Workload::PetSet(wanted), None | Some(Workload::StatefulSet(_))) => {
            ensure(cluster, None, wanted).await
        }
    }
}

/// Puts our finalizer on the object, before anything that it is there to clean up. True: it was
/// put there now, and what was read of the object is old.
///
/// # Errors
/// A conflict when somebody else wrote first; the next pass reads again.
pub async fn hold(postgres: &Postgres, cluster: &Cluster) -> Result<bool, cluster::Error> {
    let held = postgres.metadata.finalizers.iter().flatten();
    let mut all: Vec<&str> = held.map(String::as_str).collect();
    if all.contains(&finalizers::POSTGRES) || postgres.metadata.deletion_timestamp.is_some() {
        return Ok(false);
    }
    all.push(finalizers::POSTGRES);
    put_finalizers(postgres, &all, cluster).await.map(|()| true)
}

/// A list is replaced as a whole, so only that version is changed which the list was read from.
async fn put_finalizers(
    postgres: &Postgres,
    all: &[&str],
    cluster: &Cluster,
) -> Result<(), cluster::Error> {
    let version = postgres.metadata.resource_version.as_deref();
    let patch = json!({"metadata": {"resourceVersion": version, "finalizers": all}});
    let database = postgres.database();
    cluster.merge::<Postgres>(&database.namespace, &database.name, &patch).await.map(|_| ())
}

async fn secrets(wanted: &Wanted, seen: &Seen, cx: &Context) -> Result<(), Error> {
    let owner = &seen.owner;
    let mut wrote = false;
    if wanted.make_auth {
        let mut random = [0; auth_secret::ENTROPY];
        getrandom::fill(&mut random).map_err(Error::Random)?;
        let secret = auth_secret::auth_secret(owner, &auth_secret::password(&random));
        // Created, never applied: one that somebody made meanwhile stays.
        cx.cluster.create::<Secret>(&secret).await?;
        wrote = true;
    }
    if let Some(configuration) = &wanted.make_configuration {
        let secret = children::operator_config::operator_config(owner, configuration);
        cx.cluster.create::<Secret>(&secret).await?;
        wrote = true;
    }
    let made = match &wanted.certificates {
        Due::Nothing => None,
        Due::Make => Some(Certificates::generate(seen.now, VALIDITY)?),
        Due::Renew { ca_certificate, ca_key } => {
            Some(Certificates::renew(ca_certificate, ca_key, seen.now, VALIDITY)?)
        }
    };
    if let Some(made) = made {
        // The client's Secret first: with it the CA's key is safe, and what follows can be signed
        // again by the same CA.
        let client = children::certificates::client(owner, &made);
        cx.cluster.apply(managers::PROVISION, &client, true).await?;
        let instance = children::certificates::instance(owner, &made);
        cx.cluster.apply(managers::PROVISION, &instance, true).await?;
        wrote = true;
    }
    if wrote {
        cx.memory.forget_secrets(&owner.uid);
    }
    Ok(())
}

/// Sets the role labels of pods that have others.
///
/// # Errors
/// The API server's; a pod that went meanwhile is no error.
pub async fn label(roles: &Roles, seen: &Seen, cx: &Context) -> Result<(), cluster::Error> {
    for member in &seen.members {
        let Some(wanted) = roles.labels.get(&member.pod) else { continue };
        if member.uid.is_empty() || member.label.as_deref() == *wanted {
            continue;
        }
        let patch = json!({"metadata": {"uid": member.uid, "labels": {labels::ROLE: wanted}}});
        let namespace = &seen.owner.database.namespace;
        match cx.cluster.merge::<Pod>(namespace, &member.pod, &patch).await {
            Ok(_) => {}
            // Gone, or replaced by a new pod of this name, which is looked at soon.
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes the status if it changed, and tells people.
///
/// # Errors
/// A conflict when somebody else wrote first; the next pass reads again.
pub async fn report(
    postgres: &Postgres,
    report: &Report,
    cluster: &Cluster,
) -> Result<(), cluster::Error> {
    if !report.changed {
        return Ok(());
    }
    let database = postgres.database();
    // Only what is ours, and the conditions as a whole, guarded by the version that they were
    // read from. What is forgotten here would be found missing, and written again, at every pass.
    let PostgresStatus { phase, observed_generation, server_version, conditions, other: _ } =
        &report.status;
    let patch = json!({
        "metadata": {"resourceVersion": postgres.metadata.resource_version},
        "status": {
            "phase": phase,
            "observedGeneration": observed_generation,
            "serverVersion": server_version,
            "conditions": conditions,
        },
    });
    cluster.merge_status::<Postgres>(&database.namespace, &database.name, &patch).await?;
    for event in &report.events {
        let kind = if event.warning { EventKind::Warning } else { EventKind::Normal };
        cluster.event(postgres, kind, &event.reason, &event.note).await;
    }
    Ok(())
}

/// Takes one step of a deletion. True: there is nothing more to do.
///
/// # Errors
/// The API server's; the next pass takes the step again.
pub async fn remove(
    postgres: &Postgres,
    step: &Removal,
    seen: &Seen,
    cluster: &Cluster,
) -> Result<bool, cluster::Error> {
    let owner = &seen.owner;
    let (namespace, names) = (&owner.database.namespace, &owner.names);
    match step {
        Removal::Hold(_) | Removal::Await(_) => Ok(false),
        Removal::Done => Ok(true),
        Removal::Stop => {
            stop(seen.kind, namespace, &names.database, cluster).await?;
            Ok(false)
        }
        Removal::Unclaim(claims) => {
            for claim in claims {
                cluster.delete::<PersistentVolumeClaim>(namespace, claim, None).await?;
            }
            Ok(false)
        }
        Removal::Sweep { secrets } => {
            sweep(owner, seen.kind, cluster).await?;
            if *secrets {
                sweep_secrets(postgres, owner, cluster).await?;
            }
            let held = postgres.metadata.finalizers.iter().flatten().map(String::as_str);
            let others: Vec<&str> = held.filter(|held| *held != finalizers::POSTGRES).collect();
            // The last step: with it the object goes, and all that still refers to it.
            put_finalizers(postgres, &others, cluster).await?;
            Ok(true)
        }
    }
}

/// Tells the workload to have no nodes; one that is gone has none.
async fn stop(
    kind: WorkloadKind,
    namespace: &str,
    name: &str,
    cluster: &Cluster,
) -> Result<(), cluster::Error> {
    let none = json!({"spec": {"replicas": 0}});
    let stopped = match kind {
        WorkloadKind::StatefulSet => {
            cluster.merge::<StatefulSet>(namespace, name, &none).await.map(drop)
        }
        WorkloadKind::PetSet => cluster.merge::<PetSet>(namespace, name, &none).await.map(drop),
    };
    match stopped {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

/// What was made and holds nothing. The garbage collector would take it too; a new database of
/// the same name should not have to wait for that.
async fn sweep(owner: &Owner, kind: WorkloadKind, cluster: &Cluster) -> Result<(), cluster::Error> {
    let (namespace, names) = (&owner.database.namespace, &owner.names);
    let name = &names.database;
    match kind {
        WorkloadKind::StatefulSet => cluster.delete::<StatefulSet>(namespace, name, None).await?,
        WorkloadKind::PetSet => cluster.delete::<PetSet>(namespace, name, None).await?,
    }
    cluster.delete::<PodDisruptionBudget>(namespace, name, None).await?;
    for service in [name, &names.standby_service, &names.pods_service] {
        cluster.delete::<Service>(namespace, service, None).await?;
    }
    cluster.delete::<ServiceAccount>(namespace, name, None).await?;
    let ours = [
        &names.operator_config,
        &names.previous_config,
        &names.instance_certificate,
        &names.client_certificate,
    ];
    for secret in ours {
        cluster.delete::<Secret>(namespace, secret, None).await?;
    }
    Ok(())
}

async fn sweep_secrets(
    postgres: &Postgres,
    owner: &Owner,
    cluster: &Cluster,
) -> Result<(), cluster::Error> {
    let namespace = &owner.database.namespace;
    let auth = postgres.spec.auth_secret.as_ref();
    if auth.and_then(|auth| auth.externally_managed) != Some(true) {
        cluster.delete::<Secret>(namespace, &owner.names.auth, None).await?;
    }
    let selector = format!("{}={}", labels::RENDERED_FOR, owner.database.name);
    for secret in cluster.list::<Secret>(Some(namespace), &selector).await? {
        let name = secret.metadata.name.unwrap_or_default();
        cluster.delete::<Secret>(namespace, &name, None).await?;
    }
    Ok(())
}
