//! Whether a request may be carried out now, and what exactly it then comes to.
//!
//! Rules of `kubedb.md` §6.4 and §6.5, parameters that are not ours to give away, unknown or
//! dangerous, overrides that no file reaches, and the base that the request was planned from. A
//! refusal names the field. Leaves the order among requests to `queue`, and what depends on other
//! parameters, libraries and memory to the server's dry run. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::ExposeSecret;

use crate::api::names::{USER_CONF, annotations};
use crate::api::ops_request::{Apply, OpsType, PostgresOpsRequest, Reconfiguration, Restart};
use crate::api::{Postgres, postgres::Phase};
use crate::pgconf::{Catalogue, Layers, Name, Settings, Value, check, tiers};

use super::configuration;
use super::journal::{Custom, Journal, Restarts, Side};
use super::seen::{Seen, UserConf};
use super::status::{self, Pause};
use super::step::Awaited;

/// What becomes of a request now.
#[derive(Debug)]
pub enum Admission {
    /// It can be carried out, and comes to this.
    Go(Box<Plan>),
    /// It breaks a rule: Failed, with this sentence.
    Refuse(String),
    /// It was planned from something that is no longer so: Skipped, with this sentence.
    Skip(String),
    /// Not now.
    Wait {
        /// One word for programs.
        reason: &'static str,
        /// For what, in words.
        what: String,
        /// Where a change would be seen.
        on: Awaited,
    },
}

/// What a request comes to.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The custom configuration now, and the file in force.
    pub before: Side,
    /// The same afterwards.
    pub after: Side,
    /// Names of the parameters that the request is about, lower case.
    pub involved: BTreeSet<String>,
    /// Whether servers are restarted.
    pub restart: Restarts,
}

/// Why this version does not carry a request out at all; `None` when it does.
///
/// Such a request stays Pending, as one would beside a KubeDB that does not know its type yet.
pub fn not_carried_out(request: &PostgresOpsRequest) -> Option<String> {
    carried_out(request).is_none().then(|| {
        format!(
            "spec.type {:?} is not carried out by this version, which does Reconfigure and Restart",
            request.spec.type_
        )
    })
}

/// The type's name when this version carries it out.
pub fn carried_out(request: &PostgresOpsRequest) -> Option<&'static str> {
    match request.spec.type_ {
        OpsType::Reconfigure => Some("Reconfigure"),
        OpsType::Restart => Some("Restart"),
        OpsType::UpdateVersion
        | OpsType::HorizontalScaling
        | OpsType::VerticalScaling
        | OpsType::VolumeExpansion
        | OpsType::ReconfigureTLS
        | OpsType::RotateAuth
        | OpsType::ReconnectStandby
        | OpsType::ForceFailOver
        | OpsType::SetRaftKeyPair
        | OpsType::StorageMigration
        | OpsType::RotatePrincipalKey
        | OpsType::EnableWALEncryption
        | OpsType::Other => None,
    }
}

/// Examines a request as things stand. `resuming` is a request that is Progressing already: the
/// database's phase no longer counts, its own work changes it.
pub fn examine(seen: &Seen, request: &PostgresOpsRequest, resuming: bool) -> Admission {
    let Some(database) = &seen.database else {
        return Admission::Refuse(status::no_database(&request.database()));
    };
    if let Some(words) = broken_rule(request) {
        return Admission::Refuse(words);
    }
    if let Some(wait) = not_now(seen, database, request, resuming) {
        return wait;
    }
    let Some(catalogue) = seen.catalogue() else {
        let version = &database.spec.version;
        return Admission::Refuse(format!("PostgreSQL {version} has no catalogue of parameters"));
    };
    match plan(seen, database, request, catalogue) {
        Err(refusal) => refusal,
        Ok(plan) => match refused_by_servers(seen, &plan, catalogue) {
            Some(words) => Admission::Refuse(words),
            None => Admission::Go(Box::new(plan)),
        },
    }
}

/// The rules of a request that need nothing but the request.
fn broken_rule(request: &PostgresOpsRequest) -> Option<String> {
    if request.spec.type_ != OpsType::Reconfigure {
        return None;
    }
    let Some(ask) = &request.spec.configuration else {
        return Some("spec.configuration is required for type Reconfigure".to_owned());
    };
    let applies = ask.apply_config.as_ref().is_some_and(|map| map.contains_key(USER_CONF));
    if !ask.removes() && ask.config_secret.is_none() && !applies && ask.tuning.is_none() {
        return Some(format!(
            "at least one of spec.configuration.removeCustomConfig, configSecret, \
             applyConfig[\"{USER_CONF}\"] and tuning is required for type Reconfigure"
        ));
    }
    if ask.removes() && ask.restart == Restart::False {
        return Some(
            "spec.configuration.restart \"false\" cannot be combined with removeCustomConfig"
                .to_owned(),
        );
    }
    None
}

