//! What a request makes of a database's custom configuration, after KubeDB's rules.
//!
//! `removeCustomConfig` drops Secret and inline text first; `configSecret` then takes the place of
//! the Secret; `applyConfig` is laid over the inline text name by name; `tuning` takes the place of
//! the object's, and stays when the rest is removed. Any mix is allowed. The owner's Secret is
//! never written.
//!
//! **Who owns `spec.configuration`.** A request is the will of its author, so what somebody once
//! wrote with kubectl (or another tool that writes and goes) is taken over, as KubeDB does. What a
//! tool holds by server-side apply, or what a GitOps tool wrote, would be written back again and
//! again: then nothing is changed, and the request ends Failed with a sentence that names the
//! manager, the field and the setting which that tool needs. The write is a compare-and-swap with
//! the version of the object that the owners were read from.
//!
//! Leaves validity to `admit` and the file of a node to `node_file`. Never reads an object.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::ExposeSecret;
use serde_json::{Value as Json, json};

use crate::api::Postgres;
use crate::api::names::{USER_CONF, digest};
use crate::api::ops_request::{PostgresOpsRequest, Reconfiguration, Restart};
use crate::api::ownership::{self, FieldOwned};
use crate::api::postgres::{SecretRef, Tuning};
use crate::pgconf::{Catalogue, Layers, Name, Problem, Settings, provisioned, tuning};

use super::journal::Custom;
use super::seen::UserConf;
use super::step::SpecPatch;

/// What the object says now.
pub fn of_object(database: &Postgres) -> Custom {
    Custom {
        secret_name: database.spec.secret_name().map(str::to_owned),
        inline: database.spec.inline().to_owned(),
        tuning: database.spec.tuning().cloned(),
    }
}

/// What a request makes of it.
///
/// # Errors
/// Syntax errors of the settings to apply, or of the inline text that they are laid over; each
/// with the field in which it stands.
pub fn asked(before: &Custom, ask: &Reconfiguration) -> Result<Custom, String> {
    let mut after = before.clone();
    if ask.removes() {
        // Tuning is an input of the defaults, not custom configuration; `disableAutoTune` ends it.
        after = Custom { tuning: after.tuning, ..Custom::default() };
    }
    if let Some(tuning) = &ask.tuning {
        after.tuning = Some(tuning.clone());
    }
    if let Some(SecretRef { name }) = &ask.config_secret {
        after.secret_name = Some(name.clone());
    }
    let over = parse("spec.configuration.applyConfig", ask.settings())?;
    if !over.is_empty() {
        let inline = parse("spec.configuration.inline of the database", &after.inline)?;
        after.inline = inline.merged(&over).render();
    }
    Ok(after)
}

/// Reads a configuration text that stands in a field.
///
/// # Errors
/// The first syntax error, with the field's name.
pub fn parse(field: &str, text: &str) -> Result<Settings, String> {
    Settings::parse(text).map_err(|problems| told(field, problems.iter()))
}

/// Problems of a field as one sentence: the first three, and how many more.
pub fn told<'a>(field: &str, problems: impl Iterator<Item = &'a Problem>) -> String {
    let all: Vec<String> = problems.map(ToString::to_string).collect();
    let more = all.len().saturating_sub(3);
    let first = all.iter().take(3).cloned().collect::<Vec<_>>().join("; ");
    let rest = if more > 0 { format!(" (and {more} more)") } else { String::new() };
    format!("{field}[\"{USER_CONF}\"]: {first}{rest}")
}

