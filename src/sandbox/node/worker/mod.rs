//! Carries one pod: from bound to running to ended.
//!
//! A loop of look (newest pod, news of its containers) → decide (`lifecycle`) → do one thing
//! (`start`, `stop`) → tell (`report`). One worker per pod, so nothing about a pod happens twice
//! at once. Leaves which pods there are to the agent.

mod prepare;
mod report;
mod start;
mod stop;
mod watcher;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::Shared;
use super::lifecycle::{self, Ended, Next, Phase, RestartPolicy, Role, State};
use super::probe;
use super::process::{Exit, Launch, Process};
use super::volumes::{References, references};

/// First and longest wait between two attempts to make a pod's volumes ready.
const PREPARE_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Wait before an image, a configuration or a volume that could not be had is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// News waiting for the loop: a few containers with three probes each never fill it.
const NEWS: usize = 64;

/// What the agent tells a worker.
#[derive(Clone)]
pub struct Input {
    /// The pod as last seen.
    pub pod: Arc<Pod>,
    /// It is no longer there.
    pub gone: bool,
    /// The sandbox ends: stop the containers, leave the object.
    pub shutdown: bool,
    /// Raised when something that the pod refers to has changed.
    pub changes: u64,
}

/// What a container's tasks tell the worker.
enum News {
    Ended { index: usize, run: u64, exit: Exit },
    Probed { index: usize, run: u64, kind: probe::Kind, verdict: bool },
    HookFailed { index: usize, run: u64, words: String },
}

/// A container that runs.
struct Running {
    run: u64,
    process: Process,
    since: Instant,
    started: Timestamp,
    launch: Launch,
    _probes: AbortOnDropHandle<()>,
    /// It has been asked to stop.
    stopping: bool,
    /// When it is killed if it has not.
    kill_at: Option<Instant>,
}

/// Local folders of the pod, once they are made.
struct Prepared {
    address: Ipv4Addr,
    folders: BTreeMap<String, std::path::PathBuf>,
}

/// How a worker's life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The pod is gone from the API server or was removed by us.
    Removed,
    /// The sandbox is shutting down.
    Shutdown,
}

pub(super) struct Worker {
    shared: Arc<Shared>,
    input: watch::Receiver<Input>,
    pod: Arc<Pod>,
    specs: Vec<Container>,
    states: Vec<State>,
    running: BTreeMap<usize, Running>,
    wanted: References,
    prepared: Option<Prepared>,
    prepare_wait: Duration,
    started: Timestamp,
    posted: Option<PodStatus>,
    changes: u64,
    /// When a change of what the pod refers to reaches its volumes.
    refresh_at: Option<Instant>,
    /// Uids of its claims, by name.
    claims: BTreeMap<String, String>,
    tell: mpsc::Sender<News>,
    news: mpsc::Receiver<News>,
}

/// Runs the pod to its end.
pub async fn run(shared: Arc<Shared>, input: watch::Receiver<Input>) -> End {
    let mut worker = Worker::new(shared, input);
    let end = worker.work().await;
    worker.forget(end).await;
    end
}

impl Worker {
    fn new(shared: Arc<Shared>, input: watch::Receiver<Input>) -> Self {
        let first = input.borrow().clone();
        let pod = first.pod;
        let (specs, states) = containers(&pod);
        let (tell, news) = mpsc::channel(NEWS);
        Self {
            wanted: references(&pod),
            shared,
            input,
            pod,
            specs,
            states,
            running: BTreeMap::new(),
            prepared: None,
            prepare_wait: PREPARE_AGAIN.0,
            started: Timestamp::now(),
            posted: None,
            changes: first.changes,
            refresh_at: None,
            claims: BTreeMap::new(),
            tell,
            news,
        }
    }

