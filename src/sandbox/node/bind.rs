//! Puts a pod on this node: what a scheduler with a single node does.
//!
//! Leaves which pods are to be bound to `agent`. Never moves a pod that has a node.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::observe::within;
use super::{Shared, key, names};

/// Tries to bind a pod and the wait between two: half a minute, then the next change of it.
const BIND_TRIES: u32 = 60;
const BIND_AGAIN: Duration = Duration::from_millis(500);

/// Puts a pod on this node, as often as it takes.
pub(super) async fn bind(shared: Arc<Shared>, pod: Pod) {
    for _ in 0..BIND_TRIES {
        match try_to_bind(&shared, &pod).await {
            Ok(()) => {
                let (namespace, name) = names(&pod);
                let node = &shared.options.name;
                let words = format!("Successfully assigned {namespace}/{name} to {node}");
                shared.events.normal(&pod, None, "Scheduled", &words);
                return;
            }
            // Gone meanwhile, or bound by another scheduler: neither is ours to mend.
            Err(error) if matches!(code(&error), Some(404 | 409)) => return,
            Err(error) => tracing::debug!(pod = key(&pod), "{error:#}"),
        }
        tokio::time::sleep(BIND_AGAIN).await;
    }
    tracing::warn!(pod = key(&pod), "the pod could not be bound to the node");
}

/// By the binding subresource, and where there is none, by a patch.
async fn try_to_bind(shared: &Shared, pod: &Pod) -> Result<()> {
    let (namespace, name) = names(pod);
    let node = shared.options.name.as_str();
    let pods: Api<Pod> = Api::namespaced(shared.client.clone(), namespace);
    let binding = Binding {
        metadata: kube::core::ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            uid: pod.metadata.uid.clone(),
            ..Default::default()
        },
        target: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let parameters = PostParams::default();
    let call = pods.create_subresource::<_, Value>("binding", name, &parameters, &binding);
    match within("binding a pod", call).await {
        // The server does not know the subresource.
        Err(error) if matches!(code(&error), Some(405 | 501)) => {
            let change = json!({"metadata": {"uid": pod.metadata.uid}, "spec": {"nodeName": node}});
            let (parameters, patch) = (PatchParams::default(), Patch::Merge(&change));
            let call = pods.patch(name, &parameters, &patch);
            within("binding a pod", call).await.map(drop)
        }
        other => other.map(drop),
    }
}

fn code(error: &anyhow::Error) -> Option<u16> {
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => Some(status.code),
        Some(_) | None => None,
    }
}
