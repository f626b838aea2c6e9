//! Which of several files wins: the effective configuration of a database.
//!
//! All three loops take it from here. Leaves to the caller where each layer's text comes from, and
//! to the rollout which of it a node may have at this moment ([`Settings::holding`]). Never drops a
//! setting: what loses is still there for [`Layers::below`].

use std::collections::BTreeMap;
use std::fmt;

use super::catalogue::Catalogue;
use super::name::{Name, Value};
use super::settings::Settings;

/// Where a value comes from, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// Compiled into the server.
    BuiltIn,
    /// What the provisioner sets for every database.
    Provisioner,
    /// `pgtune.conf`, computed from the size of the container.
    Tuning,
    /// `user.conf` of the Secret that `spec.configuration.secretName` names.
    User,
    /// `spec.configuration.inline`.
    Inline,
    /// What the operator gives on the server's command line, so that no file overrides it.
    Owned,
}

/// The layers of one database; an empty one sets nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layers {
    /// What the provisioner sets for every database.
    pub provisioner: Settings,
    /// `pgtune.conf`.
    pub tuning: Settings,
    /// `user.conf` of the user's Secret.
    pub user: Settings,
    /// `inline.conf`.
    pub inline: Settings,
    /// The command line.
    pub owned: Settings,
}

/// What a server gets when all layers lie on each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effective {
    /// Every parameter that any layer sets, with the value that wins.
    pub settings: Settings,
    /// The layer whose value wins, for each of these.
    pub sources: BTreeMap<Name, Layer>,
}

impl Layers {
    /// The layers that can set something, weakest first.
    fn stack(&self) -> [(Layer, &Settings); 5] {
        let Layers { provisioner, tuning, user, inline, owned } = self;
        [
            (Layer::Provisioner, provisioner),
            (Layer::Tuning, tuning),
            (Layer::User, user),
            (Layer::Inline, inline),
            (Layer::Owned, owned),
        ]
    }

    /// What the server ends up with, and where each value comes from.
    pub fn effective(&self) -> Effective {
        let mut effective = Effective::default();
        for (layer, settings) in self.stack() {
            effective.settings.merge(settings);
            let names = settings.names().map(|name| (name.clone(), layer));
            effective.sources.extend(names);
        }
        effective
    }

    /// What belongs into the server's file: everything but the owned layer, and nothing that the
    /// owned layer sets anyway.
    pub fn file(&self) -> Settings {
        let mut file = self.effective().settings;
        file.retain(|name, _| !self.owned.contains(name));
        file
    }

    /// The layer that a parameter's value comes from; [`Layer::BuiltIn`] if none sets it.
    pub fn source(&self, name: &Name) -> Layer {
        let mut winners = self.stack().into_iter().rev().filter(|(_, s)| s.contains(name));
        winners.next().map_or(Layer::BuiltIn, |(layer, _)| layer)
    }

    /// What a parameter falls to when a layer no longer sets it: the strongest layer below that one
    /// that does, with its value, or [`Layer::BuiltIn`] with none.
    pub fn below(&self, layer: Layer, name: &Name) -> (Layer, Option<&Value>) {
        let lower = self.stack().into_iter().rev().filter(|(other, _)| *other < layer);
        let mut found =
            lower.filter_map(|(other, s)| s.get(name).map(|value| (other, Some(value))));
        found.next().unwrap_or((Layer::BuiltIn, None))
    }

    /// The value that is in effect for a parameter, as people read it: of the layer that wins, or
    /// built in. `None` if nothing sets it and the catalogue has no built-in value.
    pub fn in_effect(&self, name: &Name, catalogue: &Catalogue) -> Option<Value> {
        match self.effective().settings.get(name) {
            Some(value) => Some(value.clone()),
            None => catalogue.boot_value(name).and_then(|boot| Value::new(boot).ok()),
        }
    }
}

impl Layer {
    /// The name that people know the layer by: `user.conf`.
    pub fn as_str(self) -> &'static str {
        match self {
            Layer::BuiltIn => "the built-in default",
            Layer::Provisioner => "the provisioner's default",
            Layer::Tuning => "pgtune.conf",
            Layer::User => "user.conf",
            Layer::Inline => "inline.conf",
            Layer::Owned => "the operator",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers() -> Layers {
        let read = |text| Settings::parse(text).unwrap();
        Layers {
            provisioner: read("max_wal_senders = 10\nshared_buffers = 256MB\nport = 1"),
            tuning: read("work_mem = 5MB\nshared_buffers = 512MB"),
            user: read("work_mem = 7MB"),
            inline: read("WORK_MEM = 16MB\nmax_connections = 250\nport = 2"),
            owned: read("port = 5432"),
        }
    }

    #[test]
    fn the_strongest_layer_wins_and_is_named() {
        let effective = layers().effective();
        assert_eq!(
            effective.settings.render(),
            "max_wal_senders = '10'\nshared_buffers = '512MB'\nport = '5432'\n\
             work_mem = '16MB'\nmax_connections = '250'\n"
        );
        let source = |name| effective.sources[&Name::new(name).unwrap()];
        assert_eq!(source("shared_buffers"), Layer::Tuning);
        assert_eq!(source("work_mem"), Layer::Inline);
        assert_eq!(source("port"), Layer::Owned);
        assert!(!layers().file().render().contains("port"));
    }

    #[test]
    fn a_removed_parameter_falls_to_the_next_layer() {
        fn check(layer: Layer, name: &str, expected: (Layer, Option<&str>)) {
            let (layers, name) = (layers(), Name::new(name).unwrap());
            let (fell_to, value) = layers.below(layer, &name);
            assert_eq!((fell_to, value.map(Value::as_str)), expected, "{name}");
        }
        check(Layer::Inline, "work_mem", (Layer::User, Some("7MB")));
        check(Layer::User, "work_mem", (Layer::Tuning, Some("5MB")));
        check(Layer::Inline, "max_connections", (Layer::BuiltIn, None));
        check(Layer::Tuning, "shared_buffers", (Layer::Provisioner, Some("256MB")));
        check(Layer::BuiltIn, "work_mem", (Layer::BuiltIn, None));
    }

    #[test]
    fn the_built_in_value_is_the_last_resort() {
        let catalogue = Catalogue::for_major(15).unwrap();
        let in_effect = |name| layers().in_effect(&Name::new(name).unwrap(), catalogue);
        assert_eq!(in_effect("work_mem").unwrap().as_str(), "16MB");
        assert_eq!(in_effect("fsync").unwrap().as_str(), "on");
        assert_eq!(layers().source(&Name::new("fsync").unwrap()), Layer::BuiltIn);
        assert_eq!(layers().source(&Name::new("port").unwrap()), Layer::Owned);
    }
}
