//! Whether settings may be sent to a server of a known version.
//!
//! The entry point for documents (`validate`, `plan`, `sync`) and requests (`ops`): names, tiers
//! and values together. Leaves to the server's dry run what depends on other parameters,
//! libraries, files and memory. Never changes a value: what is sent is what was written.

use std::collections::{BTreeMap, BTreeSet};

use super::catalogue::{Catalogue, Context};
use super::name::{Name, Value};
use super::problem::Problem;
use super::settings::Settings;
use super::tiers::{self, Tier};
use super::value::{self, Normalised};

/// What [`check`] found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Checked {
    /// The values that the server would take, as it would report them.
    pub values: BTreeMap<Name, Normalised>,
    /// What is wrong and what is remarkable, in the order of the settings.
    pub problems: Vec<Problem>,
}

impl Checked {
    /// Whether nothing stops these settings.
    pub fn is_accepted(&self) -> bool {
        !self.problems.iter().any(Problem::is_refusal)
    }
}

/// Parameters that a server accepts in a file and never looks at.
const POINTLESS: [&str; 3] =
    ["transaction_deferrable", "transaction_isolation", "transaction_read_only"];

/// Checks settings against what a server of the catalogue's version knows.
///
/// `allowed` holds the names for which `allowUnsafe` is in force now; its dates are for the caller,
/// who has a clock. Each problem carries the position of the value, if the settings were read from
/// a text.
pub fn check(settings: &Settings, catalogue: &Catalogue, allowed: &BTreeSet<Name>) -> Checked {
    let mut checked = Checked::default();
    for (name, value) in settings.iter() {
        let (normalised, problems) = check_one(name, value, catalogue, allowed);
        let at = settings.position(name);
        checked.problems.extend(problems.into_iter().map(|p| p.at(at).of(name.as_str())));
        if let Some(normalised) = normalised {
            checked.values.insert(name.clone(), normalised);
        }
    }
    checked
}

fn check_one(
    name: &Name,
    value: &Value,
    catalogue: &Catalogue,
    allowed: &BTreeSet<Name>,
) -> (Option<Normalised>, Vec<Problem>) {
    if tiers::tier(name) == Tier::Owned {
        let message = "belongs to the operator, which sets it itself";
        return (None, vec![Problem::refused(message).instead("remove it")]);
    }
    let Some(parameter) = catalogue.get(name) else {
        let problem = catalogue.unknown(name);
        let normalised = (!problem.is_refusal()).then(|| catalogue.normalise(name, value).ok());
        return (normalised.flatten(), vec![problem]);
    };
    if parameter.context() == Context::Internal {
        let message = "is reported by the server and cannot be set";
        return (None, vec![Problem::refused(message).instead("remove it")]);
    }
    if POINTLESS.contains(&parameter.name()) {
        let message = "has no effect in a file: every transaction begins with its own";
        let instead = format!("write default_{}", parameter.name());
        return (None, vec![Problem::refused(message).instead(instead)]);
    }
    let normalised = match value::normalise(parameter, value) {
        Ok(normalised) => normalised,
        Err(refusal) => {
            let sensitive = tiers::is_sensitive(name);
            let message = if sensitive { "the value is not valid".into() } else { refusal.message };
            let problem = Problem::refused(message);
            return (None, vec![Problem { instead: refusal.instead, ..problem }]);
        }
    };
    let mut problems = Vec::new();
    if tiers::is_unsafe(name, value, catalogue) && !allowed.contains(name) {
        let message = format!("{} puts data at risk", normalised.shown);
        let instead = format!("remove it, or add allowUnsafe.{} with a reason", parameter.name());
        problems.push(Problem::refused(message).instead(instead));
    }
    if let Some(remark) = &normalised.remark {
        let warning = Problem::warning(remark.message.clone());
        problems.push(Problem { instead: remark.instead.clone(), ..warning });
    }
    (Some(normalised), problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(text: &str, allowed: &[&str], expected: &[&str]) -> Checked {
        let settings = Settings::parse(text).unwrap();
        let allowed = allowed.iter().map(|name| Name::new(name).unwrap()).collect();
        let checked = check(&settings, Catalogue::for_major(15).unwrap(), &allowed);
        let lines: Vec<String> = checked.problems.iter().map(Problem::to_string).collect();
        assert_eq!(lines, expected, "{text}");
        checked
    }

    #[test]
    fn a_sound_document_has_no_problems() {
        let checked = check_text("max_connections = 250\nwork_mem = 16MB\nfsync = on\n", &[], &[]);
        assert!(checked.is_accepted());
        let work_mem = &checked.values[&Name::new("work_mem").unwrap()];
        assert_eq!((work_mem.text.as_str(), work_mem.shown.as_str()), ("16384", "16MB"));
    }

    #[test]
    fn each_fault_is_named_with_place_and_cure() {
        let checked = check_text(
            "port = 5433\nwork_memm = 1MB\nserver_version = 3\nshared_buffers = '12gb'\n\
             transaction_isolation = serializable\nfsync = off\nautovacuum = off\n\
             work_mem = 1024\nx.y = 1\n",
            &["autovacuum"],
            &[
                "1:8 port: belongs to the operator, which sets it itself; remove it",
                "2:13 work_memm: PostgreSQL 15 has no such parameter; write work_mem",
                "3:18 server_version: is reported by the server and cannot be set; remove it",
                "4:18 shared_buffers: unknown unit \"gb\"; write 12GB",
                "5:25 transaction_isolation: has no effect in a file: every transaction begins with \
                 its own; write default_transaction_isolation",
                "6:9 fsync: off puts data at risk; remove it, or add allowUnsafe.fsync with a reason",
                "8:12 work_mem: 1024 has no unit and means 1MB; write 1MB",
                "9:7 x.y: belongs to an extension, so its value was not checked",
            ],
        );
        assert!(!checked.is_accepted());
        assert_eq!(checked.problems.iter().filter(|p| !p.is_refusal()).count(), 2);
    }

    #[test]
    fn warnings_alone_stop_nothing() {
        let expected = ["1:12 work_mem: 1024 has no unit and means 1MB; write 1MB"];
        assert!(check_text("work_mem = 1024\n", &[], &expected).is_accepted());
    }
}
