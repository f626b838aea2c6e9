//! A node: our program as PID 1 of the image's own container.
//!
//! An init container copies the program in, so the image stays the owner's choice. The instance is
//! told everything by arguments, waits with an empty volume until it is told what to do, and is
//! asked by exec probes; the pod has no token and listens on its own address only. What the owner
//! says in `spec.podTemplate` is laid over this by `overlay`. Never holds a version of pgitops: the
//! template must be the same before and after an upgrade.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Value, json};

use crate::api::names::{
    CONTAINER, CONTROL_PORT, INLINE_CONF, POSTGRES_PORT, RENDERED_CONF, USER_CONF,
};
use crate::api::postgres::{PostgresSpec, StorageType};
use crate::pgconf::provisioned::DEFAULT_MEMORY;

use super::super::blueprint::{MAX_NODES, Options};
use super::{Owner, overlay};

/// Volume with the data; also the beginning of its claims' names.
pub const DATA_VOLUME: &str = "data";

/// Where the data volume is mounted (KubeDB's path).
const DATA: &str = "/var/pv";
/// Where the configuration is mounted (KubeDB's path).
const CONFIG: &str = "/etc/config";
/// Where the certificates are mounted.
const TLS: &str = "/etc/pgitops/tls";
/// Where our program is.
const PROGRAM: &str = "/opt/pgitops";
/// Sockets, where `psql` in the container looks for them.
const SOCKETS: &str = "/var/run/postgresql";

/// Seconds that a pod may take to end. A fast stop of a loaded server takes a checkpoint, and a
/// receiver that is stuck holds it for `wal_sender_timeout`, 60 s; both fit in.
const GRACE: i64 = 120;
/// Seconds after which the instance enforces the stop itself, which costs crash recovery but keeps
/// the server's words; a little before the kubelet would kill it.
const STOP: i64 = GRACE - 15;

/// User and group `postgres` of the Debian images of Postgres. Another image needs another:
/// `podTemplate.spec.securityContext`.
const ACCOUNT: i64 = 999;

/// The template of the pods.
///
/// # Errors
/// What the owner laid over it makes no pod, in serde's words.
pub fn template(
    owner: &Owner,
    spec: &PostgresSpec,
    options: &Options,
) -> Result<PodTemplateSpec, serde_json::Error> {
    let over = spec.pod_template.as_ref().and_then(|template| template.spec.as_ref());
    let over = over.map_or(Value::Null, overlay::used);
    let base = pod(owner, spec, options);
    let mut pod = if over.is_null() { base } else { overlay::merge(base, &over) };
    tell_memory(&mut pod);
    let written = spec.pod_template.as_ref().and_then(|template| template.metadata.clone());
    let written = written.unwrap_or_default();
    let mut labels: BTreeMap<String, String> =
        written.labels.into_iter().filter(|(key, _)| !is_kubedbs(key)).collect();
    labels.extend(owner.labels());
    serde_json::from_value(json!({
        "metadata": {"labels": labels, "annotations": written.annotations},
        "spec": pod,
    }))
}

/// Labels of KubeDB's domain are the operator's (KubeDB filters them in the same way).
fn is_kubedbs(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    domain == "kubedb.com" || domain.ends_with(".kubedb.com")
}

fn pod(owner: &Owner, spec: &PostgresSpec, options: &Options) -> Value {
    json!({
        "serviceAccountName": owner.names.database,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": GRACE,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": ACCOUNT,
            "runAsGroup": ACCOUNT,
            "fsGroup": ACCOUNT,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        // Apart where there is room, together where there is not.
        "topologySpreadConstraints": [
            apart(owner, "topology.kubernetes.io/zone"),
            apart(owner, "kubernetes.io/hostname"),
        ],
        "initContainers": [{
            "name": "pgitops",
            "image": options.pgitops_image,
            "command": ["/pgitops", "instance", "install", PROGRAM],
            "securityContext": confined(),
            "volumeMounts": [{"name": "pgitops-bin", "mountPath": PROGRAM}],
        }],
        "containers": [server(owner, spec, options)],
        "volumes": volumes(owner, spec),
    })
}

fn apart(owner: &Owner, domain: &str) -> Value {
    json!({
        "maxSkew": 1,
        "topologyKey": domain,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": owner.selector()},
    })
}

