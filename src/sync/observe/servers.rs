//! Looks at what the servers of a database run, where pgitops runs them.
//!
//! Only to find what overrides our files (ALTER SYSTEM): at most once a minute and database, and
//! at once when its object has changed. Beside KubeDB there is nobody to ask, and nothing is known.
//! A server that does not answer is no drift. Never changes anything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use secrecy::SecretString;

use crate::api::Postgres;
use crate::api::names::{CONTROL_PORT, DatabaseRef, labels};
use crate::api::postgres::Phase;
use crate::instance::client::{Client, Identity};
use crate::instance::protocol::AskSettings;
use crate::pgconf::Name;
use crate::sync::Context;
use crate::sync::desired::Document;
use crate::sync::live::{Present, Report, Running};

/// How long a look counts while the database's object stays as it is.
const FRESH: SignedDuration = SignedDuration::from_secs(60);
/// A server on the same network answers within milliseconds; one that does not is asked again at
/// the next look.
const ANSWER: Duration = Duration::from_secs(1);
/// Databases whose servers are remembered.
const REMEMBERED: usize = 10_000;

/// What is remembered of the servers.
#[derive(Default)]
pub struct Servers(Mutex<BTreeMap<DatabaseRef, Arc<Looked>>>);

/// The last look at one database's servers.
struct Looked {
    at: Timestamp,
    /// The object's version and the names that were asked for.
    about: (Option<String>, BTreeSet<Name>),
    reach: Option<Reach>,
    running: Option<Running>,
}

/// How the servers are reached. Connections are not kept: a fleet has more than files may be open.
#[derive(Clone)]
pub struct Reach {
    /// What instances know us by.
    pub identity: Identity,
    /// Pod → control address.
    pub nodes: BTreeMap<String, SocketAddr>,
    /// Pods that have no address yet.
    pub homeless: BTreeSet<String>,
}

/// What the servers of a database run of the parameters that a document names; `None` where nobody
/// can be asked, or while a request is changing it.
pub async fn running(
    postgres: &Postgres,
    present: &Present,
    document: &Document,
    cx: &Context,
) -> Option<Running> {
    let idle = present.requests.iter().all(|request| request.phase().is_terminal());
    if present.claim.is_none() || present.phase != Some(Phase::Ready) || !idle {
        return None;
    }
    let id = postgres.database();
    let names: BTreeSet<Name> = document.settings.names().cloned().collect();
    let about = (postgres.metadata.resource_version.clone(), names);
    let now = (cx.clock)();
    let known = lock(&cx.servers).get(&id).cloned();
    if let Some(known) = &known
        && known.about == about
        && now.duration_since(known.at) < FRESH
    {
        return known.running.clone();
    }
    // Pods get new addresses: after a look that failed they are asked for again.
    let reach = match known.filter(|known| known.running.is_some()) {
        Some(known) => known.reach.clone(),
        None => self::reach(postgres, cx).await.ok(),
    };
    let running = match &reach {
        Some(reach) => ask(reach, &about.1).await,
        None => None,
    };
    let mut all = lock(&cx.servers);
    if all.len() >= REMEMBERED {
        all.clear();
    }
    let looked = Looked { at: now, about, reach, running: running.clone() };
    all.insert(id, Arc::new(looked));
    running
}

fn lock(servers: &Servers) -> MutexGuard<'_, BTreeMap<DatabaseRef, Arc<Looked>>> {
    servers.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The address of each pod, and the certificate that only the controller has.
///
/// # Errors
/// Why nobody can be asked, in words for a person.
pub async fn reach(postgres: &Postgres, cx: &Context) -> Result<Reach, String> {
    let namespace = postgres.namespace().unwrap_or_default();
    let name = postgres.children().client_certificate;
    let absent = || format!("no Secret {namespace}/{name}: pgitops does not run these servers");
    // Without one somebody else runs these servers.
    cx.secrets.get(&namespace, &name).ok_or_else(absent)?;
    let secret: Option<Secret> =
        cx.cluster.get(&namespace, &name).await.map_err(|error| error.to_string())?;
    let data = secret.and_then(|secret| secret.data).ok_or_else(absent)?;
    let part = |key: &str| {
        let bytes = data.get(key).ok_or_else(|| format!("Secret {namespace}/{name}: no {key}"))?;
        Ok::<_, String>(String::from_utf8_lossy(&bytes.0).into_owned())
    };
    let key = SecretString::from(part("tls.key")?);
    let identity = Identity::from_pem(&part("ca.crt")?, &part("tls.crt")?, &key);
    let identity = identity.map_err(|error| error.to_string())?;
    let database = postgres.name_any();
    let selector =
        format!("{}={},{}={database}", labels::NAME, labels::NAME_VALUE, labels::INSTANCE);
    let pods: Vec<Pod> =
        cx.cluster.list(Some(&namespace), &selector).await.map_err(|error| error.to_string())?;
    let (mut nodes, mut homeless) = (BTreeMap::new(), BTreeSet::new());
    for pod in &pods {
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref());
        match ip.and_then(|ip| ip.parse::<IpAddr>().ok()) {
            Some(ip) => {
                nodes.insert(pod.name_any(), SocketAddr::new(ip, CONTROL_PORT));
            }
            None => {
                homeless.insert(pod.name_any());
            }
        }
    }
    Ok(Reach { identity, nodes, homeless })
}

/// Asks all at once; `None` unless every one answers.
async fn ask(reach: &Reach, names: &BTreeSet<Name>) -> Option<Running> {
    if reach.nodes.is_empty() || names.is_empty() {
        return None;
    }
    let question = AskSettings { names: names.iter().map(Name::lower).collect() };
    let answers = reach.nodes.iter().map(|(pod, address)| async {
        let client = Client::new(*address, &reach.identity);
        let answer = client.call(&question, ANSWER).await.ok()?;
        let reports = answer.settings.into_iter().filter_map(|(name, setting)| {
            let report = Report { value: setting.reset_val?, file: setting.sourcefile };
            Some((Name::new(name).ok()?, report))
        });
        Some((pod.clone(), reports.collect()))
    });
    let nodes: Option<BTreeMap<String, _>> = join_all(answers).await.into_iter().collect();
    Some(Running { nodes: nodes? })
}
