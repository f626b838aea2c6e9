//! Stories of the sync loop, as a person reads them: commits, live state and clock in; plan, note
//! and status out. The whole pure line runs, without a cluster and without git.
//!
//! Each file in `tests/scenarios/` is a list of statements. Those that print (`plan`, `note`,
//! `status`) are followed by what they printed, indented; `UPDATE=1` writes that anew.
//!
//! | statement | meaning |
//! |---|---|
//! | `now T`, `later 5m` | the clock |
//! | `repository suspend plan-only drift=Warn acknowledge=ID` | what its owner says |
//! | `commit ID "subject"` | a commit on top of the last; below it, indented, files |
//! | `  f.yaml demo/db Merge a=1 b=2 (wave=1)` | a document in short; `-` deletes; `\|` raw text follows |
//! | `settled ID` | up to this commit everything is noted already |
//! | `rewrite` | the next commit does not descend from the last |
//! | `live demo/db 15, 3 nodes, Ready; user.conf a=1; inline b=2` | a database, or `absent` |
//! | `claim demo/db ID manages a b` | our claim (or `by other/repo`) |
//! | `start demo/db` (`WaitingForApproval`), `finish demo/db Successful order=…` | the request that is open there |
//! | `delete demo/db` | somebody deletes our open request |
//! | `request demo/db NAME Progressing` | somebody else's request |
//! | `annotate demo/db retry=1` | also `freeze="…"` |
//! | `plan` | a whole pass: plans, emits, notes |

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pgitops::api::claim::Claim;
use pgitops::api::config_repository::{ConfigRepository, ConfigRepositorySpec, DriftPolicy};
use pgitops::api::duration::Length;
use pgitops::api::names::{CommitId, DatabaseRef, RepositoryRef};
use pgitops::api::ops_request::{OpsPhase, PostgresOpsRequest, ProofReport};
use pgitops::api::postgres::Phase;
use pgitops::pgconf::Settings;
use pgitops::sync::desired::{Desired, Scope, Tree};
use pgitops::sync::drift::Drift;
use pgitops::sync::live::{Custom, Live, Observed, Present};
use pgitops::sync::note::Note;
use pgitops::sync::outcome::Outcome;
use pgitops::sync::plan::{ClaimWrite, Plan, Sums};
use pgitops::sync::source::{self, Commit, Source, Stance};
use pgitops::sync::status;

#[test]
fn every_story_reads_as_it_is_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut paths: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 20, "stories are missing from {}", folder.display());
    let mut wrong = String::new();
    for path in paths {
        let told = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let run = World::default().tell(&name, &told);
        if run != told && std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, run).unwrap();
        } else if run != told {
            let diff = similar::TextDiff::from_lines(&told, &run);
            let diff = diff.unified_diff().context_radius(3).header("told", "ran").to_string();
            writeln!(wrong, "{name}\n{diff}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "UPDATE=1 writes what ran\n{wrong}");
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config {
        cases: 200, failure_persistence: None, ..Default::default()
    })]

    /// Whatever is desired and whatever lives: a plan is carried out once, and once its requests
    /// have succeeded nothing is left to do. (What fails is printed as a scenario's words.)
    #[test]
    fn a_plan_is_carried_out_once(
        documents in proptest::collection::vec(parameters(), 1..4),
        inline in parameters(),
        user in parameters(),
        replace in proptest::bool::ANY,
    ) {
        let mut world = World { now: "2026-03-02T10:00:00Z".parse().unwrap(), ..World::default() };
        let orders = database("demo/orders");
        let user = if user.is_empty() { String::new() } else { format!("; user.conf {user}") };
        world.live(&orders, &format!("15, 3 nodes, Ready{user}; inline {inline}"));
        for (number, parameters) in documents.iter().enumerate() {
            let mode = if replace && number % 2 == 0 && !parameters.is_empty() { "Replace" } else { "Merge" };
            let line = format!("o.yaml demo/orders {mode} {parameters}");
            world.commit(&(number + 1).to_string(), "", &[&line]);
            world.pass();
            let requests = world.present(&orders).requests.len();
            world.pass();
            let open: Vec<_> = world.present(&orders).requests.clone();
            proptest::prop_assert_eq!(open.len(), requests, "a request was doubled");
            if open.last().is_some_and(|request| !request.phase().is_terminal()) {
                world.finish(&orders, &["Successful"]);
            }
            world.pass();
            let said = world.pass();
            proptest::prop_assert!(said.contains("1 equal"), "{}", said);
            let claim = world.present(&orders).claim.clone().unwrap();
            let names = parameters.split_whitespace().filter_map(|pair| pair.split_once('='));
            let names: std::collections::BTreeSet<String> = names.map(|(n, _)| n.to_owned()).collect();
            proptest::prop_assert_eq!(claim.managed, names);
        }
    }
}

