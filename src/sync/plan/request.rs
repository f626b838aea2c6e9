//! A finished `PostgresOpsRequest` and, for Replace, the Secret that it names.
//!
//! Emitting leaves nothing to choose. Leaves whether and when to the gates. Never writes a value
//! anywhere but into the request's configuration and the Secret.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::chain::Chain;
use super::{Cause, Wish};
use crate::api::names::{DatabaseRef, RequestName, USER_CONF, annotations, digest, labels};
use crate::api::ops_request::{
    DatabaseName, OpsType, PostgresOpsRequest, PostgresOpsRequestSpec, Reconfiguration,
};
use crate::api::postgres::SecretRef;
use crate::pgconf::Settings;
use crate::sync::drift::{Change, Edit};
use crate::sync::live::{Present, base_digest};
use crate::sync::source::Source;

/// Most changes that the annotation keeps: at some 100 bytes each far below the 256 KiB that an
/// object's annotations may have.
const CHANGES_KEPT: usize = 500;

/// The request that carries a wish out, and the Secret that must be there before it.
pub fn build(source: &Source, wish: &Wish<'_>) -> (PostgresOpsRequest, Option<Secret>) {
    let Wish { database, present, document, edit, .. } = wish;
    // KubeDB may take the tuning away with the rest, which nobody asked for: it is said again.
    let tuning = present.custom.tuning.clone().filter(|_| present.foreign && edit.removes());
    let (configuration, secret) = match edit {
        Edit::Nothing => (Reconfiguration::default(), None),
        Edit::Apply(settings) => (Reconfiguration { apply_config: text(settings), ..none() }, None),
        Edit::Rewrite { secret, inline } => {
            let config_secret = secret.clone().map(|name| SecretRef { name });
            let apply_config = text(inline);
            let remove_custom_config = Some(true);
            let whole =
                Reconfiguration { config_secret, apply_config, remove_custom_config, ..none() };
            (whole, None)
        }
        Edit::Replace(settings) => {
            let secret = rendered(database, present, settings);
            let name = secret.metadata.name.clone().unwrap_or_default();
            let whole = Reconfiguration {
                config_secret: Some(SecretRef { name }),
                remove_custom_config: Some(true),
                ..none()
            };
            (whole, Some(secret))
        }
    };
    let name = next_name(database, present, &wish.chain);
    let metadata = ObjectMeta {
        name: Some(name.0),
        namespace: Some(database.namespace.clone()),
        labels: Some([(labels::INSTANCE.to_owned(), database.name.clone())].into()),
        annotations: Some(annotations(source, wish)),
        ..ObjectMeta::default()
    };
    let spec = PostgresOpsRequestSpec {
        database_ref: DatabaseName { name: database.name.clone() },
        type_: OpsType::Reconfigure,
        configuration: Some(Reconfiguration { restart: document.restart, tuning, ..configuration }),
        timeout: document.timeout,
        apply: document.apply,
        max_retries: None,
        other: BTreeMap::new(),
    };
    (PostgresOpsRequest { metadata, spec, status: None }, secret)
}

/// The one name that the next request can have.
pub fn next_name(database: &DatabaseRef, present: &Present, chain: &Chain<'_>) -> RequestName {
    RequestName::successor(database, &present.uid, chain.claim.last_request.as_ref())
}

fn none() -> Reconfiguration {
    Reconfiguration::default()
}

/// Settings as `applyConfig`; nothing when there are none.
fn text(settings: &Settings) -> Option<BTreeMap<String, String>> {
    (!settings.is_empty()).then(|| [(USER_CONF.to_owned(), settings.render())].into())
}

fn annotations(source: &Source, wish: &Wish<'_>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut put = |key: &str, value: String| all.insert(key.to_owned(), value);
    put(annotations::REPOSITORY, source.repository.to_string());
    put(annotations::COMMIT, wish.commit.to_string());
    put(annotations::DESIRED, wish.document.digest.clone());
    put(annotations::CAUSE, wish.cause.as_str().to_owned());
    put(annotations::CHANGES, changes_json(&wish.difference.changes));
    if let Some(previous) = &wish.chain.claim.last_request {
        put(annotations::PREVIOUS, previous.to_string());
    }
    if let Some(retry) = &wish.present.retry {
        put(annotations::RETRY, retry.clone());
    }
    if let Edit::Rewrite { .. } = wish.edit {
        let layers = &wish.present.custom.layers;
        put(annotations::BASE, base_digest(&layers.user, &layers.inline));
    }
    let allowed: BTreeMap<String, &str> = wish
        .document
        .allow_unsafe
        .iter()
        .map(|(name, allowance)| (name.lower(), allowance.reason.as_str()))
        .collect();
    if !allowed.is_empty() {
        put(annotations::ALLOW_UNSAFE, serde_json::to_string(&allowed).unwrap_or_default());
    }
    all
}

fn changes_json(changes: &[Change]) -> String {
    let kept: Vec<&Change> = changes.iter().take(CHANGES_KEPT).collect();
    serde_json::to_string(&kept).unwrap_or_default()
}

/// What a request of ours changes, from its annotation; empty when it says nothing.
pub fn changes_of(request: &PostgresOpsRequest) -> Vec<Change> {
    let text = request.annotation(annotations::CHANGES);
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// What asked for a request of ours.
pub fn cause_of(request: &PostgresOpsRequest) -> Cause {
    match request.annotation(annotations::CAUSE) {
        Some("drift") => Cause::Drift,
        _ => Cause::Commit,
    }
}

/// The Secret of a Replace: immutable, and named by what is in it, so that an unchanged document
/// names the Secret that is there already.
fn rendered(database: &DatabaseRef, present: &Present, settings: &Settings) -> Secret {
    let text = settings.render();
    let hash = digest(&[&present.uid, &text]);
    // Room for "-pgitops-" and 10 hex digits in 63 characters.
    let stem: String = database.name.chars().take(44).collect();
    let metadata = ObjectMeta {
        name: Some(format!("{}-pgitops-{}", stem.trim_end_matches('-'), &hash[..10])),
        namespace: Some(database.namespace.clone()),
        labels: Some([(labels::RENDERED_FOR.to_owned(), database.name.clone())].into()),
        annotations: Some([(annotations::DATABASE_UID.to_owned(), present.uid.clone())].into()),
        ..ObjectMeta::default()
    };
    Secret {
        metadata,
        immutable: Some(true),
        data: Some([(USER_CONF.to_owned(), ByteString(text.into_bytes()))].into()),
        ..Secret::default()
    }
}