/// Why a request that is in order has to wait.
fn not_now(
    seen: &Seen,
    database: &Postgres,
    request: &PostgresOpsRequest,
    resuming: bool,
) -> Option<Admission> {
    let wait = |reason, what: String, on| Some(Admission::Wait { reason, what, on });
    let objects = Awaited::Objects;
    if database.metadata.deletion_timestamp.is_some() {
        return wait("DatabaseDeleted", "the database is being deleted".to_owned(), objects);
    }
    let phase = database.phase();
    let ready = phase == Some(Phase::Ready);
    if !resuming && !ready && request.spec.apply == Apply::IfReady {
        let phase = phase.map_or_else(|| "without a phase".to_owned(), |p| format!("{p:?}"));
        let what = format!("the database is {phase}, not Ready (spec.apply is IfReady)");
        return wait("DatabaseNotReady", what, objects);
    }
    if let Pause::Foreign(message) = status::paused(database) {
        let what = format!("somebody else has paused the database: {message}");
        return wait("DatabasePaused", what, objects);
    }
    if seen.operator.is_none() {
        let secret = database.children().operator_config;
        return wait("NoConfigSecret", format!("Secret {secret} is not there yet"), objects);
    }
    if let Some((node, why)) = seen.unknown().next() {
        return wait("NodeUnknown", format!("{node}: {why}"), Awaited::Servers);
    }
    None
}

fn plan(
    seen: &Seen,
    database: &Postgres,
    request: &PostgresOpsRequest,
    catalogue: &Catalogue,
) -> Result<Plan, Admission> {
    let before = configuration::of_object(database);
    let in_force = seen.operator.as_ref().map(|secret| secret.file.clone()).unwrap_or_default();
    let file =
        configuration::parse("the operator's Secret", &in_force).map_err(Admission::Refuse)?;
    let layers_of = |custom: &Custom| {
        let user_conf = custom.secret_name.as_ref().and_then(|name| seen.user_confs.get(name));
        configuration::layers(database, custom, user_conf, catalogue.major())
    };
    let before_side = Side { custom: before.clone(), file: file.render() };
    let Some(ask) = request.spec.configuration.as_ref().filter(|_| is_reconfigure(request)) else {
        // A restart brings into effect what the object says; where that cannot be worked out, it
        // is a restart and no more.
        let after = layers_of(&before).map_or_else(|_| file.render(), |l| l.file().render());
        return Ok(Plan {
            after: Side { custom: before, file: after },
            before: before_side,
            involved: BTreeSet::new(),
            restart: Restarts::All,
        });
    };
    if let Some(base) = request.annotation(annotations::BASE) {
        let now = layers_of(&before).map(|layers| configuration::digest_of(&layers));
        if now.as_deref() != Ok(base) {
            let why = "the configuration has changed since this request was planned";
            return Err(Admission::Skip(why.to_owned()));
        }
    }
    let after = configuration::asked(&before, ask).map_err(Admission::Refuse)?;
    let layers = layers_of(&after).map_err(Admission::Refuse)?;
    if let Some(words) = refused_parameters(seen, request, ask, &file, &layers, catalogue) {
        return Err(Admission::Refuse(words));
    }
    if after != before
        && let Some(owned) = configuration::foreign_owner(database, after.tuning.as_ref())
    {
        return Err(Admission::Refuse(configuration::field_owned(&owned)));
    }
    Ok(Plan {
        involved: configuration::involved(ask, &file, &layers, Some(catalogue)),
        after: Side { custom: after, file: layers.file().render() },
        before: before_side,
        restart: match ask.restart {
            Restart::Auto => Restarts::Needed,
            Restart::True => Restarts::All,
            Restart::False => Restarts::Never,
        },
    })
}

fn is_reconfigure(request: &PostgresOpsRequest) -> bool {
    request.spec.type_ == OpsType::Reconfigure
}

