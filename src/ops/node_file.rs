//! Which file a node may have now.
//!
//! The target in, two files per node out: the one it may have *now*, in which every parameter that
//! needs a restart stands at the value that the server runs with, and the *candidate* it may be
//! restarted with. So a crash in the middle never starts a server with half a change, no flag
//! `pending_restart` is ever raised, and a stale one is cleared by the explicit running value
//! (`postgres.md` §2.3). Looks at what runs, not at what was sent.
//! Leaves whose turn it is to `hot_standby` and writing to the instance. Never reads a server.

use std::collections::BTreeSet;

use crate::api::names::{Sequence, digest};
use crate::instance::protocol::{ConfigurationSet, HotStandby, Setting};
use crate::pgconf::{Catalogue, Name, Settings, Value, tiers};

use super::hot_standby::Five;
use super::journal::Journal;
use super::seen::Server;

/// What is to be in force, and what was before.
#[derive(Clone, Debug)]
pub struct Target {
    /// The effective file.
    pub settings: Settings,
    /// The one that is being left.
    pub origin: Settings,
    /// Sets above this number belong to the present phase.
    pub base: Sequence,
    /// Going back: sets above this number belong to the rollout as a whole. A server that was not
    /// started since then still runs with what is gone back to.
    pub rollout_base: Option<Sequence>,
    /// What servers of this version know.
    pub catalogue: Option<&'static Catalogue>,
}

/// The files of one node.
#[derive(Clone, Debug)]
pub struct Files {
    /// What it may have on disk now.
    pub now: Settings,
    /// What it may be restarted with, if it is its turn.
    pub candidate: Settings,
    /// Parameters that the server does not run with as the target wants them, and that only a
    /// restart changes.
    pub waiting: BTreeSet<Name>,
    /// The same against the candidate.
    pub owed: BTreeSet<Name>,
}

/// A setting that holds during a rollout only.
pub type Extra = (&'static str, &'static str);

impl Target {
    /// Of a rollout as it stands: forward, or back.
    pub fn of(journal: &Journal, catalogue: Option<&'static Catalogue>) -> Self {
        Self {
            settings: journal.target().settings(),
            origin: journal.origin().settings(),
            base: journal.phase_base(),
            rollout_base: journal.rollback.as_ref().map(|_| journal.base),
            catalogue,
        }
    }

