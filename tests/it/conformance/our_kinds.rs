//! The kinds of pgitops and of KubeDB's API as the server keeps them: every rule that the
//! definitions carry, and what they keep, default and drop.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use pgitops::api::{ConfigRepository, Postgres, PostgresOpsRequest};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Cluster, refusal};

fn parse<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

pub async fn definitions_are_established(c: &Cluster) {
    let definitions: Api<CustomResourceDefinition> = Api::all(c.client.clone());
    let ours = pgitops::api::crds();
    assert_eq!(ours.len(), 3);
    for definition in ours {
        let found = definitions.get(&definition.name_any()).await.unwrap();
        let status = found.status.unwrap();
        for type_ in ["NamesAccepted", "Established"] {
            let conditions = status.conditions.as_ref().unwrap();
            let condition = conditions.iter().find(|c| c.type_ == type_).unwrap();
            assert_eq!(condition.status, "True", "{condition:?}");
        }
        // A schema that is not structural is served without pruning and defaults.
        let conditions = status.conditions.unwrap();
        assert!(!conditions.iter().any(|c| c.type_ == "NonStructuralSchema"), "{conditions:?}");
        assert_eq!(status.accepted_names.unwrap().kind, definition.spec.names.kind);
        assert_eq!(status.stored_versions.unwrap(), [definition.spec.versions[0].name.clone()]);
    }
    for (short, kind) in
        [("pg", "Postgres"), ("pgops", "PostgresOpsRequest"), ("pgrepo", "ConfigRepository")]
    {
        let rows = c.table("api-resources --no-headers").await;
        let row = rows.iter().find(|row| row.split(' ').nth(1) == Some(short));
        assert!(row.is_some_and(|row| row.ends_with(&format!(" true {kind}"))), "{short}: {row:?}");
    }
}

fn request(name: &str, spec: Value) -> PostgresOpsRequest {
    let mut whole = json!({"databaseRef": {"name": "orders"}, "type": "Reconfigure"});
    json_patch::merge(&mut whole, &spec);
    parse(json!({"metadata": {"name": name}, "spec": whole}))
}

/// The rules of KubeDB's webhook, one line each.
pub async fn requests_keep_their_rules(c: &Cluster) {
    let requests: Api<Dynamic> = api(c, "ops.kubedb.com", "v1alpha1", "PostgresOpsRequest");
    let least = "at least one of spec.configuration.removeCustomConfig, configSecret, \
                 applyConfig['user.conf'] and tuning is required for type Reconfigure";
    let no_restart = "configuration.restart 'false' cannot be combined with removeCustomConfig";
    let conf = json!({"user.conf": "work_mem = 8MB"});
    let with = |configuration: Value| json!({"configuration": configuration});
    let cases = [
        ("no-type", json!({"type": null}), "spec.type: Required value"),
        ("unknown-type", json!({"type": "Upgrade"}), "spec.type: Unsupported value: \"Upgrade\""),
        ("no-ref", json!({"databaseRef": null}), "spec.databaseRef: Required value"),
        ("no-name", json!({"databaseRef": {"name": null}}), "spec.databaseRef.name: Required"),
        ("empty-name", json!({"databaseRef": {"name": ""}}), "spec.databaseRef.name"),
        ("nothing", json!({}), "spec.configuration is required for type Reconfigure"),
        ("empty", with(json!({})), least),
        ("not-removed", with(json!({"removeCustomConfig": false})), least),
        ("other-key", with(json!({"applyConfig": {"pg.conf": "a = 1"}})), least),
        ("remove", with(json!({"removeCustomConfig": true, "restart": "false"})), no_restart),
        ("restart", with(json!({"applyConfig": conf, "restart": "maybe"})), "Unsupported value"),
        ("apply", json!({"type": "Restart", "apply": "Never"}), "spec.apply: Unsupported value"),
        ("retries", json!({"type": "Restart", "maxRetries": -1}), "spec.maxRetries"),
        ("timeout", json!({"type": "Restart", "timeout": "soon"}), "spec.timeout"),
        ("a-number", with(json!({"applyConfig": {"user.conf": 1}})), "must be of type string"),
    ];
    for (name, spec, complaint) in cases {
        let mut whole = json!({"databaseRef": {"name": "orders"}, "type": "Reconfigure"});
        json_patch::merge(&mut whole, &spec);
        let object = object(&requests, name, whole);
        let refused = refusal(requests.create(&PostParams::default(), &object).await);
        assert_eq!(refused.code, 422, "{name}: {refused:?}");
        assert!(refused.message.contains(complaint), "{name}: {}", refused.message);
    }
    for (removed, complaint) in [
        ("kind", "Object 'Kind' is missing"),
        ("apiVersion", "the API version in the data () does not match the expected API version"),
    ] {
        let mut untyped = json!(object(
            &requests,
            "untyped",
            json!({"type": "Restart",
            "databaseRef": {"name": "orders"}})
        ));
        untyped.as_object_mut().unwrap().remove(removed);
        let file = c.file("untyped.json", &untyped.to_string());
        let path = format!("/apis/ops.kubedb.com/v1alpha1/namespaces/{}", c.namespace);
        let line = format!("create --raw {path}/postgresopsrequests -f {file}");
        let refused = c.fails(&line).await;
        assert!(refused.contains(complaint), "{refused}");
    }
    requests_that_are_fine(c).await;
}