/// Some parameters with valid values, each at most once.
fn parameters() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let some = [
        ("work_mem", vec!["1MB", "1024", "4MB"]),
        ("max_connections", vec!["100", "0x64", "200"]),
        ("jit", vec!["on", "true", "off"]),
        ("ext.setting", vec!["a", "b"]),
    ];
    let choices: Vec<_> = some
        .into_iter()
        .map(|(name, values)| {
            proptest::option::of(proptest::sample::select(values))
                .prop_map(move |value| value.map(|value| format!("{name}={value}")))
        })
        .collect();
    choices.prop_map(|all| all.into_iter().flatten().collect::<Vec<_>>().join(" "))
}

/// Everything outside of the pure line.
#[derive(Default)]
struct World {
    now: Timestamp,
    stance: Stance,
    commits: Vec<(CommitId, String, BTreeMap<String, String>)>,
    settled: Option<CommitId>,
    accepted: Option<CommitId>,
    rewritten: bool,
    live: Observed,
    notes: BTreeMap<CommitId, String>,
    status: Option<pgitops::api::config_repository::ConfigRepositoryStatus>,
    secrets: BTreeMap<String, Settings>,
}

const REPOSITORY_UID: &str = "repository-uid";

fn id(short: &str) -> CommitId {
    let digit = short.chars().next().unwrap();
    CommitId::parse(&digit.to_string().repeat(40)).unwrap()
}

fn database(text: &str) -> DatabaseRef {
    let (namespace, name) = text.split_once('/').unwrap_or_else(|| panic!("{text}: ns/name"));
    DatabaseRef::new(namespace, name)
}

/// Words of a line; quotes keep words together.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn settings(text: &str) -> Settings {
    let pairs = words(text);
    let pairs = pairs.iter().filter_map(|word| word.split_once('='));
    Settings::from_pairs(pairs).unwrap()
}

impl World {
    /// Runs a story and gives it back with what it printed.
    fn tell(mut self, name: &str, told: &str) -> String {
        self.now = "2026-03-02T10:00:00Z".parse().unwrap();
        let mut run = String::new();
        let mut lines = told.lines().peekable();
        while let Some(line) = lines.next() {
            run.push_str(line);
            run.push('\n');
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let mut below = Vec::new();
            while let Some(next) = lines.peek() {
                if !next.is_empty() && !next.starts_with(' ') {
                    break;
                }
                below.push(*next);
                lines.next();
            }
            let prints = self.statement(name, line, &below);
            match prints {
                None => below.iter().for_each(|line| writeln!(run, "{line}").unwrap()),
                Some(printed) => {
                    for line in printed.trim_end().lines() {
                        writeln!(run, "{}", format!("  {line}").trim_end()).unwrap();
                    }
                    if lines.peek().is_some() {
                        run.push('\n');
                    }
                }
            }
        }
        run
    }

    fn statement(&mut self, story: &str, line: &str, below: &[&str]) -> Option<String> {
        let all = words(line);
        let rest: Vec<&str> = all[1..].iter().map(String::as_str).collect();
        match all[0].as_str() {
            "now" => self.now = rest[0].parse().unwrap(),
            "later" => {
                let length = Length::parse(rest[0]).unwrap().0;
                self.now = self.now.checked_add(SignedDuration::try_from(length).unwrap()).unwrap();
            }
            "repository" => self.repository(&rest),
            "commit" => self.commit(rest[0], rest.get(1).unwrap_or(&""), below),
            "settled" => {
                self.settled = Some(id(rest[0]));
                self.accepted = Some(id(rest[0]));
            }
            "rewrite" => self.rewritten = true,
            "live" => self.live(&database(rest[0]), line.split_once(rest[0]).unwrap().1),
            "claim" => self.claim(&database(rest[0]), &rest[1..]),
            "request" => self.foreign(&database(rest[0]), rest[1], rest[2]),
            "start" => {
                let phase = rest.get(1).map_or(OpsPhase::Progressing, |word| ops_phase(word));
                self.phase(&database(rest[0]), phase);
            }
            "finish" => self.finish(&database(rest[0]), &rest[1..]),
            "delete" => {
                let present = self.present(&database(rest[0]));
                present.requests.retain(|request| request.phase().is_terminal());
            }
            "annotate" => {
                let present = self.present(&database(rest[0]));
                let (key, value) = rest[1].split_once('=').unwrap();
                let value = Some(value.to_owned()).filter(|value| !value.is_empty());
                match key {
                    "retry" => present.retry = value,
                    "freeze" => present.freeze = value,
                    other => panic!("{story}: {other}"),
                }
            }
            "plan" => return Some(self.pass()),
            "note" => {
                let none = "no note".to_owned();
                return Some(self.notes.get(&id(rest[0])).cloned().unwrap_or(none));
            }
            "status" => return Some(self.show_status()),
            other => panic!("{story}: unknown statement {other}"),
        }
        None
    }