    async fn work(&mut self) -> End {
        loop {
            let input = self.input.borrow_and_update().clone();
            self.pod = input.pod;
            if input.gone {
                self.stop(true).await;
                return End::Removed;
            }
            if input.shutdown {
                self.stop(false).await;
                return End::Shutdown;
            }
            let mut wake = None;
            if self.prepared.is_none() && !self.is_ending() && !self.is_over() {
                if let Err(error) = self.prepare().await {
                    let words = format!("{error:#}");
                    self.shared.events.warning(&self.pod, None, "FailedMount", &words);
                    wake = Some(Instant::now() + self.prepare_wait);
                    self.prepare_wait = (self.prepare_wait * 2).min(PREPARE_AGAIN.1);
                }
            } else if input.changes != self.changes {
                wake = self.refresh(input.changes).await;
            }
            if self.prepared.is_some() || self.is_ending() || self.is_over() {
                match lifecycle::next(self.policy(), self.is_ending(), &self.states, Instant::now())
                {
                    Next::Start(starts, later) => {
                        wake = earliest(wake, later);
                        if !starts.is_empty() {
                            self.start_all(&starts).await;
                            let _ = self.report().await;
                            continue;
                        }
                    }
                    Next::Stop => {
                        let _ = self.report().await;
                        self.stop(false).await;
                        continue;
                    }
                    Next::Done if self.is_ending() => {
                        let _ = self.report().await;
                        self.remove().await;
                        wake = Some(Instant::now() + PREPARE_AGAIN.1);
                    }
                    Next::Done => {}
                }
            }
            wake = earliest(wake, self.kill_overdue().await);
            wake = earliest(wake, self.report().await);
            self.pause(wake).await;
        }
    }