async fn requests_that_are_fine(c: &Cluster) {
    let requests: Api<PostgresOpsRequest> = c.api();
    let conf = json!({"user.conf": "work_mem = 8MB"});
    let fine = [
        ("apply", json!({"applyConfig": conf})),
        ("secret", json!({"configSecret": {"name": "s"}})),
        ("remove", json!({"removeCustomConfig": true})),
        ("tuning", json!({"tuning": {"profile": "web"}})),
        (
            "mixed",
            json!({"removeCustomConfig": true, "configSecret": {"name": "s"},
                         "applyConfig": conf, "restart": "true"}),
        ),
        // Another key passes silently beside something that counts.
        ("beside", json!({"configSecret": {"name": "s"}, "applyConfig": {"pg.conf": "a = 1"}})),
    ];
    for (name, configuration) in fine {
        let object = request(name, json!({"configuration": configuration}));
        let created = requests.create(&PostParams::default(), &object).await;
        let created = created.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(created.metadata.generation, Some(1));
    }
    // Defaults are the server's: what was not sent stands in the object.
    let raw: Api<Dynamic> = api(c, "ops.kubedb.com", "v1alpha1", "PostgresOpsRequest");
    let sent = object(
        &raw,
        "sent",
        json!({
            "databaseRef": {"name": "orders"}, "type": "Reconfigure",
            "configuration": {"applyConfig": conf}, "updateVersion": {"targetVersion": "16"},
        }),
    );
    let kept = raw.create(&PostParams::default(), &sent).await.unwrap();
    let spec = &kept.data["spec"];
    assert_eq!(
        (&spec["apply"], &spec["configuration"]["restart"]),
        (&json!("IfReady"), &json!("auto"))
    );
    assert_eq!(spec["updateVersion"], json!({"targetVersion": "16"}), "kept, though not acted on");

    // The whole spec is immutable; labels, annotations and status are not.
    let parameters = PatchParams::default();
    for change in [
        json!({"spec": {"timeout": "5m"}}),
        json!({"spec": {"apply": "Always"}}),
        json!({"spec": {"configuration": {"applyConfig": {"user.conf": "a = 2"}}}}),
        json!({"spec": {"databaseRef": {"name": "other"}}}),
    ] {
        let refused = refusal(requests.patch("sent", &parameters, &Patch::Merge(&change)).await);
        assert_eq!(refused.code, 422, "{change}");
        let words = "spec: Invalid value: \"object\": spec is immutable: create another request";
        assert!(refused.message.contains(words), "{}", refused.message);
    }
    let label = json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}});
    requests.patch("sent", &parameters, &Patch::Merge(&label)).await.unwrap();
    let status = json!({"status": {"phase": "Progressing"}});
    let told = requests.patch_status("sent", &parameters, &Patch::Merge(&status)).await.unwrap();
    assert_eq!((json!(told.phase()), told.metadata.generation), (json!("Progressing"), Some(1)));
    let wrong = json!({"status": {"phase": "Dreaming"}});
    let refused = refusal(requests.patch_status("sent", &parameters, &Patch::Merge(&wrong)).await);
    assert!(refused.message.contains("status.phase: Unsupported value"), "{refused:?}");
    let rows = c.table("get pgops sent -o wide").await;
    assert_eq!(rows[0], "NAME TYPE DATABASE STATUS AGE");
    assert!(rows[1].starts_with("sent Reconfigure orders Progressing "), "{rows:?}");
}

type Dynamic = kube::api::DynamicObject;

