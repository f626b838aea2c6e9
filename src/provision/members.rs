//! A node as roles and status need it: its pod, and what its instance says.
//!
//! Boils a pod and the instance's facts down to the few things that decisions rest on. What could
//! not be found out is [`Node::Unknown`] with the reason, never a made-up value. Leaves asking to
//! `observe` and deciding to `roles`.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::api::names::labels;
use crate::instance::protocol::{self, Facts, ServerState};

/// A node of the database, wanted or still there.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Name of its pod.
    pub pod: String,
    /// Number of its pod.
    pub ordinal: i32,
    /// UID of the pod, empty while there is none.
    pub uid: String,
    /// Address of the pod, once it has one.
    pub address: Option<String>,
    /// Names and addresses under which others reach its server, best first.
    pub hosts: Vec<String>,
    /// The pod's condition `Ready`.
    pub ready: bool,
    /// The pod is being deleted.
    pub ending: bool,
    /// The role that its label states.
    pub label: Option<String>,
    /// What keeps its containers from running, in the node's words.
    pub waiting: Option<Waiting>,
    /// What its instance says.
    pub node: Node,
}

/// A container that cannot start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The kubelet's reason, such as `ErrImagePull`.
    pub reason: String,
    /// The kubelet's words.
    pub message: String,
}

/// What is known about the data of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// Nothing, for this reason. Never to be taken for "no data".
    Unknown(String),
    /// There is no data.
    Empty,
    /// Data is being made or copied.
    Filling,
    /// There is a database.
    Holds(Holding),
}

/// The database that a node holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Holding {
    /// The role it has.
    pub role: Role,
    /// Its timeline; grows with every promotion.
    pub timeline: u32,
    /// Identifies the cluster that the data belongs to.
    pub system: u64,
    /// Version of its server's program, e.g. `15.18`, where it is known.
    pub version: Option<String>,
    /// Runs and answers SQL.
    pub serving: bool,
    /// A standby that receives from its primary.
    pub streaming: bool,
    /// Saw a peer on a higher timeline and stays down.
    pub fenced: bool,
    /// Why it does not serve, in words.
    pub trouble: Option<String>,
}

/// The role of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Follows one of these.
    Standby {
        /// Names and addresses of the primary as it was last told.
        follows: Vec<String>,
    },
}

impl Member {
    /// A node whose pod is not there.
    pub fn absent(pod: String, ordinal: i32) -> Self {
        let node = Node::Unknown("there is no pod yet".to_owned());
        Self {
            pod,
            ordinal,
            uid: String::new(),
            address: None,
            hosts: Vec::new(),
            ready: false,
            ending: false,
            label: None,
            waiting: None,
            node,
        }
    }

    /// A node whose pod is there and whose instance was not asked yet. `domain` is what follows
    /// the pod's name in DNS.
    pub fn of_pod(pod: &Pod, ordinal: i32, domain: &str) -> Self {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let status = pod.status.as_ref();
        let address = status.and_then(|s| s.pod_ip.clone()).filter(|ip| !ip.is_empty());
        // The address first: it needs no name server, which matters most while a primary is being
        // restarted. The name is what a standby still finds when the primary got a new address
        // and no controller is there to say so.
        let hosts = address.as_ref().map(|ip| vec![ip.clone(), format!("{name}.{domain}")]);
        let waiting = waiting(pod);
        let ending = pod.metadata.deletion_timestamp.is_some();
        let node = match (&waiting, &address) {
            _ if ending => unknown("its pod is being deleted"),
            (Some(waiting), _) => Node::Unknown(waiting.to_string()),
            (None, None) => unknown("its pod has no address yet"),
            (None, Some(_)) => unknown("its instance was not asked yet"),
        };
        Self {
            ordinal,
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            address,
            hosts: hosts.unwrap_or_default(),
            ready: is_ready(pod),
            ending,
            label: pod.metadata.labels.as_ref().and_then(|l| l.get(labels::ROLE)).cloned(),
            waiting,
            node,
            pod: name,
        }
    }

    /// Whether there may be an instance that answers.
    pub fn may_be_asked(&self) -> bool {
        self.address.is_some() && self.waiting.is_none() && !self.ending
    }

    /// What it holds, when that is known and there is something.
    pub fn holding(&self) -> Option<&Holding> {
        match &self.node {
            Node::Holds(holding) => Some(holding),
            Node::Unknown(_) | Node::Empty | Node::Filling => None,
        }
    }

    /// Whether it has the data of a primary and may use it.
    pub fn is_primary(&self) -> bool {
        self.holding().is_some_and(|held| held.role == Role::Primary && !held.fenced)
    }

    /// Why it does not do its part, `None` when it does: serves as the primary, or streams.
    pub fn trouble(&self) -> Option<String> {
        match &self.node {
            Node::Unknown(why) => Some(why.clone()),
            Node::Empty => Some("it has no data yet".to_owned()),
            Node::Filling => Some("its data is being copied".to_owned()),
            Node::Holds(held) if !held.serving => {
                Some(held.trouble.clone().unwrap_or_else(|| "its server does not run".to_owned()))
            }
            Node::Holds(Holding { role: Role::Standby { .. }, streaming: false, .. }) => {
                Some(format!(
                    "it does not receive from the primary; when that lasts, delete the claim \
                 data-{pod} and the pod {pod}, and it is copied again",
                    pod = self.pod
                ))
            }
            Node::Holds(_) if !self.ready => Some("its pod is not Ready".to_owned()),
            Node::Holds(_) => None,
        }
    }
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.message.as_str() {
            "" => f.write_str(&self.reason),
            message => write!(f, "{}: {message}", self.reason),
        }
    }
}

