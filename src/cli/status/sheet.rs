//! What `status` makes of what was read: rows and a judgement, as printed by `-o json`.
//!
//! Values are compared as the server does and shown as `SHOW` writes them; those of the sensitive
//! tier are hidden. What could not be read is unknown with its reason, never guessed. Pure: leaves
//! reading to `read.rs` and layout to `text.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::api::names::DatabaseRef;
use crate::instance::protocol::{DryRan, Facts, Role, RoleSetting, ServerState, Setting, Settings};
use crate::pgconf::{Catalogue, Layer, Name, Value, tiers};
use crate::sync::desired::Document;
use crate::sync::live::Present;
use crate::sync::plan::Entry;

/// How it stands, best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Judgement {
    /// All is as desired, and every server would start again.
    #[default]
    AsDesired,
    /// Something differs, waits, is held or would not start.
    Differs,
    /// Something could not be found out.
    Unknown,
}

/// What was read about one database.
pub struct Seen<'a> {
    /// Which.
    pub database: &'a DatabaseRef,
    /// Its object and what configures it.
    pub present: &'a Present,
    /// What its repository says; `None`: no repository speaks of it.
    pub git: Option<Git>,
    /// Repositories that may speak of it and could not be read.
    pub git_unknown: Vec<String>,
    /// What each node says, or why it says nothing; an error when no node can be asked.
    pub nodes: Result<BTreeMap<String, Result<NodeSeen, String>>, String>,
    /// The time.
    pub now: Timestamp,
}

/// What a repository says about a database.
pub struct Git {
    /// `namespace/name` of the `ConfigRepository`.
    pub repository: String,
    /// Its head, abbreviated.
    pub head: String,
    /// The document, when there is one without fault.
    pub document: Option<Arc<Document>>,
    /// What the controller would do now.
    pub entry: Option<Entry>,
    /// Why the whole repository is stalled.
    pub stalled: Option<String>,
}

/// What an instance says.
pub struct NodeSeen {
    /// About itself.
    pub facts: Facts,
    /// `pg_settings`, or why not.
    pub settings: Result<Settings, String>,
    /// Would what is on disk now start?
    pub next_start: Result<DryRan, String>,
}

/// One database.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sheet {
    /// `namespace/name`.
    pub database: String,
    /// The judgement on all of it.
    pub result: Judgement,
    /// `status.phase`.
    pub phase: Option<String>,
    /// Message of the condition `Paused` while it is True.
    pub paused: Option<String>,
    /// Who froze it, until when and why.
    pub frozen: Option<String>,
    /// What the controller would do: `equal`, `change`, `held`, `running`, `refused`, `released`;
    /// none without a repository.
    pub verdict: Option<String>,
    /// Why it is not done now.
    pub reason: Option<String>,
    /// What lifts that.
    pub lift: Option<String>,
    /// The `ConfigRepository`.
    pub repository: Option<String>,
    /// Its head, abbreviated.
    pub head: Option<String>,
    /// The file of the document.
    pub file: Option<String>,
    /// The commit that was proven last, abbreviated.
    pub applied: Option<String>,
    /// `name phase` of the newest request, anybody's.
    pub last_request: Option<String>,
    /// `safe`, `unsafe` or `unknown`: would every server start with what is on its disk?
    pub next_start: String,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The parameters that a document manages or that the custom configuration sets.
    pub parameters: Vec<Row>,
    /// What ALTER ROLE and ALTER DATABASE set of these parameters, for some sessions only.
    pub overrides: Vec<RoleSetting>,
    /// Whether there are more of them than the servers tell.
    pub more_overrides: bool,
    /// What could not be found out.
    pub unknown: Vec<String>,
}

/// One node.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Name of the pod.
    pub name: String,
    /// `primary` or `standby`.
    pub role: Option<String>,
    /// What its supervisor sees; none when it cannot be reached.
    pub state: Option<String>,
    /// Version of the server's program.
    pub version: Option<String>,
    /// From where a standby streams; how many a primary feeds.
    pub streaming: Option<String>,
    /// The set that did not start, and the server's words.
    pub fallback: Option<String>,
    /// `safe`, `unsafe` or `unknown`.
    pub next_start: String,
    /// The server's words where it would not start.
    pub words: Option<String>,
}

