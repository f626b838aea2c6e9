//! What a pod's containers do next.
//!
//! Pure: the states of the containers in, the next step out, by the kubelet's rules: init
//! containers one after the other, sidecars before the rest and restarted on their own, then all
//! others at once; restart policy and back-off; an ending pod is stopped and then done with.
//! Leaves every effect to `worker`.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// Wait before the second restart; the first one comes at once. A kubelet takes 10 s: a sandbox
/// is there to be watched.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);

/// The longest wait between two restarts.
const LAST_BACK_OFF: Duration = Duration::from_secs(60);

/// A container that ran for so long is forgiven its earlier ends.
const BACK_OFF_RESET: Duration = Duration::from_secs(120);

/// What a container is in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next begins.
    Init,
    /// An init container that goes on beside the others.
    Sidecar,
    /// One of `spec.containers`.
    Main,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit code; 128 + signal when a signal ended it.
    pub exit_code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `StartError`, `OOMKilled`.
    pub reason: String,
    /// What a person should know beside the reason.
    pub message: Option<String>,
    /// When it started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Timestamp,
    /// The container's id.
    pub id: String,
}

/// What a container does now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Has not started, for this reason and message.
    Waiting(String, Option<String>),
    /// Runs since then.
    Running(Timestamp),
    /// Has ended; whether it is to run again is decided by the policy.
    Ended(Ended),
}

/// A container as its worker knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Its role in the pod.
    pub role: Role,
    /// What it does now.
    pub phase: Phase,
    /// How it ended the time before.
    pub last: Option<Ended>,
    /// How often it was started again.
    pub restarts: i32,
    /// Its startup probe has succeeded, or it has none and runs.
    pub started: bool,
    /// Its readiness probe has succeeded, or it has none and runs.
    pub ready: bool,
    /// Id of the present or last run; empty when it never ran.
    pub id: String,
    /// Not to be started before.
    pub not_before: Option<Instant>,
    /// The wait after its next end.
    pub back_off: Duration,
}

impl State {
    /// A container that has not started.
    pub fn new(name: &str, image: &str, role: Role) -> Self {
        Self {
            name: name.to_owned(),
            image: image.to_owned(),
            role,
            phase: Phase::Waiting("ContainerCreating".to_owned(), None),
            last: None,
            restarts: 0,
            started: false,
            ready: false,
            id: String::new(),
            not_before: None,
            back_off: Duration::ZERO,
        }
    }

    /// Records an end and when it may run again.
    pub fn end(&mut self, ended: Ended, ran_for: Duration, now: Instant) {
        if ran_for >= BACK_OFF_RESET {
            self.back_off = Duration::ZERO;
        }
        self.not_before = Some(now + self.back_off);
        self.back_off = (self.back_off * 2).clamp(FIRST_BACK_OFF, LAST_BACK_OFF);
        self.started = false;
        self.ready = false;
        self.phase = Phase::Ended(ended);
    }

    fn runs(&self) -> bool {
        matches!(self.phase, Phase::Running(_))
    }
}

/// `spec.restartPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// The default.
    Always,
    /// Restarted unless the exit code is 0.
    OnFailure,
    /// Runs once.
    Never,
}

impl RestartPolicy {
    /// Reads the field; absent is `Always`.
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            Some(_) | None => Self::Always,
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Start these (indices), or, when there are none, wait: until then, or for an event.
    Start(Vec<usize>, Option<Instant>),
    /// Stop everything that runs.
    Stop,
    /// Nothing runs and nothing will.
    Done,
}

/// Decides the next step.
pub fn next(policy: RestartPolicy, ending: bool, containers: &[State], now: Instant) -> Next {
    let stop_or_done = || if containers.iter().any(State::runs) { Next::Stop } else { Next::Done };
    if ending {
        return stop_or_done();
    }
    let begun = containers.iter().any(|c| c.role == Role::Main && !c.id.is_empty());
    let mut starts = Vec::new();
    let mut wake: Option<Instant> = None;
    let mut all_over = true;
    for (index, container) in containers.iter().enumerate() {
        if is_through(container) {
            continue;
        }
        let wish = wish(container, policy, now);
        match wish {
            Wish::Start => starts.push(index),
            Wish::Later(at) => wake = Some(wake.map_or(at, |w| w.min(at))),
            Wish::Busy => {}
            Wish::Over if container.role == Role::Main => continue,
            Wish::Over => return stop_or_done(),
        }
        if container.role == Role::Main {
            all_over = false;
        } else if !begun {
            return Next::Start(starts, wake);
        }
    }
    if all_over { stop_or_done() } else { Next::Start(starts, wake) }
}

/// An init container that need not hold up the next one.
fn is_through(container: &State) -> bool {
    match (&container.phase, container.role) {
        (Phase::Running(_), Role::Sidecar) => container.started,
        (Phase::Ended(ended), Role::Init) => ended.exit_code == 0,
        (Phase::Waiting(..) | Phase::Running(_) | Phase::Ended(_), _) => false,
    }
}

enum Wish {
    Start,
    Later(Instant),
    Busy,
    Over,
}

fn wish(container: &State, policy: RestartPolicy, now: Instant) -> Wish {
    let again = match &container.phase {
        Phase::Running(_) => return Wish::Busy,
        Phase::Waiting(..) => true,
        Phase::Ended(ended) => runs_again(container.role, policy, ended.exit_code),
    };
    match container.not_before {
        _ if !again => Wish::Over,
        Some(at) if at > now => Wish::Later(at),
        Some(_) | None => Wish::Start,
    }
}

