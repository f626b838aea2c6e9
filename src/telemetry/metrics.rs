//! Metrics: totals and durations, by reasons from closed lists.
//!
//! Label values are fixed words, never free text: a label of unbounded variety fills a server.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::cluster::client::Calls;

/// Which loop, and how a pass ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Pass {
    /// `sync`, `ops` or `provision`.
    pub controller: &'static str,
    /// `done` or `failed`.
    pub result: &'static str,
}

/// Which loop.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Loop {
    /// `sync`, `ops` or `provision`.
    pub controller: &'static str,
}

/// What was asked of a git repository, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct GitRequest {
    /// `look` (the head, and what came with it when it moved) or `push` (notes).
    pub request: &'static str,
    /// `done` or `failed`.
    pub result: &'static str,
}

/// A request that `ops` brought to its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CarriedOut {
    /// `Reconfigure` or `Restart`.
    pub r#type: &'static str,
    /// The phase.
    pub phase: &'static str,
}

/// Why a database is held.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HeldBy {
    /// The metric label of the reason.
    pub reason: &'static str,
}

/// The phase in which a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Ended {
    /// The phase.
    pub phase: &'static str,
}

/// Everything that is counted.
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Passes of the loops.
    pub passes: Family<Pass, Counter>,
    /// Seconds that the passes took.
    pub pass_seconds: Family<Loop, Histogram>,
    /// Seconds that git took, the network included.
    pub git: Family<GitRequest, Histogram>,
    /// Requests that `ops` brought to their end, whoever made them.
    pub carried_out: Family<CarriedOut, Counter>,
    /// Seconds that a database was held, by reason, told when the reason ends.
    pub held_seconds: Family<HeldBy, Histogram>,
    /// Databases that are held, by reason.
    pub held: Family<HeldBy, Gauge>,
    /// Requests of `sync` that ended, by phase.
    pub requests: Family<Ended, Counter>,
    /// Seconds from a commit, by its committer's clock, to the proof on all nodes of one of its
    /// databases.
    pub commit_to_proven: Histogram,
    /// Seconds that the execution of a request of `sync` took.
    pub rollout: Histogram,
    /// Whether this process leads (1) or waits (0).
    pub leading: Gauge,
}

/// Bounds in seconds: from a reload (tens of milliseconds) to a slow rolling restart (minutes).
const BOUNDS: [f64; 12] = [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 1800.0];

/// Bounds in seconds of what may last for days.
const LONG: [f64; 8] = [1.0, 10.0, 60.0, 600.0, 3600.0, 21_600.0, 86_400.0, 604_800.0];

fn short() -> Histogram {
    Histogram::new(BOUNDS)
}

impl Default for Metrics {
    fn default() -> Self {
        let (pass_seconds, git) = (
            Family::<Loop, Histogram>::new_with_constructor(short),
            Family::<GitRequest, Histogram>::new_with_constructor(short),
        );
        let carried_out = Family::<CarriedOut, Counter>::default();
        let held_seconds =
            Family::<HeldBy, Histogram>::new_with_constructor(|| Histogram::new(LONG));
        let passes = Family::<Pass, Counter>::default();
        let held = Family::<HeldBy, Gauge>::default();
        let requests = Family::<Ended, Counter>::default();
        let commit_to_proven = Histogram::new(BOUNDS);
        let rollout = Histogram::new(BOUNDS);
        let leading = Gauge::default();
        let mut registry = Registry::with_prefix("pgitops");
        registry.register("reconcile", "Passes of the loops", passes.clone());
        let help = "Seconds that a pass of a loop took";
        registry.register("reconcile_duration_seconds", help, pass_seconds.clone());
        let help = "Seconds that a look at a repository or a push of notes took";
        registry.register("git_request_duration_seconds", help, git.clone());
        let help = "Requests brought to their end, whoever made them";
        registry.register("ops_requests", help, carried_out.clone());
        let help = "Seconds that a database was held, by reason, told when the reason ends";
        registry.register("held_seconds", help, held_seconds.clone());
        registry.register("held_databases", "Databases held, by reason", held.clone());
        let help = "Requests of sync that ended, by phase";
        registry.register("requests_ended", help, requests.clone());
        let help = "Seconds from the committer's time to the proof on all nodes, by database";
        registry.register("commit_to_proven_seconds", help, commit_to_proven.clone());
        let help = "Seconds that a request of sync took, successful or failed";
        registry.register("rollout_seconds", help, rollout.clone());
        registry.register("leading", "Whether this process leads", leading.clone());
        let registry = Mutex::new(registry);
        Self {
            registry,
            passes,
            pass_seconds,
            git,
            carried_out,
            held,
            held_seconds,
            requests,
            commit_to_proven,
            rollout,
            leading,
        }
    }
}

impl Metrics {
    /// With the calls to the API server that somebody else counts.
    #[must_use]
    pub fn with_calls(self, calls: Calls) -> Self {
        let help = "Calls to the Kubernetes API, watches and the lease left out";
        self.registry().register("kubernetes_requests", help, calls);
        self
    }

    /// Counts a pass of a loop.
    pub fn pass(&self, controller: &'static str, done: bool, took: Duration) {
        let result = if done { "done" } else { "failed" };
        self.passes.get_or_create(&Pass { controller, result }).inc();
        self.pass_seconds.get_or_create(&Loop { controller }).observe(took.as_secs_f64());
    }

    /// Counts what was asked of a git repository.
    pub fn git(&self, request: &'static str, done: bool, took: Duration) {
        let result = if done { "done" } else { "failed" };
        self.git.get_or_create(&GitRequest { request, result }).observe(took.as_secs_f64());
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        // Nothing here can be left half-written by a panic.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The text that Prometheus reads (OpenMetrics 1.0).
    pub fn render(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry()) {
            Ok(()) => text,
            // Writing to a String does not fail; an empty page would be a silent lie.
            Err(error) => format!("# metrics could not be rendered: {error}\n# EOF\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::client::Call;

    #[test]
    fn names_are_those_of_the_documentation() {
        let calls = Calls::default();
        calls.get_or_create(&Call { verb: "get", result: "done" }).inc();
        let metrics = Metrics::default().with_calls(calls);
        metrics.pass("sync", true, Duration::from_millis(30));
        metrics.git("look", false, Duration::from_millis(30));
        let text = metrics.render();
        for expected in [
            "pgitops_reconcile_total{controller=\"sync\",result=\"done\"} 1",
            "pgitops_reconcile_duration_seconds_count{controller=\"sync\"} 1",
            "pgitops_git_request_duration_seconds_count{request=\"look\",result=\"failed\"} 1",
            "pgitops_kubernetes_requests_total{verb=\"get\",result=\"done\"} 1",
        ] {
            assert!(text.lines().any(|line| line == expected), "{expected}: {text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
