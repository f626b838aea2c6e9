//! Looks at what the servers of a database run, where pgitops runs them.
//!
//! Only to find what overrides our files (ALTER SYSTEM, ALTER ROLE) and what waits for a restart:
//! at most once a minute and database, and at once when its object has changed or somebody asked
//! for it (`pgitops reconcile`). Beside KubeDB there is nobody to ask, and nothing is known. A
//! server that does not answer is no drift. Never changes anything.

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
use crate::instance::protocol::{AskSettings, Settings};
use crate::pgconf::Name;
use crate::sync::Context;
use crate::sync::desired::Document;
use crate::sync::live::{Present, Report, Running};

/// How long a look counts while the database's object stays as it is.
const FRESH: SignedDuration = SignedDuration::from_secs(60);
/// The same for a look that found ALTER SYSTEM: whoever resets it need not wait.
const FRESH_OVERRIDE: SignedDuration = SignedDuration::from_secs(10);
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
    about: About,
    reach: Option<Reach>,
    running: Option<Running>,
}

/// What a look was about: a look about anything else says nothing.
#[derive(PartialEq)]
struct About {
    /// The object's version.
    version: Option<String>,
    /// The repository's `pgitops.dev/requestedAt`.
    requested: Option<String>,
    /// The names that were asked for.
    names: BTreeSet<Name>,
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

/// What the servers of a database run of the parameters that a document names or that a file sets;
/// `None` where nobody can be asked, or while a request is changing it. `requested`: when somebody
/// last asked for a look.
pub async fn running(
    postgres: &Postgres,
    present: &Present,
    document: &Document,
    requested: Option<&str>,
    cx: &Context,
) -> Option<Running> {
    let idle = present.requests.iter().all(|request| request.phase().is_terminal());
    if present.claim.is_none() || present.phase != Some(Phase::Ready) || !idle {
        return None;
    }
    let id = postgres.database();
    let layers = &present.custom.layers;
    let set = [&layers.user, &layers.inline, &layers.provisioner].into_iter();
    let names = document.settings.names().chain(set.flat_map(|settings| settings.names()));
    let about = About {
        version: postgres.metadata.resource_version.clone(),
        requested: requested.map(str::to_owned),
        names: names.cloned().collect(),
    };
    let now = (cx.clock)();
    let known = lock(&cx.servers).get(&id).cloned();
    if let Some(known) = &known
        && known.counts(&about, now)
    {
        return known.running.clone();
    }
    // Pods get new addresses: after a look that failed they are asked for again.
    let reach = match known.filter(|known| known.running.is_some()) {
        Some(known) => known.reach.clone(),
        None => self::reach(postgres, cx).await.ok(),
    };
    let running = match &reach {
        Some(reach) => ask(reach, &about.names).await,
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

/// When the first of these databases' servers is to be looked at again; `None`: nobody was asked.
pub fn next_look<'a>(
    databases: impl Iterator<Item = &'a DatabaseRef>,
    cx: &Context,
) -> Option<Timestamp> {
    let all = lock(&cx.servers);
    databases.filter_map(|database| all.get(database)?.until()).min()
}

impl Looked {
    /// Whether it still says what a look about this would say at `now`.
    fn counts(&self, about: &About, now: Timestamp) -> bool {
        self.about == *about && self.until().is_some_and(|until| now < until)
    }

    /// When it is too old to say anything.
    fn until(&self) -> Option<Timestamp> {
        let mut reports = self.running.iter().flat_map(|r| r.nodes.values()).flatten();
        let fresh = match reports.any(|(_, report)| report.is_from_alter_system()) {
            true => FRESH_OVERRIDE,
            false => FRESH,
        };
        self.at.checked_add(fresh).ok()
    }
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
        Some((pod.clone(), client.call(&question, ANSWER).await.ok()?))
    });
    let answers: Option<Vec<(String, Settings)>> = join_all(answers).await.into_iter().collect();
    let mut running = Running::default();
    for (pod, answer) in answers? {
        let reports = answer.settings.into_iter().filter_map(|(name, setting)| {
            let report = Report {
                value: setting.reset_val?,
                file: setting.sourcefile,
                pending: setting.pending_restart,
                fixed: setting.source == "command line",
            };
            Some((Name::new(name).ok()?, report))
        });
        running.nodes.insert(pod, reports.collect());
        running.roles.extend(answer.role_settings);
        running.more_roles |= answer.more_role_settings;
    }
    Some(running)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(version: &str, requested: Option<&str>) -> About {
        let (version, requested) = (Some(version.to_owned()), requested.map(str::to_owned));
        About { version, requested, names: [Name::new("work_mem").unwrap()].into() }
    }

    #[test]
    fn a_look_counts_until_somebody_asks_or_it_is_old() {
        let check = |file: &str, now: &About, seconds: i64, expected: bool| {
            let report = Report {
                value: "4096".to_owned(),
                file: Some(file.to_owned()),
                pending: false,
                fixed: false,
            };
            let reports = [(Name::new("work_mem").unwrap(), report)].into();
            let nodes = [("pg-0".to_owned(), reports)].into();
            let at = Timestamp::UNIX_EPOCH;
            let running = Some(Running { nodes, ..Running::default() });
            let looked = Looked { at, about: about("7", Some("monday")), reach: None, running };
            let later = at + SignedDuration::from_secs(seconds);
            assert_eq!(looked.counts(now, later), expected, "{file} {seconds}");
        };
        let (ours, theirs) = ("/data/postgresql.conf", "/data/postgresql.auto.conf");
        let same = about("7", Some("monday"));
        check(ours, &same, 59, true);
        check(ours, &same, 60, false);
        check(theirs, &same, 9, true);
        check(theirs, &same, 10, false);
        check(ours, &about("8", Some("monday")), 1, false);
        check(ours, &about("7", Some("tuesday")), 1, false);
        check(ours, &about("7", None), 1, false);
    }
}