    fn repository(&mut self, rest: &[&str]) {
        self.stance = Stance::default();
        for word in rest {
            match word.split_once('=').unwrap_or((word, "")) {
                ("suspend", _) => self.stance.suspend = true,
                ("plan-only", _) => self.stance.plan_only = true,
                ("drift", "Warn") => self.stance.drift = DriftPolicy::Warn,
                ("drift", "Enforce") => self.stance.drift = DriftPolicy::Enforce,
                ("drift", _) => self.stance.drift = DriftPolicy::EnforceWithRestart,
                ("acknowledge", short) => self.stance.acknowledged = Some(id(short).to_string()),
                (other, _) => panic!("{other}"),
            }
        }
    }

    fn commit(&mut self, short: &str, subject: &str, below: &[&str]) {
        let mut files = self.commits.last().map(|last| last.2.clone()).unwrap_or_default();
        let mut raw: Option<String> = None;
        for line in below {
            if let (Some(path), Some(text)) = (&raw, line.strip_prefix("    ")) {
                writeln!(files.get_mut(path).unwrap(), "{text}").unwrap();
                continue;
            }
            let all = words(line);
            let Some(path) = all.first().cloned() else { continue };
            raw = None;
            match all[1].as_str() {
                "-" => drop(files.remove(&path)),
                "|" => {
                    files.insert(path.clone(), String::new());
                    raw = Some(path);
                }
                _ => drop(files.insert(path, document(&all[1..]))),
            }
        }
        self.commits.push((id(short), subject.to_owned(), files));
    }

    fn live(&mut self, database: &DatabaseRef, text: &str) {
        let mut parts = text.split(';').map(str::trim);
        let first = parts.next().unwrap();
        if first == "absent" {
            self.live.insert(database.clone(), Live::Absent);
            return;
        }
        if let Some(why) = first.strip_prefix("unknown ") {
            self.live.insert(database.clone(), Live::Unknown(why.to_owned()));
            return;
        }
        let facts: Vec<&str> = first.split(',').map(str::trim).collect();
        let old = match self.live.remove(database) {
            Some(Live::Present(present)) => Some(present),
            _ => None,
        };
        let mut present = old.unwrap_or_else(|| Box::new(fresh(database)));
        present.version = facts[0].to_owned();
        present.nodes = facts[1].split(' ').next().unwrap().parse().unwrap();
        present.phase = phase(facts[2]);
        present.provisioned = present.phase.is_some();
        present.paused = None;
        present.admitted = true;
        let ours = present.custom.secret_is_ours.then(|| present.custom.clone());
        present.custom = ours.unwrap_or_default();
        for part in parts {
            let (what, rest) = part.split_once(' ').unwrap_or((part, ""));
            match what {
                "user.conf" => {
                    present.custom.secret_name = Some(format!("{}-config", database.name));
                    present.custom.layers.user = settings(rest);
                }
                "inline" => present.custom.layers.inline = settings(rest),
                "rendered" => present.custom.rendered_inline = Some(settings(rest)),
                "paused" => present.paused = Some(rest.to_owned()),
                "not-admitted" => present.admitted = false,
                other => panic!("{other}"),
            }
        }
        self.live.insert(database.clone(), Live::Present(present));
    }

