//! What differs between what is desired and what lives, as the server of that version sees it.
//!
//! Compared on `spec.configuration` and the Secrets always, and on the servers where their reports
//! are at hand (`drift/servers.rs`). Also checks the document against the major version, because
//! only here that is known. Leaves it to `plan.rs` whether anything is done about a difference.
//! Never plans upon what is not known.

mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::desired::{Desired, Document, Target};
use super::live::{Live, Observed, Present};
use super::problem::Problem;
use crate::api::names::DatabaseRef;
use crate::api::ops_request::Restart;
use crate::api::postgres_config::Mode;
use crate::pgconf::{self, Catalogue, Class, Layer, Name, Settings, Value, tiers};

/// What differs, by database; databases that are absent, unknown or refused are not in it.
#[derive(Clone, Debug, Default)]
pub struct Drift {
    /// What differs for each database that could be compared.
    pub targets: BTreeMap<DatabaseRef, Difference>,
}

/// What differs for one database.
#[derive(Clone, Debug, Default)]
pub struct Difference {
    /// What this server's version refuses of the document, with warnings.
    pub problems: Vec<Problem>,
    /// What would change, in the document's order and then what it drops.
    pub changes: Vec<Change>,
    /// What to send so that it changes.
    pub edit: Edit,
    /// Managed parameters that something stronger than every file overrides on some node.
    pub overridden: Vec<Override>,
    /// What a restart would bring into effect besides the changes: parameter → nodes where it
    /// waits.
    pub pending: BTreeMap<Name, Vec<String>>,
    /// What does not reach every session, in words for people.
    pub remarks: Vec<String>,
}

/// What to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Edit {
    /// Nothing.
    #[default]
    Nothing,
    /// Settings to merge into the inline configuration.
    Apply(Settings),
    /// Everything anew, because the API cannot remove a single parameter: the Secret that stays,
    /// and the whole inline configuration.
    Rewrite {
        /// The Secret that stays.
        secret: Option<String>,
        /// The inline configuration.
        inline: Settings,
    },
    /// These settings, in a Secret of their own, and nothing else.
    Replace(Settings),
}

impl Edit {
    /// Whether it asks for the custom configuration to be taken away first.
    pub fn removes(&self) -> bool {
        matches!(self, Self::Rewrite { .. } | Self::Replace(_))
    }
}

/// One parameter that would change. Values are fit for people: those of the sensitive tier are
/// hidden. The form in which the annotation `pgitops.dev/changes` keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The parameter.
    pub name: String,
    /// What is in effect now.
    pub before: String,
    /// What will be.
    pub after: String,
    /// `reload`, `reload, new sessions` or `restart`.
    pub class: String,
    /// The place that asks for it (`orders.yaml:8`); none when the document no longer names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The layer it falls to when the document no longer names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub falls_to: Option<String>,
}

/// A managed parameter that nodes take from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The parameter.
    pub name: Name,
    /// The nodes.
    pub nodes: Vec<String>,
    /// What overrides it.
    pub by: String,
    /// What to do about it.
    pub cure: String,
}

/// What stands for a value that nothing sets and that is not known from here.
const UNKNOWN_DEFAULT: &str = "default";

impl Drift {
    /// Compares every database that has a document without fault, and checks the others' documents
    /// against the server's version.
    pub fn between(desired: &Desired, live: &Observed) -> Self {
        let mut targets = BTreeMap::new();
        for (database, target) in &desired.targets {
            let Some(Live::Present(present)) = live.get(database) else { continue };
            let Some(catalogue) = present.catalogue() else { continue };
            let difference = match target {
                Target::Wanted(document) => Difference::of(document, present, catalogue),
                Target::Refused { problems, drafts, .. } => {
                    Difference::of_refused(drafts, problems, present, catalogue)
                }
            };
            targets.insert(database.clone(), difference);
        }
        Self { targets }
    }
}

impl Difference {
    /// What differs between a document and a database that is there.
    pub fn of(document: &Document, present: &Present, catalogue: &'static Catalogue) -> Self {
        let compare = Compare { document, present, catalogue };
        let problems = compare.problems();
        if problems.iter().any(Problem::is_refusal) {
            return Self { problems, ..Self::default() };
        }
        let (changes, edit) = match document.mode {
            Mode::Merge => compare.merge(),
            Mode::Replace => compare.replace(),
        };
        let pending = compare.pending(&changes);
        let (overridden, remarks) = (compare.overridden(), compare.remarks());
        Self { problems, changes, edit, overridden, pending, remarks }
    }

    /// What this version has against documents that are refused already, beyond what is `known`.
    fn of_refused(
        drafts: &[Arc<Document>],
        known: &[Problem],
        present: &Present,
        catalogue: &'static Catalogue,
    ) -> Self {
        let compare = |draft| Compare { document: draft, present, catalogue }.problems();
        let problems = drafts.iter().flat_map(|draft| compare(draft));
        let problems = problems.filter(|problem| !problem.is_among(known)).collect();
        Self { problems, ..Self::default() }
    }

