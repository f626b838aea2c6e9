//! Secrets, Events, and what the server makes of built-in kinds.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod, Secret, Service};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{Cluster, refusal};

pub async fn secrets_are_encoded_and_can_be_immutable(c: &Cluster) {
    let secret = "
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {password: hunter2}
immutable: true
";
    c.apply(secret).await;
    let shown = c.ok("get secret s -o jsonpath={.data.password},{.stringData},{.type}").await;
    assert_eq!(shown, "aHVudGVyMg==,,Opaque");
    let refused = c.fails(r#"patch secret s -p {"stringData":{"password":"other"}}"#).await;
    assert!(refused.contains("field is immutable when `immutable` is set"), "{refused}");
    let dry = c.deleted("secret s --dry-run=server").await;
    assert_eq!(dry, "secret \"s\" deleted (server dry run)");
    let rows = c.table("get secrets").await;
    assert!(rows[1].starts_with("s Opaque 1 "), "{rows:?}");
    // The mark cannot be taken off, the type cannot be changed, and stringData only adds.
    let secrets: Api<Secret> = c.api();
    let parameters = PatchParams::default();
    for (change, complaint) in [
        (json!({"immutable": false}), "field is immutable when `immutable` is set"),
        (json!({"type": "example.com/x"}), "field is immutable"),
    ] {
        let refused = refusal(secrets.patch("s", &parameters, &Patch::Merge(&change)).await);
        assert_eq!(refused.code, 422);
        assert!(refused.message.contains(complaint), "{refused:?}");
    }
    secrets
        .patch("s", &parameters, &Patch::Merge(&json!({"metadata": {"labels": {"a": "b"}}})))
        .await
        .unwrap();
    let object = json!({"metadata": {"name": "t"}, "data": {"a": "MQ==", "b": "MQ=="},
                        "stringData": {"b": "2"}});
    let object: Secret = serde_json::from_value(object).unwrap();
    let created = secrets.create(&PostParams::default(), &object).await.unwrap();
    assert_eq!(json!(created.data), json!({"a": "MQ==", "b": "Mg=="}));
    assert_eq!(created.string_data, None);
    let change = json!({"stringData": {"c": "3"}, "data": {"a": null}});
    let changed = secrets.patch("t", &parameters, &Patch::Merge(&change)).await.unwrap();
    assert_eq!(json!(changed.data), json!({"b": "Mg==", "c": "Mw=="}));
    let refused = refusal(
        secrets.patch("t", &parameters, &Patch::Merge(&json!({"data": {"a/b": "MQ=="}}))).await,
    );
    assert_eq!(refused.code, 422, "{refused:?}");
}

pub async fn events_are_shown_with_their_objects(c: &Cluster) {
    c.ok("create configmap x --from-literal=a=b").await;
    let uid = c.ok("get configmap x -o jsonpath={.metadata.uid}").await;
    let namespace = &c.namespace;
    c.apply(&format!(
        "
apiVersion: v1
kind: Event
metadata: {{name: x.1}}
type: Warning
reason: Broken
message: it is broken
involvedObject: {{kind: ConfigMap, name: x, namespace: {namespace}, uid: {uid}, apiVersion: v1}}
firstTimestamp: 2026-01-01T00:00:00Z
lastTimestamp: 2026-01-01T00:00:00Z
count: 3
source: {{component: test}}
"
    ))
    .await;
    assert!(c.ok("describe configmap x").await.contains("Broken"), "describe shows events");
    let rows = c.table("get events").await;
    assert_eq!(rows[0], "LAST SEEN TYPE REASON OBJECT MESSAGE");
    assert!(rows[1].ends_with("Warning Broken configmap/x it is broken"), "{rows:?}");
    let rows = c.table("events --for configmap/x").await;
    assert!(rows[1].ends_with("Warning Broken ConfigMap/x it is broken"), "{rows:?}");
    let rows = c.table("get events.v1.events.k8s.io").await;
    assert!(rows[1].ends_with("Warning Broken configmap/x it is broken"), "{rows:?}");
    // An event about an object of another namespace is none.
    let event = json!({"metadata": {"name": "y.1"}, "involvedObject": {"kind": "Pod", "name": "y"},
                       "reason": "X", "type": "Normal"});
    let events: Api<Event> = c.api();
    let event = serde_json::from_value(event).unwrap();
    let refused = refusal(events.create(&PostParams::default(), &event).await);
    assert_eq!(refused.code, 422);
    let words = "involvedObject.namespace: Invalid value: \"\": does not match event.namespace";
    assert!(refused.message.contains(words), "{refused:?}");
}

pub async fn built_in_kinds_are_defaulted_and_validated(c: &Cluster) {
    let sets: Api<StatefulSet> = c.api();
    let pp = PostParams::default();
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
        {"name": "c", "image": "pgitops:1", "ports": [{"containerPort": 80}],
         "readinessProbe": {"exec": {"command": ["true"]}},
         "volumeMounts": [{"name": "s", "mountPath": "/s"}]}],
        "volumes": [{"name": "s", "secret": {"secretName": "s"}}]}});
    let set = json!({"metadata": {"name": "web"}, "spec": {
        "replicas": 0, "serviceName": "web", "selector": {"matchLabels": {"app": "web"}},
        "template": template}});
    let parse = |value: &Value| serde_json::from_value::<StatefulSet>(value.clone()).unwrap();
    let made = json!(sets.create(&pp, &parse(&set)).await.unwrap().spec);
    assert_eq!(made["podManagementPolicy"], "OrderedReady");
    assert_eq!(
        made["updateStrategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
    );
    assert_eq!(made["revisionHistoryLimit"], 10);
    let retention = json!({"whenDeleted": "Retain", "whenScaled": "Retain"});
    assert_eq!(made["persistentVolumeClaimRetentionPolicy"], retention);
    let pod = &made["template"]["spec"];
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("securityContext", json!({})),
        ("terminationGracePeriodSeconds", json!(30)),
    ] {
        assert_eq!(pod[field], value, "{field}");
    }
    assert_eq!(pod["volumes"][0]["secret"], json!({"secretName": "s", "defaultMode": 420}));
    let container = &pod["containers"][0];
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    assert_eq!(container["ports"][0]["protocol"], "TCP");
    assert_eq!(container["terminationMessagePath"], "/dev/termination-log");
    let probe = &container["readinessProbe"];
    let numbers = ["timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];
    assert_eq!(numbers.map(|n| probe[n].as_i64().unwrap()), [1, 10, 1, 3]);

    let mut other = set.clone();
    other["metadata"]["name"] = json!("other");
    other["spec"]["selector"]["matchLabels"]["app"] = json!("else");
    let refused = refusal(sets.create(&pp, &parse(&other)).await);
    assert_eq!(refused.code, 422);
    assert!(refused.message.contains("`selector` does not match template `labels`"), "{refused:?}");

    let services: Api<Service> = c.api();
    let service = json!({"metadata": {"name": "web"}, "spec": {
        "clusterIP": "None", "selector": {"app": "web"}, "ports": [{"port": 5432}]}});
    let made = services.create(&pp, &serde_json::from_value(service).unwrap()).await.unwrap();
    let made = json!(made.spec);
    assert_eq!((&made["type"], &made["sessionAffinity"]), (&json!("ClusterIP"), &json!("None")));
    assert_eq!(made["ports"], json!([{"port": 5432, "protocol": "TCP", "targetPort": 5432}]));

    let claims: Api<PersistentVolumeClaim> = c.api();
    let claim = json!({"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let made = claims.create(&pp, &serde_json::from_value(claim).unwrap()).await.unwrap();
    assert_eq!(made.spec.unwrap().volume_mode.as_deref(), Some("Filesystem"));

    // A pod's node, once given, and most of its spec are fixed.
    let pods: Api<Pod> = c.api();
    let pod = json!({"metadata": {"name": "far"}, "spec": {
        "schedulerName": "nobody", "automountServiceAccountToken": false,
        "containers": [{"name": "c", "image": "pgitops:1"}]}});
    let made = pods.create(&pp, &serde_json::from_value(pod).unwrap()).await.unwrap();
    let status = made.status.unwrap();
    assert_eq!(
        (status.phase.as_deref(), status.qos_class.as_deref()),
        (Some("Pending"), Some("BestEffort"))
    );
    let change = json!({"spec": {"restartPolicy": "Never"}});
    let refused = pods.patch("far", &PatchParams::default(), &Patch::Merge(&change)).await;
    let refused = refusal(refused);
    assert_eq!(refused.code, 422);
    assert!(
        refused.message.contains("pod updates may not change fields other than"),
        "{refused:?}"
    );
}