fn server(owner: &Owner, spec: &PostgresSpec, options: &Options) -> Value {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
    json!({
        "name": CONTAINER,
        "image": options.image(&spec.version),
        "command": command(owner),
        "env": [
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("POD_IP", "status.podIP"),
            {"name": "PGDATA", "value": format!("{DATA}/data")},
        ],
        "ports": [
            {"name": "db", "containerPort": POSTGRES_PORT, "protocol": "TCP"},
            {"name": "control", "containerPort": CONTROL_PORT, "protocol": "TCP"},
        ],
        // KubeDB's defaults.
        "resources": {
            "requests": {"cpu": "500m", "memory": DEFAULT_MEMORY},
            "limits": {"memory": DEFAULT_MEMORY},
        },
        "securityContext": confined(),
        "volumeMounts": [
            mount(DATA_VOLUME, DATA),
            mount("custom-config", CONFIG),
            mount("pgitops-tls", TLS),
            mount("pgitops-bin", PROGRAM),
            mount("pgitops-run", SOCKETS),
            mount("shared-memory", "/dev/shm"),
        ],
        // The instance comes up within a second; a slow node gets a minute.
        "startupProbe": probe("--startup", 1, 60),
        // Who connects should not be sent to a server that stops: looked at every second.
        "readinessProbe": probe("--readiness", 1, 2),
        // Looks at the supervisor only: a server that does not start is no reason to kill the one
        // who is trying. A minute of silence is.
        "livenessProbe": probe("--liveness", 10, 6),
    })
}

fn command(owner: &Owner) -> Value {
    // Every node that there may be, so that the template is the same for any number of them.
    let domain = owner.domain();
    let peers = (0..MAX_NODES).map(|ordinal| format!("{}.{domain}", owner.names.pod(ordinal)));
    json!([
        format!("{PROGRAM}/pgitops"),
        "instance",
        "run",
        "--pod-name=$(POD_NAME)",
        "--listen-address=$(POD_IP)",
        format!("--data-volume={DATA}"),
        format!("--seed-directory={CONFIG}"),
        format!("--tls-directory={TLS}"),
        format!("--socket-directory={SOCKETS}"),
        format!("--stop-grace={STOP}"),
        format!("--peer={}", peers.collect::<Vec<_>>().join(",")),
    ])
}

fn probe(what: &str, period: i32, failures: i32) -> Value {
    json!({
        "exec": {"command": [
            format!("{PROGRAM}/pgitops"),
            "instance",
            "health",
            what,
            format!("--socket-directory={SOCKETS}"),
        ]},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    })
}

fn confined() -> Value {
    json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}})
}

fn volumes(owner: &Owner, spec: &PostgresSpec) -> Value {
    let item = |key: &str| json!({"key": key, "path": key});
    // Optional: a pod must come back even if somebody deleted the owner's Secret. The key is
    // named, so that no Secret of the owner can stand in for the rendered file.
    let mut sources = Vec::new();
    if let Some(name) = spec.secret_name() {
        let items = [item(USER_CONF)];
        sources.push(json!({"secret": {"name": name, "items": items, "optional": true}}));
    }
    // Not optional: an empty volume must not be seeded with nothing.
    let items = [item(INLINE_CONF), item(RENDERED_CONF)];
    sources.push(json!({"secret": {"name": owner.names.operator_config, "items": items}}));
    let mut volumes = vec![
        json!({"name": "custom-config", "projected": {"sources": sources}}),
        json!({"name": "pgitops-tls",
            "secret": {"secretName": owner.names.instance_certificate, "defaultMode": 0o440}}),
        json!({"name": "pgitops-bin", "emptyDir": {}}),
        json!({"name": "pgitops-run", "emptyDir": {}}),
        json!({"name": "shared-memory", "emptyDir": {"medium": "Memory"}}),
    ];
    if spec.storage_type == Some(StorageType::Ephemeral) {
        volumes.push(json!({"name": DATA_VOLUME, "emptyDir": {}}));
    }
    Value::Array(volumes)
}

