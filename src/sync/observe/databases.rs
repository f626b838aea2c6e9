//! Reads the databases that documents name or that we hold a claim on.
//!
//! Objects come from the watches; a Secret is read when its version is another than the one that is
//! remembered. Leaves what to make of it to `drift.rs` and `plan.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::ResourceExt;

use super::memory::ConfigSecret;
use super::servers;
use crate::api::claim::Claim;
use crate::api::conditions;
use crate::api::names::{
    DatabaseRef, INLINE_CONF, PGTUNE_CONF, RENDERED_CONF, USER_CONF, annotations, labels,
};
use crate::api::ownership::{self, FieldOwned};
use crate::api::postgres::{PostgresSpec, condition};
use crate::api::{ConfigRepository, Postgres, PostgresOpsRequest};
use crate::cluster;
use crate::pgconf::{Catalogue, Layers, Name, Settings, kubedb, provisioned, tuning};
use crate::sync::Context;
use crate::sync::desired::{Desired, Document};
use crate::sync::live::{Custom, Live, Observed, Present};

/// Databases whose Secrets are read at the same time.
const AT_ONCE: usize = 16;

type Requests = BTreeMap<DatabaseRef, Vec<Arc<PostgresOpsRequest>>>;

/// What is observed of every database that concerns the repository.
pub async fn live(repository: &ConfigRepository, desired: &Desired, cx: &Context) -> Observed {
    let mut names: BTreeSet<DatabaseRef> = desired.databases();
    let all = cx.databases.all();
    let uid = repository.uid();
    let claimed =
        all.iter().filter(|postgres| claim(postgres).is_some_and(|c| c.repository == uid));
    names.extend(claimed.map(|postgres| postgres.database()));
    let id = repository.repository();
    let not_taken = cx.memory.of(&id, |remembered| {
        remembered.databases.clone_from(&names);
        remembered.not_taken.clone()
    });
    let requests = requests(cx);
    let admitted = admitted(&names, &id.namespace, cx).await;
    let requested = repository.annotation(annotations::REQUESTED_AT);
    let reading = names.into_iter().map(|name| {
        let requests = requests.get(&name).cloned().unwrap_or_default();
        let admitted = admitted.get(&name.namespace).cloned();
        let document = desired.document(&name).cloned();
        let not_taken = not_taken.contains(&name);
        async move {
            let admitted = match admitted {
                None => Ok(true),
                Some(known) => known,
            };
            let document = document.as_deref().map(|document| (document, requested));
            let mut live = database(&name, requests, admitted, document, cx).await;
            if let Live::Present(present) = &mut live {
                present.not_taken = not_taken;
            }
            (name, live)
        }
    });
    futures::stream::iter(reading).buffer_unordered(AT_ONCE).collect().await
}

/// What is observed of one database, whoever configures it.
pub async fn one(name: &DatabaseRef, cx: &Context) -> Live {
    let requests = requests(cx).remove(name).unwrap_or_default();
    database(name, requests, Ok(true), None, cx).await
}

/// All requests by database, oldest first.
fn requests(cx: &Context) -> Requests {
    let mut requests: Requests = BTreeMap::new();
    for request in cx.requests.store().state() {
        requests.entry(request.database()).or_default().push(request);
    }
    for of_one in requests.values_mut() {
        of_one.sort_by_cached_key(|request| {
            let created = request.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (created, request.request_name())
        });
    }
    requests
}

/// For each namespace other than our own: whether it admits us.
async fn admitted(
    names: &BTreeSet<DatabaseRef>,
    own: &str,
    cx: &Context,
) -> BTreeMap<String, Result<bool, String>> {
    let others: BTreeSet<&str> = names.iter().map(|name| name.namespace.as_str()).collect();
    let mut admitted = BTreeMap::new();
    for other in others.into_iter().filter(|other| *other != own) {
        let answer = match cx.cluster.get_cluster_scoped::<Namespace>(other).await {
            Ok(namespace) => {
                let namespace = namespace.unwrap_or_default();
                let allowed = namespace.annotations().get(annotations::ALLOWED_FROM);
                let allowed = allowed.map(String::as_str).unwrap_or_default();
                Ok(allowed.split(',').map(str::trim).any(|name| name == "*" || name == own))
            }
            Err(error) => Err(error.to_string()),
        };
        admitted.insert(other.to_owned(), answer);
    }
    admitted
}