/// One parameter.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Its name.
    pub name: String,
    /// What the document says.
    pub git: Option<String>,
    /// Where it says so.
    pub git_at: Option<String>,
    /// What the layers of the spec say; none when no layer sets it.
    pub spec: Option<String>,
    /// The layer that says so.
    pub spec_from: String,
    /// What each node runs; nodes that were not heard are missing.
    pub running: BTreeMap<String, Cell>,
    /// Whether any two of them differ.
    pub differs: bool,
}

/// What one node runs.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cell {
    /// `reset_val`; none when the server has no such parameter.
    pub value: Option<String>,
    /// What is on disk is another value and waits for a restart.
    pub pending: bool,
    /// `postgresql.auto.conf`, when ALTER SYSTEM set it.
    pub overridden: bool,
    /// Whether it is another value than the one that is wanted.
    pub differs: bool,
}

/// The names of a database's rows, lower case.
pub fn names(present: &Present, document: Option<&Document>) -> BTreeSet<String> {
    let layers = &present.custom.layers;
    let desired = document.iter().flat_map(|document| document.settings.names());
    let custom = layers.user.names().chain(layers.inline.names());
    let managed = present.managed();
    desired.chain(custom).chain(&managed).map(Name::lower).collect()
}

impl Sheet {
    /// Judges what was read.
    pub fn of(seen: &Seen<'_>) -> Self {
        let Seen { database, present, git, git_unknown, nodes, now } = seen;
        let entry = git.as_ref().and_then(|git| git.entry.as_ref());
        let document = git.as_ref().and_then(|git| git.document.as_deref());
        let mut sheet = Self {
            database: database.to_string(),
            phase: present.phase.map(|phase| format!("{phase:?}")),
            paused: present.paused.clone(),
            frozen: frozen(present, *now),
            verdict: entry.map(|entry| entry.verdict.to_owned()),
            reason: entry.and_then(|entry| entry.reason.clone()),
            lift: entry.and_then(|entry| entry.lift.clone()),
            repository: git.as_ref().map(|git| git.repository.clone()),
            head: git.as_ref().map(|git| git.head.clone()),
            file: document.map(|document| document.place.file.to_string()),
            applied: applied(present),
            last_request: last_request(present),
            unknown: git_unknown.clone(),
            ..Self::default()
        };
        if let Some(stalled) = git.as_ref().and_then(|git| git.stalled.clone()) {
            sheet.reason = Some(stalled);
        }
        let none = BTreeMap::new();
        let heard = match nodes {
            Ok(nodes) => nodes,
            Err(why) => {
                sheet.unknown.push(why.clone());
                &none
            }
        };
        sheet.take_nodes(heard, present, nodes.is_ok());
        sheet.take_overrides(heard);
        match present.catalogue() {
            Some(catalogue) => sheet.parameters = rows(present, document, heard, catalogue),
            None => sheet.unknown.push(format!("no catalogue of version {}", present.version)),
        }
        let stalled = git.as_ref().is_some_and(|git| git.stalled.is_some());
        sheet.result = sheet.judge(stalled);
        sheet
    }

    fn take_nodes(
        &mut self,
        heard: &BTreeMap<String, Result<NodeSeen, String>>,
        present: &Present,
        asked: bool,
    ) {
        for (name, node) in heard {
            let custom = present.custom.layers.effective().settings;
            let (node, unknown) = Node::of(name, node, &|words| custom.hide_in(words.trim()));
            self.unknown.extend(unknown.into_iter().map(|why| format!("{name}: {why}")));
            self.nodes.push(node);
        }
        let there = i32::try_from(heard.len()).unwrap_or(i32::MAX);
        if asked && there < present.nodes {
            self.unknown.push(format!("{there} of {} pods are there", present.nodes));
        }
        let is = |word: &str| self.nodes.iter().any(|node| node.next_start == word);
        let complete = asked && there >= present.nodes && !is("unknown");
        self.next_start = match (is("unsafe"), complete) {
            (true, _) => "unsafe",
            (false, true) => "safe",
            (false, false) => "unknown",
        }
        .to_owned();
    }

