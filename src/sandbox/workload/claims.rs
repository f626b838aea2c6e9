//! Binds every claim to a volume of its own, at once.
//!
//! What a storage provisioner, the volume controller and the protection of claims in use are to a
//! real cluster. The volume is a PersistentVolume object like any other, which goes with its claim
//! (policy Delete, as the default class of most clusters); the folder behind it is the node's.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{existing_is_fine, within};

/// Wait before a claim that could not be bound is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Tries before a claim is left to the next change of it.
const TRIES: u32 = 10;

/// Keeps a claim while a pod uses it; the name is Kubernetes' own.
const PROTECTION: &str = "kubernetes.io/pvc-protection";

/// Time between two looks whether a claim is still in use.
const LOOK: Duration = Duration::from_millis(200);

pub(super) async fn run(client: Client, cancel: CancellationToken) {
    let claims = Api::<PersistentVolumeClaim>::all(client.clone());
    let mut stream = watcher(claims, watcher::Config::default()).default_backoff().boxed();
    let mut released = BTreeSet::new();
    loop {
        let next = tokio::select! {
            next = stream.next() => next,
            () = cancel.cancelled() => return,
        };
        match next {
            Some(Ok(watcher::Event::Apply(claim) | watcher::Event::InitApply(claim))) => {
                let uid = claim.metadata.uid.clone().unwrap_or_default();
                if is_unbound(&claim) {
                    tokio::spawn(bind_patiently(client.clone(), claim, cancel.clone()));
                } else if is_held(&claim) && released.insert(uid) {
                    tokio::spawn(release(client.clone(), claim, cancel.clone()));
                }
            }
            Some(Ok(watcher::Event::Delete(claim))) => {
                released.remove(&claim.metadata.uid.clone().unwrap_or_default());
                let volumes: Api<PersistentVolume> = Api::all(client.clone());
                let name = volume_name(&claim);
                let parameters = DeleteParams::default();
                if let Err(error) = within(volumes.delete(&name, &parameters)).await {
                    tracing::debug!(volume = name, "removing: {error:#}");
                }
            }
            Some(Ok(watcher::Event::Init | watcher::Event::InitDone)) => {}
            Some(Err(error)) => tracing::debug!("watching claims: {error}"),
            None => return,
        }
    }
}

/// On its way out, and only held back by us.
fn is_held(claim: &PersistentVolumeClaim) -> bool {
    claim.metadata.deletion_timestamp.is_some()
        && claim.finalizers().iter().any(|f| f == PROTECTION)
}

/// Lets a claim go once no pod uses it.
async fn release(client: Client, claim: PersistentVolumeClaim, cancel: CancellationToken) {
    while !cancel.is_cancelled() {
        match try_to_release(&client, &claim).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => tracing::debug!(claim = claim.name_any(), "releasing: {error:#}"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn try_to_release(client: &Client, claim: &PersistentVolumeClaim) -> Result<bool> {
    let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let Some(now) = within(claims.get_opt(&name)).await? else { return Ok(true) };
    if now.metadata.uid != claim.metadata.uid || !is_held(&now) {
        return Ok(true);
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let pods = within(pods.list(&ListParams::default())).await?.items;
    if pods.iter().any(|pod| uses(pod, &name)) {
        return Ok(false);
    }
    let left: Vec<&String> = now.finalizers().iter().filter(|f| *f != PROTECTION).collect();
    let change = json!({"metadata": {
        "uid": now.metadata.uid, "resourceVersion": now.metadata.resource_version,
        "finalizers": left,
    }});
    let parameters = PatchParams::default();
    within(claims.patch(&name, &parameters, &Patch::Merge(&change))).await?;
    Ok(true)
}

/// Whether a pod that has begun and not ended names the claim. One that has no address yet has no
/// volumes either, and a node does not begin with a claim that is on its way out.
fn uses(pod: &Pod, claim: &str) -> bool {
    let status = pod.status.as_ref();
    let phase = status.and_then(|s| s.phase.as_deref());
    let over =
        matches!(phase, Some("Succeeded" | "Failed")) || status.is_none_or(|s| s.pod_ip.is_none());
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let mut claims = volumes.filter_map(|v| v.persistent_volume_claim.as_ref());
    !over && claims.any(|c| c.claim_name == claim)
}

fn volume_name(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default())
}

fn is_unbound(claim: &PersistentVolumeClaim) -> bool {
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
    claim.metadata.deletion_timestamp.is_none() && phase.is_none_or(|p| p == "Pending")
}

async fn bind_patiently(client: Client, claim: PersistentVolumeClaim, cancel: CancellationToken) {
    for _ in 0..TRIES {
        match bind(&client, &claim).await {
            Ok(()) => return,
            Err(error) => tracing::debug!(claim = claim.name_any(), "binding: {error:#}"),
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = cancel.cancelled() => return,
        }
    }
    tracing::warn!(claim = claim.name_any(), "a claim could not be bound");
}

async fn bind(client: &Client, claim: &PersistentVolumeClaim) -> Result<()> {
    let namespace = claim.namespace().unwrap_or_default();
    let volume = volume(claim, &namespace)?;
    let name = volume.name_any();
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    existing_is_fine(within(volumes.create(&PostParams::default(), &volume)).await)?;
    let parameters = PatchParams::default();
    let status = json!({"status": {"phase": "Bound"}});
    within(volumes.patch_status(&name, &parameters, &Patch::Merge(&status))).await?;

    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let mut finalizers = claim.finalizers().to_vec();
    if !finalizers.iter().any(|f| f == PROTECTION) {
        finalizers.push(PROTECTION.to_owned());
    }
    let spec = json!({
        "metadata": {"uid": claim.metadata.uid, "finalizers": finalizers, "annotations": {
            "pv.kubernetes.io/bind-completed": "yes",
            "pv.kubernetes.io/bound-by-controller": "yes",
        }},
        "spec": {"volumeName": name},
    });
    within(claims.patch(&claim.name_any(), &parameters, &Patch::Merge(&spec))).await?;
    let status = json!({"status": {
        "phase": "Bound",
        "accessModes": volume.spec.as_ref().and_then(|s| s.access_modes.clone()),
        "capacity": volume.spec.as_ref().and_then(|s| s.capacity.clone()),
    }});
    within(claims.patch_status(&claim.name_any(), &parameters, &Patch::Merge(&status))).await?;
    Ok(())
}

fn volume(claim: &PersistentVolumeClaim, namespace: &str) -> Result<PersistentVolume> {
    let spec = claim.spec.clone().unwrap_or_default();
    let uid = claim.metadata.uid.clone().unwrap_or_default();
    let requests = spec.resources.and_then(|r| r.requests).unwrap_or_default();
    let name = claim.name_any();
    Ok(serde_json::from_value(json!({
        "metadata": {"name": volume_name(claim)},
        "spec": {
            "capacity": {"storage": requests.get("storage").map_or("1Gi", |q| q.0.as_str())},
            "accessModes": spec.access_modes.unwrap_or_else(|| vec!["ReadWriteOnce".to_owned()]),
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": spec.storage_class_name.unwrap_or_default(),
            "volumeMode": "Filesystem",
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": name,
                         "namespace": namespace, "uid": uid},
            "hostPath": {"path": format!("node/claims/{namespace}_{name}_{}", uid.get(..8).unwrap_or(&uid))},
        },
    }))?)
}