/// What the request brings that may not be sent, as one sentence with its field.
fn refused_parameters(
    seen: &Seen,
    request: &PostgresOpsRequest,
    ask: &Reconfiguration,
    in_force: &Settings,
    after: &Layers,
    catalogue: &Catalogue,
) -> Option<String> {
    let allowed = allowed_unsafe(request, in_force, after, catalogue);
    let applied = Settings::parse(ask.settings()).unwrap_or_default();
    let refused = |field: &str, settings: &Settings| {
        let checked = check(settings, catalogue, &allowed);
        let mut problems = checked.problems.iter().filter(|p| p.is_refusal()).peekable();
        problems.peek().is_some().then(|| configuration::told(field, problems))
    };
    if let Some(words) = refused("spec.configuration.applyConfig", &applied) {
        return Some(words);
    }
    let secret = ask.config_secret.as_ref()?;
    let text = match seen.user_confs.get(&secret.name) {
        Some(UserConf::Text(text)) => text.expose_secret(),
        Some(UserConf::Absent | UserConf::NoKey) | None => return None, // refused by its layers
    };
    let field = format!("spec.configuration.configSecret {}", secret.name);
    refused(&field, &Settings::parse(text).unwrap_or_default())
}

/// Names whose unsafe values are admitted: by the annotation, or because they are in force already
/// and the request changes nothing about them.
fn allowed_unsafe(
    request: &PostgresOpsRequest,
    in_force: &Settings,
    after: &Layers,
    catalogue: &Catalogue,
) -> BTreeSet<Name> {
    let text = request.annotation(annotations::ALLOW_UNSAFE).unwrap_or("{}");
    let admitted: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(text).unwrap_or_default();
    let mut allowed: BTreeSet<Name> =
        admitted.keys().filter_map(|name| Name::new(name).ok()).collect();
    let file = after.file();
    let same = |name: &&Name| match (in_force.get(name), file.get(name)) {
        (Some(a), Some(b)) => catalogue.same(name, a, b),
        (None, _) | (_, None) => false,
    };
    allowed.extend(file.names().filter(same).cloned());
    allowed
}

/// What the running servers would not let come true, found before anything is changed.
fn refused_by_servers(seen: &Seen, plan: &Plan, catalogue: &Catalogue) -> Option<String> {
    let after = plan.after.settings();
    if let Some(words) = lowered_wal_level(&plan.before.settings(), &after, catalogue) {
        return Some(words);
    }
    let number = |name: &str| {
        let value = Value::new(after.value_of(name)?).ok()?;
        catalogue.normalise(name, &value).ok()?.text.parse::<u64>().ok()
    };
    for (node, server) in seen.servers() {
        let overridden = plan.involved.iter().find(|name| overridden(seen, node, name, &after));
        if let Some(name) = overridden {
            return Some(format!(
                "{name} is overridden by postgresql.auto.conf on {node}, so that no file changes \
                 it; run ALTER SYSTEM RESET {name} there"
            ));
        }
        let Some(live) = &server.facts.live else { continue };
        let slots = u64::from(live.replication_slots);
        if number("max_replication_slots").is_some_and(|max| max < slots) {
            return Some(format!(
                "max_replication_slots must not be below the {slots} slots of {node}: it would \
                 not start"
            ));
        }
        let prepared = u64::from(live.gates.prepared_transactions);
        if number("max_prepared_transactions").unwrap_or(0) < prepared {
            return Some(format!(
                "max_prepared_transactions must not be below the {prepared} prepared \
                 transactions of {node}: it would not start"
            ));
        }
    }
    None
}

fn lowered_wal_level(before: &Settings, after: &Settings, catalogue: &Catalogue) -> Option<String> {
    let level = |settings: &Settings| {
        let value = settings.value_of("wal_level").or(catalogue.boot_value("wal_level"))?;
        catalogue.normalise("wal_level", &Value::new(value).ok()?).ok().map(|n| n.text)
    };
    let (before, after) = (level(before)?, level(after)?);
    let minimal = after == "minimal" && tiers::lowers_wal_level(&before, &after);
    minimal.then(|| {
        "wal_level must not go down to minimal: every standby would have to be made anew".to_owned()
    })
}

/// Whether ALTER SYSTEM holds a parameter at another value than the file is to have.
fn overridden(seen: &Seen, node: &str, name: &str, after: &Settings) -> bool {
    let server = seen.servers().find(|(other, _)| *other == node).map(|(_, server)| server);
    let Some(setting) = server.and_then(|server| server.setting(name)) else { return false };
    let by_alter_system = setting.is_from_alter_system();
    let Some(wanted) = after.value_of(name).and_then(|text| Value::new(text).ok()) else {
        return false;
    };
    let running = setting.reset_val.as_deref().unwrap_or_default();
    let equal = seen.catalogue().is_some_and(|c| c.runs_with(name, &wanted, running));
    by_alter_system && !equal
}