    /// All nodes have the same ones, as far as they have replayed.
    fn take_overrides(&mut self, heard: &BTreeMap<String, Result<NodeSeen, String>>) {
        let settings = heard.values().flatten().filter_map(|node| node.settings.as_ref().ok());
        let mut all = BTreeSet::new();
        for settings in settings {
            all.extend(settings.role_settings.iter().cloned());
            self.more_overrides |= settings.more_role_settings;
        }
        self.overrides = all.into_iter().collect();
    }

    fn judge(&self, stalled: bool) -> Judgement {
        let acting = self.verdict.as_deref().is_some_and(|verdict| verdict != "equal");
        let restless = self.paused.is_some() || self.frozen.is_some() || stalled || acting;
        let ill = self.nodes.iter().any(Node::is_ill) || self.phase.as_deref() != Some("Ready");
        let differs = self.parameters.iter().any(|row| {
            row.differs || row.running.values().any(|cell| cell.pending || cell.overridden)
        });
        if !self.unknown.is_empty() || self.next_start == "unknown" {
            Judgement::Unknown
        } else if restless || ill || differs || self.next_start == "unsafe" {
            Judgement::Differs
        } else {
            Judgement::AsDesired
        }
    }
}

impl Node {
    /// `hide` takes sensitive values out of a server's words.
    fn of(
        name: &str,
        seen: &Result<NodeSeen, String>,
        hide: &dyn Fn(&str) -> String,
    ) -> (Self, Vec<String>) {
        let mut node = Self { name: name.to_owned(), ..Self::default() };
        node.next_start = "unknown".to_owned();
        let NodeSeen { facts, settings, next_start } = match seen {
            Ok(seen) => seen,
            Err(why) => return (node, vec![why.clone()]),
        };
        let mut unknown = Vec::new();
        node.role = facts.role.as_ref().map(|role| role.word().to_owned());
        node.state = Some(facts.state.to_string());
        node.version = facts.version.as_ref().map(|version| version.text.clone());
        node.streaming = streaming(facts);
        node.fallback = facts.last_fallback.as_ref().map(|fallback| {
            let set = fallback.failed.sequence;
            format!("set {set} did not start at {}: {}", fallback.at, hide(&fallback.words))
        });
        unknown.extend(facts.live_error.clone());
        if let (Err(why), ServerState::Running) = (settings, &facts.state) {
            unknown.push(why.clone());
        }
        match next_start {
            Ok(ran) if ran.accepted => node.next_start = "safe".to_owned(),
            Ok(ran) => {
                node.next_start = "unsafe".to_owned();
                node.words = Some(hide(&ran.words));
            }
            Err(why) => unknown.push(why.clone()),
        }
        (node, unknown)
    }

    /// Whether it is known to be in no good state.
    fn is_ill(&self) -> bool {
        let stopped = self.state.as_deref().is_some_and(|state| state != "running");
        let alone = self.role.as_deref() == Some("standby")
            && self.streaming.as_deref().is_none_or(|from| !from.starts_with("streaming"));
        self.state.is_some() && (stopped || alone)
    }
}

fn streaming(facts: &Facts) -> Option<String> {
    let live = facts.live.as_ref()?;
    match facts.role.as_ref()? {
        Role::Primary => {
            let streams = live.senders.iter().filter(|sender| sender.state == "streaming").count();
            Some(format!("to {streams}"))
        }
        Role::Standby { .. } => {
            let receiver = live.receiver.as_ref()?;
            Some(format!("{} from {}", receiver.status, receiver.host))
        }
    }
}

fn rows(
    present: &Present,
    document: Option<&Document>,
    heard: &BTreeMap<String, Result<NodeSeen, String>>,
    catalogue: &Catalogue,
) -> Vec<Row> {
    let names = names(present, document);
    let names = names.iter().filter_map(|name| Name::new(name).ok());
    names.map(|name| row(&name, present, document, heard, catalogue)).collect()
}