    /// The five as the target wants them; built-in values where it does not say.
    pub fn five(&self, server: &Server) -> Five {
        let wanted = |name: &'static str| {
            let value = self.settings.value_of(name);
            let built_in = || server.setting(name).and_then(|s| s.boot_val.clone());
            let text = match value {
                Some(text) => Some(self.normal(name, text)),
                None => built_in().or_else(|| self.boot(name)),
            };
            text.and_then(|text| Some((name, text.trim().parse().ok()?)))
        };
        tiers::ORDERED.into_iter().filter_map(wanted).collect()
    }

    fn boot(&self, name: &str) -> Option<String> {
        self.catalogue?.boot_value(name).map(str::to_owned)
    }

    fn normal(&self, name: &str, text: &str) -> String {
        let normal = self.catalogue.zip(Value::new(text).ok());
        let normal = normal.and_then(|(catalogue, v)| catalogue.normalise(name, &v).ok());
        normal.map_or_else(|| text.to_owned(), |normal| normal.text)
    }

    /// A length of time of the target, in milliseconds; 0 where it is not known.
    pub fn milliseconds(&self, name: &str) -> i64 {
        let text = match self.settings.value_of(name) {
            Some(text) => Some(self.normal(name, text)),
            None => self.boot(name),
        };
        text.and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// The files of a node that must not start below `floor`.
    pub fn files(&self, server: &Server, floor: &Five, extras: &[Extra]) -> Files {
        let mut candidate = self.settings.clone();
        let five = self.five(server);
        for (name, least) in floor {
            let wanted = five.get(name).copied();
            if wanted.is_some_and(|wanted| wanted < *least) {
                put(&mut candidate, name, &least.to_string());
            }
        }
        let waiting = self.differing(&self.settings, server);
        let owed = self.differing(&candidate, server);
        let mut now = self.settings.clone();
        for name in &waiting {
            // A setting that is here was found by `differing`, so it has a value.
            let running = server.setting(name).and_then(|s| s.reset_val.as_deref());
            put(&mut now, name.as_str(), running.unwrap_or_default());
        }
        for (name, value) in extras {
            put(&mut now, name, value);
            put(&mut candidate, name, value);
        }
        Files { now, candidate, waiting, owed }
    }

    /// The file for a server that does not run: what it may be restarted with, and the one before.
    pub fn files_of_stopped(&self, floor: &Five) -> Files {
        let raise = |settings: &Settings| {
            let mut raised = settings.clone();
            for (name, least) in floor {
                let set = raised.value_of(name).map(|text| self.normal(name, text));
                let set = set.and_then(|text| text.parse::<i64>().ok());
                let built_in = self.boot(name).and_then(|text| text.parse().ok());
                if set.or(built_in).is_none_or(|value| value < *least) {
                    put(&mut raised, name, &least.to_string());
                }
            }
            raised
        };
        Files {
            now: raise(&self.origin),
            candidate: raise(&self.settings),
            waiting: BTreeSet::new(),
            owed: BTreeSet::new(),
        }
    }

    /// Parameters that only a restart changes and that the server does not run with as `wanted`.
    fn differing(&self, wanted: &Settings, server: &Server) -> BTreeSet<Name> {
        // Since the phase began, or, going back, not even since the rollout began.
        let restarted = server.started_after(self.base)
            || self.rollout_base.is_some_and(|base| !server.started_after(base));
        let settings = server.settings.values().filter(|s| s.context == "postmaster");
        settings
            .filter(|setting| !is_beyond_the_file(setting))
            .filter_map(|setting| Some((Name::new(&setting.name).ok()?, setting)))
            .filter(|(name, setting)| !self.runs(name, wanted.get(name), setting, restarted))
            .map(|(name, _)| name)
            .collect()
    }

    /// Whether a server runs with a value that needs a restart.
    fn runs(
        &self,
        name: &Name,
        wanted: Option<&Value>,
        setting: &Setting,
        restarted: bool,
    ) -> bool {
        let running = setting.reset_val.as_deref().unwrap_or_default();
        let Some(wanted) = wanted else {
            // Not in the file: the server's default, computed or built in, unless a file set it.
            return setting.source != "configuration file" || setting.reset_val == setting.boot_val;
        };
        // What a server makes of some values cannot be compared (computed ones, parameters of
        // libraries): there the text counts, and a restart with it settles the matter.
        let as_before = || {
            restarted
                || match (self.catalogue, self.origin.get(name)) {
                    (Some(catalogue), Some(before)) => catalogue.same(name, before, wanted),
                    (None, Some(before)) => before == wanted,
                    (_, None) => setting.source != "configuration file",
                }
        };
        if wanted.as_str() == running {
            return true;
        }
        let Some(known) = self.catalogue.filter(|catalogue| catalogue.get(name).is_some()) else {
            return as_before();
        };
        let same_text = known.normalise(name, wanted).is_ok_and(|n| n.text == running);
        same_text || (known.runs_with(name, wanted, running) && as_before())
    }
}

/// Set where no file of ours can change it: reported by proofs, not waited for.
fn is_beyond_the_file(setting: &Setting) -> bool {
    setting.source == "command line" || setting.is_from_alter_system()
}

fn put(settings: &mut Settings, name: &str, value: &str) {
    // Names of ours and of the server, and values of the server, are always valid.
    if let (Ok(name), Ok(value)) = (Name::new(name), Value::new(value)) {
        settings.set(name, value);
    }
}

/// The five as a server has them, by name.
pub fn five(values: &HotStandby) -> Five {
    values.by_name()
}

/// A set of this text under this number.
pub fn set(settings: &Settings, sequence: Sequence) -> ConfigurationSet {
    let text = settings.render();
    let id = crate::instance::protocol::SetId { sequence: sequence.0, digest: digest(&[&text]) };
    ConfigurationSet { id, text }
}