/// The layers of a database with this custom configuration.
///
/// # Errors
/// When the Secret is missing, one of the texts cannot be parsed, or tuning cannot be worked out,
/// as a sentence with its field.
pub fn layers(
    database: &Postgres,
    custom: &Custom,
    user_conf: Option<&UserConf>,
    major: u32,
) -> Result<Layers, String> {
    let namespace = database.database().namespace;
    let user = match (&custom.secret_name, user_conf) {
        (None, _) => Settings::new(),
        (Some(name), None | Some(UserConf::Absent)) => {
            return Err(format!(
                "configuration Secret {namespace}/{name} is not there; create it with the key \
                 {USER_CONF}, or name another"
            ));
        }
        (Some(name), Some(UserConf::NoKey)) => {
            return Err(format!("Secret {namespace}/{name} has no text under the key {USER_CONF}"));
        }
        (Some(name), Some(UserConf::Text(text))) => {
            let field = format!("Secret {namespace}/{name}");
            parse(&field, text.expose_secret())?
        }
    };
    Ok(Layers {
        provisioner: provisioned::defaults(&database.spec, major),
        tuning: tuning::settings(&database.spec, custom.tuning.as_ref(), major)?,
        user,
        inline: parse("spec.configuration.inline", &custom.inline)?,
        owned: Settings::new(),
    })
}

/// Identifies a custom configuration, for requests that were planned from one
/// (`pgitops.dev/base`): the digest of what the user's Secret and the inline text set.
pub fn digest_of(layers: &Layers) -> String {
    digest(&[&layers.user.render(), &layers.inline.render()])
}

/// Names of the parameters that a request is about, in lower case. Those of `applyConfig`; those of
/// tuning that differ from what is in force, and all that it now names; and where it exchanges the
/// whole, the same of every parameter.
pub fn involved(
    ask: &Reconfiguration,
    in_force: &Settings,
    after: &Layers,
    catalogue: Option<&Catalogue>,
) -> BTreeSet<String> {
    let applied = Settings::parse(ask.settings()).unwrap_or_default();
    let mut names: BTreeSet<String> = applied.names().map(|name| name.lower()).collect();
    let whole = ask.removes() || ask.config_secret.is_some();
    let file = after.file();
    let all = in_force.names().chain(file.names());
    let differ = all.filter(|name| match (in_force.get(name), file.get(name), catalogue) {
        (Some(a), Some(b), Some(catalogue)) => !catalogue.same(name, a, b),
        (a, b, _) => a != b,
    });
    let touched = |name: &&Name| whole || (ask.tuning.is_some() && tuning::is_tuned(name));
    names.extend(differ.filter(touched).map(|name| name.lower()));
    if whole {
        names.extend(after.user.names().chain(after.inline.names()).map(|name| name.lower()));
    }
    if ask.tuning.is_some() {
        names.extend(after.tuning.names().map(|name| name.lower()));
    }
    names
}

/// Several requests as one, as if carried out one after another: of the same parameter the later
/// value counts, and a removal drops what came before it.
pub fn merged(requests: &[&PostgresOpsRequest]) -> Reconfiguration {
    let mut all = Reconfiguration::default();
    for ask in requests.iter().filter_map(|request| request.spec.configuration.as_ref()) {
        if ask.removes() {
            all = Reconfiguration {
                remove_custom_config: Some(true),
                tuning: all.tuning.take(),
                ..Reconfiguration::default()
            };
        }
        all.tuning = ask.tuning.clone().or(all.tuning);
        all.config_secret = ask.config_secret.clone().or(all.config_secret);
        if !ask.settings().is_empty() {
            let text = one_text(all.settings(), ask.settings());
            all.apply_config = Some([(USER_CONF.to_owned(), text)].into());
        }
    }
    let mut wishes = requests.iter().filter_map(|r| r.spec.configuration.as_ref());
    // Removal needs what `false` forbids; the API refuses the two together.
    let never = wishes.clone().all(|ask| ask.restart == Restart::False) && !all.removes();
    let always = wishes.any(|ask| ask.restart == Restart::True);
    all.restart = match (always, never) {
        (true, _) => Restart::True,
        (false, true) => Restart::False,
        (false, false) => Restart::Auto,
    };
    all
}

/// The earlier settings with the later ones laid over them. A text that cannot be parsed is kept
/// as it is behind the other: the merged request is then refused with its syntax error.
fn one_text(earlier: &str, later: &str) -> String {
    match (Settings::parse(earlier), Settings::parse(later)) {
        (Ok(earlier), Ok(later)) => earlier.merged(&later).render(),
        (Err(_), _) | (_, Err(_)) => format!("{}\n{later}", earlier.trim_end_matches('\n')),
    }
}

