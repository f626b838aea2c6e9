//! Stopping containers, and taking leave of a pod.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use tokio::time::Instant;

use super::super::environment;
use super::super::observe::within;
use super::super::process::{Launch, run_to_end};
use super::{End, Worker};

/// Grace of a pod that names none, as in Kubernetes.
const GRACE: u64 = 30;

/// Grace of a pod that was removed without asking us.
const GONE_GRACE: Duration = Duration::from_secs(2);

/// Longest grace while the sandbox itself ends: somebody waits at a terminal.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(20);

/// After SIGKILL, a process is gone within this time or never.
const KILL_LIMIT: Duration = Duration::from_secs(10);

impl Worker {
    /// Stops all containers, sidecars last, and returns when nothing runs. A shorter grace that
    /// comes in meanwhile is obeyed.
    pub(super) async fn stop(&mut self, gone: bool) {
        let begun = Instant::now();
        let mains: Vec<usize> = self.of_role(true);
        let sidecars: Vec<usize> = self.of_role(false);
        for group in [mains, sidecars] {
            for index in &group {
                self.ask_to_stop(*index, "Stopping container").await;
            }
            while group.iter().any(|index| self.running.contains_key(index)) {
                let deadline = begun + self.grace(gone);
                if Instant::now() >= deadline {
                    self.kill(&group).await;
                    break;
                }
                self.pause(Some(deadline)).await;
                let input = self.input.borrow_and_update().clone();
                self.pod = input.pod;
                if input.gone && !gone {
                    self.kill(&group).await;
                    break;
                }
            }
        }
    }

    fn of_role(&self, main: bool) -> Vec<usize> {
        let is_main =
            |index: &&usize| self.states.get(**index).is_some_and(|s| s.role == super::Role::Main);
        self.running.keys().filter(|index| is_main(index) == main).copied().collect()
    }

    fn grace(&self, gone: bool) -> Duration {
        if gone {
            return GONE_GRACE;
        }
        let spec = self.pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
        let seconds = self.pod.metadata.deletion_grace_period_seconds.or(spec);
        let seconds = seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(GRACE);
        let grace = Duration::from_secs(seconds);
        if self.input.borrow().shutdown { grace.min(SHUTDOWN_GRACE) } else { grace }
    }

    /// Runs the hook and sends the stop signal.
    async fn ask_to_stop(&mut self, index: usize, why: &str) {
        let Some(container) = self.specs.get(index).cloned() else { return };
        if self.running.get(&index).is_none_or(|r| r.stopping) {
            return;
        }
        let words = format!("{why} {}", container.name);
        self.shared.events.normal(&self.pod, Some(&container.name), "Killing", &words);
        let hook = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
        let limit = self.grace(false);
        if let Some(sleep) = hook.and_then(|h| h.sleep.as_ref()) {
            let seconds = u64::try_from(sleep.seconds).unwrap_or(0);
            tokio::time::sleep(Duration::from_secs(seconds).min(limit)).await;
        }
        if let Some(exec) = hook.and_then(|h| h.exec.as_ref())
            && let Some(launch) = self.running.get(&index).map(|r| r.launch.clone())
        {
            let command = expanded(exec.command.as_deref().unwrap_or_default(), &launch);
            if let Err(words) = run_to_end(&launch, &command, limit).await {
                self.warn(index, "FailedPreStopHook", &words);
            }
        }
        let signal = container.lifecycle.as_ref().and_then(|l| l.stop_signal.clone());
        if let Some(running) = self.running.get_mut(&index) {
            running.stopping = true;
            running.process.signal(signal.as_deref().unwrap_or("SIGTERM")).await;
        }
    }

    async fn kill(&mut self, group: &[usize]) {
        for index in group {
            if let Some(running) = self.running.get_mut(index) {
                running.process.kill().await;
            }
        }
        let deadline = Instant::now() + KILL_LIMIT;
        while group.iter().any(|index| self.running.contains_key(index))
            && Instant::now() < deadline
        {
            self.pause_for_news(deadline).await;
        }
    }

    /// As `pause`, but deaf to the API server.
    async fn pause_for_news(&mut self, until: Instant) {
        if let Ok(Some(news)) = tokio::time::timeout_at(until, self.news.recv()).await {
            self.take(news).await;
        }
    }

    /// Ends one container because of a probe or a hook; the policy starts it again.
    pub(super) async fn kill_for(&mut self, index: usize, run: u64, why: &str) {
        let Some(running) = self.running.get(&index).filter(|r| r.run == run && !r.stopping) else {
            return;
        };
        let pid = running.process.pid;
        tracing::info!(pod = self.key(), pid, why, "a container is restarted");
        let said = format!("Container failed its {} check and is restarted:", why.to_lowercase());
        self.ask_to_stop(index, &said).await;
        let deadline = Instant::now() + self.grace(false);
        if let Some(running) = self.running.get_mut(&index) {
            running.kill_at = Some(deadline);
        }
    }

    /// Kills what was asked to stop and did not; returns when to look again.
    pub(super) async fn kill_overdue(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut next = None;
        for running in self.running.values_mut() {
            match running.kill_at {
                Some(at) if at <= now => {
                    running.kill_at = None;
                    running.process.kill().await;
                }
                Some(at) => next = super::earliest(next, Some(at)),
                None => {}
            }
        }
        next
    }

    /// Removes the pod object for good, if it is still the one that we ran.
    pub(super) async fn remove(&mut self) {
        let (namespace, name) = super::super::names(&self.pod);
        let pods: Api<Pod> = Api::namespaced(self.shared.client.clone(), namespace);
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: self.pod.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        if let Err(error) = within("removing a pod", pods.delete(name, &parameters)).await {
            tracing::debug!(pod = self.key(), "{error:#}");
        }
    }

    /// Cleans up after the pod.
    pub(super) async fn forget(&mut self, end: End) {
        self.shared.release_address(&self.key());
        if end == End::Removed {
            let folder = self.folder();
            let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(folder));
            let _ = removed.await;
        }
    }
}

fn expanded(command: &[String], launch: &Launch) -> Vec<String> {
    let rewrite = |word: &String| environment::expand(&launch.paths.rewrite(word), &launch.env);
    command.iter().map(rewrite).collect()
}
