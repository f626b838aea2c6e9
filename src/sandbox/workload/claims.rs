//! Binds every claim to a volume of its own, at once.
//!
//! What a storage provisioner and the volume controller are to a real cluster. The volume is a
//! PersistentVolume object like any other; the folder behind it is the node's affair. A claim
//! whose class is not the default belongs to somebody else. Never removes what a folder holds.

use std::time::Duration;

use anyhow::Result;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{existing_is_fine, within};

/// Wait before a claim that could not be bound is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Tries before a claim is left to the next change of it.
const TRIES: u32 = 10;

pub(super) async fn run(client: Client, cancel: CancellationToken) {
    let claims = Api::<PersistentVolumeClaim>::all(client.clone());
    let stream = watcher(claims, watcher::Config::default()).default_backoff().applied_objects();
    let mut stream = stream.boxed();
    loop {
        let next = tokio::select! {
            next = stream.next() => next,
            () = cancel.cancelled() => return,
        };
        match next {
            Some(Ok(claim)) if is_unbound(&claim) => {
                tokio::spawn(bind_patiently(client.clone(), claim, cancel.clone()));
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => tracing::debug!("watching claims: {error}"),
            None => return,
        }
    }
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
    let spec = json!({
        "metadata": {"uid": claim.metadata.uid, "annotations": {
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
        "metadata": {"name": format!("pvc-{uid}")},
        "spec": {
            "capacity": {"storage": requests.get("storage").map_or("1Gi", |q| q.0.as_str())},
            "accessModes": spec.access_modes.unwrap_or_else(|| vec!["ReadWriteOnce".to_owned()]),
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": spec.storage_class_name.unwrap_or_default(),
            "volumeMode": "Filesystem",
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": name,
                         "namespace": namespace, "uid": uid},
            "hostPath": {"path": format!("node/claims/{namespace}_{name}")},
        },
    }))?)
}
