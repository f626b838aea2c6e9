//! A `Postgres` object → its children, and the roles of its nodes.
//!
//! `observe` reads, `act` writes, `reconcile` is the table of contents; every other file is pure:
//! [`blueprint`] resolves a spec, [`children`] builds the objects, [`roles`] says who leads and who
//! follows, [`wanted`] what a pass writes, [`status`] what people read, [`deletion`] what goes.
//! Leaves `spec.configuration` and the operator's config Secret to `ops` once they are made, and
//! who is elected after a crash to people: there is no failover.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;

use crate::api::Postgres;
use crate::cluster::{Cluster, Leadership, Watched};
use crate::telemetry::Metrics;

pub mod act;
pub mod blueprint;
pub mod children;
pub mod deletion;
pub mod members;
pub mod observe;
pub mod reconcile;
pub mod roles;
mod same;
#[cfg(test)]
mod sample;
pub mod status;
pub mod wanted;

pub use blueprint::Options;
pub use reconcile::run;

use observe::workloads::Workloads;

/// Selects what belongs to any `Postgres`: for the watches of children and pods.
pub const SELECTOR: &str = "app.kubernetes.io/name=postgreses.kubedb.com";

/// Everything that a pass needs.
pub struct Context {
    /// The API server.
    pub cluster: Cluster,
    /// All databases.
    pub postgreses: Arc<Watched<Postgres>>,
    /// Their pods, selected by [`SELECTOR`].
    pub pods: Arc<Watched<Pod>>,
    /// Their other children.
    pub stores: Stores,
    /// Whether we may act.
    pub leadership: Leadership,
    /// The time.
    pub clock: fn() -> Timestamp,
    /// What the operator decides for all databases.
    pub options: Options,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is remembered between passes.
    pub memory: observe::memory::Memory,
}

/// The children that are watched. Secrets are not: they are read when they are needed.
pub struct Stores {
    /// What runs the nodes.
    pub workloads: Workloads,
    /// Services.
    pub services: Arc<Watched<Service>>,
    /// ServiceAccounts.
    pub accounts: Arc<Watched<ServiceAccount>>,
    /// PodDisruptionBudgets.
    pub budgets: Arc<Watched<PodDisruptionBudget>>,
}

impl Stores {
    /// Begins to watch, as soon as the API server says what it serves.
    pub async fn start(cluster: &Cluster) -> Self {
        Self {
            workloads: Workloads::start(cluster).await,
            services: Watched::start(cluster, Some(SELECTOR)),
            accounts: Watched::start(cluster, Some(SELECTOR)),
            budgets: Watched::start(cluster, Some(SELECTOR)),
        }
    }
}

impl Context {
    /// A context around watches that others may use too; waits for an API server that is away.
    pub async fn new(
        cluster: Cluster,
        postgreses: Arc<Watched<Postgres>>,
        pods: Arc<Watched<Pod>>,
        leadership: Leadership,
        options: Options,
        metrics: Arc<Metrics>,
    ) -> Self {
        let stores = Stores::start(&cluster).await;
        let (clock, memory) = (Timestamp::now as fn() -> Timestamp, Default::default());
        Self { cluster, postgreses, pods, stores, leadership, clock, options, metrics, memory }
    }

    /// Waits until every watch has its first list.
    pub async fn ready(&self) {
        let Stores { workloads, services, accounts, budgets } = &self.stores;
        tokio::join!(
            self.postgreses.ready(),
            self.pods.ready(),
            workloads.ready(),
            services.ready(),
            accounts.ready(),
            budgets.ready(),
        );
    }
}
