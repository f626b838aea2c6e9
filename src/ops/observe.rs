//! What is there: objects and Secrets read afresh, every instance asked at the same time.
//!
//! The watches say which requests there are; what may still change is read from the API server
//! itself, because a decision here may stop a server. An instance that does not answer in time is
//! `Unknown`, with the reason. While nothing is open for a database its servers are not asked.
//! Has no lasting effect. Leaves every decision to `rollout`.

mod connections;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod, Secret};
use secrecy::{ExposeSecret, SecretString};

use crate::api::names::{
    ChildNames, DatabaseRef, INLINE_CONF, RENDERED_CONF, USER_CONF, finalizers, labels,
};
use crate::api::{Postgres, PostgresOpsRequest};
use crate::cluster::{self, Cluster};
use crate::instance::client::{Client, Identity};
use crate::instance::protocol::{AskFacts, AskSettings};
use crate::pgconf::{Context as Change, Settings, tiers};

pub use connections::Instances;

use super::Context;
use super::journal::{self, Journal};
use super::seen::{Answers, Kept, Node, OperatorSecret, Seen, Server, UserConf};
use super::status::{self, Pause};
use super::step::Touched;

/// How long an instance may take to say what it knows: it answers in milliseconds, and every look
/// waits for the slowest.
const FACTS: Duration = Duration::from_secs(2);
/// How long the answers of servers are used on while only objects were written: longer than the
/// writes between two things that servers do, and shorter than anybody waits for.
const FRESH: Duration = Duration::from_secs(1);

/// What was seen in a pass, and when all of it was last read.
pub struct Looked {
    seen: Seen,
    at: Instant,
}

impl Looked {
    /// What was seen.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// With what the last step was answered.
    #[must_use]
    pub fn answered(mut self, answers: Answers) -> Self {
        self.seen.answers = answers;
        self
    }
}

/// Looks at a database. Within a pass only what the last step touched is looked at again, and what
/// it wrote is in its answer, unless that look is older than `FRESH`.
///
/// # Errors
/// The API server's; a node that does not answer is no error.
pub async fn database(
    id: &DatabaseRef,
    cx: &Context,
    before: Option<(Looked, Touched)>,
) -> Result<Looked, cluster::Error> {
    let young = |(looked, _): &(Looked, Touched)| looked.at.elapsed() < FRESH;
    let Some((mut looked, touched)) = before.filter(young) else { return everything(id, cx).await };
    let seen = &mut looked.seen;
    match touched {
        Touched::Everything => return everything(id, cx).await,
        Touched::Nothing => {}
        Touched::Servers => seen.nodes = nodes(seen, cx).await?,
        Touched::Request(written) => {
            let name = written.request_name();
            seen.requests.retain(|request| request.request_name() != name);
            // The last finalizer taken from one that is deleted: it is gone.
            let held = written.metadata.finalizers.as_ref().is_some_and(|all| !all.is_empty());
            if held || !written.is_deleted() {
                seen.requests.push(*written);
            }
            in_order(&mut seen.requests);
        }
        Touched::Database(written) => seen.database = Some(*written),
        Touched::Memory(written) => seen.journal = kept(*written),
        Touched::Operator(written) => seen.operator = Some(operator(written.as_ref())),
        Touched::Objects => {
            objects(id, seen, cx).await?;
            secrets(seen, cx).await?;
        }
    }
    Ok(looked)
}

async fn everything(id: &DatabaseRef, cx: &Context) -> Result<Looked, cluster::Error> {
    let at = Instant::now();
    let mut seen = Seen::default();
    objects(id, &mut seen, cx).await?;
    let open = seen.database.as_ref().is_some_and(|database| is_open(database, &seen.requests));
    if let Some(database) = seen.database.clone().filter(|_| open) {
        let (ways, ()) = tokio::try_join!(ways(&database, cx), secrets(&mut seen, cx))?;
        seen.nodes = asked(&seen, &database, &ways, cx).await;
    }
    Ok(Looked { seen, at })
}

/// The database and its requests.
async fn objects(id: &DatabaseRef, seen: &mut Seen, cx: &Context) -> Result<(), cluster::Error> {
    let (database, mut requests) =
        tokio::try_join!(cx.cluster.get::<Postgres>(&id.namespace, &id.name), requests(id, cx))?;
    if let Some(database) = &database {
        add_owner(database, &mut requests, &cx.cluster).await?;
    }
    in_order(&mut requests);
    (seen.database, seen.requests) = (database, requests);
    Ok(())
}