    fn present(&mut self, database: &DatabaseRef) -> &mut Present {
        match self.live.get_mut(database) {
            Some(Live::Present(present)) => present,
            _ => panic!("{database} is not there"),
        }
    }

    /// `ID manages a b`, or `by other/repo`.
    fn claim(&mut self, database: &DatabaseRef, rest: &[&str]) {
        let foreign = rest[0] == "by";
        let commit = (!foreign).then(|| id(rest[0]));
        let digest = commit.as_ref().and_then(|commit| {
            self.desired(commit).document(database).map(|document| document.digest.clone())
        });
        let present = self.present(database);
        let claim = Claim {
            repository: if foreign { "other-uid" } else { REPOSITORY_UID }.to_owned(),
            repository_name: if foreign { rest[1] } else { "demo/config" }.to_owned(),
            database: present.uid.clone(),
            applied: commit,
            digest,
            replace: rest.contains(&"replace"),
            managed: rest.iter().skip(2).map(|name| (*name).to_owned()).collect(),
            last_request: None,
            asked: None,
        };
        present.claim_text = Some(claim.render());
        present.claim = Some(claim);
    }

    fn foreign(&mut self, database: &DatabaseRef, name: &str, phase: &str) {
        let now = self.now;
        let spec = serde_yaml::from_str(&format!(
            "{{databaseRef: {{name: {}}}, type: Restart}}",
            database.name
        ));
        let mut request = PostgresOpsRequest::new(name, spec.unwrap());
        request.metadata.namespace = Some(database.namespace.clone());
        request.metadata.creation_timestamp = Some(Time(now));
        request.status = Some(Default::default());
        request.status.as_mut().unwrap().phase = Some(ops_phase(phase));
        let requests = &mut self.present(database).requests;
        requests.retain(|old| old.request_name().0 != name);
        requests.push(Arc::new(request));
    }

    fn open(&mut self, database: &DatabaseRef) -> &mut PostgresOpsRequest {
        let requests = &mut self.present(database).requests;
        let open = requests.iter_mut().rev().find(|request| !request.phase().is_terminal());
        Arc::make_mut(open.unwrap_or_else(|| panic!("no request is open on {database}")))
    }

    fn phase(&mut self, database: &DatabaseRef, phase: OpsPhase) {
        let status = self.open(database).status.get_or_insert_default();
        status.phase = Some(phase);
    }

    /// Ends the open request; a success takes effect on the live configuration.
    fn finish(&mut self, database: &DatabaseRef, rest: &[&str]) {
        let nodes = self.present(database).nodes;
        let mut proof = ProofReport {
            nodes,
            server_version: format!("PostgreSQL {}", self.present(database).version),
            roles_unchanged: true,
            duration_ms: 900,
            ..ProofReport::default()
        };
        let phase = ops_phase(rest[0]);
        let success = phase == OpsPhase::Successful;
        proof.proven = if success { nodes } else { 0 };
        let mut proven = true;
        for word in &rest[1..] {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let list = || value.split(',').map(str::to_owned).collect::<Vec<_>>();
            match key {
                "order" => proof.restarted = list().iter().map(|e| e.replace(':', " ")).collect(),
                "gap" => proof.writes_paused_ms = value.parse().ok(),
                "cut" => proof.connections_cut = value.parse().ok(),
                "version" => proof.server_version = format!("PostgreSQL {value}"),
                "words" => proof.words = Some(value.to_owned()),
                "pending" => proof.pending_restart = list(),
                "rolled-back" => proof.rolled_back = true,
                "unproven" => proven = false,
                other => panic!("{other}"),
            }
        }
        self.phase(database, phase);
        let request = self.open_or_last(database);
        let status = Arc::make_mut(request).status.get_or_insert_default();
        status.proof = proven.then_some(proof);
        let configuration = request.spec.configuration.clone().unwrap_or_default();
        if success {
            let secrets = self.secrets.clone();
            let custom = &mut self.present(database).custom;
            carry_out(custom, &configuration, &secrets);
        }
    }

    fn open_or_last(&mut self, database: &DatabaseRef) -> &mut Arc<PostgresOpsRequest> {
        self.present(database).requests.last_mut().unwrap()
    }

    fn desired(&self, commit: &CommitId) -> Desired {
        let found = self.commits.iter().find(|(id, ..)| id == commit);
        let files = found.map(|(_, _, files)| files.clone()).unwrap_or_default();
        let files = files.into_iter().map(|(path, text)| (path, text.into_bytes().into()));
        let tree = Tree { files: files.collect(), unreadable: BTreeMap::new(), complete: true };
        Desired::parse(&tree, &Scope { namespace: "demo".into(), folder: ".".into() })
    }