/// The memory with which a rollout begins.
pub fn journal(
    seen: &Seen,
    request: &PostgresOpsRequest,
    plan: Plan,
    now: k8s_openapi::jiff::Timestamp,
) -> Journal {
    let Plan { before, after, involved, restart } = plan;
    Journal {
        request: request.request_name().0,
        uid: request.metadata.uid.clone().unwrap_or_default(),
        began: now,
        base: seen.highest(),
        primary: seen.primary().map(|(name, _)| name.to_owned()),
        nodes: seen.nodes.keys().cloned().collect(),
        before,
        after,
        involved,
        restart,
        lowered: None,
        rollback: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Condition;
    use crate::api::postgres::PostgresStatus;
    use crate::ops::seen::{Node, OperatorSecret};

    fn seen(change: impl Fn(&mut Seen)) -> Seen {
        let yaml = "{apiVersion: kubedb.com/v1, kind: Postgres, metadata: {name: db, namespace: \
                    demo, uid: u}, spec: {version: '15', configuration: {inline: {user.conf: \
                    'work_mem = 4MB'}}}}";
        let mut database: Postgres = serde_yaml::from_str(yaml).unwrap();
        let status = PostgresStatus { phase: Some(Phase::Ready), ..PostgresStatus::default() };
        database.status = Some(status);
        let operator = OperatorSecret {
            inline: "work_mem = 4MB".into(),
            file: "work_mem = '4MB'\nfsync = 'off'\n".into(),
            version: None,
        };
        let conf = |text: &str| UserConf::Text(secrecy::SecretString::from(text));
        let mut seen = Seen {
            database: Some(database),
            operator: Some(operator),
            user_confs: [
                ("good".to_owned(), conf("max_connections = 150")),
                ("owned".to_owned(), conf("port = 5433")),
                ("empty".to_owned(), UserConf::NoKey),
            ]
            .into(),
            ..Seen::default()
        };
        change(&mut seen);
        seen
    }

    fn request(spec: &str, notes: &[(&str, &str)]) -> PostgresOpsRequest {
        let spec = format!("{{databaseRef: {{name: db}}, {spec}}}");
        let mut request = PostgresOpsRequest::new("r", serde_yaml::from_str(&spec).unwrap());
        request.metadata.namespace = Some("demo".into());
        let notes = notes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        request.metadata.annotations = Some(notes.collect());
        request
    }

    /// How an admission ends, with the beginning of its sentence.
    fn said(seen: &Seen, request: &PostgresOpsRequest) -> String {
        match examine(seen, request, false) {
            Admission::Go(plan) => format!("go {:?}", plan.restart),
            Admission::Refuse(why) => format!("refuse {why}"),
            Admission::Skip(why) => format!("skip {why}"),
            Admission::Wait { reason, .. } => format!("wait {reason}"),
        }
    }

    fn check(spec: &str, expected: &str) {
        let said = said(&seen(|_| {}), &request(spec, &[]));
        assert!(said.starts_with(expected), "{spec}: {said}");
    }

    #[test]
    fn a_request_that_breaks_a_rule_is_refused_with_its_field() {
        let of = |configuration: &str| format!("type: Reconfigure, configuration: {configuration}");
        check("type: Restart", "go All");
        check("type: Reconfigure", "refuse spec.configuration is required");
        check(&of("{}"), "refuse at least one of spec.configuration.removeCustomConfig");
        check(&of("{applyConfig: {other.conf: 'a = 1'}}"), "refuse at least one of");
        check(
            &of("{removeCustomConfig: true, restart: 'false'}"),
            "refuse spec.configuration.restart",
        );
        check(&of("{applyConfig: {user.conf: work_mem=8MB}}"), "go Needed");
        check(&of("{applyConfig: {user.conf: work_mem=8MB}, restart: 'false'}"), "go Never");
        let field = "refuse spec.configuration.applyConfig[\"user.conf\"]: 1:";
        check(&of("{applyConfig: {user.conf: 'work_mem = 8 MB'}}"), field);
        check(&of("{applyConfig: {user.conf: wrok_mem=8MB}}"), &format!("{field}10 wrok_mem: "));
        check(&of("{applyConfig: {user.conf: port=1}}"), &format!("{field}6 port: belongs to"));
        check(&of("{applyConfig: {user.conf: 'include x'}}"), field);
        check(&of("{configSecret: {name: none}}"), "refuse configuration Secret demo/none is not");
        check(&of("{configSecret: {name: empty}}"), "refuse Secret demo/empty has no text");
        check(&of("{configSecret: {name: owned}}"), "refuse spec.configuration.configSecret owned");
        check(&of("{configSecret: {name: good}}"), "go Needed");
    }

    #[test]
    fn unsafe_values_need_to_be_admitted() {
        let spec = |text: &str| {
            format!("type: Reconfigure, configuration: {{applyConfig: {{user.conf: {text}}}}}")
        };
        check(&spec("full_page_writes=off"), "refuse");
        let notes = [(annotations::ALLOW_UNSAFE, "{\"full_page_writes\": \"bulk load\"}")];
        let admitted = request(&spec("full_page_writes=off"), &notes);
        assert_eq!(said(&seen(|_| {}), &admitted), "go Needed");
        // In force already: the request changes nothing about it.
        check(&spec("fsync=off"), "go Needed");
        check(&spec("wal_level=minimal"), "refuse");
    }

    #[test]
    fn a_request_waits_for_what_is_not_there_yet() {
        let ask = |apply: &str| request(&format!("type: Restart, apply: {apply}"), &[]);
        let check = |change: fn(&mut Seen), apply: &str, expected: &str| {
            assert_eq!(said(&seen(change), &ask(apply)), expected);
        };
        let critical = |seen: &mut Seen| {
            let database = seen.database.as_mut().unwrap();
            database.status.as_mut().unwrap().phase = Some(Phase::Critical);
        };
        check(critical, "IfReady", "wait DatabaseNotReady");
        check(critical, "Always", "go All");
        let paused = |seen: &mut Seen| {
            let now = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
            let paused = Condition::new("Paused", true, "Paused", "by me", now);
            let database = seen.database.as_mut().unwrap();
            database.status.as_mut().unwrap().conditions = vec![paused];
        };
        check(paused, "Always", "wait DatabasePaused");
        check(|seen| seen.operator = None, "Always", "wait NoConfigSecret");
        let away = |seen: &mut Seen| {
            seen.nodes.insert("db-0".into(), Node::Unknown("no route".into()));
        };
        check(away, "Always", "wait NodeUnknown");
        check(
            |seen| seen.database = None,
            "Always",
            "refuse spec.databaseRef demo/db, is invalid or not found",
        );
    }

    #[test]
    fn a_request_of_another_base_is_planned_again() {
        let spec = "type: Reconfigure, configuration: {applyConfig: {user.conf: work_mem=8MB}}";
        let base = crate::api::names::digest(&["", "work_mem = '4MB'\n"]);
        let ask = |base: &str| request(spec, &[(annotations::BASE, base)]);
        assert_eq!(said(&seen(|_| {}), &ask(&base)), "go Needed");
        assert!(
            said(&seen(|_| {}), &ask("other")).starts_with("skip the configuration has changed")
        );
    }

    #[test]
    fn types_that_are_not_carried_out_stay_pending() {
        let why = |spec: &str| not_carried_out(&request(spec, &[]));
        assert!(
            why("type: ReconfigureTLS").unwrap().starts_with("spec.type ReconfigureTLS is not")
        );
        assert!(why("type: Restart").is_none());
    }

    #[test]
    fn tuning_is_carried_out_or_refused_with_what_to_do() {
        let of = |tuning: &str| format!("type: Reconfigure, configuration: {{tuning: {tuning}}}");
        check(&of("{profile: oltp, maxConnections: 100}"), "go Needed");
        check(&of("{disableAutoTune: true}"), "go Needed");
        check(&of("{profile: big}"), "refuse spec.configuration.tuning.profile: \"big\" is none");
        let unlimited = seen(|seen| {
            let resources = serde_json::json!([{
                "name": "postgres", "resources": {"limits": {"cpu": "2"}}
            }]);
            let template = crate::api::postgres::PodTemplate {
                spec: Some([("containers".to_owned(), resources)].into()),
                ..Default::default()
            };
            seen.database.as_mut().unwrap().spec.pod_template = Some(template);
        });
        let why = said(&unlimited, &request(&of("{profile: web}"), &[]));
        assert!(why.contains("resources.limits.memory"), "{why}");
        // What the owner set stays above it.
        let Admission::Go(plan) = examine(&seen(|_| {}), &request(&of("{}"), &[]), false) else {
            panic!("not admitted")
        };
        assert_eq!(plan.after.settings().value_of("work_mem"), Some("4MB"));
        assert_eq!(plan.after.settings().value_of("max_connections"), Some("200"));
        assert_eq!(plan.after.custom.tuning, Some(Default::default()));
    }
}