fn claim(postgres: &Postgres) -> Option<Claim> {
    let claim = Claim::parse(postgres.annotations().get(annotations::CLAIM)?)?;
    (claim.database == postgres.uid()).then_some(claim)
}

/// `document`: what a repository wants of it, and when somebody last asked that repository to look.
async fn database(
    name: &DatabaseRef,
    requests: Vec<Arc<PostgresOpsRequest>>,
    admitted: Result<bool, String>,
    document: Option<(&Document, Option<&str>)>,
    cx: &Context,
) -> Live {
    let Some(mut postgres) = cx.databases.get(&name.namespace, &name.name) else {
        let unreadable = cx.databases.unreadable(&name.namespace, &name.name);
        return unreadable.map_or(Live::Absent, Live::Unknown);
    };
    // Somebody's operation may be under way in a form that is not known here.
    if let Some(words) = cx.requests.unreadable_about(&name.namespace, &name.name) {
        return Live::Unknown(words);
    }
    // The end of our request may be seen before what it did: then what lives is asked for again,
    // or its own change would look like drift.
    let fresh = has_just_ended(claim(&postgres).as_ref(), &requests);
    if fresh {
        match cx.cluster.get::<Postgres>(&name.namespace, &name.name).await {
            Ok(Some(newest)) => postgres = Arc::new(newest),
            Ok(None) => return Live::Absent,
            Err(error) => return Live::Unknown(error.to_string()),
        }
    }
    if postgres.metadata.deletion_timestamp.is_some() {
        return Live::Unknown("it is being deleted".to_owned());
    }
    match present(&postgres, requests, admitted, fresh, cx).await {
        Ok(mut present) => {
            if let Some((document, requested)) = document {
                present.running =
                    servers::running(&postgres, &present, document, requested, cx).await;
            }
            Live::Present(Box::new(present))
        }
        Err(why) => Live::Unknown(why),
    }
}

async fn present(
    postgres: &Postgres,
    mut requests: Vec<Arc<PostgresOpsRequest>>,
    admitted: Result<bool, String>,
    fresh: bool,
    cx: &Context,
) -> Result<Present, String> {
    let note = |key: &str| postgres.annotations().get(key).cloned();
    let claim = claim(postgres);
    if let Some(missing) = missing_tail(claim.as_ref(), &requests) {
        // The watch of requests may lag behind that of databases: a request is only gone when the
        // API server says so.
        let namespace = postgres.namespace().unwrap_or_default();
        let found: Result<Option<PostgresOpsRequest>, _> =
            cx.cluster.get(&namespace, &missing).await;
        requests.extend(found.map_err(|error| error.to_string())?.map(Arc::new));
    }
    let all = postgres.conditions();
    let paused = conditions::find(all, condition::PAUSED).filter(|paused| paused.is_true());
    // The controller's certificate is there before anything else is of a database that we run.
    let namespace = postgres.namespace().unwrap_or_default();
    let foreign = cx.secrets.get(&namespace, &postgres.children().client_certificate).is_none();
    let holder = claim.as_ref().map(|claim| claim.repository.as_str());
    let known = cx.repositories.store().state();
    let claimant_exists = known.iter().any(|repository| Some(repository.uid()) == holder)
        || holder.is_some_and(|holder| cx.repositories.is_unreadable(holder));
    Ok(Present {
        uid: postgres.uid().to_owned(),
        version: postgres.spec.version.clone(),
        reported: postgres.status.as_ref().and_then(|status| status.server_version.clone()),
        nodes: postgres.spec.nodes(),
        phase: postgres.phase(),
        provisioned: conditions::is_true(all, condition::PROVISIONED),
        paused: paused.map(|paused| paused.message.clone()),
        freeze: note(annotations::FREEZE),
        retry: note(annotations::RETRY),
        claim_text: note(annotations::CLAIM),
        claim,
        claimant_exists,
        admitted: admitted?,
        custom: custom(postgres, Ask { fresh, foreign, needed: false }, cx).await?,
        requests,
        running: None,
        foreign,
        not_taken: false,
        owners: ownership::foreign_owners(postgres)
            .into_iter()
            .filter(FieldOwned::is_of_a_gitops_tool)
            .collect(),
    })
}