/// Whether a container that ended with `exit_code` is to be started again.
pub fn runs_again(role: Role, policy: RestartPolicy, exit_code: i32) -> bool {
    match (role, policy) {
        (Role::Sidecar, _) | (Role::Main, RestartPolicy::Always) => true,
        (Role::Init, RestartPolicy::Always | RestartPolicy::OnFailure)
        | (Role::Main, RestartPolicy::OnFailure) => exit_code != 0,
        (Role::Init | Role::Main, RestartPolicy::Never) => false,
    }
}

/// `status.phase` of the pod.
pub fn pod_phase(policy: RestartPolicy, containers: &[State]) -> &'static str {
    let mut mains = containers.iter().filter(|c| c.role == Role::Main).peekable();
    let begun = containers.iter().any(|c| c.role == Role::Main && !c.id.is_empty());
    let init_failed = containers.iter().any(|c| {
        c.role == Role::Init
            && matches!(&c.phase, Phase::Ended(e)
                if e.exit_code != 0 && !runs_again(Role::Init, policy, e.exit_code))
    });
    if init_failed {
        return "Failed";
    }
    if !begun || mains.peek().is_none() {
        return "Pending";
    }
    let mut failed = false;
    for container in mains {
        match &container.phase {
            Phase::Ended(e) if !runs_again(Role::Main, policy, e.exit_code) => {
                failed |= e.exit_code != 0;
            }
            Phase::Waiting(..) if container.id.is_empty() => return "Pending",
            Phase::Waiting(..) | Phase::Running(_) | Phase::Ended(_) => return "Running",
        }
    }
    if failed { "Failed" } else { "Succeeded" }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pod as letters: role (i, s, m) and state: `w` waiting, `r` running, `R` running and
    /// started, `0`/`1` ended with that code, `b` ended with 1 and backing off.
    fn containers(shape: &str, now: Instant) -> Vec<State> {
        shape
            .split_whitespace()
            .map(|word| {
                let (role, state) = word.split_at(1);
                let role = match role {
                    "i" => Role::Init,
                    "s" => Role::Sidecar,
                    "m" => Role::Main,
                    other => panic!("{other}"),
                };
                let mut c = State::new(word, "image", role);
                if state != "w" {
                    c.id = "id".into();
                }
                match state {
                    "w" => {}
                    "r" | "R" => c.phase = Phase::Running(Timestamp::UNIX_EPOCH),
                    _ => {
                        c.phase = Phase::Ended(Ended {
                            exit_code: i32::from(state != "0"),
                            signal: None,
                            reason: String::new(),
                            message: None,
                            started: None,
                            finished: Timestamp::UNIX_EPOCH,
                            id: String::new(),
                        });
                    }
                }
                c.started = state == "R";
                c.not_before = (state == "b").then(|| now + Duration::from_secs(5));
                c
            })
            .collect()
    }

    fn check(policy: &str, ending: bool, shape: &str, expected: &str) {
        let now = Instant::now();
        let states = containers(shape, now);
        let policy = RestartPolicy::parse(Some(policy));
        let words = match next(policy, ending, &states, now) {
            Next::Start(starts, wake) => {
                let mut words: Vec<String> = starts.iter().map(usize::to_string).collect();
                words.extend(wake.map(|_| "later".to_owned()));
                if words.is_empty() { "wait".to_owned() } else { words.join(" ") }
            }
            Next::Stop => "stop".to_owned(),
            Next::Done => "done".to_owned(),
        };
        let got = format!("{words}; {}", pod_phase(policy, &states));
        assert_eq!(got, expected, "{policy:?} {shape}");
    }

    #[test]
    fn init_containers_go_one_by_one() {
        check("Always", false, "iw iw mw mw", "0; Pending");
        check("Always", false, "ir iw mw mw", "wait; Pending");
        check("Always", false, "i0 iw mw mw", "1; Pending");
        check("Always", false, "i0 i0 mw mw", "2 3; Pending");
        check("Always", false, "i1 mw", "0; Pending");
        check("OnFailure", false, "ib mw", "later; Pending");
        check("Never", false, "i1 mw", "done; Failed");
        check("Never", false, "sR i1 mw", "stop; Failed");
    }

    #[test]
    fn sidecars_start_before_and_restart_beside_the_others() {
        check("Always", false, "sr mw", "wait; Pending");
        check("Always", false, "sR mw", "1; Pending");
        check("Never", false, "s1 mr", "0; Running");
        check("Never", false, "sb mw", "later; Pending");
        check("Never", false, "sR m0", "stop; Succeeded");
    }

    #[test]
    fn the_restart_policy_decides() {
        check("Always", false, "mr", "wait; Running");
        check("Always", false, "m0", "0; Running");
        check("Always", false, "mb mr", "later; Running");
        check("OnFailure", false, "m0", "done; Succeeded");
        check("OnFailure", false, "m1", "0; Running");
        check("Never", false, "m1", "done; Failed");
        check("Never", false, "m0 m1", "done; Failed");
        check("Never", false, "m0 mr", "wait; Running");
        check("Never", false, "m0 m0", "done; Succeeded");
    }

    #[test]
    fn an_ending_pod_is_stopped() {
        check("Always", true, "i0 mr", "stop; Running");
        check("Always", true, "i0 m0", "done; Running");
        check("Always", true, "mw", "done; Pending");
    }

    #[test]
    fn the_back_off_grows_and_is_forgiven() {
        let now = Instant::now();
        let mut c = containers("m1", now).remove(0);
        let Phase::Ended(ended) = c.phase.clone() else { panic!() };
        let mut waits = Vec::new();
        for ran in [0, 0, 0, 0, 119, 120, 0] {
            c.end(ended.clone(), Duration::from_secs(ran), now);
            waits.push((c.not_before.unwrap() - now).as_secs());
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 0, 1]);
    }
}
