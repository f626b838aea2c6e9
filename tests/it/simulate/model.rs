//! A model of Postgres servers: what runs, what is on disk, the log, replay and restartpoints.
//!
//! Knows the rules of the five (`postgres.md` §3.1): a standby that reads a record with a higher
//! value than its own stops replaying, and one that has to read such a record at its start does
//! not start.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pgitops::instance::protocol::{
    Archiver, ConfigurationSet, ControlData, DryRan, Facts, Fallback, Gates, HotStandby, Live, Lsn,
    ParameterProof, Proof, Restarted, Role, ServerState, ServerVersion, SetId, Sets, Setting,
    WalReceiver, WorkingOn, Written,
};
use pgitops::ops::hot_standby::Five;
use pgitops::ops::proof::Expected;
use pgitops::ops::seen::Server;
use pgitops::pgconf::{Catalogue, Settings, Value, tiers};

/// The parameters that the model's servers report.
const REPORTED: [&str; 9] = [
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
    "shared_buffers",
    "wal_buffers",
    "work_mem",
    "wal_retrieve_retry_interval",
];

pub fn catalogue() -> &'static Catalogue {
    Catalogue::for_major(15).unwrap()
}

/// The write-ahead log: where it ends, and the records that change the five.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub end: u64,
    pub records: Vec<(u64, Five)>,
    /// Places of checkpoint records.
    pub checkpoints: Vec<u64>,
}

impl Log {
    fn checkpoint(&mut self) -> u64 {
        let at = self.end;
        self.checkpoints.push(at);
        self.end += 2;
        at
    }

    fn change(&mut self, five: &Five) {
        self.records.push((self.end, five.clone()));
        self.end += 2;
    }
}

#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub primary: bool,
    pub up: bool,
    /// Why it does not start, while it does not.
    pub failed: Option<String>,
    pub timeline: u32,
    /// The file as the running server read it at its start, and as it read it last.
    started: Settings,
    loaded: Settings,
    pub sets: Sets,
    pub texts: BTreeMap<String, String>,
    pub last_fallback: Option<Fallback>,
    pub control: Five,
    pub checkpoint: u64,
    pub replayed: u64,
    pub paused: bool,
    /// Looks until it streams again.
    pub reconnects: u32,
    /// Looks until it can be reached again.
    pub unreachable: u32,
    /// A restart that takes several looks.
    pub busy: Option<(u32, ConfigurationSet, ConfigurationSet)>,
    pub starts: u32,
    pub started_at: Timestamp,
}

pub fn five(settings: &Settings) -> Five {
    let value = |name: &'static str| -> i64 {
        let boot = catalogue().boot_value(name).unwrap();
        let text = settings.value_of(name).unwrap_or(boot);
        let normal = catalogue().normalise(name, &Value::new(text).unwrap()).unwrap();
        normal.text.parse().unwrap()
    };
    tiers::ORDERED.into_iter().map(|name| (name, value(name))).collect()
}

fn hot_standby(five: &Five) -> HotStandby {
    HotStandby {
        max_connections: five["max_connections"],
        max_worker_processes: five["max_worker_processes"],
        max_wal_senders: five["max_wal_senders"],
        max_prepared_transactions: five["max_prepared_transactions"],
        max_locks_per_transaction: five["max_locks_per_transaction"],
    }
}

fn low(has: &Five, needs: &Five) -> Option<String> {
    let low = needs.iter().find(|(name, least)| has[*name] < **least)?;
    Some(format!("recovery aborted because of insufficient parameter settings: {}", low.0))
}