/// Tells the instance the memory limit, where there is one: a container cannot always see it.
fn tell_memory(pod: &mut Value) {
    let containers = pod.get_mut("containers").and_then(Value::as_array_mut);
    let server = containers.into_iter().flatten().find(|c| c["name"] == CONTAINER);
    let Some(server) = server else { return };
    if server["resources"]["limits"]["memory"].is_null() {
        return;
    }
    if let Some(env) = server.get_mut("env").and_then(Value::as_array_mut) {
        env.push(json!({
            "name": "PGITOPS_MEMORY_LIMIT",
            "valueFrom": {"resourceFieldRef": {
                "containerName": CONTAINER, "resource": "limits.memory", "divisor": "1"}},
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::blueprint::Options;
    use super::super::super::sample::{MINIMAL, postgres};
    use super::*;

    fn made(spec: &str) -> Value {
        let postgres = postgres(spec);
        let template =
            template(&Owner::of(&postgres), &postgres.spec, &Options::default()).unwrap();
        serde_json::to_value(template).unwrap()
    }

    #[test]
    fn the_template_does_not_depend_on_size_or_on_our_version() {
        let text = made(MINIMAL).to_string();
        assert_eq!(text, made(&MINIMAL.replace("replicas: 3", "replicas: 5")).to_string());
        assert!(!text.contains(env!("CARGO_PKG_VERSION")), "{text}");
    }

    #[test]
    fn the_server_is_told_everything_by_arguments() {
        let pod = made(MINIMAL);
        let server = &pod["spec"]["containers"][0];
        assert_eq!(server["image"], "postgres:15");
        let expected = json!([
            "/opt/pgitops/pgitops",
            "instance",
            "run",
            "--pod-name=$(POD_NAME)",
            "--listen-address=$(POD_IP)",
            "--data-volume=/var/pv",
            "--seed-directory=/etc/config",
            "--tls-directory=/etc/pgitops/tls",
            "--socket-directory=/var/run/postgresql",
            "--stop-grace=105",
            "--peer=orders-0.orders-pods.demo.svc,orders-1.orders-pods.demo.svc,\
             orders-2.orders-pods.demo.svc,orders-3.orders-pods.demo.svc,\
             orders-4.orders-pods.demo.svc",
        ]);
        assert_eq!(server["command"], expected);
        assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
        let volumes = pod["spec"]["volumes"].as_array().unwrap();
        assert!(!volumes.iter().any(|volume| volume["name"] == DATA_VOLUME), "a claim");
    }

    #[test]
    fn the_owner_may_shape_what_is_not_ours() {
        let pod = made(
            "{version: '15', storageType: Ephemeral, configuration: {secretName: mine}, \
              podTemplate: {metadata: {labels: {team: a, kubedb.com/x: y}}, spec: { \
              nodeSelector: {disk: ssd}, tolerations: [{key: db}], serviceAccountName: other, \
              securityContext: {fsGroup: 70}, containers: [{name: postgres, image: mine, \
              resources: {limits: {memory: 2Gi}}, env: [{name: TZ, value: UTC}]}]}}}",
        );
        assert_eq!(pod["metadata"]["labels"]["team"], "a");
        assert!(pod["metadata"]["labels"].get("kubedb.com/x").is_none());
        let spec = &pod["spec"];
        assert_eq!(spec["serviceAccountName"], "other");
        assert_eq!(spec["securityContext"]["fsGroup"], 70);
        assert_eq!(spec["securityContext"]["runAsUser"], 999);
        let server = &spec["containers"][0];
        assert_eq!(server["image"], "postgres:15");
        assert_eq!(server["resources"], json!({"limits": {"memory": "2Gi"}}));
        let names: Vec<&str> =
            server["env"].as_array().unwrap().iter().filter_map(|e| e["name"].as_str()).collect();
        let expected =
            ["POD_NAME", "POD_NAMESPACE", "POD_IP", "PGDATA", "TZ", "PGITOPS_MEMORY_LIMIT"];
        assert_eq!(names, expected);
        let volumes = spec["volumes"].as_array().unwrap();
        assert!(volumes.iter().any(|v| v["name"] == "data" && v.get("emptyDir").is_some()));
        let sources = volumes[0]["projected"]["sources"].as_array().unwrap();
        assert_eq!(sources[0]["secret"]["name"], "mine");
        assert_eq!(sources[1]["secret"]["name"], "orders-d430c8");
    }
}
