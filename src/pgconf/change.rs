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