    fn source(&self) -> Source {
        let head = self.commits.last().unwrap().0.clone();
        let begin = self
            .settled
            .as_ref()
            .and_then(|settled| self.commits.iter().position(|(id, ..)| id == settled));
        let commits = match begin {
            Some(begin) => &self.commits[begin + 1..],
            None => &self.commits[self.commits.len() - 1..],
        };
        let commits = commits.iter().map(|(id, subject, _)| Commit {
            id: id.clone(),
            subject: subject.clone(),
            desired: Arc::new(self.desired(id)),
        });
        let before = self.settled.as_ref().map(|settled| Arc::new(self.desired(settled)));
        Source {
            repository: RepositoryRef { namespace: "demo".into(), name: "config".into() },
            uid: REPOSITORY_UID.into(),
            stance: self.stance.clone(),
            line: source::line(before, commits.collect()),
            first_sight: self.settled.is_none(),
            rewritten: self.accepted.clone().filter(|_| self.rewritten),
            head,
        }
    }

    /// One pass: reads, plans, emits, notes; says what it planned.
    fn pass(&mut self) -> String {
        let source = self.source();
        let desired = self.desired(&source.head);
        let drift = Drift::between(&desired, &self.live);
        let plan = Plan::make(&source, &desired, &drift, &self.live, self.now);
        let entries = plan.entries(&desired, &drift, &self.live);
        let mut said = String::new();
        if let Some(stalled) = &plan.stalled {
            writeln!(said, "stalled: {}", stalled.text(&source)).unwrap();
        }
        for line in entries.iter().flat_map(|entry| entry.lines()) {
            writeln!(said, "{line}").unwrap();
        }
        for (database, retired) in &plan.retired {
            writeln!(said, "{database}: takes back request {}", retired.request).unwrap();
        }
        writeln!(said, "{}", Sums::of(&entries).line()).unwrap();
        let outcome = Outcome::of(&source, &desired, &plan, &self.live, &BTreeMap::new(), self.now);
        self.publish(&source, &plan, &outcome);
        let repository = self.repository_object();
        let report = status::Report {
            repository: &repository,
            source: &source,
            desired: &desired,
            plan: &plan,
            outcome: &outcome,
            live: &self.live,
            notes: Ok(()),
            noted: self.settled.clone(),
            now: self.now,
        };
        self.status = Some(status::of(&report));
        self.emit(plan);
        said
    }

    fn publish(&mut self, source: &Source, plan: &Plan, outcome: &Outcome) {
        if plan.stalled.is_some() {
            return;
        }
        let wanted = Note::wanted(outcome, &outcome.corrections, &self.notes, "default", self.now);
        self.notes.extend(wanted.into_iter().map(|note| (note.commit, note.text)));
        if let Some(settled) = outcome.settled(source) {
            self.settled = Some(settled);
        } else if self.settled.is_none() {
            // The head stands for all before it until it is settled.
        }
        self.accepted = Some(source.head.clone());
        self.rewritten = false;
    }

    fn emit(&mut self, plan: Plan) {
        let now = self.now;
        for (database, retired) in plan.retired {
            self.present(&database).requests.retain(|r| r.request_name() != retired.request);
        }
        for (database, write) in plan.claims {
            self.write(&database, write);
        }
        for emission in plan.emissions {
            let database = emission.database.clone();
            self.write(&database, emission.before);
            if let Some(secret) = &emission.secret {
                let text = &secret.data.as_ref().unwrap()["user.conf"].0;
                let name = secret.metadata.name.clone().unwrap();
                self.secrets.insert(name, Settings::parse_bytes(text).unwrap());
            }
            let mut request = emission.request;
            request.metadata.creation_timestamp = Some(Time(now));
            request.metadata.uid = Some(format!("{}-uid", request.request_name()));
            let present = self.present(&database);
            let name = request.request_name();
            assert!(present.request(&name).is_none(), "{name} is doubled");
            present.requests.push(Arc::new(request));
            present.claim_text = Some(emission.after.render());
            present.claim = Some(emission.after);
        }
    }

