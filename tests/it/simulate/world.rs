//! One database with its objects, its servers and its misfortunes.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pgitops::api::conditions;
use pgitops::api::names::{annotations, finalizers};
use pgitops::api::ops_request::{OpsPhase, ProofReport};
use pgitops::api::postgres::{Configuration, Phase, PostgresStatus};
use pgitops::api::{Postgres, PostgresOpsRequest};
use pgitops::instance::protocol::DryRan;
use pgitops::ops::configuration;
use pgitops::ops::rollout;
use pgitops::ops::seen::{Answers, Kept, Measured, Node as Look, OperatorSecret, Seen, UserConf};
use pgitops::ops::status::{self, Pause};
use pgitops::ops::step::{Awaited, SpecPatch, Step, Told};
use secrecy::SecretString;

use super::model::{Log, Node, catalogue, five};
use super::random::Random;

/// What may go wrong, and how often.
#[derive(Clone)]
pub struct Faults {
    /// Once in how many steps; 0 for never.
    pub often: u64,
    /// Every dry run refuses.
    pub refuse: bool,
    /// This node does not start with a candidate.
    pub starts_badly: Option<&'static str>,
    /// Loading is put back on this node.
    pub puts_back: Option<&'static str>,
    /// Roles may move.
    pub roles_move: bool,
}

impl Faults {
    pub fn none() -> Self {
        Self { often: 0, refuse: false, starts_badly: None, puts_back: None, roles_move: false }
    }
}

pub struct World {
    random: Random,
    faults: Faults,
    talks: bool,
    now: Timestamp,
    version: u64,
    database: Postgres,
    requests: Vec<PostgresOpsRequest>,
    created: usize,
    operator: OperatorSecret,
    journal: Kept,
    user_confs: BTreeMap<String, String>,
    nodes: Vec<Node>,
    log: Log,
    answers: Answers,
    story: Vec<String>,
    /// Delete the running request after this step.
    delete_after: Option<&'static str>,
    roles_moved: bool,
    going_back: bool,
    /// Restarts by node and direction, of the present rollout.
    restarts: BTreeMap<(String, bool), u32>,
    /// The nodes that the present rollout restarted, in that order.
    order: Vec<String>,
    /// Whether a server crashed during it: that is a start nobody asked for.
    crashed: bool,
}

const DB: &str = "db";

impl World {
    /// A world without faults: all is chosen.
    pub fn quiet(nodes: usize, inline: &str, faults: Faults) -> Self {
        Self::build(Random::new(1), nodes, inline, faults, false)
    }

    /// A world chosen by its seed.
    pub fn new(mut random: Random, talks: bool) -> Self {
        let nodes = *random.one_of(&[1, 2, 3, 3, 3, 5]);
        let inline = random_settings(&mut random);
        let node = |random: &mut Random| match random.below(4) {
            0 => Some("db-0"),
            1 => Some("db-1"),
            _ => None,
        };
        let faults = Faults {
            often: *random.one_of(&[0, 4, 8, 16]),
            refuse: random.once_in(12),
            starts_badly: node(&mut random).filter(|_| random.once_in(2)),
            puts_back: node(&mut random).filter(|_| random.once_in(4)),
            roles_move: random.once_in(6),
        };
        let mut world = Self::build(random, nodes, &inline, faults, talks);
        for _ in 0..=world.random.below(3) {
            let ask = random_request(&mut world.random);
            match world.random.below(5) {
                0 => world.ask_restart(),
                1 => world.ask_as_sync(&ask),
                _ => world.ask(&ask),
            }
        }
        if world.random.once_in(6) {
            let steps = ["Paused", "Kept", "SpecWritten", "Loaded", "Restarted", "Proven"];
            world.delete_after = Some(*world.random.one_of(&steps[..]));
        }
        world
    }