fn row(
    name: &Name,
    present: &Present,
    document: Option<&Document>,
    heard: &BTreeMap<String, Result<NodeSeen, String>>,
    catalogue: &Catalogue,
) -> Row {
    let layers = &present.custom.layers;
    let shown = |value: &Value| tiers::shown_by(name, value, catalogue).into_owned();
    let git = document.and_then(|document| document.settings.get(name));
    let from = layers.source(name);
    // What is built in is what the spec says by not saying anything.
    let in_effect = layers.in_effect(name, catalogue);
    let wanted = git.or(in_effect.as_ref());
    let mut row = Row {
        name: name.lower(),
        git: git.map(shown),
        git_at: document.and_then(|document| document.line_of(name)),
        spec: in_effect.as_ref().filter(|_| from != Layer::BuiltIn).map(shown),
        spec_from: from.as_str().to_owned(),
        ..Row::default()
    };
    for (node, seen) in heard {
        let Ok(NodeSeen { settings: Ok(settings), .. }) = seen else { continue };
        let setting = settings.settings.get(&name.lower());
        row.running.insert(node.clone(), cell(name, setting, wanted, catalogue));
    }
    let apart = match (git, &in_effect) {
        (Some(git), Some(spec)) => !catalogue.same(name.as_str(), git, spec),
        (Some(_), None) => true,
        (None, _) => false,
    };
    row.differs = apart || row.running.values().any(|cell| cell.differs);
    row
}

fn cell(
    name: &Name,
    setting: Option<&Setting>,
    wanted: Option<&Value>,
    catalogue: &Catalogue,
) -> Cell {
    let reset = setting.and_then(|setting| setting.reset_val.as_deref());
    let value = reset.map(|text| match Value::new(text) {
        Ok(value) => tiers::shown_by(name, &value, catalogue).into_owned(),
        // Not a value that a file could hold: as it is, unless it is sensitive.
        Err(_) if tiers::is_sensitive(name.as_str()) => tiers::HIDDEN.to_owned(),
        Err(_) => text.to_owned(),
    });
    Cell {
        pending: setting.is_some_and(|setting| setting.pending_restart),
        overridden: setting.is_some_and(Setting::is_from_alter_system),
        differs: match (wanted, reset) {
            (Some(wanted), Some(reset)) => !catalogue.runs_with(name.as_str(), wanted, reset),
            (Some(_), None) => true,
            (None, _) => false,
        },
        value,
    }
}

fn frozen(present: &Present, now: Timestamp) -> Option<String> {
    let freeze = present.frozen(now)?;
    let until = freeze.until.map_or("lifted by hand".to_owned(), |until| format!("until {until}"));
    Some(format!("by {}, {until}: {}", freeze.who, freeze.why))
}

/// The commit that was proven last, abbreviated.
pub fn applied(present: &Present) -> Option<String> {
    let claim = present.claim.as_ref()?;
    claim.applied.as_ref().map(|commit| commit.short().to_owned())
}

