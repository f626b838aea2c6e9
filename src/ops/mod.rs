//! Requests → servers: carries one database from what it runs to what its request asks for.
//!
//! ```text
//! PostgresOpsRequest ─▶ admit ─▶ dry run ─▶ pause ─▶ keep ─▶ write ─▶ load ─▶ restart ─▶ prove
//!                         queue                      resume ◀─┴───── roll back ◀──────────┘
//! ```
//! `reconcile` loops: observe → [`rollout::next`] (pure) → act, one step at a time, and begins anew
//! at every look. Pure files think, the three edges touch:
//!
//! | file | question |
//! |---|---|
//! | [`queue`], [`admit`] | which request, and may it? |
//! | [`configuration`] | what does it make of the custom configuration? |
//! | [`rollout`] | what comes next? |
//! | [`node_file`], [`hot_standby`] | which file may a node have now, whose turn is it? |
//! | [`proof`], [`status`] | was it found, how is it said? |
//! | [`journal`], [`seen`], [`step`] | the values these speak in |
//!
//! Invariants: a finalizer stands before the first effect; only our own pause is ever lifted; a
//! value that needs a restart reaches a disk at its node's turn; nobody is stopped while another
//! is not well; nothing is done to what is not known.

pub mod admit;
pub mod configuration;
pub mod hot_standby;
pub mod journal;
pub mod node_file;
pub mod proof;
pub mod queue;
pub mod rollout;
pub mod seen;
pub mod status;
pub mod step;

pub mod act;
pub mod observe;
pub mod reconcile;

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use crate::api::{Postgres, PostgresOpsRequest};
use crate::cluster::{Cluster, Leadership, Watched};
use crate::telemetry::Metrics;

pub use reconcile::run;

/// Everything that a pass needs.
pub struct Context {
    /// The API server.
    pub cluster: Cluster,
    /// All databases.
    pub postgreses: Arc<Watched<Postgres>>,
    /// All requests.
    pub requests: Arc<Watched<PostgresOpsRequest>>,
    /// Whether we may act, and the number that fences our calls to instances.
    pub leadership: Leadership,
    /// The time.
    pub clock: fn() -> Timestamp,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Connections to instances, kept between steps.
    pub instances: observe::Instances,
    /// Databases that a pass is working on.
    pub at_work: reconcile::AtWork,
}

impl Context {
    /// With nothing remembered yet.
    pub fn new(
        cluster: Cluster,
        postgreses: Arc<Watched<Postgres>>,
        requests: Arc<Watched<PostgresOpsRequest>>,
        leadership: Leadership,
        clock: fn() -> Timestamp,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (instances, at_work) = Default::default();
        Self { cluster, postgreses, requests, leadership, clock, metrics, instances, at_work }
    }
}