impl Node {
    pub fn new(name: &str, primary: bool, file: &str, log: &Log) -> Self {
        let settings = Settings::parse(file).unwrap();
        let seed = SetId { sequence: 0, digest: "seed".to_owned() };
        Self {
            name: name.to_owned(),
            primary,
            up: true,
            failed: None,
            timeline: 1,
            control: five(&settings),
            started: settings.clone(),
            loaded: settings,
            texts: [(seed.revision(), file.to_owned())].into(),
            sets: Sets { running: Some(seed.clone()), staged: None, last_started: Some(seed) },
            last_fallback: None,
            checkpoint: log.end,
            replayed: log.end,
            paused: false,
            reconnects: 0,
            unreachable: 0,
            busy: None,
            starts: 0,
            started_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn text(&self, set: &SetId) -> &str {
        &self.texts[&set.revision()]
    }

    /// The file that the next start reads.
    pub fn on_disk(&self) -> &str {
        let sets = &self.sets;
        self.text(sets.staged.as_ref().or(sets.running.as_ref()).unwrap())
    }

    /// Why a start with this file fails by the rule of the five, were it made now after a crash.
    pub fn refuses(&self, file: &str, log: &Log) -> Option<String> {
        if self.primary {
            return None;
        }
        let has = five(&Settings::parse(file).unwrap());
        if let Some(words) = low(&has, &self.control) {
            return Some(words);
        }
        let again =
            log.records.iter().filter(|(at, _)| *at >= self.checkpoint && *at < self.replayed);
        again.map(|(_, needs)| needs).find_map(|needs| low(&has, needs))
    }

    pub fn keep(&mut self, set: &ConfigurationSet) {
        self.texts.insert(set.id.revision(), set.text.clone());
    }

    pub fn load(&mut self, set: &ConfigurationSet) {
        self.keep(set);
        if self.up {
            self.loaded = Settings::parse(&set.text).unwrap();
            self.sets.running = Some(set.id.clone());
            self.sets.staged = None;
        } else {
            self.sets.staged = Some(set.id.clone());
        }
    }

    pub fn stop_cleanly(&mut self, log: &mut Log) {
        self.up = false;
        if self.primary {
            self.checkpoint = log.checkpoint();
        } else {
            self.restartpoint(log);
        }
    }

    /// The last checkpoint record that was replayed.
    pub fn restartpoint(&mut self, log: &Log) {
        let replayed = log.checkpoints.iter().rev().find(|at| **at < self.replayed);
        self.checkpoint = self.checkpoint.max(replayed.copied().unwrap_or_default());
    }

    pub fn make_checkpoint(&mut self, log: &mut Log) {
        if self.primary {
            self.checkpoint = log.checkpoint();
        } else {
            self.restartpoint(log);
        }
    }

    pub fn start(
        &mut self,
        set: &SetId,
        log: &mut Log,
        now: Timestamp,
        badly: bool,
    ) -> Result<(), String> {
        let file = self.text(set).to_owned();
        if badly {
            return Err("FATAL: could not access file \"nosuch\"".to_owned());
        }
        if let Some(words) = self.refuses(&file, log) {
            return Err(words);
        }
        let settings = Settings::parse(&file).unwrap();
        if self.primary && five(&settings) != self.control {
            log.change(&five(&settings));
            self.control = five(&settings);
        }
        self.started = settings.clone();
        self.loaded = settings;
        self.up = true;
        self.failed = None;
        self.paused = false;
        self.reconnects = 2;
        self.starts += 1;
        self.started_at = now;
        self.sets.running = Some(set.clone());
        self.sets.staged = None;
        self.sets.last_started = Some(set.clone());
        Ok(())
    }

    /// What the instance does by itself: candidate, else fallback, else trying on.
    pub fn restart(
        &mut self,
        candidate: &ConfigurationSet,
        fallback: &ConfigurationSet,
        log: &mut Log,
        now: Timestamp,
        badly: bool,
    ) -> Restarted {
        self.keep(candidate);
        self.keep(fallback);
        match self.start(&candidate.id, log, now, badly) {
            Ok(()) => {
                Restarted::Restarted { started_at: now, stop_ms: 30, start_ms: 50, forced: false }
            }
            Err(words) => {
                let then = self.start(&fallback.id, log, now, false);
                self.last_fallback = Some(Fallback {
                    at: now,
                    failed: candidate.id.clone(),
                    now: then.is_ok().then(|| fallback.id.clone()),
                    words: words.clone(),
                });
                match then {
                    Ok(()) => Restarted::FellBack { words, started_at: now, gap_ms: 170 },
                    Err(fallback_words) => {
                        self.failed = Some(fallback_words.clone());
                        self.sets.staged = Some(fallback.id.clone());
                        Restarted::Down { words, fallback_words }
                    }
                }
            }
        }
    }

    /// A standby reads on.
    pub fn replay(&mut self, log: &Log, primary_up: bool) {
        if self.primary || !self.up {
            return;
        }
        self.reconnects = self.reconnects.saturating_sub(u32::from(primary_up));
        if !primary_up || self.reconnects > 0 || self.paused {
            return;
        }
        let has = five(&self.started);
        let ahead = log.records.iter().filter(|(at, _)| *at >= self.replayed);
        for (at, needs) in ahead {
            if low(&has, needs).is_some() {
                self.replayed = *at;
                self.paused = true;
                return;
            }
            self.control = needs.clone();
        }
        self.replayed = log.end;
    }

    /// A standby takes over.
    pub fn promote(&mut self, log: &mut Log, timeline: u32) {
        self.primary = true;
        self.timeline = timeline;
        self.replayed = log.end;
        self.checkpoint = log.checkpoint();
        if five(&self.started) != self.control {
            self.control = five(&self.started);
            log.change(&five(&self.started));
        }
    }

    /// The value in force, as the server reports it.
    pub fn running(&self, name: &str) -> String {
        let file = match is_postmaster(name) {
            true => &self.started,
            false => &self.loaded,
        };
        let text = file.value_of(name).or(catalogue().boot_value(name)).unwrap();
        if name == "wal_buffers" && text == "-1" {
            return "2048".to_owned();
        }
        let value = Value::new(text).unwrap();
        catalogue().normalise(name, &value).unwrap().text
    }

    fn setting(&self, name: &str) -> Setting {
        let in_file = match is_postmaster(name) {
            true => self.started.value_of(name).is_some(),
            false => self.loaded.value_of(name).is_some(),
        };
        let context = if is_postmaster(name) { "postmaster" } else { "user" };
        Setting {
            name: name.to_owned(),
            reset_val: Some(self.running(name)),
            boot_val: catalogue().boot_value(name).map(str::to_owned),
            unit: None,
            context: context.to_owned(),
            vartype: "integer".to_owned(),
            source: if in_file { "configuration file" } else { "default" }.to_owned(),
            sourcefile: in_file.then(|| "/x/postgresql.conf".to_owned()),
            sourceline: None,
            pending_restart: false,
        }
    }

    pub fn server(&self, log: &Log, leader: Option<&Node>) -> Server {
        let settings = REPORTED.iter().map(|name| ((*name).to_owned(), self.setting(name)));
        let settings = if self.up { settings.collect() } else { BTreeMap::new() };
        let state = match (&self.failed, self.up, &self.busy) {
            (_, true, _) => ServerState::Running,
            (_, false, Some(_)) => ServerState::Stopped,
            (Some(words), false, None) => ServerState::Failed { words: words.clone() },
            (None, false, None) => ServerState::Starting,
        };
        let role = match self.primary {
            true => Role::Primary,
            false => Role::Standby { primary_hosts: vec!["p".to_owned()], primary_port: 5432 },
        };
        let working_on = self.busy.as_ref().map(|_| WorkingOn {
            call: "/v1/restart".to_owned(),
            request: "r".to_owned(),
            step: "s".to_owned(),
        });
        let facts = Facts {
            protocol: 1,
            pod: self.name.clone(),
            version: Some(ServerVersion { number: 150_018, text: "15.18".to_owned() }),
            state,
            role: Some(role),
            fence_seen: 1,
            working_on,
            sets: self.sets.clone(),
            last_fallback: self.last_fallback.clone(),
            control: Some(self.control_data()),
            live: self.up.then(|| self.live(log, leader)),
            live_error: None,
            settings: None,
            memory_limit: None,
        };
        Server { facts, settings }
    }

    fn control_data(&self) -> ControlData {
        ControlData {
            cluster_state: "in production".to_owned(),
            system_identifier: 7,
            checkpoint: Lsn(self.checkpoint),
            redo: Lsn(self.checkpoint),
            timeline: self.timeline,
            minimum_recovery: Lsn(0),
            minimum_recovery_timeline: self.timeline,
            wal_level: "replica".to_owned(),
            hot_standby: hot_standby(&self.control),
        }
    }

    fn receiver(&self, leader: Option<&Node>) -> Option<WalReceiver> {
        let streams = !self.primary && self.reconnects == 0 && leader.is_some_and(|l| l.up);
        streams.then(|| WalReceiver {
            status: "streaming".to_owned(),
            host: "p".to_owned(),
            port: 5432,
            timeline: leader.map_or(0, |leader| leader.timeline),
        })
    }

    fn live(&self, log: &Log, leader: Option<&Node>) -> Live {
        let place = |there: bool, at: u64| there.then_some(Lsn(at));
        Live {
            version_number: 150_018,
            in_recovery: !self.primary,
            system_identifier: 7,
            timeline: self.timeline,
            started_at: self.started_at,
            loaded_at: self.started_at,
            revision: self.sets.running.as_ref().map(SetId::revision),
            current: place(self.primary, log.end),
            flush: place(self.primary, log.end),
            receive: place(!self.primary, self.replayed),
            replay: place(!self.primary, self.replayed),
            replay_paused: self.paused,
            receiver: self.receiver(leader),
            senders: Vec::new(),
            archiver: Archiver::default(),
            gates: Gates { sessions: 3, ..Gates::default() },
            replication_slots: 0,
            hot_standby: hot_standby(&five(&self.started)),
        }
    }

    pub fn proof(
        &self,
        expected: &Expected,
        log: &Log,
        leader: Option<&Node>,
    ) -> Result<Proof, String> {
        if !self.up {
            return Err("the server does not run".to_owned());
        }
        let parameters = expected.values(Some(catalogue())).into_iter().map(|(name, wanted)| {
            let setting = REPORTED.contains(&name.as_str()).then(|| self.setting(&name));
            // Parameters that the model leaves out are as the file says.
            let setting = setting.unwrap_or_else(|| Setting {
                reset_val: Some(wanted.clone()),
                source: "configuration file".to_owned(),
                ..self.setting("work_mem")
            });
            let equal = setting.reset_val.as_ref() == Some(&wanted);
            (name, ParameterProof { expected: wanted, setting: Some(setting), equal })
        });
        let next_start = self.refuses(self.on_disk(), log);
        Ok(Proof {
            revision: self.sets.running.as_ref().map(SetId::revision),
            file: "/x/postgresql.conf".to_owned(),
            loaded_at: self.started_at,
            started_at: self.started_at,
            parameters: parameters.collect(),
            file_errors: Vec::new(),
            auto_conf: BTreeMap::new(),
            role_overrides: Vec::new(),
            in_recovery: !self.primary,
            connection_error: None,
            write: self.primary.then_some(Written::Committed { took_ms: 1 }),
            receiver: self.receiver(leader),
            replay_paused: self.paused,
            replay: (!self.primary).then_some(Lsn(self.replayed)),
            next_start: DryRan {
                accepted: next_start.is_none(),
                words: next_start.unwrap_or_default(),
                took_ms: 1,
            },
            control: hot_standby(&self.control),
            hot_standby: hot_standby(&five(&self.started)),
        })
    }
}

fn is_postmaster(name: &str) -> bool {
    catalogue().get(name).unwrap().context() == pgitops::pgconf::Context::Postmaster
}
