//! Reads what `status` shows: repositories through git, objects through the watches, servers
//! through their instances.
//!
//! A server is asked for its facts, its settings and a dry run of what is on its disk: reading
//! calls, without a fence. What cannot be read is a reason in words. Leaves every judgement to
//! `sheet.rs`. Never changes anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use futures::future::join_all;
use jiff::Timestamp;

use super::overview::{Line, Overview, RepositoryLine};
use super::sheet::{self, Git, NodeSeen, Seen, Sheet};
use crate::api::ConfigRepository;
use crate::api::claim::Claim;
use crate::api::names::{DatabaseRef, annotations};
use crate::git;
use crate::instance::client::Client;
use crate::instance::protocol::{AskSettings, DryRun, ServerState, Settings};
use crate::sync::Context;
use crate::sync::desired::Desired;
use crate::sync::drift::Drift;
use crate::sync::live::{Live, Observed};
use crate::sync::observe::{self, servers};
use crate::sync::plan::{Entry, Plan};

/// A server that is near answers within milliseconds; from afar, or on a busy node, it may take
/// longer, and a person waits for the answer.
const ANSWER: Duration = Duration::from_secs(5);
/// A dry run is a process of its own, below 100 ms on an idle machine; before version 15 it is a
/// whole start.
const DRY_RUN: Duration = Duration::from_secs(20);

/// One repository as the controller would see it now.
struct View {
    repository: Arc<ConfigRepository>,
    head: String,
    desired: Arc<Desired>,
    live: Observed,
    entries: Vec<Entry>,
    stalled: Option<String>,
}

impl View {
    /// `None`: it is empty, so that it says nothing of any database.
    async fn of(repository: Arc<ConfigRepository>, cx: &Context) -> Result<Option<Self>, String> {
        let look = match observe::source(&repository, cx).await {
            Ok(look) => look,
            Err(git::Error::Empty { .. }) => return Ok(None),
            Err(error) => {
                let name = repository.repository();
                let words = crate::cli::chain(&error.into());
                return Err(format!("ConfigRepository {name}: {words}"));
            }
        };
        let desired = look.desired;
        let live = observe::live(&repository, &desired, cx).await;
        let drift = Drift::between(&desired, &live);
        let plan = Plan::make(&look.source, &desired, &drift, &live, Timestamp::now());
        let entries = plan.entries(&desired, &drift, &live);
        let stalled = plan.stalled.as_ref().map(|stalled| stalled.text(&look.source));
        let head = look.source.head.short().to_owned();
        Ok(Some(Self { repository, head, desired, live, entries, stalled }))
    }

    fn entry(&self, database: &DatabaseRef) -> Option<&Entry> {
        let name = database.to_string();
        self.entries.iter().find(|entry| entry.database == name)
    }
}

/// One database, parameter by parameter.
pub async fn database(name: &DatabaseRef, cx: &Context) -> anyhow::Result<Sheet> {
    let Some(postgres) = cx.databases.get(&name.namespace, &name.name) else {
        bail!("Postgres {name} is not there; `pgitops status` lists the databases of a namespace");
    };
    let claim = postgres.metadata.annotations.as_ref().and_then(|a| a.get(annotations::CLAIM));
    let claimant = claim.and_then(|text| Claim::parse(text)).map(|claim| claim.repository);
    let (mut views, mut git_unknown) = (Vec::new(), Vec::new());
    for repository in repositories(cx) {
        let holds = Some(repository.uid()) == claimant.as_deref();
        if holds || repository.repository().namespace == name.namespace {
            match View::of(repository, cx).await {
                Ok(view) => views.extend(view.map(|view| (holds, view))),
                Err(why) => git_unknown.push(why),
            }
        }
    }
    // The one that holds the claim speaks first, then one that names the database at all.
    views.sort_by_key(|(holds, view)| (!holds, !view.desired.targets.contains_key(name)));
    let view = views.iter().map(|(_, view)| view).find(|view| view.live.contains_key(name));
    let read = match view.and_then(|view| view.live.get(name).cloned()) {
        Some(live) => live,
        None => observe::databases::one(name, cx).await,
    };
    let present = match read {
        Live::Present(present) => present,
        Live::Absent => bail!("Postgres {name} is not there any more"),
        Live::Unknown(why) => bail!("Postgres {name}: {why}"),
    };
    let document = view.and_then(|view| view.desired.document(name).cloned());
    let names = sheet::names(&present, document.as_deref());
    let nodes = match servers::reach(&postgres, cx).await {
        Ok(reach) => Ok(nodes(&reach, &names).await),
        Err(why) => Err(why),
    };
    let git = view.map(|view| Git {
        repository: view.repository.repository().to_string(),
        head: view.head.clone(),
        document,
        entry: view.entry(name).cloned(),
        stalled: view.stalled.clone(),
    });
    let now = Timestamp::now();
    Ok(Sheet::of(&Seen { database: name, present: &present, git, git_unknown, nodes, now }))
}