    fn build(random: Random, nodes: usize, inline: &str, faults: Faults, talks: bool) -> Self {
        let mut database: Postgres = serde_yaml::from_str(&format!(
            "{{apiVersion: kubedb.com/v1, kind: Postgres, metadata: {{name: {DB}, namespace: demo, \
             uid: db-uid, generation: 1}}, spec: {{version: '15', replicas: {nodes}}}}}"
        ))
        .unwrap();
        let status = PostgresStatus { phase: Some(Phase::Ready), ..PostgresStatus::default() };
        database.status = Some(status);
        set_custom(&mut database, None, inline);
        let custom = configuration::of_object(&database);
        let layers = configuration::layers(&database, &custom, None, 15).unwrap();
        let file = layers.file().render();
        let log = Log { end: 10, ..Log::default() };
        let node = |at: usize| Node::new(&format!("{DB}-{at}"), at == 0, &file, &log);
        let nodes = (0..nodes).map(node).collect();
        let user_confs = [
            ("conf-a".to_owned(), "work_mem = '7MB'\n".to_owned()),
            ("conf-b".to_owned(), "max_connections = 150\nshared_buffers = 64MB\n".to_owned()),
        ];
        Self {
            random,
            faults,
            talks,
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            version: 1,
            database,
            requests: Vec::new(),
            created: 0,
            operator: OperatorSecret {
                inline: inline.to_owned(),
                file,
                version: Some("1".to_owned()),
            },
            journal: Kept::Nothing,
            user_confs: user_confs.into(),
            nodes,
            log,
            answers: Answers::default(),
            story: Vec::new(),
            delete_after: None,
            roles_moved: false,
            going_back: false,
            restarts: BTreeMap::new(),
            order: Vec::new(),
            crashed: false,
        }
    }

    pub fn ask(&mut self, configuration: &str) {
        self.add(&format!("type: Reconfigure, configuration: {configuration}"), false);
    }

    pub fn ask_as_sync(&mut self, configuration: &str) {
        self.add(&format!("type: Reconfigure, configuration: {configuration}"), true);
    }

    pub fn ask_restart(&mut self) {
        self.add("type: Restart", false);
    }

    pub fn delete_after(&mut self, step: &'static str) {
        self.delete_after = Some(step);
    }

    fn add(&mut self, what: &str, of_sync: bool) {
        let number = self.created;
        let spec = format!("{{databaseRef: {{name: {DB}}}, {what}}}");
        let mut request =
            PostgresOpsRequest::new(&format!("ask-{number}"), serde_yaml::from_str(&spec).unwrap());
        request.metadata.namespace = Some("demo".to_owned());
        if of_sync {
            let note = (annotations::COMMIT.to_owned(), "0".repeat(40));
            let previous = (annotations::PREVIOUS.to_owned(), "none".to_owned());
            request.metadata.annotations = Some([note, previous].into());
        }
        self.store(request);
    }

    fn store(&mut self, mut request: PostgresOpsRequest) {
        let number = self.created;
        self.created += 1;
        request.metadata.uid = Some(format!("uid-{number}"));
        let created = self.now.checked_add(SignedDuration::from_secs(number as i64)).unwrap();
        request.metadata.creation_timestamp = Some(Time(created));
        request.metadata.resource_version = Some(self.next_version());
        self.requests.push(request);
    }

    fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    // ------------------------------------------------------------------ the play

    /// Looks, decides and acts until there is nothing to do, and then checks what is left.
    pub fn play(&mut self) {
        // Faults end after a while, so that everything can come to rest; 3000 looks are 40 minutes.
        let mut waits = 0;
        for look in 0..3000 {
            self.tick(waits);
            let seen = self.look();
            let step = rollout::next(&seen, self.now);
            if let Step::Nothing = step {
                return self.check_rest();
            }
            waits = if matches!(step, Step::Wait { .. }) { waits + 1 } else { 0 };
            let quiet = look > 1500 || self.faults.often == 0;
            self.misfortune(quiet);
            self.perform(step, quiet);
            self.check_always();
        }
        panic!("does not come to rest:\n{}", self.story.join(" "));
    }

