//! A pod's status from the states of its containers.
//!
//! Pure. Keeps what others wrote (conditions of other writers) and the transition times of what
//! did not change. Leaves writing it to `worker`.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::lifecycle::{Ended, Phase, RestartPolicy, Role, State, pod_phase, runs_again};

/// Address that the node reports as its own.
pub const NODE_ADDRESS: &str = "127.0.0.1";

/// Conditions that the node writes; all others belong to others.
pub const OWN: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// What the worker of a pod knows.
#[derive(Debug, Clone)]
pub struct View<'a> {
    /// The pod as last seen.
    pub pod: &'a Pod,
    /// Its containers, init containers first, in the order of the spec.
    pub containers: &'a [State],
    /// Its address, once it has one.
    pub address: Option<Ipv4Addr>,
    /// When the node took it over.
    pub started: Timestamp,
}

/// Builds the whole status.
pub fn pod_status(view: &View<'_>, now: Timestamp) -> PodStatus {
    let spec = view.pod.spec.as_ref();
    let policy = RestartPolicy::parse(spec.and_then(|s| s.restart_policy.as_deref()));
    let previous = view.pod.status.clone().unwrap_or_default();
    let phase = pod_phase(policy, view.containers);
    let statuses = |wanted: fn(Role) -> bool| -> Option<Vec<ContainerStatus>> {
        let list: Vec<_> = view
            .containers
            .iter()
            .filter(|c| wanted(c.role))
            .map(|c| container_status(c, policy))
            .collect();
        (!list.is_empty()).then_some(list)
    };
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions(view, phase, &previous, now)),
        host_ip: Some(NODE_ADDRESS.to_owned()),
        host_ips: Some(vec![HostIP { ip: NODE_ADDRESS.to_owned() }]),
        pod_ip: view.address.map(|a| a.to_string()),
        pod_ips: view.address.map(|a| vec![PodIP { ip: a.to_string() }]),
        start_time: Some(previous.start_time.unwrap_or(Time(view.started))),
        init_container_statuses: statuses(|role| role != Role::Main),
        container_statuses: statuses(|role| role == Role::Main),
        qos_class: previous.qos_class.or_else(|| Some("Burstable".to_owned())),
        ..PodStatus::default()
    }
}

fn conditions(
    view: &View<'_>,
    phase: &str,
    previous: &PodStatus,
    now: Timestamp,
) -> Vec<PodCondition> {
    let names =
        |list: Vec<&State>| list.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(" ");
    let uninitialised: Vec<&State> = view
        .containers
        .iter()
        .filter(|c| match (&c.phase, c.role) {
            (_, Role::Main) => false,
            (_, Role::Sidecar) => !c.started,
            (Phase::Ended(e), Role::Init) => e.exit_code != 0,
            (Phase::Waiting(..) | Phase::Running(_), Role::Init) => true,
        })
        .collect();
    let unready: Vec<&State> =
        view.containers.iter().filter(|c| c.role != Role::Init && !c.ready).collect();
    let over = phase == "Succeeded" || phase == "Failed";
    let begun = view.containers.iter().any(|c| c.role == Role::Main && !c.id.is_empty());

    let initialised = if begun || uninitialised.is_empty() {
        verdict("Initialized", None)
    } else {
        let message = format!("containers with incomplete status: [{}]", names(uninitialised));
        verdict("Initialized", Some(("ContainersNotInitialized", message)))
    };
    let trouble = if phase == "Succeeded" {
        Some(("PodCompleted", String::new()))
    } else if over {
        Some(("PodFailed", String::new()))
    } else if unready.is_empty() {
        None
    } else {
        let message = format!("containers with unready status: [{}]", names(unready));
        Some(("ContainersNotReady", message))
    };
    let ready = trouble.clone().or_else(|| closed_gate(view.pod, previous));
    let sandbox = match view.address {
        Some(_) if !over => verdict("PodReadyToStartContainers", None),
        Some(_) | None => verdict("PodReadyToStartContainers", Some(("", String::new()))),
    };
    let ours = [
        sandbox,
        initialised,
        verdict("Ready", ready),
        verdict("ContainersReady", trouble),
        verdict("PodScheduled", None),
    ];
    let before = previous.conditions.as_deref().unwrap_or_default();
    let mut all: Vec<PodCondition> =
        ours.into_iter().map(|condition| dated(condition, before, now)).collect();
    let foreign = before.iter().filter(|old| !all.iter().any(|c| c.type_ == old.type_));
    let foreign: Vec<PodCondition> = foreign.cloned().collect();
    all.extend(foreign);
    all
}

/// The first readiness gate of the pod that is not open.
fn closed_gate(pod: &Pod, previous: &PodStatus) -> Option<(&'static str, String)> {
    let gates = pod.spec.as_ref()?.readiness_gates.as_ref()?;
    let conditions = previous.conditions.as_deref().unwrap_or_default();
    let closed = gates.iter().find(|gate| {
        !conditions.iter().any(|c| c.type_ == gate.condition_type && c.status == "True")
    })?;
    let message = format!(
        "corresponding condition of pod readiness gate \"{}\" does not exist \
                           or is not True",
        closed.condition_type
    );
    Some(("ReadinessGatesNotReady", message))
}

/// A condition that is True, or False for a reason and with a message (empty: none).
fn verdict(type_: &str, trouble: Option<(&str, String)>) -> PodCondition {
    let filled = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    PodCondition {
        type_: type_.to_owned(),
        status: if trouble.is_none() { "True" } else { "False" }.to_owned(),
        reason: trouble.as_ref().and_then(|(reason, _)| filled(reason)),
        message: trouble.as_ref().and_then(|(_, message)| filled(message)),
        ..PodCondition::default()
    }
}

