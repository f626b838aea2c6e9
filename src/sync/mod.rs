//! git → requests → notes: one pass per `ConfigRepository`.
//!
//! | step | file |
//! |---|---|
//! | what a commit says | [`desired`], [`source`] |
//! | what lives | [`live`] |
//! | what differs | [`drift`] |
//! | what is done now, and who is held why | [`plan`], with [`window`] |
//! | what became of it | [`outcome`] |
//! | how that reads | [`note`], [`status`] |
//!
//! `observe` reads, `act` writes, [`reconcile`](mod@reconcile) is the table of contents; every
//! other file is pure. Leaves carrying requests out to `ops` or to KubeDB. Never touches a server,
//! and of a `Postgres` only its own annotation.

pub mod act;
pub mod desired;
pub mod drift;
pub mod live;
pub mod note;
pub mod observe;
pub mod outcome;
pub mod plan;
pub mod problem;
pub mod reconcile;
mod settled;
pub mod source;
pub mod status;
pub mod window;

pub use reconcile::run;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::core::PartialObjectMeta;
use tokio::sync::mpsc;

use crate::api::{ConfigRepository, Postgres, PostgresOpsRequest};
use crate::cluster::{Cluster, Leadership, Watched};
use crate::git::Mirrors;
use crate::telemetry::Metrics;

/// Everything that a pass needs.
pub struct Context {
    /// The API server.
    pub cluster: Cluster,
    /// The git repositories.
    pub mirrors: Mirrors,
    /// All `ConfigRepository` objects.
    pub repositories: Arc<Watched<ConfigRepository>>,
    /// All databases.
    pub databases: Arc<Watched<Postgres>>,
    /// All requests.
    pub requests: Arc<Watched<PostgresOpsRequest>>,
    /// Names and versions of all Secrets: their contents are read only when they are needed.
    pub secrets: Arc<Watched<PartialObjectMeta<Secret>>>,
    /// Whether we may act.
    pub leadership: Leadership,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: fn() -> Timestamp,
    /// What is remembered between passes; all of it can be lost.
    pub memory: observe::memory::Memory,
    /// What the servers said last; can be lost.
    pub servers: observe::servers::Servers,
    /// Where hints of local repositories come in.
    hints: reconcile::HintBox,
}

impl Context {
    /// A context that begins to watch the versions of Secrets.
    pub fn new(
        cluster: Cluster,
        mirrors: Mirrors,
        repositories: Arc<Watched<ConfigRepository>>,
        databases: Arc<Watched<Postgres>>,
        requests: Arc<Watched<PostgresOpsRequest>>,
        leadership: Leadership,
        metrics: Arc<Metrics>,
    ) -> Self {
        let secrets = Watched::start(&cluster, None);
        let (sender, receiver) = mpsc::channel(reconcile::HINTS);
        let hints = reconcile::HintBox::new(sender, receiver);
        let clock = Timestamp::now;
        let memory = observe::memory::Memory::default();
        Self {
            cluster,
            mirrors,
            repositories,
            databases,
            requests,
            secrets,
            leadership,
            metrics,
            clock,
            memory,
            servers: observe::servers::Servers::default(),
            hints,
        }
    }

    /// How often each watch has told of something; to be read before anything else is.
    pub(crate) fn told(&self) -> [u64; 4] {
        let Self { repositories, databases, requests, secrets, .. } = self;
        [repositories.told(), databases.told(), requests.told(), secrets.told()]
    }

    /// Waits until the first lists are in.
    pub async fn ready(&self) {
        tokio::join!(
            self.repositories.ready(),
            self.databases.ready(),
            self.requests.ready(),
            self.secrets.ready()
        );
    }
}
