//! The workload controllers of a small Kubernetes: StatefulSets, PetSets where they are served, and
//! the volumes they claim.
//!
//! Clients of any API server, like the real ones. `set` is what both kinds are, `stateful_set`
//! decides (pure) and this file carries out; `pet_set` defines KubeDB's kind, `claims` binds
//! volumes. Leaves running pods to the node.

mod claims;
pub mod pet_set;
mod set;
mod stateful_set;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::controller::{Action as Requeue, Controller};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::PetSet;
use crate::cluster::Cluster;
use set::Kind;
use stateful_set::{Action, Observed};

/// Deadline of one call.
const CALL: Duration = Duration::from_secs(10);

/// Wait after a failure: nearly always a conflict with somebody faster.
const AGAIN: Duration = Duration::from_millis(200);

/// Running controllers.
pub struct Workload {
    cancel: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Workload {
    /// Starts the controllers of all kinds that the API server serves now.
    ///
    /// # Errors
    /// The API server does not say what it serves.
    pub async fn start(client: Client) -> Result<Self> {
        let pet_sets = Cluster::new(client.clone()).serves::<PetSet>().await;
        let pet_sets = pet_sets.context("looking for workloads")?;
        let cancel = CancellationToken::new();
        let mut tasks = vec![
            tokio::spawn(run::<StatefulSet>(client.clone(), cancel.clone())),
            tokio::spawn(claims::run(client.clone(), cancel.clone())),
        ];
        if pet_sets {
            tasks.push(tokio::spawn(run::<PetSet>(client, cancel.clone())));
        }
        Ok(Self { cancel, tasks })
    }

    /// Starts only what binds claims: beside a controller manager, which has no storage to give.
    pub fn claims(client: Client) -> Self {
        let cancel = CancellationToken::new();
        let claims = tokio::spawn(claims::run(client, cancel.clone()));
        Self { cancel, tasks: vec![claims] }
    }

    /// Stops them; what they made stays.
    pub async fn shutdown(self) {
        self.cancel.cancel();
        for mut task in self.tasks {
            if tokio::time::timeout(CALL, &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}

/// An error of the controller, in the form that its runtime wants.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
struct Failed(anyhow::Error);

async fn run<K: Kind>(client: Client, cancel: CancellationToken) {
    let sets = Api::<K>::all(client.clone());
    let controller = Controller::new(sets, watcher::Config::default())
        .owns(Api::<Pod>::all(client.clone()), watcher::Config::default())
        .graceful_shutdown_on(async move { cancel.cancelled().await });
    let stream = controller.run(
        |set, client| async move { reconcile(set, client).await.map_err(Failed) },
        |set, error, _| {
            tracing::debug!(kind = %K::kind(&()), set = set.name_any(), "{error}");
            Requeue::requeue(AGAIN)
        },
        Arc::new(client),
    );
    stream.for_each(|_| std::future::ready(())).await;
}

async fn reconcile<K: Kind>(set: Arc<K>, client: Arc<Client>) -> Result<Requeue> {
    let Some(namespace) = set.namespace() else { return Ok(Requeue::await_change()) };
    if set.meta().deletion_timestamp.is_some() {
        return Ok(Requeue::await_change());
    }
    let seen = observe(&*set, &client, &namespace).await?;
    let decision = stateful_set::decide(&seen, Timestamp::now());
    for action in &decision.actions {
        act(action, &client, &namespace).await?;
    }
    if seen.set.status.as_ref() != Some(&decision.status) {
        let sets: Api<K> = Api::namespaced((*client).clone(), &namespace);
        let metadata = json!({"uid": set.meta().uid});
        let change = json!({"metadata": metadata, "status": decision.status});
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(&change));
        within(sets.patch_status(&set.name_any(), &parameters, &patch)).await?;
    }
    Ok(decision.again.map_or_else(Requeue::await_change, Requeue::requeue))
}

async fn within<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T> {
    Ok(tokio::time::timeout(CALL, call).await??)
}

/// Reads the set anew (the watch may be behind what was just written) and what belongs to it.
async fn observe<K: Kind>(set: &K, client: &Client, namespace: &str) -> Result<Observed> {
    let sets: Api<K> = Api::namespaced(client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let revisions: Api<ControllerRevision> = Api::namespaced(client.clone(), namespace);
    let everything = ListParams::default();
    let set = within(sets.get(&set.name_any())).await?.into_set();
    let ours = |owners: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference]| {
        owners
            .iter()
            .any(|o| o.controller == Some(true) && Some(&o.uid) == set.metadata.uid.as_ref())
    };
    let pods = within(pods.list(&everything)).await?.items;
    let claims = within(claims.list(&everything)).await?.items;
    let revisions = within(revisions.list(&everything)).await?.items;
    Ok(Observed {
        pods: pods.into_iter().map(|p| (p.name_any(), p)).collect::<BTreeMap<_, _>>(),
        claims: claims
            .iter()
            .map(|c| (c.name_any(), c.metadata.deletion_timestamp.is_some()))
            .collect(),
        revisions: revisions.into_iter().filter(|r| ours(r.owner_references())).collect(),
        set,
    })
}

async fn act(action: &Action, client: &Client, namespace: &str) -> Result<()> {
    let parameters = PostParams::default();
    match action {
        Action::CreateRevision(revision) => {
            let api: Api<ControllerRevision> = Api::namespaced(client.clone(), namespace);
            existing_is_fine(within(api.create(&parameters, revision)).await)
        }
        Action::CreateClaim(claim) => {
            let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
            existing_is_fine(within(api.create(&parameters, claim)).await)
        }
        Action::CreatePod(pod) => {
            let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
            tracing::info!(namespace, pod = pod.name_any(), "creating");
            existing_is_fine(within(api.create(&parameters, pod)).await)
        }
        Action::DeletePod { name, uid } => {
            let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
            let parameters = DeleteParams {
                preconditions: Some(Preconditions { uid: uid.clone(), resource_version: None }),
                ..DeleteParams::default()
            };
            tracing::info!(namespace, pod = name, "deleting");
            match within(api.delete(name, &parameters)).await {
                Err(error) if has_code(&error, 404) => Ok(()),
                other => other.map(drop),
            }
        }
    }
}

fn existing_is_fine<T>(result: Result<T>) -> Result<()> {
    match result {
        Err(error) if has_code(&error, 409) => Ok(()),
        other => other.map(drop),
    }
}

fn has_code(error: &anyhow::Error, code: u16) -> bool {
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => status.code == code,
        Some(_) | None => false,
    }
}