/// Whether the last request of a claim has ended, and the claim does not know yet.
fn has_just_ended(claim: Option<&Claim>, requests: &[Arc<PostgresOpsRequest>]) -> bool {
    let Some(claim) = claim else { return false };
    let open = claim.asked.as_ref().is_some_and(|asked| asked.ended.is_none());
    let mut ended = requests.iter().filter(|request| request.phase().is_terminal());
    open && ended.any(|request| Some(request.request_name()) == claim.last_request)
}

/// The last request of a claim, when it is still open as far as the claim knows and not among
/// those that are watched.
fn missing_tail(claim: Option<&Claim>, requests: &[Arc<PostgresOpsRequest>]) -> Option<String> {
    let claim = claim?;
    let open = claim.asked.as_ref().is_some_and(|asked| asked.ended.is_none());
    let last = claim.last_request.as_ref().filter(|_| open)?;
    let known = requests.iter().any(|request| request.request_name() == *last);
    (!known).then(|| last.0.clone())
}

async fn custom(postgres: &Postgres, ask: Ask, cx: &Context) -> Result<Custom, String> {
    let namespace = postgres.namespace().unwrap_or_default();
    let mut layers = Layers {
        inline: parsed("spec.configuration.inline", postgres.spec.inline())?,
        ..Layers::default()
    };
    let mut custom = Custom { tuning: postgres.spec.tuning().cloned(), ..Custom::default() };
    if ask.foreign {
        let keys = postgres.spec.configuration.iter().filter_map(|c| c.inline.as_ref());
        let keys = keys.flat_map(BTreeMap::keys).filter(|key| is_other_file(key));
        custom.inline_files = keys.cloned().collect();
    }
    if let Some(name) = postgres.spec.secret_name() {
        let secret = secret(&namespace, name, Ask { needed: true, ..ask }, cx).await?;
        let secret = secret.ok_or_else(|| format!("Secret {namespace}/{name} is not there"))?;
        layers.user = match secret.keys.get(USER_CONF) {
            Some(Ok(settings)) => settings.clone(),
            Some(Err(why)) => return Err(format!("Secret {namespace}/{name}: {why}")),
            // KubeDB's servers include the file if it is there.
            None if ask.foreign => Settings::new(),
            None => return Err(format!("Secret {namespace}/{name} has no key {USER_CONF}")),
        };
        custom.secret_is_ours = secret.ours;
        if ask.foreign {
            custom.secret_files.clone_from(&secret.other_files);
        }
        custom.secret_name = Some(name.to_owned());
    }
    let operators = postgres.children().operator_config;
    if let Some(secret) = secret(&namespace, &operators, ask, cx).await? {
        let key = |key: &str| match secret.keys.get(key) {
            None => Ok(None),
            Some(Ok(settings)) => Ok(Some(settings.clone())),
            Some(Err(why)) => Err(format!("Secret {namespace}/{operators}: {why}")),
        };
        custom.rendered_inline = key(INLINE_CONF)?;
        custom.rendered = key(RENDERED_CONF)?;
        if ask.foreign {
            layers.tuning = key(PGTUNE_CONF)?.unwrap_or_default();
        }
    }
    if let Some(catalogue) = Catalogue::for_version(&postgres.spec.version)
        && ask.foreign
    {
        // Its lines stand after those of pgtune.
        layers.provisioner = kubedb::lines(&postgres.spec, catalogue);
        layers.tuning.retain(|name, _| !layers.provisioner.contains(name));
    }
    if let Some(rendered) = custom.rendered.as_ref().filter(|_| !ask.foreign) {
        set_defaults(&mut layers, rendered, &postgres.spec);
    }
    custom.layers = layers;
    Ok(custom)
}

