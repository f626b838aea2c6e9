//! What must be found on a node, and whether it was.
//!
//! Flags and answers to a reload lie (`postgres.md` §1, §2.3): what counts is the value that a new
//! session has, the revision that it read, a write, streaming, and that what is on disk *now* would
//! start. Values that are overridden where no file reaches count against parameters that the
//! request is about, and are remarked upon otherwise. Leaves asking to `act`. Never sees a server.

use std::collections::{BTreeMap, BTreeSet};

use crate::instance::protocol::{ParameterProof, Proof, SetId, Written};
use crate::pgconf::{Catalogue, Name, Settings, Value};

/// What must be found on one node.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Whether the node takes the writes.
    pub primary: bool,
    /// The set that is on its disk.
    pub set: SetId,
    /// The file that the set was made of.
    pub settings: Settings,
    /// Names that the request is about, lower case.
    pub involved: BTreeSet<String>,
}

/// What the proofs of all nodes come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything was found; remarks for people.
    Proven(Vec<String>),
    /// Something is still on its way.
    NotYet(String),
    /// Something is wrong that time does not heal.
    Failed(String),
}

/// What one proof comes to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    faults: Vec<String>,
    on_its_way: Vec<String>,
    remarks: Vec<String>,
}

impl Expected {
    /// The values to ask for, in the server's base units where they are known.
    pub fn values(&self, catalogue: Option<&Catalogue>) -> BTreeMap<String, String> {
        let normal = |name: &Name, value: &Value| {
            let normal = catalogue.and_then(|catalogue| catalogue.normalise(name, value).ok());
            normal.map_or_else(|| value.as_str().to_owned(), |normal| normal.text)
        };
        self.settings.iter().map(|(name, value)| (name.lower(), normal(name, value))).collect()
    }
}

/// Judges the proofs of all nodes.
pub fn verdict(
    expected: &BTreeMap<String, Expected>,
    proofs: &BTreeMap<String, Result<Proof, String>>,
    catalogue: Option<&Catalogue>,
) -> Verdict {
    let (mut faults, mut waits, mut remarks) = (vec![], vec![], vec![]);
    for (node, expected) in expected {
        let on = |words: String| format!("{node}: {words}");
        match proofs.get(node) {
            Some(Ok(proof)) => {
                let found = judge(expected, proof, catalogue);
                faults.extend(found.faults.into_iter().map(on));
                waits.extend(found.on_its_way.into_iter().map(on));
                remarks.extend(found.remarks.into_iter().map(on));
            }
            Some(Err(words)) => waits.push(on(words.clone())),
            None => waits.push(on("was not asked".to_owned())),
        }
    }
    if !faults.is_empty() {
        return Verdict::Failed(faults.join("; "));
    }
    if !waits.is_empty() {
        return Verdict::NotYet(waits.join("; "));
    }
    Verdict::Proven(remarks)
}

fn judge(expected: &Expected, proof: &Proof, catalogue: Option<&Catalogue>) -> Findings {
    let mut found = Findings::default();
    let revision = expected.set.revision();
    if proof.revision.as_deref() != Some(revision.as_str()) {
        let read = proof.revision.as_deref().unwrap_or("none");
        found.faults.push(format!("sessions have read set {read} instead of {revision}"));
    }
    for (name, value) in expected.settings.iter() {
        let asked = proof.parameters.get(&name.lower());
        judge_parameter(name, value, asked, expected, proof, catalogue, &mut found);
    }
    for error in &proof.file_errors {
        let about = error.name.as_deref().unwrap_or("syntax");
        let words = format!("{about}: {} ({})", error.error, error.file);
        let ours = error.file == proof.file;
        if ours {
            found.faults.push(words)
        } else {
            found.remarks.push(words)
        };
    }
    if let Some(words) = &proof.connection_error {
        found.faults.push(format!("a new connection fails: {words}"));
    }
    if !proof.next_start.accepted {
        found.faults.push(format!("the next start would fail: {}", proof.next_start.words));
    }
    judge_role(expected, proof, &mut found);
    found
}

