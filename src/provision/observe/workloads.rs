//! What runs the nodes, watched: StatefulSets, and PetSets where the cluster serves them.
//!
//! Asks the API server once, at the start, which kinds there are; a kind that is not served is
//! neither watched nor ever asked for. Leaves to `children::workload` what follows from that.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;

use crate::api::PetSet;
use crate::cluster::{Cluster, Watched};
use crate::provision::SELECTOR;
use crate::provision::children::workload::{Workload, WorkloadKind};

/// Pause before the API server is asked again which kinds it serves: it is away, or starting.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// The workloads of all databases.
pub struct Workloads {
    /// Kubernetes' own kind.
    pub stateful_sets: Arc<Watched<StatefulSet>>,
    /// KubeDB's kind; `None`: this cluster did not serve it when we began.
    pub pet_sets: Option<Arc<Watched<PetSet>>>,
}

impl Workloads {
    /// Begins to watch what is served. Waits as long as nobody says what that is: a guess could
    /// give a new database the other kind, and it would keep it.
    pub async fn start(cluster: &Cluster) -> Self {
        let served = loop {
            match cluster.serves::<PetSet>().await {
                Ok(served) => break served,
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, cause, "asking again; no database is looked after yet");
                    tokio::time::sleep(ASK_AGAIN).await;
                }
            }
        };
        Self {
            stateful_sets: Watched::start(cluster, Some(SELECTOR)),
            pet_sets: served.then(|| Watched::start(cluster, Some(SELECTOR))),
        }
    }

    /// Waits until every watch has its first list: before that, nobody knows which kind a
    /// database has.
    pub async fn ready(&self) {
        self.stateful_sets.ready().await;
        if let Some(pet_sets) = &self.pet_sets {
            pet_sets.ready().await;
        }
    }

    /// The kind that a database without a workload gets.
    pub fn served(&self) -> WorkloadKind {
        match &self.pet_sets {
            Some(_) => WorkloadKind::PetSet,
            None => WorkloadKind::StatefulSet,
        }
    }

    /// A database's workload. Of two, which nobody but a person makes, the StatefulSet.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Workload> {
        if let Some(set) = self.stateful_sets.get(namespace, name) {
            return Some(Workload::StatefulSet(Arc::unwrap_or_clone(set)));
        }
        let set = self.pet_sets.as_ref()?.get(namespace, name)?;
        Some(Workload::PetSet(Arc::unwrap_or_clone(set)))
    }
}
