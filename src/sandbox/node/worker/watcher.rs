//! Hooks and probes of one running container.
//!
//! Tells the worker what they say. Leaves acting upon it to the worker, which drops the watcher
//! when the container ends.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::environment;
use super::super::events::Events;
use super::super::probe::{self, Gauge, Kind};
use super::super::process::{Launch, run_to_end};
use super::News;

/// Longest time of the hook, which has none of its own in the API.
const HOOK_LIMIT: Duration = Duration::from_secs(30);

/// Runs a container's hook and probes for as long as it lives.
pub(super) struct Watcher {
    pub(super) index: usize,
    pub(super) run: u64,
    pub(super) container: Container,
    pub(super) address: Ipv4Addr,
    pub(super) launch: Launch,
    pub(super) tell: mpsc::Sender<News>,
    pub(super) events: Events,
    pub(super) pod: Arc<Pod>,
}

impl Watcher {
    /// Watches for as long as it is not dropped.
    pub(super) async fn watch(mut self) {
        self.rewrite_commands();
        if let Some(words) = self.post_start().await.err() {
            let (index, run) = (self.index, self.run);
            let _ = self.tell.send(News::HookFailed { index, run, words }).await;
            return;
        }
        if self.container.startup_probe.is_some() && !self.until_started().await {
            return;
        }
        tokio::join!(self.repeat(Kind::Readiness), self.repeat(Kind::Liveness));
    }

    /// Probes and hooks name mount paths too.
    fn rewrite_commands(&mut self) {
        let paths = &self.launch.paths;
        let rewrite = |command: &mut Option<Vec<String>>| {
            for word in command.iter_mut().flatten() {
                *word = environment::expand(&paths.rewrite(word), &self.launch.env);
            }
        };
        let container = &mut self.container;
        for probe in [
            &mut container.startup_probe,
            &mut container.readiness_probe,
            &mut container.liveness_probe,
        ] {
            if let Some(exec) = probe.as_mut().and_then(|p| p.exec.as_mut()) {
                rewrite(&mut exec.command);
            }
        }
        let hook = container.lifecycle.as_mut().and_then(|l| l.post_start.as_mut());
        if let Some(exec) = hook.and_then(|h| h.exec.as_mut()) {
            rewrite(&mut exec.command);
        }
    }

    async fn post_start(&self) -> Result<(), String> {
        let hook = self.container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
        let Some(exec) = hook.and_then(|h| h.exec.as_ref()) else { return Ok(()) };
        run_to_end(&self.launch, exec.command.as_deref().unwrap_or_default(), HOOK_LIMIT).await
    }

    async fn until_started(&self) -> bool {
        self.series(Kind::Startup).await == Some(true)
    }

    async fn repeat(&self, kind: Kind) {
        if kind.of(&self.container).is_some() {
            self.series(kind).await;
        }
    }

    /// Probes until the container is gone (the task is dropped) or, at startup, has started.
    /// Right after the start and until the first success the steps are short, and failures of
    /// such extra attempts count for nothing.
    async fn series(&self, kind: Kind) -> Option<bool> {
        let probe = kind.of(&self.container)?;
        let period = probe::period(probe);
        let mut gauge = Gauge::new(probe);
        let mut quick = probe::QUICK_STEP;
        let mut next_counted = Instant::now() + probe::initial_delay(probe);
        tokio::time::sleep_until(next_counted).await;
        loop {
            let counted = Instant::now() >= next_counted;
            if counted {
                next_counted += period;
            }
            let result = probe::attempt(probe, &self.container, self.address, &self.launch).await;
            if result.is_ok() {
                quick = period;
            }
            if let Err(words) = &result
                && counted
            {
                let words = format!("{} probe failed: {words}", kind.word());
                let name = Some(self.container.name.as_str());
                self.events.warning(&self.pod, name, "Unhealthy", &words);
            }
            let changed =
                if counted || result.is_ok() { gauge.observe(result.is_ok()) } else { None };
            if let Some(verdict) = changed {
                let (index, run) = (self.index, self.run);
                let _ = self.tell.send(News::Probed { index, run, kind, verdict }).await;
                if kind == Kind::Startup {
                    return Some(verdict);
                }
            }
            let now = Instant::now();
            next_counted = next_counted.max(now);
            let next = if quick < period { next_counted.min(now + quick) } else { next_counted };
            quick = (quick * 2).min(period);
            tokio::time::sleep_until(next).await;
        }
    }
}