fn api(c: &Cluster, group: &str, version: &str, kind: &str) -> Api<Dynamic> {
    let kind = kube::core::GroupVersionKind::gvk(group, version, kind);
    let plural = pgitops::api::crds()
        .into_iter()
        .find(|d| d.spec.names.kind == kind.kind)
        .map(|d| d.spec.names.plural)
        .unwrap();
    let resource = kube::core::ApiResource::from_gvk_with_plural(&kind, &plural);
    Api::namespaced_with(c.client.clone(), &c.namespace, &resource)
}

/// An object that says what it is, as one of a custom resource must.
fn object(kind: &Api<Dynamic>, name: &str, spec: Value) -> Dynamic {
    let url = kind.resource_url();
    let (api_version, kind) = match url.split('/').nth(2) {
        Some("kubedb.com") => ("kubedb.com/v1", "Postgres"),
        Some("pgitops.dev") => ("pgitops.dev/v1alpha1", "ConfigRepository"),
        _ => ("ops.kubedb.com/v1alpha1", "PostgresOpsRequest"),
    };
    parse(
        json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec}),
    )
}

pub async fn databases_keep_their_rules(c: &Cluster) {
    let databases: Api<Dynamic> = api(c, "kubedb.com", "v1", "Postgres");
    let pp = PostParams::default();
    let long = "a".repeat(49);
    let fine = json!({"version": "15"});
    for (name, spec, complaint) in [
        ("none", json!({}), "spec.version: Required value"),
        ("empty", json!({"version": ""}), "spec.version"),
        ("number", json!({"version": 15}), "spec.version in body must be of type string"),
        ("zero", json!({"version": "15", "replicas": 0}), "spec.replicas"),
        ("1st", fine.clone(), "metadata.name must begin with a letter"),
        ("a.b", fine.clone(), "metadata.name must begin with a letter"),
        (long.as_str(), fine.clone(), "metadata.name must be 48 characters at most"),
        (
            "halt",
            json!({"version": "15", "storageType": "Ephemeral", "deletionPolicy": "Halt"}),
            "deletionPolicy Halt needs storageType Durable",
        ),
        ("type", json!({"version": "15", "storageType": "Tape"}), "spec.storageType: Unsupported"),
        (
            "inline",
            json!({"version": "15", "configuration": {"inline": {"pg.conf": "a = 1"}}}),
            "configuration.inline accepts the key user.conf only",
        ),
    ] {
        let refused = refusal(databases.create(&pp, &object(&databases, name, spec)).await);
        assert_eq!(refused.code, 422, "{name}: {refused:?}");
        assert!(refused.message.contains(complaint), "{name}: {}", refused.message);
    }
    // Fields of KubeDB's that we do not know are kept as they are.
    let spec = json!({
        "version": "15", "replicas": 3, "standbyMode": "Hot", "leaderElection": {"period": "300ms"},
        "configuration": {"inline": {"user.conf": "a = 1"}, "future": {"x": [1, {"y": null}]}},
        "podTemplate": {"spec": {"containers": [{"name": "postgres", "unheardOf": true}]}},
    });
    let kept = databases.create(&pp, &object(&databases, "orders", spec)).await.unwrap();
    let spec = &kept.data["spec"];
    assert_eq!(
        (&spec["standbyMode"], &spec["leaderElection"]["period"]),
        (&json!("Hot"), &json!("300ms"))
    );
    assert_eq!(spec["podTemplate"]["spec"]["containers"][0]["unheardOf"], true);
    assert_eq!(spec["configuration"]["future"]["x"][0], 1);

    let parameters = PatchParams::default();
    let storage = json!({"spec": {"storageType": "Ephemeral"}});
    let refused = refusal(databases.patch("orders", &parameters, &Patch::Merge(&storage)).await);
    assert!(refused.message.contains("storageType is immutable"), "{}", refused.message);
    // Said aloud, the default is no change.
    let storage = json!({"spec": {"storageType": "Durable", "replicas": 2}});
    databases.patch("orders", &parameters, &Patch::Merge(&storage)).await.unwrap();
    // A second owner of the configuration is told, not overrun.
    let ours = |text: &str| {
        Patch::Apply(json!({
            "apiVersion": "kubedb.com/v1", "kind": "Postgres", "metadata": {"name": "orders"},
            "spec": {"version": "15", "configuration": {"inline": {"user.conf": text}}},
        }))
    };
    let conflict = databases.patch("orders", &PatchParams::apply("us"), &ours("b = 2")).await;
    let conflict = refusal(conflict);
    assert_eq!(conflict.code, 409);
    assert!(conflict.message.contains(".spec.configuration.inline"), "{}", conflict.message);
    databases.patch("orders", &PatchParams::apply("us").force(), &ours("b = 2")).await.unwrap();
    let rows = c.table("get pg orders").await;
    assert_eq!(rows[0], "NAME VERSION STATUS AGE");
    assert!(
        c.table("get all").await.iter().any(|r| r.starts_with("postgres.kubedb.com/orders 15"))
    );
}