/// The write that makes the object say `wanted`; `None` when it does already.
pub fn patch(database: &Postgres, wanted: &Custom) -> Option<SpecPatch> {
    let is = of_object(database);
    if is == *wanted {
        return None;
    }
    let id = database.database();
    let version = database.metadata.resource_version.clone();
    let inline = (!wanted.inline.is_empty()).then(|| json!({ USER_CONF: wanted.inline }));
    let drops_secret = is.secret_name.is_some() && wanted.secret_name.is_none();
    let drops_inline = !is.inline.is_empty() && inline.is_none();
    // The old form would come back as soon as the new one is gone (KubeDB's conversion).
    let old_form = database.spec.config_secret.is_some();
    if drops_secret || drops_inline || old_form || drops_tuning(&is, wanted) {
        let tuning = wanted.tuning.as_ref().map(every_field);
        let mut spec = json!({
            "configuration": {
                "secretName": wanted.secret_name, "inline": inline, "tuning": tuning
            }
        });
        if old_form {
            spec["configSecret"] = Json::Null;
        }
        return Some(SpecPatch::Merge(json!({
            "metadata": { "resourceVersion": version }, "spec": spec
        })));
    }
    let mut configuration = json!({});
    if let Some(name) = &wanted.secret_name {
        configuration["secretName"] = json!(name);
    }
    if let Some(inline) = inline {
        configuration["inline"] = inline;
    }
    if let Some(tuning) = &wanted.tuning {
        configuration["tuning"] = json!(tuning);
    }
    Some(SpecPatch::Apply(json!({
        "apiVersion": "kubedb.com/v1",
        "kind": "Postgres",
        "metadata": { "name": id.name, "namespace": id.namespace, "resourceVersion": version },
        "spec": { "configuration": configuration }
    })))
}

/// Whether a field of `tuning` has to go, which server-side apply does not do to others' fields.
fn drops_tuning(is: &Custom, wanted: &Custom) -> bool {
    let fields = |custom: &Custom| custom.tuning.as_ref().map(every_field).unwrap_or_default();
    let after = fields(wanted);
    is.tuning.is_some() && wanted.tuning.is_none()
        || fields(is).iter().any(|(field, value)| !value.is_null() && after[field].is_null())
}

/// All fields of `tuning` that our definition keeps, also those that are not set: a merge patch
/// keeps what it does not name.
fn every_field(tuning: &Tuning) -> BTreeMap<&'static str, Json> {
    let Tuning { profile, max_connections, storage_type, disable_auto_tune, other: _ } = tuning;
    BTreeMap::from([
        ("profile", json!(profile)),
        ("maxConnections", json!(max_connections)),
        ("storageType", json!(storage_type)),
        ("disableAutoTune", json!(disable_auto_tune)),
    ])
}

/// The tool that would write a field of `spec.configuration` back, if there is one. Who owns
/// `tuning` matters only to a write that changes it: a manifest may say that and no more.
pub fn foreign_owner(database: &Postgres, wanted: Option<&Tuning>) -> Option<FieldOwned> {
    let tuning = database.spec.tuning() != wanted;
    let mut owners = ownership::foreign_owners(database).into_iter();
    owners.find(|owned| tuning || owned.field() != "tuning")
}