fn judge_parameter(
    name: &Name,
    value: &Value,
    asked: Option<&ParameterProof>,
    expected: &Expected,
    proof: &Proof,
    catalogue: Option<&Catalogue>,
    found: &mut Findings,
) {
    let lower = name.lower();
    let Some(setting) = asked.and_then(|asked| asked.setting.as_ref()) else {
        if name.is_dotted() {
            found.remarks.push(format!("{name} belongs to no loaded library: not proven"));
        } else {
            found.faults.push(format!("the server does not know {name}"));
        }
        return;
    };
    let running = setting.reset_val.as_deref().unwrap_or_default();
    let known = catalogue.filter(|catalogue| catalogue.get(name).is_some());
    let equal = asked.is_some_and(|asked| asked.equal)
        || value.as_str() == running
        || known.is_some_and(|catalogue| catalogue.runs_with(name, value, running));
    let elsewhere = proof.auto_conf.keys().any(|n| n.eq_ignore_ascii_case(&lower))
        || setting.source == "command line"
        || proof.role_overrides.iter().any(|o| o.name.eq_ignore_ascii_case(&lower));
    let by = match () {
        () if proof.auto_conf.keys().any(|n| n.eq_ignore_ascii_case(&lower)) => {
            format!("overridden by postgresql.auto.conf; run ALTER SYSTEM RESET {name}")
        }
        () if elsewhere => format!("overridden ({})", setting.source),
        () => "not in force".to_owned(),
    };
    match (equal, elsewhere, expected.involved.contains(&lower)) {
        (true, false, _) => {}
        (true, true, _) | (false, true, false) => found.remarks.push(format!("{name} is {by}")),
        // A library's parameter may be shown in another unit than it was written in.
        (false, false, _) if known.is_none() && setting.source == "configuration file" => {
            found.remarks.push(format!("{name} was read, its value was not compared"));
        }
        (false, true, true) | (false, false, _) => found.faults.push(format!("{name} is {by}")),
    }
}

