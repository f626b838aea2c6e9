//! The Node object: registered once, kept alive by heartbeats.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::observe::within;
use super::status::NODE_ADDRESS;

/// Time between heartbeats; a controller manager gives up a node after 40 s without.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Pods that the node offers room for: no more than it has addresses.
const PODS: u32 = 240;

/// Creates the Node, or takes it over when it is there. `logs` is the port that serves logs.
///
/// # Errors
/// The API server's refusal.
pub async fn register(client: &Client, name: &str, logs: Option<u16>) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        }},
        "spec": {},
    }))?;
    if within("looking for the node", nodes.get_opt(name)).await?.is_none() {
        within("creating the node", nodes.create(&PostParams::default(), &node)).await?;
    }
    beat(client, name, Beat::First { logs }).await
}

/// Reports the node alive until `cancel`.
pub async fn heartbeat(client: Client, name: String, cancel: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(HEARTBEAT) => {}
            () = cancel.cancelled() => return,
        }
        if let Err(error) = beat(&client, &name, Beat::Next).await {
            tracing::warn!("{error:#}");
        }
    }
}

/// Which report of the node it is.
#[derive(Debug, Clone, Copy)]
enum Beat {
    /// With all that does not change while the node runs.
    First {
        /// Port that serves logs.
        logs: Option<u16>,
    },
    /// Only that it is alive.
    Next,
}

async fn beat(client: &Client, name: &str, beat: Beat) -> Result<()> {
    let first = matches!(beat, Beat::First { .. });
    let nodes: Api<Node> = Api::all(client.clone());
    let now = Timestamp::now();
    let seen = if first { within("reading the node", nodes.get_opt(name)).await? } else { None };
    let conditions = seen.and_then(|n| n.status).and_then(|s| s.conditions).unwrap_or_default();
    let since = conditions
        .into_iter()
        .find(|c| c.type_ == "Ready" && c.status == "True")
        .and_then(|c| c.last_transition_time);
    let mut ready = NodeCondition {
        type_: "Ready".to_owned(),
        status: "True".to_owned(),
        reason: Some("KubeletReady".to_owned()),
        message: Some("the sandbox's node runs pods as local processes".to_owned()),
        last_heartbeat_time: Some(Time(now)),
        ..NodeCondition::default()
    };
    if first {
        ready.last_transition_time = since.or(Some(Time(now)));
    }
    let status = json!({"status": status(beat, &ready)});
    let (parameters, patch) = (PatchParams::default(), Patch::Strategic(&status));
    let call = nodes.patch_status(name, &parameters, &patch);
    within("reporting the node alive", call).await.map(drop)
}

fn status(beat: Beat, ready: &NodeCondition) -> Value {
    let mut status = json!({"conditions": [ready]});
    if let Beat::First { logs } = beat {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from).to_string();
        let room = json!({"cpu": cpus, "memory": memory(), "pods": PODS.to_string()});
        status["capacity"] = room.clone();
        status["allocatable"] = room;
        status["addresses"] = json!([{"type": "InternalIP", "address": NODE_ADDRESS}]);
        if let Some(port) = logs {
            status["daemonEndpoints"] = json!({"kubeletEndpoint": {"Port": port}});
        }
        status["nodeInfo"] = json!({
            "architecture": std::env::consts::ARCH,
            "operatingSystem": "linux",
            "kubeletVersion": concat!("pgitops-sandbox-", env!("CARGO_PKG_VERSION")),
            "containerRuntimeVersion": "process://1",
            "osImage": "", "kernelVersion": "", "machineID": "", "systemUUID": "", "bootID": "",
            "kubeProxyVersion": "",
        });
    }
    status
}

/// The machine's memory as a quantity.
fn memory() -> String {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .unwrap_or("1048576");
    format!("{kib}Ki")
}