    /// Waits for the next thing to look at.
    async fn pause(&mut self, wake: Option<Instant>) {
        let timer = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.input.changed() => {
                if changed.is_err() {
                    // The agent is gone without a word; that is a shutdown.
                    std::future::pending::<()>().await;
                }
            }
            Some(news) = self.news.recv() => self.take(news).await,
            () = timer => {}
        }
        while let Ok(news) = self.news.try_recv() {
            self.take(news).await;
        }
    }

    async fn take(&mut self, news: News) {
        match news {
            News::Ended { index, run, exit } => self.ended(index, run, exit),
            News::Probed { index, run, kind, verdict } => {
                self.probed(index, run, kind, verdict).await;
            }
            News::HookFailed { index, run, words } => {
                self.warn(index, "FailedPostStartHook", &words);
                self.kill_for(index, run, "FailedPostStartHook").await;
            }
        }
    }

    fn ended(&mut self, index: usize, run: u64, exit: Exit) {
        if self.running.get(&index).is_none_or(|r| r.run != run) {
            return;
        }
        let Some(was) = self.running.remove(&index) else { return };
        let Some(state) = self.states.get_mut(index) else { return };
        let (exit_code, signal, message) = match exit {
            Exit::Code(code) => (code, None, None),
            Exit::Signal(signal) => (128 + signal, Some(signal), None),
            Exit::Lost => (137, None, Some("its first process was killed from outside".to_owned())),
        };
        let ended = Ended {
            exit_code,
            signal,
            reason: if exit_code == 0 { "Completed" } else { "Error" }.to_owned(),
            message,
            started: Some(was.started),
            finished: Timestamp::now(),
            id: state.id.clone(),
        };
        let ran_for = was.since.elapsed();
        state.end(ended, ran_for, Instant::now());
        let (role, wait) = (state.role, state.not_before);
        let again = lifecycle::runs_again(role, self.policy(), exit_code);
        if again && !self.is_ending() && wait.is_some_and(|at| at > Instant::now()) {
            let name = self.specs.get(index).map_or("", |c| c.name.as_str());
            let words = format!("Back-off restarting failed container {name}");
            self.warn(index, "BackOff", &words);
        }
    }

    async fn probed(&mut self, index: usize, run: u64, kind: probe::Kind, verdict: bool) {
        if self.running.get(&index).is_none_or(|r| r.run != run) {
            return;
        }
        let Some(state) = self.states.get_mut(index) else { return };
        match kind {
            probe::Kind::Readiness => state.ready = verdict && state.started,
            probe::Kind::Startup if verdict => {
                state.started = true;
                let waits = self.specs.get(index).is_some_and(|c| c.readiness_probe.is_some());
                state.ready = !waits;
            }
            probe::Kind::Liveness if verdict => {}
            probe::Kind::Startup | probe::Kind::Liveness => {
                self.kill_for(index, run, kind.word()).await;
            }
        }
    }

    fn warn(&self, index: usize, reason: &str, words: &str) {
        let name = self.specs.get(index).map(|c| c.name.as_str());
        self.shared.events.warning(&self.pod, name, reason, words);
    }

    fn policy(&self) -> RestartPolicy {
        let policy = self.pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
        RestartPolicy::parse(policy)
    }

    fn is_ending(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    /// The pod has ended for good in an earlier look; such a pod is never run again.
    fn is_over(&self) -> bool {
        self.running.is_empty()
            && matches!(lifecycle::pod_phase(self.policy(), &self.states), "Succeeded" | "Failed")
    }

    fn key(&self) -> String {
        super::key(&self.pod)
    }

    /// The pod's own folder.
    fn folder(&self) -> std::path::PathBuf {
        let uid = self.pod.metadata.uid.as_deref().unwrap_or("none");
        self.shared.folders.pods.join(uid.get(..8).unwrap_or(uid))
    }
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// The pod's containers, init containers first, in the state that an earlier run of the node left
/// them in: what ran then counts as ended, since the node went away under it.
fn containers(pod: &Pod) -> (Vec<Container>, Vec<State>) {
    let Some(spec) = &pod.spec else { return (Vec::new(), Vec::new()) };
    let policy = RestartPolicy::parse(spec.restart_policy.as_deref());
    let status = pod.status.as_ref();
    let statuses: Vec<&ContainerStatus> = status
        .into_iter()
        .flat_map(|s| s.init_container_statuses.iter().chain(&s.container_statuses))
        .flatten()
        .collect();
    let inits = spec.init_containers.iter().flatten().map(|c| {
        let sidecar = c.restart_policy.as_deref() == Some("Always");
        (c, if sidecar { Role::Sidecar } else { Role::Init })
    });
    let mains = spec.containers.iter().map(|c| (c, Role::Main));
    let over = matches!(status.and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
    let mut specs = Vec::new();
    let mut states = Vec::new();
    for (container, role) in inits.chain(mains) {
        let mut state = State::new(&container.name, container.image.as_deref().unwrap_or(""), role);
        if let Some(status) = statuses.iter().find(|s| s.name == container.name) {
            take_up(&mut state, status, policy, over);
        }
        specs.push(container.clone());
        states.push(state);
    }
    (specs, states)
}

fn take_up(state: &mut State, status: &ContainerStatus, policy: RestartPolicy, over: bool) {
    let Some(before) = status.state.as_ref() else { return };
    let ended = if let Some(t) = &before.terminated {
        Ended {
            exit_code: t.exit_code,
            signal: t.signal,
            reason: t.reason.clone().unwrap_or_default(),
            message: t.message.clone(),
            started: t.started_at.as_ref().map(|at| at.0),
            finished: t.finished_at.as_ref().map_or_else(Timestamp::now, |at| at.0),
            id: status.container_id.clone().unwrap_or_default(),
        }
    } else if let Some(running) = &before.running {
        Ended {
            exit_code: 255,
            signal: None,
            reason: "Unknown".to_owned(),
            message: Some("the sandbox ended".to_owned()),
            started: running.started_at.as_ref().map(|at| at.0),
            finished: Timestamp::now(),
            id: status.container_id.clone().unwrap_or_default(),
        }
    } else {
        state.restarts = status.restart_count;
        return;
    };
    if over
        || !lifecycle::runs_again(state.role, policy, ended.exit_code) && state.role == Role::Main
    {
        state.id.clone_from(&ended.id);
        state.restarts = status.restart_count;
        state.phase = Phase::Ended(ended);
    } else {
        state.restarts = status.restart_count + i32::from(state.role != Role::Init);
        state.last = Some(ended);
    }
}