pub async fn repositories_are_defaulted_and_pruned(c: &Cluster) {
    let repositories: Api<Dynamic> = api(c, "pgitops.dev", "v1alpha1", "ConfigRepository");
    let pp = PostParams::default();
    let sent = object(
        &repositories,
        "config",
        json!({"url": "file:///x", "nonsense": 1, "notes": {"other": 2}}),
    );
    let kept = repositories.create(&pp, &sent).await.unwrap();
    let spec = &kept.data["spec"];
    assert_eq!(
        (&spec["ref"], &spec["path"], &spec["suspend"], &spec["drift"]),
        (&json!("main"), &json!("."), &json!(false), &json!("Enforce"))
    );
    assert_eq!((&spec["interval"], &spec["timeout"]), (&json!("1m"), &json!("1m")));
    assert_eq!((spec.get("nonsense"), spec["notes"].get("other")), (None, None), "pruned: {spec}");
    for (spec, complaint) in [
        (json!({}), "spec.url: Required value"),
        (json!({"url": ""}), "spec.url"),
        (json!({"url": "u", "ref": ""}), "spec.ref"),
        (json!({"url": "u", "interval": "often"}), "spec.interval"),
        (json!({"url": "u", "drift": "Ignore"}), "spec.drift: Unsupported value"),
        (json!({"url": "u", "notes": {"instance": "A B"}}), "spec.notes.instance"),
    ] {
        let refused =
            refusal(repositories.create(&pp, &object(&repositories, "wrong", spec)).await);
        assert_eq!(refused.code, 422, "{refused:?}");
        assert!(refused.message.contains(complaint), "{}", refused.message);
    }
}

pub async fn statuses_and_generations(c: &Cluster) {
    let databases: Api<Postgres> = c.api();
    let parameters = PatchParams::default();
    let object = json!({"metadata": {"name": "orders"}, "spec": {"version": "15"},
                        "status": {"phase": "Ready"}});
    let created = databases.create(&PostParams::default(), &parse(object)).await.unwrap();
    assert_eq!((created.metadata.generation, created.phase()), (Some(1), None), "no status yet");
    let status = json!({"status": {"phase": "Ready", "observedGeneration": 1, "conditions": [
        {"type": "Ready", "status": "True", "reason": "ReadinessCheckSucceeded", "message": "",
         "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        "spec": {"version": "16"}});
    let told = databases.patch_status("orders", &parameters, &Patch::Merge(&status)).await.unwrap();
    assert_eq!((told.metadata.generation, told.spec.version.as_str()), (Some(1), "15"));
    assert_eq!(
        c.ok("wait pg/orders --for=condition=Ready").await,
        "postgres.kubedb.com/orders condition met"
    );
    // Who wrote the status owns it as that part, and nothing of the spec.
    let managed = told.metadata.managed_fields.clone().unwrap_or_default();
    let status_of = |entry: &&ManagedFieldsEntry| entry.subresource.as_deref() == Some("status");
    let owned: Vec<String> =
        managed.iter().filter(status_of).map(|entry| json!(entry.fields_v1).to_string()).collect();
    let [owned] = owned.as_slice() else { panic!("one writer of the status: {managed:#?}") };
    assert!(owned.contains("f:phase") && !owned.contains("f:spec"), "{owned}");
    let spec = json!({"spec": {"replicas": 2}, "status": {"phase": "NotReady"}});
    let changed = databases.patch("orders", &parameters, &Patch::Merge(&spec)).await.unwrap();
    assert_eq!((changed.metadata.generation, json!(changed.phase())), (Some(2), json!("Ready")));
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    let changed = databases.patch("orders", &parameters, &Patch::Merge(&label)).await.unwrap();
    assert_eq!(changed.metadata.generation, Some(2));
    // A status is written against the revision that was read, or not at all.
    let mut stale = told.clone();
    stale.status.as_mut().unwrap().observed_generation = Some(2);
    let pp = PostParams::default();
    assert_eq!(refusal(databases.replace_status("orders", &pp, &stale).await).code, 409);
    let repositories: Api<ConfigRepository> = c.api();
    let absent = repositories.patch_status("none", &parameters, &Patch::Merge(&status)).await;
    assert_eq!(refusal(absent).code, 404);
}
