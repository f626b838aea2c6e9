//! What KubeDB's webhooks say and fill in, after its public code. A server of this test has no
//! webhooks: whoever plays KubeDB asks here, and what pgitops sends is held against it afterwards.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// The types of operation that it knows.
const TYPES: [&str; 15] = [
    "UpdateVersion",
    "HorizontalScaling",
    "VerticalScaling",
    "VolumeExpansion",
    "Restart",
    "Reconfigure",
    "ReconfigureTLS",
    "RotateAuth",
    "ReconnectStandby",
    "ForceFailOver",
    "SetRaftKeyPair",
    "StorageMigration",
    "RotatePrincipalKey",
    "EnableWALEncryption",
    "Defragment",
];

/// What the validating webhook has against a request. `before`: what it was, on an update.
/// `databases`: those that exist in its namespace.
pub fn refusal(
    request: &Value,
    before: Option<&Value>,
    databases: &BTreeSet<String>,
) -> Option<String> {
    let spec = &request["spec"];
    let type_ = spec["type"].as_str().unwrap_or_default();
    if !TYPES.contains(&type_) {
        return Some(format!("spec.type {type_:?} is invalid"));
    }
    let database = spec["databaseRef"]["name"].as_str().unwrap_or_default();
    if !databases.contains(database) {
        return Some(format!("spec.databaseRef {database} is invalid or not found"));
    }
    if before.is_some_and(|before| before["spec"] != *spec) {
        return Some("spec is immutable".to_owned());
    }
    if type_ != "Reconfigure" {
        return None;
    }
    let configuration = &spec["configuration"];
    if !configuration.is_object() {
        return Some("spec.configuration is required".to_owned());
    }
    let removes = configuration["removeCustomConfig"] == true;
    let inputs = [
        removes,
        configuration["configSecret"].is_object(),
        configuration["applyConfig"]["user.conf"].is_string(),
        configuration["tuning"].is_object(),
    ];
    if !inputs.contains(&true) {
        return Some(
            "at least one of removeCustomConfig, configSecret, applyConfig, tuning".into(),
        );
    }
    (removes && configuration["restart"] == "false")
        .then(|| "restart false does not go with removeCustomConfig".to_owned())
}

/// What the validating webhook has against a database.
pub fn refusal_of_database(postgres: &Value, before: Option<&Value>) -> Option<String> {
    let spec = &postgres["spec"];
    let none = Map::new();
    let inline = spec["configuration"]["inline"].as_object().unwrap_or(&none);
    // The second since KubeDB takes rules of access there.
    if inline.keys().any(|key| !["user.conf", "user_hba.conf"].contains(&key.as_str())) {
        return Some("applyConfig: only the key user.conf is allowed".to_owned());
    }
    if before.is_some_and(|before| before["spec"]["storageType"] != spec["storageType"]) {
        return Some("spec.storageType is immutable".to_owned());
    }
    if spec["replicas"].as_i64().is_some_and(|replicas| replicas < 1) {
        return Some("spec.replicas must be 1 at least".to_owned());
    }
    (spec["storageType"] == "Ephemeral" && spec["deletionPolicy"] == "Halt")
        .then(|| "deletionPolicy Halt does not go with storageType Ephemeral".to_owned())
}