fn in_order(requests: &mut [PostgresOpsRequest]) {
    requests.sort_by_key(|r| {
        (r.metadata.creation_timestamp.as_ref().map(|time| time.0), r.request_name())
    });
}

/// Whether there is anything to do for a database.
fn is_open(database: &Postgres, requests: &[PostgresOpsRequest]) -> bool {
    let ours = matches!(status::paused(database), Pause::Ours(_));
    ours || requests.iter().any(|request| !request.phase().is_terminal())
}

/// The database's requests: those that may still change are read afresh.
async fn requests(
    id: &DatabaseRef,
    cx: &Context,
) -> Result<Vec<PostgresOpsRequest>, cluster::Error> {
    let all = cx.requests.all();
    let of_database = all.iter().filter(|request| request.database() == *id);
    let reads = of_database.map(|request| async move {
        let guarded =
            request.metadata.finalizers.as_ref().is_some_and(|finalizers| {
                finalizers.iter().any(|name| name == finalizers::REQUEST)
            });
        if request.phase().is_terminal() && !guarded {
            return Ok(Some(PostgresOpsRequest::clone(request)));
        }
        cx.cluster.get(&id.namespace, &request.request_name().0).await
    });
    Ok(try_join_all(reads).await?.into_iter().flatten().collect())
}

/// The request that our pause names, even if the watch has not told of it yet: to take it for gone
/// would be to undo its work.
async fn add_owner(
    database: &Postgres,
    requests: &mut Vec<PostgresOpsRequest>,
    cluster: &Cluster,
) -> Result<(), cluster::Error> {
    let Pause::Ours(owner) = status::paused(database) else { return Ok(()) };
    let is_owner = |r: &PostgresOpsRequest| r.metadata.uid.as_deref() == Some(owner.uid.as_str());
    if requests.iter().any(is_owner) {
        return Ok(());
    }
    let namespace = database.database().namespace;
    let owner = cluster.get::<PostgresOpsRequest>(&namespace, &owner.name).await?;
    requests.extend(owner.filter(is_owner));
    Ok(())
}

/// The operator's Secret, the memory, and the owner's Secrets.
async fn secrets(seen: &mut Seen, cx: &Context) -> Result<(), cluster::Error> {
    let Some(database) = &seen.database else { return Ok(()) };
    let DatabaseRef { namespace, name } = database.database();
    let names = ChildNames::of(&name, database.uid());
    let read = |name: String| {
        let namespace = namespace.clone();
        async move { cx.cluster.get::<Secret>(&namespace, &name).await }
    };
    let open = seen.requests.iter().filter(|request| !request.phase().is_terminal());
    let secret_of = |request: &PostgresOpsRequest| {
        Some(request.spec.configuration.as_ref()?.config_secret.as_ref()?.name.clone())
    };
    let current = database.spec.secret_name().map(str::to_owned);
    let wanted: BTreeSet<String> = open.filter_map(secret_of).chain(current).collect();
    let user = join_all(wanted.iter().map(|name| read(name.clone())));
    let (found, previous, user) = tokio::join!(
        read(names.operator_config.clone()),
        read(names.previous_config.clone()),
        user
    );
    seen.operator = found?.as_ref().map(operator);
    seen.journal = previous?.map_or(Kept::Nothing, kept);
    for (name, secret) in wanted.into_iter().zip(user) {
        let user_conf = match secret? {
            None => UserConf::Absent,
            Some(secret) => match text(&secret, USER_CONF) {
                None => UserConf::NoKey,
                Some(text) => UserConf::Text(SecretString::from(text)),
            },
        };
        seen.user_confs.insert(name, user_conf);
    }
    Ok(())
}

fn operator(secret: &Secret) -> OperatorSecret {
    OperatorSecret {
        inline: text(secret, INLINE_CONF).unwrap_or_default(),
        file: text(secret, RENDERED_CONF).unwrap_or_default(),
        version: secret.metadata.resource_version.clone(),
    }
}

fn kept(secret: Secret) -> Kept {
    let Some(text) = text(&secret, journal::KEY) else {
        return Kept::Broken(format!("it has no key {}", journal::KEY));
    };
    match Journal::parse(&text) {
        Ok(journal) => Kept::Journal(Box::new(journal), secret.metadata.resource_version),
        Err(error) => Kept::Broken(error.to_string()),
    }
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let ByteString(bytes) = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.clone()).ok()
}

/// How the nodes of a database are reached.
struct Ways {
    pods: Vec<Pod>,
    /// The reason where there is none.
    identity: Result<Identity, String>,
}