fn dated(mut condition: PodCondition, before: &[PodCondition], now: Timestamp) -> PodCondition {
    let same = before.iter().find(|c| c.type_ == condition.type_ && c.status == condition.status);
    condition.last_transition_time =
        same.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now)));
    condition
}

fn container_status(container: &State, policy: RestartPolicy) -> ContainerStatus {
    let mut last = container.last.clone();
    let state = match &container.phase {
        Phase::Waiting(reason, message) => waiting(reason, message.clone()),
        Phase::Running(since) => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(*since)) }),
            ..ContainerState::default()
        },
        Phase::Ended(ended)
            if container.role != Role::Init
                && runs_again(container.role, policy, ended.exit_code) =>
        {
            last = Some(ended.clone());
            let message = format!("back-off restarting failed container={}", container.name);
            waiting("CrashLoopBackOff", Some(message))
        }
        Phase::Ended(ended) => terminated(ended),
    };
    let runs = matches!(container.phase, Phase::Running(_));
    let init_done = container.role == Role::Init
        && matches!(&container.phase, Phase::Ended(e) if e.exit_code == 0);
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone(),
        image_id: if container.id.is_empty() { String::new() } else { container.image.clone() },
        container_id: (!container.id.is_empty()).then(|| format!("process://{}", container.id)),
        ready: container.ready || init_done,
        started: Some(runs && container.started),
        restart_count: container.restarts,
        state: Some(state),
        last_state: Some(last.as_ref().map(terminated).unwrap_or_default()),
        ..ContainerStatus::default()
    }
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ContainerState::default()
    }
}

fn terminated(ended: &Ended) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: ended.exit_code,
            signal: ended.signal,
            reason: Some(ended.reason.clone()),
            message: ended.message.clone(),
            started_at: ended.started.map(Time),
            finished_at: Some(Time(ended.finished)),
            container_id: (!ended.id.is_empty()).then(|| format!("process://{}", ended.id)),
        }),
        ..ContainerState::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(status: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "a"},
            "spec": {"containers": [], "readinessGates": [{"conditionType": "example/gate"}]},
            "status": status,
        }))
        .unwrap()
    }

    fn running(name: &str, ready: bool) -> State {
        let mut c = State::new(name, "i", Role::Main);
        c.phase = Phase::Running(Timestamp::UNIX_EPOCH);
        c.id = "1".into();
        c.started = true;
        c.ready = ready;
        c
    }

    fn check(pod: &Pod, containers: &[State], type_: &str, expected: &str) {
        let view = View { pod, containers, address: None, started: Timestamp::UNIX_EPOCH };
        let now = Timestamp::from_second(60).unwrap();
        let status = pod_status(&view, now);
        let c = status.conditions.unwrap().into_iter().find(|c| c.type_ == type_).unwrap();
        let at = c.last_transition_time.map(|t| t.0.as_second());
        let got = format!(
            "{} {} {} at {}",
            c.status,
            c.reason.unwrap_or_default(),
            c.message.unwrap_or_default(),
            at.unwrap()
        );
        assert_eq!(got, expected);
    }

    #[test]
    fn conditions_say_why_and_since_when() {
        let fresh = pod(json!({}));
        check(
            &fresh,
            &[running("a", false), running("b", true)],
            "ContainersReady",
            "False ContainersNotReady containers with unready status: [a] at 60",
        );
        check(&fresh, &[running("a", true)], "ContainersReady", "True   at 60");
        check(
            &fresh,
            &[running("a", true)],
            "Ready",
            "False ReadinessGatesNotReady corresponding condition of pod readiness gate \
               \"example/gate\" does not exist or is not True at 60",
        );
        check(
            &fresh,
            &[State::new("i", "x", Role::Init), State::new("a", "x", Role::Main)],
            "Initialized",
            "False ContainersNotInitialized containers with incomplete status: [i] at 60",
        );
        let old = pod(json!({"conditions": [
            {"type": "example/gate", "status": "True"},
            {"type": "ContainersReady", "status": "True", "lastTransitionTime": "1970-01-01T00:00:07Z"},
            {"type": "Ready", "status": "False", "lastTransitionTime": "1970-01-01T00:00:08Z"},
        ]}));
        check(&old, &[running("a", true)], "ContainersReady", "True   at 7");
        check(&old, &[running("a", true)], "Ready", "True   at 60");
    }

    #[test]
    fn a_container_that_will_run_again_is_backing_off() {
        let mut c = running("a", true);
        c.restarts = 2;
        let ended = Ended {
            exit_code: 3,
            signal: None,
            reason: "Error".into(),
            message: None,
            started: None,
            finished: Timestamp::UNIX_EPOCH,
            id: "1".into(),
        };
        c.end(ended, std::time::Duration::ZERO, tokio::time::Instant::now());
        let status = container_status(&c, RestartPolicy::Always);
        assert_eq!(status.state.unwrap().waiting.unwrap().reason.unwrap(), "CrashLoopBackOff");
        assert_eq!(status.last_state.unwrap().terminated.unwrap().exit_code, 3);
        let status = container_status(&c, RestartPolicy::Never);
        assert_eq!(status.state.unwrap().terminated.unwrap().exit_code, 3);
        assert!(!status.ready);
    }
}