/// What our own operator rendered beyond the custom configuration are its defaults.
fn set_defaults(layers: &mut Layers, rendered: &Settings, spec: &PostgresSpec) {
    let (user, inline) = (&layers.user, &layers.inline);
    let hidden = |name: &Name| user.contains(name) || inline.contains(name);
    // Of these, what tuning makes of the object as it is now; also below what overrides it.
    let tuned = provisioned::major(&spec.version)
        .map(|major| tuning::settings(spec, spec.tuning(), major).unwrap_or_default());
    let mut tuned = tuned.unwrap_or_default();
    tuned.retain(|name, value| hidden(name) || rendered.get(name) == Some(value));
    let mut provisioner = rendered.clone();
    provisioner.retain(|name, _| !hidden(name) && !tuned.contains(name));
    layers.provisioner = provisioner;
    layers.tuning = tuned;
}

/// Whether a key is a file of configuration other than that of parameters (`user_hba.conf`).
fn is_other_file(key: &str) -> bool {
    key.ends_with(".conf") && ![USER_CONF, INLINE_CONF, PGTUNE_CONF, RENDERED_CONF].contains(&key)
}

/// How a Secret is asked for.
#[derive(Clone, Copy)]
struct Ask {
    /// Also when the watch knows of none: it may lag behind.
    needed: bool,
    /// Whatever is remembered.
    fresh: bool,
    /// Somebody else runs the servers.
    foreign: bool,
}

/// What a Secret says about configuration, read only when its version is another one.
async fn secret(
    namespace: &str,
    name: &str,
    ask: Ask,
    cx: &Context,
) -> Result<Option<Arc<ConfigSecret>>, String> {
    let version = cx.secrets.get(namespace, name).and_then(|s| s.metadata.resource_version.clone());
    let id = (namespace.to_owned(), name.to_owned());
    let known = version.as_deref().filter(|_| !ask.fresh);
    let known = known.and_then(|version| cx.memory.secret(&id, version));
    if known.is_some() || (version.is_none() && !ask.needed) {
        return Ok(known);
    }
    let read: Result<Option<Secret>, cluster::Error> = cx.cluster.get(namespace, name).await;
    let Some(secret) = read.map_err(|error| error.to_string())? else { return Ok(None) };
    let version = secret.metadata.resource_version.clone().unwrap_or_default();
    let ours = secret.labels().contains_key(labels::RENDERED_FOR);
    let data = secret.data.unwrap_or_default();
    let other_files = data.keys().filter(|key| is_other_file(key)).cloned().collect();
    let mut keys = BTreeMap::new();
    for key in [USER_CONF, INLINE_CONF, PGTUNE_CONF, RENDERED_CONF] {
        if let Some(bytes) = data.get(key) {
            keys.insert(key, Settings::parse_bytes(&bytes.0).map_err(|p| first(key, &p)));
        }
    }
    let secret = Arc::new(ConfigSecret { ours, keys, other_files });
    cx.memory.keep_secret(id, version, secret.clone());
    Ok(Some(secret))
}

fn parsed(what: &str, text: &str) -> Result<Settings, String> {
    Settings::parse(text).map_err(|problems| first(what, &problems))
}

fn first(what: &str, problems: &[crate::pgconf::Problem]) -> String {
    let first = problems.first().map(ToString::to_string).unwrap_or_default();
    format!("{what}:{first}")
}