    /// Whether servers may be restarted to bring the changes about.
    pub fn restarts(&self, document: &Document, present: &Present) -> bool {
        may_restart(document.restart, present.foreign, &self.changes)
    }

    /// The names of what takes a restart; of all that changes when none of it does by itself.
    pub fn needing_restart(&self) -> Vec<String> {
        let names = |all: bool| {
            let some = self.changes.iter().filter(|change| all || change.restarts());
            some.map(|change| change.name.clone()).collect::<Vec<_>>()
        };
        Some(names(false)).filter(|names| !names.is_empty()).unwrap_or_else(|| names(true))
    }
}

/// Whether servers may be restarted for these changes.
///
/// What KubeDB makes of `auto` is not public, and no way of its own to reload Postgres is
/// documented: where it carries requests out (`foreign`), every one with `auto` counts as
/// restarting.
pub fn may_restart(asked: Restart, foreign: bool, changes: &[Change]) -> bool {
    match asked {
        Restart::True => true,
        Restart::False => false,
        Restart::Auto => foreign || changes.iter().any(Change::restarts),
    }
}

impl Change {
    /// Whether it takes a restart.
    pub fn restarts(&self) -> bool {
        self.class == Class::Restart.as_str()
    }

    /// `max_connections 200 -> 250 (restart; orders.yaml:8)`.
    pub fn line(&self) -> String {
        let Self { name, before, after, class, at, falls_to } = self;
        let why = match (at, falls_to) {
            (Some(at), _) => format!("; {at}"),
            (None, Some(layer)) => format!("; falls to {layer}"),
            (None, None) => String::new(),
        };
        // Nothing between two spaces reads as a slip of the pen.
        let shown = |value: &str| if value.is_empty() { "''".to_owned() } else { value.to_owned() };
        format!("{name} {} -> {} ({class}{why})", shown(before), shown(after))
    }
}

/// A document and a database of a known version.
struct Compare<'a> {
    document: &'a Document,
    present: &'a Present,
    catalogue: &'static Catalogue,
}