/// Whether the text of these settings is what this digest was made of.
pub fn is_of(settings: &Settings, digest_: &str) -> bool {
    digest(&[&settings.render()]) == digest_
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::protocol::{Facts, ServerState, Sets};
    use std::collections::BTreeMap;

    fn facts() -> Facts {
        Facts {
            protocol: 1,
            pod: "db-0".into(),
            version: None,
            state: ServerState::Running,
            role: None,
            fence_seen: 0,
            working_on: None,
            sets: Sets::default(),
            last_fallback: None,
            control: None,
            live: None,
            live_error: None,
            settings: None,
            memory_limit: None,
        }
    }

    /// A server that runs with these values; `!` marks built-in ones.
    fn server(rows: &[(&str, &str)], started: u64) -> Server {
        let catalogue = Catalogue::for_major(15).unwrap();
        let setting = |name: &str, value: &str| Setting {
            name: name.into(),
            reset_val: Some(value.trim_start_matches('!').into()),
            boot_val: catalogue.boot_value(name).map(str::to_owned),
            unit: None,
            context: match catalogue.get(name).map(|p| p.context()) {
                Some(crate::pgconf::Context::Postmaster) | None => "postmaster".into(),
                Some(_) => "user".into(),
            },
            vartype: String::new(),
            source: if value.starts_with('!') { "default" } else { "configuration file" }.into(),
            sourcefile: None,
            sourceline: None,
            pending_restart: false,
        };
        let settings: BTreeMap<_, _> =
            rows.iter().map(|(n, v)| ((*n).to_owned(), setting(n, v))).collect();
        let mut facts = facts();
        facts.sets.last_started =
            Some(crate::instance::protocol::SetId { sequence: started, digest: "x".into() });
        Server { facts, settings }
    }

    fn target(origin: &str, settings: &str) -> Target {
        Target {
            settings: Settings::parse(settings).unwrap(),
            origin: Settings::parse(origin).unwrap(),
            base: Sequence(5),
            rollout_base: None,
            catalogue: Catalogue::for_major(15),
        }
    }

    #[test]
    fn a_value_that_needs_a_restart_waits_for_the_turn() {
        let check = |running: &[(&str, &str)], before: &str, after: &str, now: &str| {
            let files = target(before, after).files(&server(running, 3), &Five::new(), &[]);
            assert_eq!(files.now.render(), now, "{running:?} {after}");
            assert_eq!(files.candidate, Settings::parse(after).unwrap());
        };
        let (mc, wm) = (("max_connections", "100"), ("work_mem", "4096"));
        // Changed, and a reload beside it.
        check(
            &[mc, wm],
            "max_connections = 100",
            "max_connections = 200\nwork_mem = 8MB",
            "max_connections = '100'\nwork_mem = '8MB'\n",
        );
        // Equal as the server sees it.
        check(
            &[mc],
            "max_connections = 100",
            "max_connections = 0x64",
            "max_connections = '0x64'\n",
        );
        // Removed: the explicit running value, so that no flag is raised.
        check(
            &[("max_connections", "200")],
            "max_connections = 200",
            "",
            "max_connections = '200'\n",
        );
        // Removed, but at the built-in value: nothing waits.
        check(&[mc], "max_connections = 100", "", "");
        // Computed by the server: only another text counts.
        let buffers = ("wal_buffers", "2048");
        check(&[buffers], "wal_buffers = -1", "wal_buffers = -1", "wal_buffers = '-1'\n");
        check(&[("wal_buffers", "!2048")], "", "", "");
        check(&[buffers], "wal_buffers = 16MB", "wal_buffers = -1", "wal_buffers = '2048'\n");
        check(
            &[("wal_buffers", "512")],
            "wal_buffers = 4MB",
            "wal_buffers = 4096kB",
            "wal_buffers = '4096kB'\n",
        );
        // A library's parameter, in whatever unit.
        let library = ("pg_stat_statements.max", "5000");
        let (same, other) = ("pg_stat_statements.max = 5k", "pg_stat_statements.max = 9000");
        check(&[library], same, same, "pg_stat_statements.max = '5k'\n");
        check(&[library], same, other, "pg_stat_statements.max = '5000'\n");
    }

    #[test]
    fn what_a_restart_did_not_change_is_not_waited_for_twice() {
        let other = target("wal_buffers = 16MB", "wal_buffers = -1");
        let files =
            |started| other.files(&server(&[("wal_buffers", "2048")], started), &Five::new(), &[]);
        assert_eq!(files(3).owed.len(), 1);
        assert!(files(6).owed.is_empty());
        // Going back: a server that was not restarted since the beginning is where it was.
        let back = Target { rollout_base: Some(Sequence(4)), ..other };
        let files =
            |started| back.files(&server(&[("wal_buffers", "2048")], started), &Five::new(), &[]);
        assert!(files(4).owed.is_empty());
        assert_eq!(files(5).owed.len(), 1);
    }

    #[test]
    fn no_standby_starts_below_its_floor() {
        let server = server(&[("max_connections", "200")], 3);
        let down = target("max_connections = 200", "max_connections = 100");
        let floor = Five::from([("max_connections", 200)]);
        let files = down.files(&server, &floor, &[("wal_sender_timeout", "5s")]);
        let held = "max_connections = '200'\nwal_sender_timeout = '5s'\n";
        assert_eq!((files.candidate.render().as_str(), files.now.render().as_str()), (held, held));
        assert!(files.owed.is_empty() && files.waiting.len() == 1);
        let stopped = down.files_of_stopped(&floor);
        assert_eq!(stopped.candidate.render(), "max_connections = '200'\n");
    }

    #[test]
    fn what_no_file_reaches_is_not_waited_for() {
        let mut server = server(&[("max_connections", "300")], 3);
        let setting = server.settings.get_mut("max_connections").unwrap();
        setting.sourcefile = Some("/data/postgresql.auto.conf".into());
        let files = target("", "max_connections = 100").files(&server, &Five::new(), &[]);
        assert!(files.waiting.is_empty());
        assert_eq!(files.now.render(), "max_connections = '100'\n");
    }
}