/// Every repository of a namespace and every database there or that they name, in a line each.
pub async fn namespace(namespace: &str, cx: &Context) -> Overview {
    let mut overview = Overview::default();
    for repository in repositories(cx) {
        if repository.repository().namespace != namespace {
            continue;
        }
        overview.repositories.push(RepositoryLine::of(&repository));
        let view = match View::of(repository, cx).await {
            Ok(Some(view)) => view,
            Ok(None) => continue,
            Err(why) => {
                overview.unknown.push(why);
                continue;
            }
        };
        let names: BTreeSet<&DatabaseRef> =
            view.live.keys().chain(view.desired.targets.keys()).collect();
        for name in names {
            let live = view.live.get(name).unwrap_or(&Live::Absent);
            let file = view.desired.targets.get(name).and_then(|target| target.file());
            let stalled = view.stalled.as_deref();
            overview.databases.push(Line::of(name, live, file, view.entry(name), stalled));
        }
    }
    let known: BTreeSet<String> =
        overview.databases.iter().map(|line| line.database.clone()).collect();
    for postgres in cx.databases.all() {
        let name = postgres.database();
        if name.namespace == namespace && !known.contains(&name.to_string()) {
            let live = observe::databases::one(&name, cx).await;
            overview.databases.push(Line::of(&name, &live, None, None, None));
        }
    }
    overview.finish()
}

fn repositories(cx: &Context) -> Vec<Arc<ConfigRepository>> {
    let mut all = cx.repositories.store().state();
    all.sort_by_key(|repository| repository.repository());
    all
}

/// Asks all nodes at once.
async fn nodes(
    reach: &servers::Reach,
    names: &BTreeSet<String>,
) -> BTreeMap<String, Result<NodeSeen, String>> {
    let asked = reach.nodes.iter().map(|(pod, address)| async {
        (pod.clone(), node(&Client::new(*address, &reach.identity), names).await)
    });
    let mut nodes: BTreeMap<_, _> = join_all(asked).await.into_iter().collect();
    for pod in &reach.homeless {
        nodes.insert(pod.clone(), Err("the pod has no address".to_owned()));
    }
    nodes
}

async fn node(client: &Client, names: &BTreeSet<String>) -> Result<NodeSeen, String> {
    let facts = client.facts(ANSWER).await.map_err(|error| error.to_string())?;
    let deadline_ms = u64::try_from(DRY_RUN.as_millis()).unwrap_or(u64::MAX);
    // Without a text: what is on the disk now. Not even the shared memory is allocated, so the
    // running server notices nothing.
    let question = DryRun { text: None, allocate: false, boot: false, deadline_ms };
    let settings = async {
        if names.is_empty() {
            return Ok(Settings::default());
        }
        if facts.state != ServerState::Running {
            return Err(facts.state.to_string());
        }
        let ask = AskSettings { names: names.iter().cloned().collect() };
        client.call(&ask, ANSWER).await.map_err(|error| error.to_string())
    };
    let next_start =
        async { client.call(&question, DRY_RUN + ANSWER).await.map_err(|error| error.to_string()) };
    let (settings, next_start) = tokio::join!(settings, next_start);
    Ok(NodeSeen { facts, settings, next_start })
}