/// `name phase` of the newest request, or of the one that the claim remembers.
pub fn last_request(present: &Present) -> Option<String> {
    if let Some(newest) = present.requests.last() {
        return Some(format!("{} {:?}", newest.request_name(), newest.phase()));
    }
    let claim = present.claim.as_ref()?;
    let ended = claim.asked.as_ref().and_then(|asked| asked.ended);
    let phase = ended.map_or("gone".to_owned(), |phase| format!("{phase:?}"));
    claim.last_request.as_ref().map(|name| format!("{name} {phase}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::postgres::Phase;
    use crate::pgconf::{Layers, Settings as Conf};
    use crate::sync::live::Custom;
    use serde_json::json;

    /// A Ready database of one node whose inline configuration is `inline`.
    fn present(inline: &str) -> Present {
        let layers = Layers { inline: Conf::parse(inline).unwrap(), ..Layers::default() };
        Present {
            uid: "u".to_owned(),
            version: "15".to_owned(),
            nodes: 1,
            phase: Some(Phase::Ready),
            provisioned: true,
            admitted: true,
            custom: Custom { layers, ..Custom::default() },
            ..Present::default()
        }
    }

    /// A primary that runs one setting (`name=reset_val`, `*`: it waits for a restart).
    fn node(setting: &str, refused: Option<&str>) -> NodeSeen {
        let facts = json!({
            "protocol": 1, "pod": "pg-0", "version": {"number": 150_018, "text": "15.18"},
            "state": {"is": "running"}, "role": {"role": "primary"}, "fence_seen": 0,
            "working_on": null, "sets": {"running": null, "staged": null, "last_started": null},
            "last_fallback": null, "control": null, "live": null, "live_error": null,
            "memory_limit": null,
        });
        let (name, value) = setting.split_once('=').unwrap();
        let row = json!({
            "name": name, "reset_val": value.trim_end_matches('*'), "boot_val": null,
            "unit": null, "context": "", "vartype": "", "source": "", "sourcefile": null,
            "sourceline": null, "pending_restart": value.ends_with('*'),
        });
        let settings = json!({"settings": {name: row}});
        NodeSeen {
            facts: serde_json::from_value(facts).unwrap(),
            settings: Ok(serde_json::from_value(settings).unwrap()),
            next_start: Ok(DryRan {
                accepted: refused.is_none(),
                words: refused.unwrap_or_default().to_owned(),
                took_ms: 1,
            }),
        }
    }

    fn judged(present: &Present, nodes: Result<Vec<Result<NodeSeen, String>>, String>) -> Sheet {
        let named = |nodes: Vec<_>| {
            let names = (0..).map(|ordinal| format!("pg-{ordinal}"));
            names.zip(nodes).collect::<BTreeMap<_, _>>()
        };
        Sheet::of(&Seen {
            database: &DatabaseRef::new("demo", "pg"),
            present,
            git: None,
            git_unknown: Vec::new(),
            nodes: nodes.map(named),
            now: Timestamp::UNIX_EPOCH,
        })
    }

    #[test]
    fn what_runs_is_compared_as_the_server_does() {
        let check = |inline: &str, runs: &str, spec: &str, shown: &str, expected: Judgement| {
            let sheet = judged(&present(inline), Ok(vec![Ok(node(runs, None))]));
            let row = &sheet.parameters[0];
            assert_eq!(sheet.result, expected, "{sheet:#?}");
            assert_eq!(row.spec.as_deref(), Some(spec));
            assert_eq!(row.running["pg-0"].value.as_deref(), Some(shown));
        };
        let fine = Judgement::AsDesired;
        check("work_mem = '1024MB'", "work_mem=1048576", "1GB", "1GB", fine);
        check("fsync = 'true'", "fsync=on", "on", "on", fine);
        check("work_mem = '4MB'", "work_mem=8192", "4MB", "8MB", Judgement::Differs);
        check("max_connections = '90'", "max_connections=90*", "90", "90", Judgement::Differs);
        let (text, hidden) = ("primary_conninfo = 'password=canary'", tiers::HIDDEN);
        check(text, "primary_conninfo=password=canary", hidden, hidden, fine);
    }

    #[test]
    fn what_is_not_heard_is_never_guessed() {
        let quiet = || present("work_mem = '4MB'");
        let sheet = judged(&quiet(), Ok(vec![Err("no answer within 5 s".to_owned())]));
        assert_eq!((sheet.result, sheet.next_start.as_str()), (Judgement::Unknown, "unknown"));
        assert_eq!(sheet.unknown, ["pg-0: no answer within 5 s"]);
        assert!(sheet.parameters[0].running.is_empty());
        let sheet = judged(&quiet(), Ok(Vec::new()));
        assert_eq!(sheet.unknown, ["0 of 1 pods are there"]);
        let sheet = judged(&quiet(), Err("pgitops does not run these servers".to_owned()));
        assert_eq!(sheet.result, Judgement::Unknown);
    }

    #[test]
    fn a_server_that_would_not_start_says_why_without_secrets() {
        let words = "FATAL: invalid password=canary";
        let seen = vec![Ok(node("work_mem=4096", Some(words)))];
        let sheet = judged(&present("primary_conninfo = 'password=canary'"), Ok(seen));
        assert_eq!((sheet.result, sheet.next_start.as_str()), (Judgement::Differs, "unsafe"));
        let told = sheet.nodes[0].words.as_deref().unwrap();
        assert!(told.starts_with("FATAL") && !told.contains("canary"), "{told}");
    }
}
