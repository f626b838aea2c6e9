//! Metrics: totals and durations, by reasons from closed lists.
//!
//! Label values are fixed words, never free text: a label of unbounded variety fills a server.

use std::sync::Mutex;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Which loop, and how a pass ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Pass {
    /// `sync`, `ops` or `provision`.
    pub controller: &'static str,
    /// `done` or `failed`.
    pub result: &'static str,
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

impl Default for Metrics {
    fn default() -> Self {
        let passes = Family::<Pass, Counter>::default();
        let held = Family::<HeldBy, Gauge>::default();
        let requests = Family::<Ended, Counter>::default();
        let commit_to_proven = Histogram::new(BOUNDS);
        let rollout = Histogram::new(BOUNDS);
        let leading = Gauge::default();
        let mut registry = Registry::with_prefix("pgitops");
        registry.register("reconcile", "Passes of the loops", passes.clone());
        registry.register("held_databases", "Databases held, by reason", held.clone());
        let help = "Requests of sync that ended, by phase";
        registry.register("requests_ended", help, requests.clone());
        let help = "Seconds from the committer's time to the proof on all nodes, by database";
        registry.register("commit_to_proven_seconds", help, commit_to_proven.clone());
        let help = "Seconds that a request of sync took, successful or failed";
        registry.register("rollout_seconds", help, rollout.clone());
        registry.register("leading", "Whether this process leads", leading.clone());
        let registry = Mutex::new(registry);
        Self { registry, passes, held, requests, commit_to_proven, rollout, leading }
    }
}

impl Metrics {
    /// The text that Prometheus reads (OpenMetrics 1.0).
    pub fn render(&self) -> String {
        let mut text = String::new();
        let registry = match self.registry.lock() {
            Ok(registry) => registry,
            // Nothing here can be left half-written by a panic: it is only read.
            Err(poisoned) => poisoned.into_inner(),
        };
        match encode(&mut text, &registry) {
            Ok(()) => text,
            // Writing to a String does not fail; an empty page would be a silent lie.
            Err(error) => format!("# metrics could not be rendered: {error}\n# EOF\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_documentation() {
        let metrics = Metrics::default();
        metrics.passes.get_or_create(&Pass { controller: "sync", result: "done" }).inc();
        let text = metrics.render();
        assert!(
            text.contains("pgitops_reconcile_total{controller=\"sync\",result=\"done\"} 1"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"));
    }
}