    /// Time goes on, standbys read on, slow restarts end.
    fn tick(&mut self, waits: u32) {
        // What does not come within 30 looks comes late or never: let the deadline come near.
        let pause = SignedDuration::from_millis(if waits > 30 { 30_000 } else { 500 });
        self.now = self.now.checked_add(pause).unwrap();
        let badly = self.faults.starts_badly;
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            node.unreachable = node.unreachable.saturating_sub(1);
            match node.busy.take() {
                Some((0, candidate, fallback)) => {
                    let bad = is_bad(badly, node, self.going_back);
                    node.restart(&candidate, &fallback, &mut self.log, self.now, bad);
                }
                Some((left, candidate, fallback)) => {
                    node.busy = Some((left - 1, candidate, fallback));
                }
                // An instance goes on trying by itself.
                None if !node.up => {
                    let set = node.sets.staged.clone().or(node.sets.running.clone()).unwrap();
                    let _ = node.start(&set, &mut self.log, self.now, false);
                }
                None => {}
            }
        }
        let primary_up = self.primary().is_some_and(|primary| primary.up);
        for node in &mut self.nodes {
            node.replay(&self.log, primary_up);
        }
    }

    fn primary(&self) -> Option<&Node> {
        self.nodes.iter().find(|node| node.primary)
    }

    fn look(&mut self) -> Seen {
        let leader = self.primary();
        let look = |node: &Node| match node.unreachable {
            0 => Look::Known(Box::new(node.server(&self.log, leader))),
            _ => Look::Unknown("no route to it".to_owned()),
        };
        let nodes = self.nodes.iter().map(|node| (node.name.clone(), look(node))).collect();
        let user = |text: &String| UserConf::Text(SecretString::from(text.clone()));
        let mut requests = self.requests.clone();
        requests.sort_by_key(|r| {
            (r.metadata.creation_timestamp.as_ref().map(|time| time.0), r.request_name())
        });
        Seen {
            database: Some(self.database.clone()),
            requests,
            operator: Some(self.operator.clone()),
            journal: self.journal.clone(),
            user_confs: self.user_confs.iter().map(|(k, v)| (k.clone(), user(v))).collect(),
            nodes,
            answers: std::mem::take(&mut self.answers),
        }
    }

    /// What happens by itself between a look and a step.
    fn misfortune(&mut self, quiet: bool) {
        if quiet || !self.random.once_in(self.faults.often) {
            return;
        }
        let at = usize::try_from(self.random.below(self.nodes.len() as u64)).unwrap();
        match self.random.below(5) {
            0 => self.nodes[at].unreachable = 1 + self.random.below(6) as u32,
            1 => self.crash(at),
            2 => {
                // Somebody else touches the objects.
                self.database.metadata.resource_version = Some(self.next_version());
                self.operator.version = Some(self.next_version());
            }
            3 if self.faults.roles_move => self.move_roles(at),
            _ => {
                self.tell("killed");
                self.answers = Answers::default();
            }
        }
    }

    fn crash(&mut self, at: usize) {
        if self.nodes[at].busy.is_some() || !self.nodes[at].up {
            return;
        }
        self.crashed = true;
        self.tell(&format!("crash({})", self.nodes[at].name));
        let node = &mut self.nodes[at];
        node.up = false;
        let set = node.sets.staged.clone().or(node.sets.running.clone()).unwrap();
        let started = node.start(&set, &mut self.log, self.now, false);
        assert!(
            started.is_ok() || self.roles_moved,
            "{} does not start after a crash: {started:?}\n{}",
            self.nodes[at].name,
            self.story.join(" ")
        );
    }

    fn move_roles(&mut self, to: usize) {
        let old = self.nodes.iter().position(|node| node.primary).unwrap();
        let fit = self.nodes[to].up && !self.nodes[to].paused && self.nodes[to].busy.is_none();
        if old == to || !fit || self.nodes[old].busy.is_some() || !self.nodes[old].up {
            return;
        }
        self.tell(&format!("promote({})", self.nodes[to].name));
        self.roles_moved = true;
        let timeline = self.nodes[old].timeline + 1;
        self.nodes[to].promote(&mut self.log, timeline);
        let end = self.nodes[to].checkpoint;
        let old = &mut self.nodes[old];
        (old.primary, old.replayed, old.timeline, old.reconnects) = (false, end, timeline, 2);
    }

    fn tell(&mut self, what: &str) {
        if self.talks {
            println!("{} {what}", self.now);
        }
        self.story.push(what.to_owned());
    }

    // ------------------------------------------------------------------ steps

    fn perform(&mut self, step: Step, quiet: bool) {
        let word = word(&step);
        if let Some(word) = &word {
            self.tell(word);
        }
        // A write or call that does not come through, or whose answer does not.
        if !quiet && self.random.once_in(self.faults.often * 2) {
            if self.random.once_in(2) {
                return self.tell("lost");
            }
            self.carry_out(step, quiet);
            self.tell("unanswered");
            self.answers = Answers::default();
            return;
        }
        let deletes = self.delete_after.is_some_and(|after| step.word() == after);
        self.carry_out(step, quiet);
        if deletes {
            self.delete_running();
        }
    }

    fn carry_out(&mut self, step: Step, quiet: bool) {
        match step {
            Step::Explain(told)
            | Step::Skip(told)
            | Step::Refuse(told)
            | Step::Accept(told)
            | Step::Note(told)
            | Step::Conclude(told) => self.said(told),
            Step::Report(told) => {
                if let Some(report) = &told.status.proof {
                    self.check_order(report);
                }
                self.said(told);
            }
            Step::Merge(request) => {
                let name = request.request_name();
                assert!(self.requests.iter().all(|r| r.request_name() != name), "doubled {name}");
                self.store(*request);
            }
            Step::Guard { request, finalizers, progress, version } => {
                let found = self.requests.iter_mut().find(|r| r.request_name() == request);
                let Some(found) = found.filter(|r| r.metadata.resource_version == version) else {
                    return;
                };
                found.metadata.finalizers = Some(finalizers);
                let notes = found.metadata.annotations.get_or_insert_default();
                notes.insert(annotations::PROGRESS.to_owned(), progress);
                self.touch_request(&request.0);
            }
            Step::Release { request, finalizers, version } => {
                let found = self.requests.iter_mut().find(|r| r.request_name() == request);
                let Some(found) = found.filter(|r| r.metadata.resource_version == version) else {
                    return;
                };
                found.metadata.finalizers = Some(finalizers);
                if found.is_deleted() {
                    self.requests.retain(|r| r.request_name() != request);
                } else {
                    self.touch_request(&request.0);
                }
            }
            Step::Pause { conditions, version } | Step::Resume { conditions, version } => {
                if self.database.metadata.resource_version == version {
                    self.database.status.as_mut().unwrap().conditions = conditions;
                    self.database.metadata.resource_version = Some(self.next_version());
                }
            }
            Step::Keep(journal) | Step::RollBack(journal) => {
                if journal.rollback.is_none() {
                    self.restarts.clear();
                    self.order.clear();
                    self.crashed = false;
                }
                self.going_back = journal.rollback.is_some();
                self.journal = Kept::Journal(journal, Some(self.next_version()));
            }
            Step::WriteSpec(patch) => self.write_spec(&patch),
            Step::WriteOperator { inline, file, version } => {
                if self.operator.version == version {
                    let version = Some(self.next_version());
                    self.operator = OperatorSecret { inline, file, version };
                }
            }
            step @ (Step::DryRun { .. }
            | Step::Load { .. }
            | Step::Lower { .. }
            | Step::Restartpoint { .. }
            | Step::Restart(_)
            | Step::Prove { .. }) => self.call(step, quiet),
            Step::Wait { on: Awaited::Objects, what } => panic!("waits for ever: {what}"),
            Step::Wait { .. } | Step::Nothing => {}
        }
    }

    fn said(&mut self, told: Told) {
        let found = self.requests.iter_mut().find(|r| r.request_name() == told.request);
        let Some(found) = found.filter(|r| r.metadata.resource_version == told.version) else {
            return;
        };
        let before = found.phase();
        found.status = Some(told.status);
        let after = found.phase();
        assert!(!before.is_terminal(), "{} ended twice", told.request);
        if before == OpsPhase::Pending && after == OpsPhase::Progressing {
            let running = self.requests.iter().filter(|r| r.phase() == OpsPhase::Progressing);
            assert_eq!(running.count(), 1, "two at a time");
        }
        self.touch_request(&told.request.0);
    }

    fn touch_request(&mut self, name: &str) {
        let version = self.next_version();
        let found = self.requests.iter_mut().find(|r| r.request_name().0 == name).unwrap();
        found.metadata.resource_version = Some(version);
    }

    fn write_spec(&mut self, patch: &SpecPatch) {
        let (SpecPatch::Apply(json) | SpecPatch::Merge(json)) = patch;
        let version = json["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        if self.database.metadata.resource_version != version {
            return;
        }
        let configuration = &json["spec"]["configuration"];
        let now = configuration::of_object(&self.database);
        let secret = match configuration.get("secretName") {
            Some(value) => value.as_str().map(str::to_owned),
            None => now.secret_name,
        };
        let inline = match configuration.get("inline") {
            Some(value) => value["user.conf"].as_str().unwrap_or_default().to_owned(),
            None => now.inline,
        };
        set_custom(&mut self.database, secret, &inline);
        self.database.metadata.resource_version = Some(self.next_version());
    }

    fn delete_running(&mut self) {
        let running = |r: &&mut PostgresOpsRequest| r.phase() == OpsPhase::Progressing;
        let Some(request) = self.requests.iter_mut().find(running) else { return };
        assert!(request.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty()), "unguarded");
        request.metadata.deletion_timestamp = Some(Time(self.now));
        let name = request.request_name().0;
        self.delete_after = None;
        self.touch_request(&name);
        self.tell("deleted");
    }

    fn reachable(&mut self, name: &str) -> Option<usize> {
        let at = self.nodes.iter().position(|node| node.name == name)?;
        let node = &self.nodes[at];
        (node.unreachable == 0 && node.busy.is_none()).then_some(at)
    }

    fn call(&mut self, step: Step, quiet: bool) {
        match step {
            Step::DryRun { nodes, .. } => {
                let refuse = self.faults.refuse;
                let ran = |_: &_| DryRan {
                    accepted: !refuse,
                    words: "FATAL: no".to_owned(),
                    took_ms: 12,
                };
                let all = nodes.iter().map(|(name, trials)| (name.clone(), Ok(ran(trials))));
                self.answers.dry_run = Some(all.collect());
            }
            Step::Load { nodes, .. } => {
                for (name, set) in nodes {
                    let Some(at) = self.reachable(&name) else { continue };
                    let puts_back = self.faults.puts_back == Some(self.nodes[at].name.as_str());
                    if puts_back && !self.going_back {
                        self.answers.put_back = Some((name, "not this".to_owned()));
                    } else {
                        self.nodes[at].load(&set);
                    }
                }
            }
            Step::Lower { node, mut journal, .. } => {
                let Some(at) = self.reachable(&node).filter(|at| self.nodes[*at].primary) else {
                    return;
                };
                self.nodes[at].make_checkpoint(&mut self.log);
                let lowered = self.nodes[at].checkpoint;
                journal.lowered = Some(pgitops::instance::protocol::Lsn(lowered));
                self.journal = Kept::Journal(journal, Some(self.next_version()));
            }
            Step::Restartpoint { node, .. } => {
                if let Some(at) = self.reachable(&node) {
                    self.nodes[at].make_checkpoint(&mut self.log);
                }
            }
            Step::Restart(restart) => self.restart(*restart, quiet),
            Step::Prove { nodes, .. } => {
                let leader = self.primary().cloned();
                let proof = |(name, expected): (&String, &_)| {
                    let node = self.nodes.iter().find(|node| node.name == *name).unwrap();
                    let away = node.unreachable > 0;
                    let proof = match away {
                        true => Err("no route to it".to_owned()),
                        false => node.proof(expected, &self.log, leader.as_ref()),
                    };
                    (name.clone(), proof)
                };
                self.answers.proofs = Some(nodes.iter().map(proof).collect());
            }
            other => panic!("not a call: {other:?}"),
        }
    }

    fn restart(&mut self, restart: pgitops::ops::step::RestartStep, quiet: bool) {
        let Some(at) = self.reachable(&restart.node) else { return };
        self.check_restart(at);
        *self.restarts.entry((restart.node.clone(), self.going_back)).or_default() += 1;
        self.order.push(restart.node.clone());
        let bad = is_bad(self.faults.starts_badly, &self.nodes[at], self.going_back);
        if self.nodes[at].up {
            self.nodes[at].make_checkpoint(&mut self.log);
            self.nodes[at].stop_cleanly(&mut self.log);
        }
        let (candidate, fallback) = (restart.candidate, restart.fallback);
        if !quiet && self.random.once_in(3) {
            let looks = 1 + self.random.below(4) as u32;
            let node = &mut self.nodes[at];
            node.keep(&candidate);
            node.keep(&fallback);
            node.sets.staged = Some(candidate.id.clone());
            node.busy = Some((looks, candidate, fallback));
            return;
        }
        let (log, now) = (&mut self.log, self.now);
        let restarted = self.nodes[at].restart(&candidate, &fallback, log, now, bad);
        self.answers.restarted = Some(Measured {
            node: restart.node,
            primary: restart.primary,
            connections: restart.connections,
            restarted,
        });
    }

    // ------------------------------------------------------------------ what must hold

    /// Nobody is taken down while another is down, or a standby does not follow.
    fn check_restart(&self, at: usize) {
        let target = &self.nodes[at];
        let seen_well = |node: &Node| node.up && (node.primary || node.reconnects == 0);
        let ill: Vec<&str> = self
            .nodes
            .iter()
            .filter(|node| node.name != target.name && !seen_well(node))
            .map(|node| node.name.as_str())
            .collect();
        // A server that is down already, or a standby that cannot follow, is not taken down.
        let heals = !target.up || target.paused;
        // What befell a node after it was looked at, nobody could know.
        let befallen = self.story.iter().rev().take(3).any(|word| word.starts_with("crash"));
        assert!(
            ill.is_empty() || heals || befallen || self.roles_moved,
            "{} is restarted while {ill:?} is not well\n{}",
            target.name,
            self.story.join(" ")
        );
    }

    /// Restarts are reported in the order in which they were made, whoever was killed in between.
    fn check_order(&self, report: &ProofReport) {
        if self.crashed || self.roles_moved || self.going_back {
            return;
        }
        let told = report.restarted.iter().map(|entry| entry.split(' ').next().unwrap());
        let told: Vec<&str> = told.collect();
        assert_eq!(told, self.order, "reported otherwise than made\n{}", self.story.join(" "));
    }

    /// After every step: an unplanned start would succeed, and only the owner's pause stands.
    fn check_always(&self) {
        for node in self.nodes.iter().filter(|node| node.busy.is_none() && node.up) {
            let refuses = node.refuses(node.on_disk(), &self.log);
            assert!(
                refuses.is_none() || self.roles_moved || node.paused,
                "{} would not start with what is on its disk: {refuses:?}\n{}",
                node.name,
                self.story.join(" ")
            );
        }
        for (what, times) in &self.restarts {
            let limit = if self.roles_moved { 4 } else { 2 };
            assert!(*times <= limit, "{what:?} {times} times\n{}", self.story.join(" "));
        }
        if let Pause::Ours(owner) = status::paused(&self.database) {
            let owned =
                self.requests.iter().find(|r| r.metadata.uid.as_deref() == Some(&owner.uid));
            let guarded = owned.is_some_and(|r| r.metadata.finalizers.is_some());
            assert!(guarded, "paused for an unguarded request\n{}", self.story.join(" "));
        }
    }

    /// At rest: everything has ended, nothing is paused, and what is said is what is.
    fn check_rest(&mut self) {
        let story = self.story.join(" ");
        assert_eq!(status::paused(&self.database), Pause::Not, "left paused\n{story}");
        let guarded = |r: &PostgresOpsRequest| {
            r.metadata.finalizers.iter().flatten().any(|name| name == finalizers::REQUEST)
        };
        for request in &self.requests {
            assert!(request.phase().is_terminal(), "{} is open\n{story}", request.request_name());
            assert!(!guarded(request), "{} is guarded\n{story}", request.request_name());
        }
        let incomplete = self.requests.iter().any(|request| {
            let back = conditions::find(request.conditions(), status::ROLLED_BACK);
            back.is_some_and(|back| !back.is_true())
        });
        if incomplete {
            // Said so, and why; the worlds in which that may happen are those with lasting faults.
            assert!(self.faults.often > 0 || self.roles_moved, "{story}");
            return;
        }
        // Whoever restarted, restarts on: every node ends with the file of the operator's Secret.
        let settings = pgitops::pgconf::Settings::parse(&self.operator.file).unwrap();
        for node in &self.nodes {
            assert!(node.up, "{} is down\n{story}", node.name);
            for (name, value) in settings.iter() {
                if ["max_connections", "max_worker_processes", "shared_buffers", "work_mem"]
                    .contains(&name.as_str())
                {
                    let wanted = catalogue().normalise(name, value).unwrap().text;
                    assert_eq!(node.running(name), wanted, "{name} on {}\n{story}", node.name);
                }
            }
        }
        let has = five(&settings);
        let custom = configuration::of_object(&self.database);
        assert_eq!(self.operator.inline, custom.inline, "{story}");
        assert!(has["max_connections"] > 0);
    }

    // ------------------------------------------------------------------ what tests ask

    pub fn outcomes(&self) -> (u64, u64, u64) {
        let count = |phase| self.requests.iter().filter(|r| r.phase() == phase).count() as u64;
        (count(OpsPhase::Successful), count(OpsPhase::Failed), count(OpsPhase::Skipped))
    }

    pub fn story(&self) -> String {
        self.story.join(" ")
    }

    pub fn report(&self) -> ProofReport {
        let last = self.requests.iter().rev().find_map(|r| r.status.as_ref()?.proof.clone());
        last.unwrap()
    }

    pub fn running(&self, node: &str, name: &str) -> String {
        self.nodes.iter().find(|other| other.name == node).unwrap().running(name)
    }

    pub fn files(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.on_disk().to_owned()).collect()
    }
}