/// What the mutating webhook makes of a database's spec.
pub fn fill_in(name: &str, spec: &mut Value) {
    let major: u32 = major(spec["version"].as_str().unwrap_or_default());
    let replicas = spec["replicas"].as_i64().unwrap_or(1);
    let tls = spec["tls"].is_object();
    let wal = json!({"walLimitPolicy": "WALKeepSize", "walKeepSize": 1536});
    let container = |name: &str, limit: &str, cpu: &str| {
        json!({"name": name, "resources": {
            "limits": {"memory": limit}, "requests": {"cpu": cpu, "memory": limit}}})
    };
    let coordinator = container("pg-coordinator", "256Mi", "200m");
    let defaults = json!({
        "replicas": replicas,
        "standbyMode": "Hot",
        "leaderElection": {
            "period": "300ms", "electionTick": 10, "heartbeatTick": 1,
            "maximumLagBeforeFailover": 67_108_864,
            "transferLeadershipInterval": "1s", "transferLeadershipTimeout": "60s",
        },
        "authSecret": {"kind": "Secret", "name": format!("{name}-auth"), "apiGroup": ""},
        "storageType": "Durable",
        "clientAuthMode": if major >= 18 { "scram" } else { "md5" },
        "sslMode": if tls { "verify-full" } else { "disable" },
        "deletionPolicy": "Delete",
        "healthChecker": {"periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 1},
        "replication": wal,
        "podTemplate": {"spec": {
            "containers": [container("postgres", "1Gi", "500m"), coordinator],
            "initContainers": [container("postgres-init-container", "512Mi", "200m")],
        }},
    });
    add(spec, &defaults);
    if replicas % 2 == 0 {
        add(spec, &json!({"arbiter": {"resources": {"requests": {"storage": "2Gi"}}}}));
    }
    convert(spec);
}

/// The old form of the config Secret becomes the new one, in two passes as there.
pub fn convert(spec: &mut Value) {
    let old = spec["configSecret"]["name"].clone();
    for _ in 0..2 {
        if old.is_null() {
            break;
        }
        if spec["configuration"]["secretName"].is_null() {
            add(spec, &json!({"configuration": {"secretName": old}}));
        } else if spec["configuration"]["secretName"] == old
            && let Some(fields) = spec.as_object_mut()
        {
            fields.remove("configSecret");
        }
    }
    if spec["configSecret"].is_null()
        && let Some(fields) = spec.as_object_mut()
    {
        fields.remove("configSecret");
    }
}

/// Puts in what is not there. (Looking at a field by index would put a null there.)
fn add(into: &mut Value, defaults: &Value) {
    let (Some(fields), Some(defaults)) = (into.as_object_mut(), defaults.as_object()) else {
        return;
    };
    fields.retain(|_, value| !value.is_null());
    for (name, value) in defaults {
        match fields.get_mut(name) {
            Some(there) => add(there, value),
            None => drop(fields.insert(name.clone(), value.clone())),
        }
    }
}

/// The major version of a name of a PostgresVersion.
fn major(version: &str) -> u32 {
    let version = version.rsplit("-pg").next().unwrap_or(version);
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{version}: no PostgresVersion"))
}

/// What the webhooks are known for, so that nothing else can be held against them.
pub fn check() {
    let databases: BTreeSet<String> = ["orders".to_owned()].into();
    let said = |spec: Value| {
        let mut whole = json!({"databaseRef": {"name": "orders"}, "type": "Reconfigure"});
        json_patch::merge(&mut whole, &spec);
        refusal(&json!({"spec": whole}), None, &databases)
    };
    let with = |configuration: Value| said(json!({"configuration": configuration}));
    assert!(said(json!({"type": "Upgrade"})).is_some());
    assert!(said(json!({"databaseRef": {"name": "other"}})).is_some());
    assert!(said(json!({})).is_some());
    assert!(with(json!({"restart": "true"})).is_some());
    assert!(with(json!({"applyConfig": {"other.conf": ""}})).is_some());
    assert!(with(json!({"removeCustomConfig": true, "restart": "false"})).is_some());
    assert_eq!(with(json!({"applyConfig": {"user.conf": ""}, "restart": "false"})), None);
    assert_eq!(said(json!({"type": "Restart"})), None);
    let (one, other) = (json!({"type": "Restart"}), json!({"type": "UpdateVersion"}));
    let [one, other] = [one, other].map(|spec| {
        let mut whole = json!({"spec": {"databaseRef": {"name": "orders"}}});
        json_patch::merge(&mut whole["spec"], &spec);
        whole
    });
    assert_eq!(refusal(&one, Some(&one), &databases), None);
    assert!(refusal(&one, Some(&other), &databases).is_some());
    let mut spec =
        json!({"version": "17.2-bookworm", "replicas": 2, "configSecret": {"name": "c"}});
    fill_in("orders", &mut spec);
    assert_eq!(spec["configuration"], json!({"secretName": "c"}));
    assert_eq!(spec.get("configSecret"), None);
    assert_eq!(
        (&spec["clientAuthMode"], &spec["authSecret"]["name"]),
        (&json!("md5"), &json!("orders-auth"))
    );
    assert!(spec["arbiter"].is_object());
}