    fn write(&mut self, database: &DatabaseRef, write: ClaimWrite) {
        let present = self.present(database);
        assert_eq!(present.claim_text, write.expected, "{database}: compare-and-swap");
        present.claim_text = write.claim.as_ref().map(Claim::render);
        present.claim = write.claim;
    }

    fn repository_object(&self) -> ConfigRepository {
        let spec: ConfigRepositorySpec = serde_yaml::from_str("url: /srv/config.git").unwrap();
        let mut repository = ConfigRepository::new("config", spec);
        repository.status = self.status.clone();
        repository
    }

    fn show_status(&self) -> String {
        let status = self.status.as_ref().expect("a plan comes first");
        let mut said = String::new();
        for condition in &status.conditions {
            let pgitops::api::Condition { type_, status, reason, message, .. } = condition;
            writeln!(said, "{type_}={status} {reason}: {message}").unwrap();
        }
        let counts: Vec<String> =
            status.counts.iter().map(|(word, number)| format!("{word} {number}")).collect();
        writeln!(said, "counts: {}", counts.join(", ")).unwrap();
        for line in status.problems.iter().chain(&status.held) {
            writeln!(said, "- {line}").unwrap();
        }
        if let Some(next) = &status.next_window {
            writeln!(said, "next window: {next}").unwrap();
        }
        said
    }
}

fn fresh(database: &DatabaseRef) -> Present {
    Present {
        uid: format!("{}-uid", database.name),
        nodes: 1,
        provisioned: true,
        claimant_exists: true,
        admitted: true,
        ..Present::default()
    }
}

fn phase(text: &str) -> Option<Phase> {
    serde_json::from_value(text.into()).unwrap()
}

fn ops_phase(text: &str) -> OpsPhase {
    serde_json::from_value(text.into()).unwrap()
}

/// What `ops` makes of a request, as far as the configuration goes.
fn carry_out(
    custom: &mut Custom,
    asked: &pgitops::api::ops_request::Reconfiguration,
    secrets: &BTreeMap<String, Settings>,
) {
    if asked.removes() {
        custom.secret_is_ours = false;
        custom.layers.inline = Settings::new();
        let kept = asked.config_secret.is_some() && custom.secret_name.is_some();
        if !kept {
            custom.secret_name = None;
            custom.layers.user = Settings::new();
        }
    }
    if let Some(secret) = &asked.config_secret {
        custom.secret_name = Some(secret.name.clone());
        if let Some(rendered) = secrets.get(&secret.name) {
            custom.secret_is_ours = true;
            custom.layers.user = rendered.clone();
        }
    }
    custom.layers.inline.merge(&Settings::parse(asked.settings()).unwrap());
    custom.rendered_inline = None;
}

/// A document in full: `demo/orders Merge a=1 b=2 (wave=1 restart=false)`. Its first parameter
/// stands on line 8.
fn document(short: &[String]) -> String {
    let target = database(&short[0]);
    let joined = short[2..].join(" ");
    let (parameters, fields) = joined.split_once('(').unwrap_or((&joined, ""));
    let mut text = format!(
        "apiVersion: pgitops.dev/v1alpha1\nkind: PostgresConfig\nmetadata: {{name: {0}}}\n\
         spec:\n  databaseRef: {{name: {0}, namespace: {1}}}\n  mode: {2}\n",
        target.name, target.namespace, short[1]
    );
    let parameters: Vec<(&str, &str)> =
        parameters.split_whitespace().filter_map(|pair| pair.split_once('=')).collect();
    match parameters.is_empty() {
        true => text.push_str("  parameters: {}\n"),
        false => text.push_str("  parameters:\n"),
    }
    for (name, value) in parameters {
        let plain = value.chars().all(|c| c.is_ascii_alphanumeric() || c == '.');
        match plain && !["on", "off"].contains(&value) {
            true => writeln!(text, "    {name}: {value}").unwrap(),
            false => writeln!(text, "    {name}: \"{value}\"").unwrap(),
        }
    }
    for field in fields.trim_end_matches(')').split_whitespace() {
        let (key, value) = field.split_once('=').unwrap();
        match key {
            "allow" => {
                let (name, until) = value.split_once(':').unwrap();
                writeln!(text, "  allowUnsafe: {{{name}: {{reason: load, until: {until}}}}}")
                    .unwrap();
            }
            _ => writeln!(text, "  {key}: {value}").unwrap(),
        }
    }
    text
}