fn is_bad(badly: Option<&str>, node: &Node, going_back: bool) -> bool {
    badly == Some(node.name.as_str()) && !going_back
}

/// A step's word with the nodes that it concerns; `None` for waits.
fn word(step: &Step) -> Option<String> {
    let of = |nodes: Vec<&String>| nodes.into_iter().cloned().collect::<Vec<_>>().join(",");
    Some(match step {
        Step::Wait { .. } => return None,
        Step::Load { nodes, .. } => format!("Loaded({})", of(nodes.keys().collect())),
        Step::Restart(restart) => format!("Restart({})", restart.node),
        Step::Lower { node, .. } => format!("Checkpoint({node})"),
        Step::Restartpoint { node, .. } => format!("Restartpoint({node})"),
        Step::Conclude(told) => format!("Concluded({:?})", told.status.phase.unwrap()),
        other => other.word().to_owned(),
    })
}

fn set_custom(database: &mut Postgres, secret_name: Option<String>, inline: &str) {
    let inline = (!inline.is_empty()).then(|| [("user.conf".to_owned(), inline.to_owned())].into());
    database.spec.configuration =
        Some(Configuration { secret_name, inline, ..Configuration::default() });
}

fn random_settings(random: &mut Random) -> String {
    let values = [
        ("work_mem", ["4MB", "8MB", "16MB"]),
        ("max_connections", ["100", "150", "200"]),
        ("max_worker_processes", ["8", "10", "12"]),
        ("shared_buffers", ["64MB", "128MB", "256MB"]),
        ("wal_buffers", ["-1", "4MB", "8MB"]),
    ];
    let mut text = String::new();
    for (name, choices) in values {
        if random.once_in(2) {
            let value = random.one_of(&choices);
            text.push_str(&format!("{name} = '{value}'\n"));
        }
    }
    text
}

fn random_request(random: &mut Random) -> String {
    let mut parts = Vec::new();
    let remove = random.once_in(4);
    if remove {
        parts.push("removeCustomConfig: true".to_owned());
    } else if random.once_in(5) {
        parts.push(format!("restart: '{}'", random.one_of(&["true", "false"])));
    }
    if random.once_in(4) {
        parts.push(format!("configSecret: {{name: {}}}", random.one_of(&["conf-a", "conf-b"])));
    }
    let text = random_settings(random).replace('\n', "\\n");
    if !text.is_empty() || parts.is_empty() {
        let text = if text.is_empty() { "work_mem = '8MB'".to_owned() } else { text };
        parts.push(format!("applyConfig: {{user.conf: \"{text}\"}}"));
    }
    format!("{{{}}}", parts.join(", "))
}
