//! Telling the API server how the pod is.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;

use super::super::observe::within;
use super::super::status::{View, pod_status};
use super::{TRY_AGAIN, Worker};

impl Worker {
    /// Writes the status when it differs from what was written last; returns when to try again if
    /// that fails.
    pub(super) async fn report(&mut self) -> Option<Instant> {
        let pod = self.with_own_conditions();
        let view = View {
            pod: &pod,
            containers: &self.states,
            address: self.prepared.as_ref().map(|p| p.address),
            started: self.started,
        };
        let status = pod_status(&view, Timestamp::now());
        if self.posted.as_ref() == Some(&status) {
            return None;
        }
        let (namespace, name) = super::super::names(&self.pod);
        let pods: Api<Pod> = Api::namespaced(self.shared.client.clone(), namespace);
        // The uid makes it a refusal rather than a mix-up when the name has a new owner.
        let change = json!({"metadata": {"uid": self.pod.metadata.uid}, "status": status});
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(&change));
        let call = pods.patch_status(name, &parameters, &patch);
        match within("writing a pod's status", call).await {
            Ok(_) => {
                self.posted = Some(status);
                None
            }
            Err(error) => {
                tracing::debug!(pod = self.key(), "{error:#}");
                Some(Instant::now() + TRY_AGAIN)
            }
        }
    }

    /// The pod with our own conditions as we wrote them last: what was seen may be older.
    fn with_own_conditions(&self) -> Pod {
        let mut pod = Pod::clone(&self.pod);
        if let Some(PodStatus { conditions: Some(ours), .. }) = &self.posted {
            let seen = pod.status.get_or_insert_default().conditions.get_or_insert_default();
            for own in ours.iter().filter(|c| super::super::status::OWN.contains(&c.type_.as_str()))
            {
                seen.retain(|c| c.type_ != own.type_);
                seen.push(own.clone());
            }
        }
        pod
    }
}