fn judge_role(expected: &Expected, proof: &Proof, found: &mut Findings) {
    if expected.primary == proof.in_recovery {
        found.on_its_way.push("its role has changed".to_owned());
        return;
    }
    if expected.primary {
        match &proof.write {
            Some(Written::Committed { .. }) => {}
            Some(Written::Failed { words }) => {
                found.faults.push(format!("a write does not commit: {words}"));
            }
            None => found.on_its_way.push("no write was tried".to_owned()),
        }
        return;
    }
    if proof.receiver.as_ref().is_none_or(|receiver| receiver.status != "streaming") {
        found.on_its_way.push("it does not stream yet".to_owned());
    }
    if proof.replay_paused {
        found.on_its_way.push("its replay is paused".to_owned());
    }
    let (has, needs) = (proof.hot_standby.by_name(), proof.control.by_name());
    let low = needs.iter().find(|(name, least)| has.get(*name).is_some_and(|v| v < *least));
    if let Some((name, _)) = low {
        found.faults.push(format!("{name} is lower than its primary's was"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::protocol::{DryRan, FileError, HotStandby, Lsn, Setting, WalReceiver};

    const FIVE: HotStandby = HotStandby {
        max_connections: 100,
        max_worker_processes: 8,
        max_wal_senders: 10,
        max_prepared_transactions: 0,
        max_locks_per_transaction: 64,
    };

    fn expected(primary: bool) -> Expected {
        Expected {
            primary,
            set: SetId { sequence: 7, digest: "d".into() },
            settings: Settings::parse("work_mem = 8MB\nx.y = 1\nwal_buffers = -1").unwrap(),
            involved: ["work_mem".to_owned()].into(),
        }
    }

    fn setting(name: &str, value: &str) -> Setting {
        Setting {
            name: name.into(),
            reset_val: Some(value.into()),
            boot_val: None,
            unit: None,
            context: "user".into(),
            vartype: "integer".into(),
            source: "configuration file".into(),
            sourcefile: Some("/f".into()),
            sourceline: Some(1),
            pending_restart: false,
        }
    }

    /// A proof in which all is well.
    fn proof(primary: bool) -> Proof {
        let receiver =
            WalReceiver { status: "streaming".into(), host: "p".into(), port: 5432, timeline: 1 };
        let row = |name: &str, wanted: &str, value: Option<&str>| {
            let setting = value.map(|value| setting(name, value));
            let equal = value == Some(wanted);
            (name.to_owned(), ParameterProof { expected: wanted.into(), setting, equal })
        };
        Proof {
            revision: Some("7:d".into()),
            file: "/f".into(),
            loaded_at: k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
            started_at: k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
            parameters: [
                row("work_mem", "8192", Some("8192")),
                row("x.y", "1", None),
                row("wal_buffers", "-1", Some("512")),
            ]
            .into(),
            file_errors: vec![],
            auto_conf: BTreeMap::new(),
            role_overrides: vec![],
            in_recovery: !primary,
            connection_error: None,
            write: primary.then_some(Written::Committed { took_ms: 1 }),
            receiver: (!primary).then_some(receiver),
            replay_paused: false,
            replay: (!primary).then_some(Lsn(9)),
            next_start: DryRan { accepted: true, words: String::new(), took_ms: 12 },
            control: FIVE,
            hot_standby: FIVE,
        }
    }

    fn check(primary: bool, change: impl Fn(&mut Proof), verdict_: Verdict) {
        let mut proof = proof(primary);
        change(&mut proof);
        let catalogue = crate::pgconf::Catalogue::for_major(15);
        let all = [("n".to_owned(), expected(primary))].into();
        let proofs = [("n".to_owned(), Ok(proof))].into();
        assert_eq!(verdict(&all, &proofs, catalogue), verdict_);
    }

    fn failed(words: &str) -> Verdict {
        Verdict::Failed(format!("n: {words}"))
    }

    fn work_mem(proof: &mut Proof, value: &str) {
        let row = proof.parameters.get_mut("work_mem").unwrap();
        row.setting.as_mut().unwrap().reset_val = Some(value.into());
        row.equal = false;
    }

    #[test]
    fn values_count_and_flags_do_not() {
        let remark = "n: x.y belongs to no loaded library: not proven".to_owned();
        let fine = || Verdict::Proven(vec![remark.clone()]);
        check(true, |_| {}, fine());
        check(false, |_| {}, fine());
        check(
            true,
            |p| p.revision = Some("6:c".into()),
            failed("sessions have read set 6:c instead of 7:d"),
        );
        check(true, |p| work_mem(p, "4096"), failed("work_mem is not in force"));
        check(
            true,
            |p| {
                work_mem(p, "4096");
                p.auto_conf.insert("work_mem".into(), "4MB".into());
            },
            failed(
                "work_mem is overridden by postgresql.auto.conf; run ALTER SYSTEM RESET work_mem",
            ),
        );
        // A flag that sticks says nothing.
        let stale = |p: &mut Proof| {
            let row = p.parameters.get_mut("work_mem").unwrap();
            row.setting.as_mut().unwrap().pending_restart = true;
        };
        check(true, stale, fine());
    }

    #[test]
    fn a_server_that_cannot_go_on_is_not_proven() {
        check(
            true,
            |p| p.connection_error = Some("FATAL".into()),
            failed("a new connection fails: FATAL"),
        );
        check(true, |p| p.next_start.accepted = false, failed("the next start would fail: "));
        check(
            true,
            |p| p.write = Some(Written::Failed { words: "no space".into() }),
            failed("a write does not commit: no space"),
        );
        let error = |file: &str| FileError {
            file: file.into(),
            line: Some(1),
            name: Some("a".into()),
            error: "bad".into(),
        };
        check(true, |p| p.file_errors = vec![error("/f")], failed("a: bad (/f)"));
        let low = HotStandby { max_connections: 200, ..FIVE };
        check(
            false,
            |p| p.control = low,
            failed("max_connections is lower than its primary's was"),
        );
    }

    #[test]
    fn what_is_on_its_way_is_waited_for() {
        let waits = |words: &str| Verdict::NotYet(format!("n: {words}"));
        check(false, |p| p.receiver = None, waits("it does not stream yet"));
        check(false, |p| p.replay_paused = true, waits("its replay is paused"));
        check(true, |p| p.in_recovery = true, waits("its role has changed"));
        let all = [("n".to_owned(), expected(true))].into();
        let away = [("n".to_owned(), Err("no route".to_owned()))].into();
        assert_eq!(verdict(&all, &away, None), waits("no route"));
    }
}
