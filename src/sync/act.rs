//! Carries a plan out: claims, Secrets, requests; then tells of it (`act/tell.rs`).
//!
//! Every write is guarded by what was read or by the name of what it creates, so that a second
//! process or an old cache can do no harm. Invents nothing: a plan leaves no choice. A database's
//! failure never stops another's.

mod count;
mod tell;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use serde_json::json;

use super::Context;
use super::live::is_pending;
use super::plan::{ClaimWrite, Emission, Plan, one_line, passed_on};
use crate::api::claim::Claim;
use crate::api::names::{DatabaseRef, annotations, finalizers, labels};
use crate::api::{ConfigRepository, Postgres, PostgresOpsRequest};
use crate::cluster::{self, Created, EventKind};

pub use count::{Ended, count};
pub use tell::{publish, unreadable};

/// What kept a pass from its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error("cluster")]
    Cluster(#[from] cluster::Error),
    /// Git, where nothing else could report it.
    #[error("repository")]
    Git(#[from] crate::git::Error),
}

/// How often a write is tried again that only lost against another field of the same object.
const ATTEMPTS: usize = 5;
/// Secrets of ours that are kept for a database beside those that are referenced.
const KEPT: usize = 3;

/// What came of carrying a plan out.
#[derive(Debug, Default)]
pub struct Emitted {
    /// Databases on which something was refused, with the reason.
    pub refused: BTreeMap<DatabaseRef, String>,
    /// Somebody was faster, or the watches are behind: look again soon.
    pub again: bool,
    /// Requests whose end was taken into their database's claim.
    pub ended: Vec<Ended>,
}

impl Emitted {
    /// What could not be written: what passes by itself is tried again soon, anything else is told
    /// in these words.
    fn failed(&mut self, database: &DatabaseRef, error: &cluster::Error, words: String) {
        if error.blocks().is_none() {
            tracing::debug!(%database, %error, "not written; it is looked at again");
            self.again = true;
            return;
        }
        tracing::warn!(%database, error = error.without_values(), "not written");
        self.refused.insert(database.clone(), words);
    }
}

/// Carries the plan out.
pub async fn emit(plan: &Plan, cx: &Context) -> Emitted {
    let mut emitted = Emitted::default();
    for (database, retired) in &plan.retired {
        let namespace = &database.namespace;
        let name = &retired.request.0;
        let uid = retired.uid.as_deref();
        if let Err(error) = cx.cluster.delete::<PostgresOpsRequest>(namespace, name, uid).await {
            let words = error.without_values();
            tracing::warn!(%database, request = name, error = words, "request was not taken back");
            emitted.refused.insert(database.clone(), error.to_string());
            emitted.again |= error.blocks().is_none();
        }
    }
    for (database, write) in &plan.claims {
        match record(database, write, &mut emitted, cx).await {
            Ok(()) => prune(database, write, cx).await,
            // Also an admission webhook of KubeDB, which looks at the whole object.
            Err(error) => emitted.failed(database, &error, one_line(&error.to_string())),
        }
    }
    for emission in &plan.emissions {
        if emitted.refused.contains_key(&emission.database) {
            continue;
        }
        match send(emission, &mut emitted, cx).await {
            Ok(()) => {}
            Err(error) => {
                let words = passed_on(&emission.request, &error.to_string());
                emitted.failed(&emission.database, &error, words);
            }
        }
    }
    emitted
}

/// One request, with everything that belongs to it, in the order that survives a crash at any
/// point: no managed parameter is forgotten, and a request that the claim names was there.
async fn send(
    emission: &Emission,
    emitted: &mut Emitted,
    cx: &Context,
) -> Result<(), cluster::Error> {
    let Emission { database, before, secret, request, after, cause, changes, .. } = emission;
    record(database, before, emitted, cx).await?;
    if let Some(secret) = secret {
        put_secret(secret, cx).await?;
    }
    let created = cx.cluster.create_whole(request).await?;
    let expected = before.claim.as_ref().map(Claim::render);
    let claim = Some(after.clone());
    let after = ClaimWrite { uid: before.uid.clone(), expected, claim };
    if matches!(created, Created::Exists) {
        // An earlier pass created it and the watch has not told yet: it is taken up by the next
        // look, which reads what it asked for from the request itself.
        return Ok(());
    }
    write_claim(database, &after, cx).await?;
    let names: Vec<&str> = changes.iter().map(|change| change.name.as_str()).take(20).collect();
    tracing::info!(%database, request = %request.name_any(), cause = cause.as_str(),
        parameters = names.join(" "), "request created");
    if let Some(postgres) = cx.databases.get(&database.namespace, &database.name) {
        let note = format!("{} asks for {}", request.name_any(), names.join(", "));
        cx.cluster.event(&*postgres, EventKind::Normal, "RequestCreated", &note).await;
    }
    Ok(())
}

/// Writes a claim, and remembers for the metrics when this took in the end of a request.
async fn record(
    database: &DatabaseRef,
    write: &ClaimWrite,
    emitted: &mut Emitted,
    cx: &Context,
) -> Result<(), cluster::Error> {
    if write_claim(database, write, cx).await? {
        emitted.ended.extend(count::taken_in(database, write));
    }
    Ok(())
}

/// Writes a claim if the annotation still says what was read; whether it had to be written. Other
/// changes of the object do not matter.
async fn write_claim(
    database: &DatabaseRef,
    write: &ClaimWrite,
    cx: &Context,
) -> Result<bool, cluster::Error> {
    let DatabaseRef { namespace, name } = database;
    let wanted = write.claim.as_ref().map(Claim::render);
    if wanted == write.expected {
        return Ok(false);
    }
    let what = format!("claim {database}");
    let mut seen = cx.databases.get(namespace, name).map(|postgres| (*postgres).clone());
    for _ in 0..ATTEMPTS {
        let Some(postgres) = seen.take() else {
            seen = cx.cluster.get::<Postgres>(namespace, name).await?;
            if seen.is_none() {
                return Err(cluster::Error::NotFound { what });
            }
            continue;
        };
        let says = postgres.annotations().get(annotations::CLAIM).cloned();
        if postgres.uid() == write.uid && says == wanted {
            return Ok(false);
        }
        if postgres.uid() == write.uid && says == write.expected {
            let patch = json!({ "metadata": {
                "resourceVersion": postgres.metadata.resource_version,
                "annotations": { annotations::CLAIM: wanted },
            }});
            match cx.cluster.merge::<Postgres>(namespace, name, &patch).await {
                Ok(_) => return Ok(true),
                Err(cluster::Error::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        // The watch may be old: ask the API server before giving up.
        let fresh = cx.cluster.get::<Postgres>(namespace, name).await?;
        let moved = fresh.as_ref().is_none_or(|fresh| {
            let now = fresh.annotations().get(annotations::CLAIM);
            fresh.uid() != write.uid || (now != write.expected.as_ref() && now != wanted.as_ref())
        });
        if moved {
            return Err(cluster::Error::Conflict { what });
        }
        seen = fresh;
    }
    Err(cluster::Error::Conflict { what })
}

/// A Secret of ours is immutable and named by its content: one of that name with another content
/// was tampered with.
async fn put_secret(secret: &Secret, cx: &Context) -> Result<(), cluster::Error> {
    if let Created::New(_) = cx.cluster.create(secret).await? {
        return Ok(());
    }
    let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
    let there: Option<Secret> = cx.cluster.get(&namespace, &name).await?;
    let Some(there) = there.filter(|there| there.data != secret.data) else { return Ok(()) };
    tracing::warn!(%namespace, %name, "config Secret of ours was tampered with; made anew");
    cx.cluster.delete::<Secret>(&namespace, &name, there.metadata.uid.as_deref()).await?;
    match cx.cluster.create(secret).await? {
        Created::New(_) => Ok(()),
        Created::Exists => Err(cluster::Error::Conflict { what: format!("create Secret {name}") }),
    }
}

/// Deletes old Secrets of ours once a request has settled: the newest and all that are referenced
/// stay. What fails here is done at the next settling.
async fn prune(database: &DatabaseRef, write: &ClaimWrite, cx: &Context) {
    if !write.claim.as_ref().is_some_and(|claim| claim.replace) {
        return;
    }
    let DatabaseRef { namespace, name } = database;
    let selector = format!("{}={name}", labels::RENDERED_FOR);
    let listed = cx.cluster.list::<Secret>(Some(namespace), &selector).await;
    let Ok(mut ours) = listed else { return };
    let referenced: Vec<String> = cx
        .requests
        .all()
        .iter()
        .filter(|request| request.database() == *database)
        .filter_map(|request| request.spec.configuration.as_ref()?.config_secret.clone())
        .map(|secret| secret.name)
        .chain(
            cx.databases
                .get(namespace, name)
                .and_then(|postgres| postgres.spec.secret_name().map(str::to_owned)),
        )
        .collect();
    ours.sort_by_key(|secret| std::cmp::Reverse(secret.creation_timestamp().map(|time| time.0)));
    for secret in ours.iter().skip(KEPT).filter(|s| !referenced.contains(&s.name_any())) {
        let uid = secret.metadata.uid.as_deref();
        if let Err(error) = cx.cluster.delete::<Secret>(namespace, &secret.name_any(), uid).await {
            tracing::debug!(%error, "old config Secret was not deleted");
        }
    }
}

/// Puts the finalizer on, so that deletion releases the databases.
///
/// # Errors
/// When the API server does not take it.
pub async fn keep(repository: &ConfigRepository, cx: &Context) -> Result<(), Error> {
    if repository.finalizers().iter().any(|name| name == finalizers::REPOSITORY) {
        return Ok(());
    }
    let mut all = repository.finalizers().to_vec();
    all.push(finalizers::REPOSITORY.to_owned());
    set_finalizers(repository, &all, cx).await
}

/// Releases every database of a repository that is being deleted: values stay, claims go.
///
/// # Errors
/// When a claim could not be taken away; the next pass goes on.
pub async fn release(repository: &ConfigRepository, cx: &Context) -> Result<(), Error> {
    let mut kept = None;
    for postgres in cx.databases.all() {
        let text = postgres.annotations().get(annotations::CLAIM).cloned();
        let claim = text.as_deref().and_then(Claim::parse);
        if claim.is_none_or(|claim| claim.repository != repository.uid()) {
            continue;
        }
        let database = postgres.database();
        for request in cx.requests.all().iter().filter(|r| r.database() == database) {
            let ours = super::live::is_ours(request, &repository.repository());
            if ours && is_pending(request) {
                let (namespace, name) = (&database.namespace, request.name_any());
                let uid = request.metadata.uid.as_deref();
                cx.cluster.delete::<PostgresOpsRequest>(namespace, &name, uid).await?;
            }
        }
        let (uid, expected) = (postgres.uid().to_owned(), text);
        // One that does not let go is no reason to hold the others.
        match write_claim(&database, &ClaimWrite { uid, expected, claim: None }, cx).await {
            Ok(_) => tracing::info!(%database, "released"),
            Err(error) => kept = Some(error),
        }
    }
    if let Some(error) = kept {
        return Err(error.into());
    }
    cx.memory.forget(&repository.repository());
    let mut rest = repository.finalizers().to_vec();
    rest.retain(|name| name != finalizers::REPOSITORY);
    if rest.len() == repository.finalizers().len() {
        return Ok(());
    }
    set_finalizers(repository, &rest, cx).await
}

async fn set_finalizers(
    repository: &ConfigRepository,
    all: &[String],
    cx: &Context,
) -> Result<(), Error> {
    let patch = json!({ "metadata": {
        "resourceVersion": repository.metadata.resource_version,
        "finalizers": all,
    }});
    let id = repository.repository();
    match cx.cluster.merge::<ConfigRepository>(&id.namespace, &id.name, &patch).await {
        Ok(_) | Err(cluster::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