impl Waiting {
    /// Whether it is the image that is missing.
    pub fn is_image(&self) -> bool {
        ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"]
            .contains(&self.reason.as_str())
    }
}

impl From<&Facts> for Node {
    fn from(facts: &Facts) -> Self {
        match (&facts.state, &facts.role) {
            (ServerState::Empty, _) if facts.working_on.is_none() => Self::Empty,
            (ServerState::Empty | ServerState::Filling, _) => Self::Filling,
            (
                ServerState::Stopped
                | ServerState::Starting
                | ServerState::Running
                | ServerState::Failed { .. }
                | ServerState::Fenced { .. },
                Some(role),
            ) => Self::Holds(holding(facts, role)),
            (state, None) => Self::Unknown(format!("its data has no role yet ({state})")),
        }
    }
}

fn holding(facts: &Facts, role: &protocol::Role) -> Holding {
    let live = facts.live.as_ref();
    let control = facts.control.as_ref();
    let follows = match role {
        protocol::Role::Primary => Vec::new(),
        protocol::Role::Standby { primary_hosts, .. } => primary_hosts.clone(),
    };
    // What the server says counts more than what the instance remembers.
    let in_recovery =
        live.map_or(matches!(role, protocol::Role::Standby { .. }), |live| live.in_recovery);
    let serving = facts.state == ServerState::Running && live.is_some();
    let trouble = facts.live_error.clone().unwrap_or_else(|| facts.state.to_string());
    Holding {
        role: if in_recovery { Role::Standby { follows } } else { Role::Primary },
        timeline: live.map(|l| l.timeline).or(control.map(|c| c.timeline)).unwrap_or_default(),
        system: live
            .map(|l| l.system_identifier)
            .or(control.map(|c| c.system_identifier))
            .unwrap_or_default(),
        version: facts.version.as_ref().map(|version| version.text.clone()),
        serving,
        streaming: live
            .and_then(|l| l.receiver.as_ref())
            .is_some_and(|receiver| receiver.status == "streaming"),
        fenced: matches!(facts.state, ServerState::Fenced { .. }),
        trouble: (!serving).then_some(trouble),
    }
}

fn unknown(why: &str) -> Node {
    Node::Unknown(why.to_owned())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// The first container that cannot start; one that is about to is no trouble.
fn waiting(pod: &Pod) -> Option<Waiting> {
    let status = pod.status.as_ref()?;
    let init = status.init_container_statuses.iter().flatten();
    let all = init.chain(status.container_statuses.iter().flatten());
    all.filter_map(container_waiting).next().or_else(|| unscheduled(pod))
}

fn container_waiting(container: &ContainerStatus) -> Option<Waiting> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.clone().unwrap_or_default();
    let starting = ["", "ContainerCreating", "PodInitializing"].contains(&reason.as_str());
    let message = waiting.message.clone().unwrap_or_default();
    (!starting).then_some(Waiting { reason, message })
}

fn unscheduled(pod: &Pod) -> Option<Waiting> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    Some(Waiting {
        reason: scheduled.reason.clone().unwrap_or_else(|| "Unschedulable".to_owned()),
        message: scheduled.message.clone().unwrap_or_default(),
    })
}

/// The number in a pod's name, if it is a pod of this database: `<db>-<ordinal>`.
pub fn ordinal_of(database: &str, pod: &str) -> Option<i32> {
    let digits = pod.strip_prefix(database)?.strip_prefix('-')?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_are_told_apart_from_those_of_databases_with_longer_names() {
        assert_eq!(ordinal_of("orders", "orders-0"), Some(0));
        assert_eq!(ordinal_of("orders", "orders-12"), Some(12));
        assert_eq!(ordinal_of("orders", "orders-eu-0"), None);
        assert_eq!(ordinal_of("orders", "orders-"), None);
        assert_eq!(ordinal_of("orders", "orders-+1"), None);
    }

    #[test]
    fn a_pod_says_why_it_waits() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "orders-0", "uid": "u", "labels": {"kubedb.com/role": "primary"}},
            "status": {"podIP": "127.64.0.9", "containerStatuses": [{
                "name": "postgres", "image": "postgres:12", "imageID": "", "ready": false,
                "restartCount": 0, "state": {"waiting": {
                    "reason": "ErrImagePull", "message": "PostgreSQL 12 is not installed"}}}]}
        }))
        .unwrap();
        let member = Member::of_pod(&pod, 0, "orders-pods.demo.svc");
        assert!(member.waiting.as_ref().unwrap().is_image());
        assert_eq!(member.trouble().unwrap(), "ErrImagePull: PostgreSQL 12 is not installed");
        assert_eq!(member.hosts, ["127.64.0.9", "orders-0.orders-pods.demo.svc"]);
        assert_eq!(member.label.as_deref(), Some("primary"));
        assert!(!member.is_primary(), "a label is not a fact");
    }
}