impl Compare<'_> {
    /// What this version refuses, and what is remarkable.
    fn problems(&self) -> Vec<Problem> {
        let allowed: BTreeSet<Name> = self.document.allow_unsafe.keys().cloned().collect();
        let checked = pgconf::check(&self.document.settings, self.catalogue, &allowed);
        let mut problems: Vec<Problem> =
            checked.problems.into_iter().map(|problem| self.document.locate(problem)).collect();
        problems.extend(self.lowered_wal_level(&allowed));
        problems
    }

    /// The risk of lowering wal_level is only seen beside the value before.
    fn lowered_wal_level(&self, allowed: &BTreeSet<Name>) -> Option<Problem> {
        let name = Name::new("wal_level").ok()?;
        let after = self.document.settings.get(&name).filter(|_| !allowed.contains(&name))?;
        let before = self.present.custom.layers.in_effect(&name, self.catalogue)?;
        let text = |value: &Value| Some(self.catalogue.normalise(&name, value).ok()?.text);
        if !tiers::lowers_wal_level(&text(&before)?, &text(after)?) {
            return None;
        }
        let message = format!("goes down from {}, which ends replication", before.as_str());
        let problem = pgconf::Problem::refused(message).of("wal_level");
        let instead = "leave it, or add allowUnsafe.wal_level with a reason";
        Some(self.document.locate(problem.instead(instead)))
    }

    /// Only the document's parameters are ours.
    fn merge(&self) -> (Vec<Change>, Edit) {
        let custom = &self.present.custom;
        let mut changes = Vec::new();
        let mut apply = Settings::new();
        for (name, value) in self.document.settings.iter() {
            if !self.is_in_place(name, value) {
                changes.push(self.change(name, Some(value)));
                apply.set(name.clone(), value.clone());
            }
        }
        let gone: Vec<Name> = self.no_longer_named();
        changes.extend(gone.iter().map(|name| self.change(name, None)));
        if gone.is_empty() {
            let edit = if apply.is_empty() { Edit::Nothing } else { Edit::Apply(apply) };
            return (changes, edit);
        }
        // A Secret that we rendered cannot lose a parameter: what it holds moves into the inline
        // configuration, so that the Secret can go.
        let mut inline = match custom.secret_is_ours {
            true => custom.layers.user.merged(&custom.layers.inline),
            false => custom.layers.inline.clone(),
        };
        inline.retain(|name, _| !gone.contains(name));
        inline.merge(&self.own_settings());
        let secret = custom.secret_name.clone().filter(|_| !custom.secret_is_ours);
        (changes, Edit::Rewrite { secret, inline })
    }

    /// The document's settings without positions.
    fn own_settings(&self) -> Settings {
        self.document.settings.iter().map(|(n, v)| (n.clone(), v.clone())).collect()
    }

    /// Whether a parameter has the desired value in every place where it is configured.
    fn is_in_place(&self, name: &Name, value: &Value) -> bool {
        let custom = &self.present.custom;
        let same = |other: &Value| self.catalogue.same(name, value, other);
        let configured = match custom.layers.source(name) {
            Layer::Inline => custom.layers.inline.get(name),
            Layer::User => custom.layers.user.get(name),
            Layer::BuiltIn | Layer::Provisioner | Layer::Tuning | Layer::Owned => None,
        };
        // Somebody may have edited the operator's Secret while the object says what it should.
        let inline = custom.rendered_inline.as_ref();
        let inline = inline.filter(|_| custom.layers.inline.contains(name));
        let rendered = inline.into_iter().chain(&custom.rendered);
        configured.is_some_and(same)
            && rendered.into_iter().all(|rendered| rendered.get(name).is_some_and(same))
    }

    /// Managed parameters that the document does not name any more and that are still set by us.
    fn no_longer_named(&self) -> Vec<Name> {
        let custom = &self.present.custom;
        let still_set = |name: &Name| {
            custom.layers.inline.contains(name)
                || (custom.secret_is_ours && custom.layers.user.contains(name))
        };
        let managed = self.present.managed().into_iter();
        managed.filter(|name| !self.document.settings.contains(name) && still_set(name)).collect()
    }

    /// The document is all the custom configuration there is.
    fn replace(&self) -> (Vec<Change>, Edit) {
        let custom = &self.present.custom;
        let before = custom.layers.user.merged(&custom.layers.inline);
        let mut changes = Vec::new();
        for (name, value) in self.document.settings.iter() {
            if !self.is_in_place(name, value) {
                changes.push(self.change(name, Some(value)));
            }
        }
        let dropped = before.names().filter(|name| !self.document.settings.contains(name));
        changes.extend(dropped.map(|name| self.change(name, None)));
        let edit = match changes.is_empty() {
            true => Edit::Nothing,
            false => Edit::Replace(self.own_settings()),
        };
        (changes, edit)
    }

    /// One parameter's change; `None`: it is no longer set and falls to the next lower layer.
    fn change(&self, name: &Name, after: Option<&Value>) -> Change {
        let before = self.before(name);
        let (layer, below) = self.falls_to(name);
        let target = after.or(below);
        let class = pgconf::Change::of(name, before.as_ref(), target, self.catalogue).class;
        let shown = |value: Option<&Value>| match value {
            Some(value) if value.as_str().is_empty() => "''".to_owned(),
            Some(value) => tiers::shown(name, value).into_owned(),
            None => self.built_in(name),
        };
        Change {
            name: name.as_str().to_owned(),
            before: shown(before.as_ref()),
            after: shown(target),
            class: class.as_str().to_owned(),
            at: after.and_then(|_| self.document.line_of(name)),
            falls_to: after.is_none().then(|| layer.as_str().to_owned()),
        }
    }

    /// What is in effect now, as far as it is configured: what the operator rendered last counts
    /// where somebody tampered with it.
    fn before(&self, name: &Name) -> Option<Value> {
        let custom = &self.present.custom;
        let configured = custom.layers.effective().settings.get(name).cloned();
        let inline = custom.rendered_inline.as_ref();
        let inline = inline.filter(|_| custom.layers.inline.contains(name));
        let mut rendered = inline.into_iter().chain(&custom.rendered);
        let same = |other: &Value| {
            configured.as_ref().is_some_and(|value| self.catalogue.same(name, value, other))
        };
        match rendered.find(|rendered| !rendered.get(name).is_some_and(same)) {
            Some(tampered) => {
                let below = || custom.layers.below(Layer::Inline, name).1.cloned();
                tampered.get(name).cloned().or_else(below)
            }
            None => configured,
        }
    }

    /// Where a parameter falls that the custom configuration no longer sets.
    fn falls_to(&self, name: &Name) -> (Layer, Option<&Value>) {
        let layers = &self.present.custom.layers;
        match self.document.mode {
            Mode::Merge if !self.present.custom.secret_is_ours => layers.below(Layer::Inline, name),
            Mode::Merge | Mode::Replace => layers.below(Layer::User, name),
        }
    }

    /// The built-in value as people read it.
    fn built_in(&self, name: &Name) -> String {
        let boot = self.catalogue.boot_value(name).and_then(|boot| Value::new(boot).ok());
        match boot {
            Some(boot) if boot.as_str().is_empty() => "''".to_owned(),
            Some(boot) => tiers::shown_by(name, &boot, self.catalogue).into_owned(),
            None => UNKNOWN_DEFAULT.to_owned(),
        }
    }
}