async fn ways(database: &Postgres, cx: &Context) -> Result<Ways, cluster::Error> {
    let DatabaseRef { namespace, name } = database.database();
    let selector = format!("{}={name}", labels::INSTANCE);
    let (pods, identity) = tokio::try_join!(
        cx.cluster.list::<Pod>(Some(&namespace), &selector),
        identity(database, cx)
    )?;
    Ok(Ways { pods, identity })
}

async fn nodes(seen: &Seen, cx: &Context) -> Result<BTreeMap<String, Node>, cluster::Error> {
    let Some(database) = &seen.database else { return Ok(BTreeMap::new()) };
    let ways = ways(database, cx).await?;
    Ok(asked(seen, database, &ways, cx).await)
}

/// Every node that there should be, asked at the same time.
async fn asked(
    seen: &Seen,
    database: &Postgres,
    ways: &Ways,
    cx: &Context,
) -> BTreeMap<String, Node> {
    let id = database.database();
    let names = ChildNames::of(&id.name, database.uid());
    let question = parameters(seen);
    let look = (0..database.spec.nodes()).map(|ordinal| {
        let (pod, id, question) = (names.pod(ordinal), &id, &question);
        let found = ways.pods.iter().find(|p| p.metadata.name.as_deref() == Some(pod.as_str()));
        async move {
            let node = match (&ways.identity, found.map(address)) {
                (_, None) => Node::Unknown("its pod is not there".to_owned()),
                (_, Some(Err(why))) => Node::Unknown(why.to_owned()),
                (Err(why), _) => Node::Unknown(why.clone()),
                (Ok(identity), Some(Ok(address))) => {
                    let client = cx.instances.client(id, &pod, address, identity);
                    server(&client, question).await
                }
            };
            (pod, node)
        }
    });
    join_all(look).await.into_iter().collect()
}

fn address(pod: &Pod) -> Result<IpAddr, &'static str> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Err("its pod is being deleted");
    }
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
    ip.and_then(|ip| ip.parse().ok()).ok_or("its pod has no address yet")
}

async fn server(client: &Client, asked: &AskSettings) -> Node {
    match client.call(&AskFacts { settings: Some(asked.clone()) }, FACTS).await {
        Err(error) => Node::Unknown(error.to_string()),
        Ok(mut facts) => {
            let settings = facts.settings.take().map(|settings| settings.settings);
            if settings.is_none() && facts.live.take().is_some() {
                let why = "its instance is older than this controller and said no settings";
                facts.live_error = Some(why.to_owned());
            }
            Node::Known(Box::new(Server { facts, settings: settings.unwrap_or_default() }))
        }
    }
}

/// Names of the parameters that matter: all that need a restart, and all that any file names.
fn parameters(seen: &Seen) -> AskSettings {
    // Without a catalogue of this version nothing is left out.
    let Some(catalogue) = seen.catalogue() else { return AskSettings::default() };
    let postmaster = catalogue.iter().filter(|p| p.context() == Change::Postmaster);
    let mut names: BTreeSet<String> = postmaster.map(|p| p.name().to_ascii_lowercase()).collect();
    names.extend(tiers::ORDERED.iter().map(|name| (*name).to_owned()));
    names.insert("wal_retrieve_retry_interval".to_owned());
    let mut add = |text: &str| {
        let settings = Settings::parse(text).unwrap_or_default();
        names.extend(settings.names().map(|name| name.lower()));
    };
    if let Some(operator) = &seen.operator {
        add(&operator.file);
    }
    if let Kept::Journal(journal, _) = &seen.journal {
        add(&journal.before.file);
        add(&journal.after.file);
    }
    for request in &seen.requests {
        add(request.spec.configuration.as_ref().map_or("", |ask| ask.settings()));
    }
    for user_conf in seen.user_confs.values() {
        if let UserConf::Text(text) = user_conf {
            add(text.expose_secret());
        }
    }
    AskSettings { names: names.into_iter().collect() }
}

/// The controller's certificate for a database; the reason where there is none.
async fn identity(
    database: &Postgres,
    cx: &Context,
) -> Result<Result<Identity, String>, cluster::Error> {
    let DatabaseRef { namespace, name } = database.database();
    let secret = ChildNames::of(&name, database.uid()).client_certificate;
    let Some(found) = cx.cluster.get::<Secret>(&namespace, &secret).await? else {
        return Ok(Err(format!("Secret {secret} is not there yet")));
    };
    Ok(cx.instances.identity(&database.database(), &found).map_err(|error| error.to_string()))
}
