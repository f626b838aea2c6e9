//! What the node reads from the API server for a pod.
//!
//! Every call has a deadline. Leaves using it to `environment` and `volumes`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client};

use super::environment::Sources;
use super::volumes::References;

/// Deadline of one call; the API server is on this machine.
pub const CALL: Duration = Duration::from_secs(10);

/// Runs a call with its deadline.
///
/// # Errors
/// The call's own, or that it took too long.
pub async fn within<T>(
    what: &str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T> {
    match tokio::time::timeout(CALL, call).await {
        Ok(result) => result.with_context(|| what.to_owned()),
        Err(_) => Err(anyhow!("{what}: no answer within {CALL:?}")),
    }
}

/// Reads everything that the pod refers to; what is absent is left out.
///
/// # Errors
/// The API server cannot be asked.
pub async fn sources(client: &Client, pod: &Pod, wanted: &References) -> Result<Sources> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let mut found = Sources::default();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    for name in &wanted.secrets {
        if let Some(secret) = within("reading a secret", secrets.get_opt(name)).await? {
            let keys = secret.data.unwrap_or_default();
            found.secrets.insert(name.clone(), keys.into_iter().map(|(k, v)| (k, v.0)).collect());
        }
    }
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    for name in &wanted.config_maps {
        if let Some(map) = within("reading a configmap", maps.get_opt(name)).await? {
            let mut keys: BTreeMap<String, Vec<u8>> =
                map.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.into())).collect();
            keys.extend(map.binary_data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0)));
            found.config_maps.insert(name.clone(), keys);
        }
    }
    if wanted.tokens {
        found.token = token(client, namespace, pod).await;
    }
    Ok(found)
}

/// A token of the pod's ServiceAccount; none where the server makes none.
async fn token(client: &Client, namespace: &str, pod: &Pod) -> Option<Vec<u8>> {
    let account = pod.spec.as_ref()?.service_account_name.as_deref().unwrap_or("default");
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    // An hour, the least that real servers accept without a warning.
    let spec = TokenRequestSpec { expiration_seconds: Some(3600), ..Default::default() };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let parameters = PostParams::default();
    let call = accounts.create_token_request(account, &parameters, &request);
    let answer = within("asking for a token", call).await.ok()?;
    answer.status?.token.map(String::into_bytes)
}

/// Reads the pod's claims, which must be bound: name → uid.
///
/// # Errors
/// Words for the event: which claim is not there or not bound.
pub async fn claims(
    client: &Client,
    namespace: &str,
    wanted: &References,
) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    for name in &wanted.claims {
        let claim = within("reading a claim", claims.get_opt(name)).await?;
        let Some(claim) = claim else { bail!("persistentvolumeclaim \"{name}\" not found") };
        let phase = claim.status.and_then(|s| s.phase);
        if phase.as_deref() != Some("Bound") {
            bail!("persistentvolumeclaim \"{name}\" is not bound yet");
        }
        if claim.metadata.deletion_timestamp.is_some() {
            bail!("persistentvolumeclaim \"{name}\" is being deleted");
        }
        found.insert(name.clone(), claim.metadata.uid.unwrap_or_default());
    }
    Ok(found)
}
