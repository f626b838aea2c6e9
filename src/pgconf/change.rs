//! What an edit costs: which parameters differ, and whether a reload or a restart carries them.
//!
//! Leaves the order of nodes and the decision to restart to the rollout. Never looks at a running
//! server: `pending_restart` lies, the comparison of values does not.

use std::fmt;

use super::catalogue::{Catalogue, Context};
use super::name::{Name, Value};
use super::settings::Settings;
use super::tiers;

/// One parameter that differs between two states.
#[derive(Clone, PartialEq, Eq)]
pub struct Change {
    /// The parameter.
    pub name: Name,
    /// The text before, or `None` if it was not set.
    pub before: Option<Value>,
    /// The text after, or `None` if it is no longer set.
    pub after: Option<Value>,
    /// What it takes to bring it into effect.
    pub class: Class,
}

/// What it takes to bring a change into effect, cheapest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A reload.
    Reload,
    /// A reload, and only sessions that begin afterwards see it.
    SessionOnly,
    /// A restart of the server.
    Restart,
    /// No server of this version takes it.
    Refused,
}

impl Class {
    /// What it takes to change a parameter of this name.
    pub fn of(name: &str, catalogue: &Catalogue) -> Class {
        match catalogue.get(name).map(|parameter| parameter.context()) {
            Some(Context::Postmaster) => Class::Restart,
            Some(Context::Sighup | Context::Superuser | Context::User) => Class::Reload,
            Some(Context::SuperuserBackend | Context::Backend) => Class::SessionOnly,
            Some(Context::Internal) => Class::Refused,
            // An extension's parameter: what its library wants is not known before it is loaded.
            None if name.contains('.') => Class::Reload,
            None => Class::Refused,
        }
    }

    /// The word for people: `reload`, `restart`, `refused`.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Reload => "reload",
            Class::SessionOnly => "reload, new sessions",
            Class::Restart => "restart",
            Class::Refused => "refused",
        }
    }
}

impl Change {
    /// What differs between two effective configurations, as the server sees it, in the order of
    /// the new one and then of what it dropped.
    ///
    /// A parameter that is set on one side only is a change even if the value is the built-in one,
    /// because the file differs; it then needs no restart.
    pub fn between(before: &Settings, after: &Settings, catalogue: &Catalogue) -> Vec<Change> {
        let dropped = before.iter().filter(|(name, _)| !after.contains(name));
        let dropped = dropped.map(|(name, value)| Change::of(name, Some(value), None, catalogue));
        let set = after.iter().filter_map(|(name, value)| match before.get(name) {
            Some(old) if catalogue.same(name, old, value) => None,
            old => Some(Change::of(name, old, Some(value), catalogue)),
        });
        set.chain(dropped).collect()
    }

    /// The change of one parameter, classified.
    pub fn of(
        name: &Name,
        before: Option<&Value>,
        after: Option<&Value>,
        catalogue: &Catalogue,
    ) -> Change {
        let class = match Class::of(name, catalogue) {
            Class::Restart if equal_in_effect(name, before, after, catalogue) => Class::Reload,
            class => class,
        };
        Change { name: name.clone(), before: before.cloned(), after: after.cloned(), class }
    }
}

/// Whether both sides come to the same value when an absent one means the built-in value.
fn equal_in_effect(
    name: &Name,
    before: Option<&Value>,
    after: Option<&Value>,
    catalogue: &Catalogue,
) -> bool {
    let effect = |side: Option<&Value>| match side {
        Some(value) => catalogue.normalise(name, value).ok().map(|normalised| normalised.text),
        None => catalogue.boot_value(name).map(str::to_owned),
    };
    let (before, after) = (effect(before), effect(after));
    before.is_some() && before == after
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// `work_mem 4MB -> 16MB (reload)`; sensitive values do not appear.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |value: &Option<Value>| match value {
            Some(value) => tiers::shown(&self.name, value).into_owned(),
            None => "unset".to_owned(),
        };
        let (before, after) = (side(&self.before), side(&self.after));
        write!(f, "{} {before} -> {after} ({})", self.name, self.class)
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: &str, after: &str, expected: &[&str]) {
        let read = |text| Settings::parse(text).unwrap();
        let catalogue = Catalogue::for_major(15).unwrap();
        let changes = Change::between(&read(before), &read(after), catalogue);
        let lines: Vec<String> = changes.iter().map(Change::to_string).collect();
        assert_eq!(lines, expected, "{before} / {after}");
    }

    #[test]
    fn only_what_differs_to_the_server_is_a_change() {
        check("work_mem = 1GB\nfsync = on", "Work_Mem = 1024MB\nfsync = true", &[]);
        check(
            "work_mem = 4MB\nmax_connections = 200\nport = 1",
            "max_connections = 250\nwork_mem = 16MB\nlog_connections = on\nx.y = 1",
            &[
                "max_connections 200 -> 250 (restart)",
                "work_mem 4MB -> 16MB (reload)",
                "log_connections unset -> on (reload, new sessions)",
                "x.y unset -> 1 (reload)",
                "port 1 -> unset (restart)",
            ],
        );
    }

    #[test]
    fn the_built_in_value_costs_no_restart() {
        check("", "max_connections = 100", &["max_connections unset -> 100 (reload)"]);
        check("max_connections = 0x64", "", &["max_connections 0x64 -> unset (reload)"]);
        check("max_connections = 101", "", &["max_connections 101 -> unset (restart)"]);
    }

    #[test]
    fn secrets_do_not_appear() {
        check(
            "",
            "restore_command = 'curl -u me:pw'",
            &["restore_command unset -> (hidden) (reload)"],
        );
    }

    #[test]
    fn the_class_follows_the_major() {
        let of = |major, name| Class::of(name, Catalogue::for_major(major).unwrap());
        assert_eq!(of(15, "autovacuum_max_workers"), Class::Restart);
        assert_eq!(of(18, "autovacuum_max_workers"), Class::Reload);
        assert_eq!(of(15, "nonsense"), Class::Refused);
        assert_eq!(of(15, "block_size"), Class::Refused);
    }
}