/// The sentence for a field that belongs to somebody else.
pub fn field_owned(owned: &FieldOwned) -> String {
    let FieldOwned { manager, path } = owned;
    format!(
        "{path} belongs to field manager {manager}, which would write it back; make it leave the \
         field alone (Argo CD: ignoreDifferences for /spec/configuration and \
         RespectIgnoreDifferences=true; Flux and others: take spec.configuration out of the \
         manifest), then send the request again"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(yaml: &str) -> Reconfiguration {
        serde_yaml::from_str(yaml).unwrap()
    }

    fn custom(secret: &str, inline: &str) -> Custom {
        let secret_name = (!secret.is_empty()).then(|| secret.to_owned());
        Custom { secret_name, inline: inline.into(), tuning: None }
    }

    #[test]
    fn inputs_compose_as_in_kubedb() {
        let check = |yaml: &str, secret: &str, inline: &str| {
            let before = custom("old", "work_mem = '4MB'\nmax_connections = '100'\n");
            assert_eq!(asked(&before, &ask(yaml)), Ok(custom(secret, inline)), "{yaml}");
        };
        let kept = "work_mem = '4MB'\nmax_connections = '100'\n";
        check("{configSecret: {name: new}}", "new", kept);
        check("{removeCustomConfig: true}", "", "");
        check("{removeCustomConfig: true, configSecret: {name: new}}", "new", "");
        let one = "applyConfig: {user.conf: 'WORK_MEM = 8MB'}";
        check(&format!("{{{one}}}"), "old", "work_mem = '8MB'\nmax_connections = '100'\n");
        check(&format!("{{removeCustomConfig: true, {one}}}"), "", "WORK_MEM = '8MB'\n");
        check(
            &format!("{{removeCustomConfig: true, configSecret: {{name: new}}, {one}}}"),
            "new",
            "WORK_MEM = '8MB'\n",
        );
        // Other keys than user.conf are absent, as KubeDB has it.
        check("{configSecret: {name: new}, applyConfig: {x.conf: 'a = 1'}}", "new", kept);
        let bad = asked(&Custom::default(), &ask("{applyConfig: {user.conf: 'a = 1 2'}}"));
        assert!(bad.unwrap_err().starts_with("spec.configuration.applyConfig[\"user.conf\"]: 1:"));
    }

    #[test]
    fn merged_requests_are_as_one_after_another() {
        let request = |yaml: &str| {
            let spec =
                format!("{{databaseRef: {{name: d}}, type: Reconfigure, configuration: {yaml}}}");
            PostgresOpsRequest::new("r", serde_yaml::from_str(&spec).unwrap())
        };
        let check = |yamls: &[&str], expected: &str| {
            let requests: Vec<_> = yamls.iter().map(|yaml| request(yaml)).collect();
            let refs: Vec<_> = requests.iter().collect();
            assert_eq!(merged(&refs), ask(expected), "{yamls:?}");
            // The law: carried out as one or one after another, the end is the same.
            let start = custom("s", "a.b = '0'\n");
            let one = asked(&start, &merged(&refs)).unwrap();
            let mut each = start;
            for request in &requests {
                each = asked(&each, request.spec.configuration.as_ref().unwrap()).unwrap();
            }
            assert_eq!(one, each, "{yamls:?}");
        };
        let (x, y) = ("{applyConfig: {user.conf: a.x=1}}", "{applyConfig: {user.conf: a.y=2}}");
        let both = "a.x = ''1''\n\n    a.y = ''2''\n\n    ";
        check(
            &[x, y],
            &format!("{{applyConfig: {{user.conf: '{both}'}}}}").replace("\n    ", "\n"),
        );
        check(&[x, "{removeCustomConfig: true}"], "{removeCustomConfig: true}");
        check(
            &["{removeCustomConfig: true}", "{configSecret: {name: n}, restart: 'false'}"],
            "{removeCustomConfig: true, configSecret: {name: n}}",
        );
        check(
            &["{configSecret: {name: m}, restart: 'true'}", "{configSecret: {name: n}}"],
            "{configSecret: {name: n}, restart: 'true'}",
        );
    }

    fn database(yaml: &str) -> Postgres {
        serde_yaml::from_str(&format!(
            "{{apiVersion: kubedb.com/v1, kind: Postgres, metadata: {{name: d, namespace: n, \
             resourceVersion: '7'}}, spec: {{version: '15', {yaml}}}}}"
        ))
        .unwrap()
    }

    #[test]
    fn the_object_is_patched_with_what_differs() {
        let db = database("configuration: {secretName: s, inline: {user.conf: x}}");
        assert_eq!(patch(&db, &custom("s", "x")), None);
        let set = patch(&db, &custom("t", "x"));
        let Some(SpecPatch::Apply(set)) = set else { panic!("{set:?}") };
        assert_eq!(set["spec"]["configuration"]["secretName"], "t");
        let drop = patch(&db, &custom("s", ""));
        let Some(SpecPatch::Merge(drop)) = drop else { panic!("{drop:?}") };
        assert_eq!(drop["spec"]["configuration"]["inline"], Json::Null);
        assert_eq!(drop["metadata"]["resourceVersion"], "7");
        let old = patch(&database("configSecret: {name: s}"), &custom("t", ""));
        let Some(SpecPatch::Merge(old)) = old else { panic!("{old:?}") };
        assert_eq!(old["spec"]["configSecret"], Json::Null);
    }

    fn tuned(yaml: &str) -> Custom {
        Custom { tuning: Some(serde_yaml::from_str(yaml).unwrap()), ..Custom::default() }
    }

    #[test]
    fn tuning_takes_the_place_of_the_objects_field_by_field() {
        let before = tuned("{profile: web, maxConnections: 50}");
        let check = |ask_for: &str, expected: &Custom| {
            assert_eq!(asked(&before, &ask(ask_for)).as_ref(), Ok(expected), "{ask_for}");
        };
        check("{tuning: {profile: dw}}", &tuned("{profile: dw}"));
        check("{tuning: {disableAutoTune: true}}", &tuned("{disableAutoTune: true}"));
        check("{removeCustomConfig: true}", &before);
        let db = database("configuration: {tuning: {profile: web, maxConnections: 50}}");
        let Some(SpecPatch::Merge(less)) = patch(&db, &tuned("{profile: dw}")) else { panic!() };
        let written = &less["spec"]["configuration"]["tuning"];
        assert_eq!(written["profile"], "dw");
        assert_eq!(written.get("maxConnections"), Some(&Json::Null));
        let Some(SpecPatch::Merge(none)) = patch(&db, &Custom::default()) else { panic!() };
        assert_eq!(none["spec"]["configuration"].get("tuning"), Some(&Json::Null));
        let more = patch(&database("replicas: 1"), &tuned("{profile: dw}"));
        let Some(SpecPatch::Apply(more)) = more else { panic!("{more:?}") };
        assert_eq!(more["spec"]["configuration"]["tuning"], json!({"profile": "dw"}));
    }

    #[test]
    fn a_request_for_tuning_is_about_what_tuning_names_and_named() {
        let check = |ask_for: &str, custom: &Custom, in_force: &str, expected: &[&str]| {
            let layers = layers(&database("replicas: 1"), custom, None, 15).unwrap();
            let in_force = Settings::parse(in_force).unwrap();
            let catalogue = Catalogue::for_major(15);
            let about = involved(&ask(ask_for), &in_force, &layers, catalogue);
            for name in expected {
                assert!(about.contains(*name), "{name}: {about:?}");
            }
            assert!(!about.contains("log_connections"), "{about:?}");
        };
        let in_force = "log_connections = on\njit = off\nrandom_page_cost = 1.1";
        let web = "{tuning: {profile: web}}";
        check(web, &tuned("{profile: web}"), in_force, &["max_connections", "random_page_cost"]);
        let none = "{disableAutoTune: true}";
        check(&format!("{{tuning: {none}}}"), &tuned(none), in_force, &["random_page_cost"]);
    }

    #[test]
    fn what_a_tool_would_write_back_is_left_to_it() {
        let check = |manager: &str, operation: &str, fields: &str, expected: Option<&str>| {
            let mut db = database("replicas: 1");
            db.metadata.managed_fields = serde_yaml::from_str(&format!(
                "[{{manager: {manager}, operation: {operation}, fieldsType: FieldsV1, \
                 fieldsV1: {fields}}}]"
            ))
            .unwrap();
            assert_eq!(
                foreign_owner(&db, None).map(|owned| owned.path).as_deref(),
                expected,
                "{manager}"
            );
        };
        let inline = "{'f:spec': {'f:configuration': {'f:inline': {'f:user.conf': {}}}}}";
        check("argocd-controller", "Update", inline, Some("spec.configuration.inline"));
        check("somebody", "Apply", inline, Some("spec.configuration.inline"));
        check("argocd-controller", "Update", "{'f:spec': {'f:replicas': {}}}", None);
        check("kubectl-client-side-apply", "Update", inline, None);
        check("kubectl", "Apply", inline, None);
        check("pgitops-ops", "Apply", inline, None);
        check("curl", "Update", inline, None);
    }
}
