//! The real kubectl: its verbs, outputs and complaints.

use super::cluster::{Cluster, until};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

const SET: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web, namespace: demo}
spec:
  serviceName: web
  replicas: 2
  updateStrategy: {type: OnDelete}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: c
        image: nginx:1.25
        ports: [{containerPort: 80}]
        env: [{name: A, value: b}]
";

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: one, namespace: demo, labels: {app: one}}
spec:
  nodeName: sandbox
  containers: [{name: c, image: 'nginx:1.25'}]
";

async fn demo() -> Cluster {
    let c = Cluster::start().await;
    assert_eq!(c.ok("create namespace demo").await, "namespace/demo created");
    c
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_created_read_changed_and_deleted() {
    let c = demo().await;
    assert_eq!(c.apply(SET).await, "statefulset.apps/web created");
    assert_eq!(c.apply(SET).await, "statefulset.apps/web unchanged");
    let rows = c.table("get sts -n demo -o wide").await;
    assert_eq!(rows[0], "NAME READY AGE CONTAINERS IMAGES");
    assert!(rows[1].starts_with("web 0/2 ") && rows[1].ends_with(" c nginx:1.25"), "{rows:?}");
    assert_eq!(c.ok("label sts web -n demo x=y").await, "statefulset.apps/web labeled");
    assert_eq!(c.ok("annotate sts web -n demo x=y").await, "statefulset.apps/web annotated");
    assert_eq!(c.ok("scale sts web -n demo --replicas=5").await, "statefulset.apps/web scaled");
    let patch = r#"patch sts web -n demo -p {"spec":{"template":{"spec":{"containers":[{"name":"c","image":"nginx:2"}]}}}}"#;
    assert_eq!(c.ok(patch).await, "statefulset.apps/web patched");
    let shown = c
        .ok("get sts web -n demo -o jsonpath={.spec.replicas},{.metadata.generation},{.spec.template.spec.containers[0].image},{.spec.template.spec.containers[0].env[0].value},{.metadata.labels.x}")
        .await;
    assert_eq!(shown, "5,3,nginx:2,b,y");
    assert!(
        c.ok("get sts web -n demo -o json")
            .await
            .contains(r#""podManagementPolicy": "OrderedReady""#)
    );
    assert!(c.ok("get sts web -n demo -o yaml").await.contains("revisionHistoryLimit: 10"));
    let refused = c.fails(r#"patch sts web -n demo -p {"spec":{"serviceName":"other"}}"#).await;
    assert!(refused.contains("spec: Forbidden: updates to statefulset spec for fields other than"));
    assert!(
        c.ok("describe sts web -n demo").await.contains("Replicas:           5 desired | 0 total")
    );
    assert_eq!(c.ok("delete sts web -n demo").await, "statefulset.apps \"web\" deleted");
    let gone = c.fails("get sts web -n demo").await;
    assert_eq!(gone, "Error from server (NotFound): statefulsets.apps \"web\" not found");
    assert_eq!(c.ok("delete namespace demo").await, "namespace \"demo\" deleted");
    let gone = c.fails("create cm x -n demo --from-literal=a=b").await;
    assert!(gone.contains("namespaces \"demo\" not found"), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn create_commands_that_send_protobuf_work() {
    let c = demo().await;
    for (line, created) in [
        ("secret generic s --from-literal=user.conf=work_mem=7MB", "secret/s"),
        ("configmap c --from-literal=a=b", "configmap/c"),
        ("serviceaccount a", "serviceaccount/a"),
        ("service clusterip web --tcp=80:8080", "service/web"),
        ("role r --verb=get --resource=pods", "role.rbac.authorization.k8s.io/r"),
        (
            "rolebinding b --role=r --serviceaccount=demo:a",
            "rolebinding.rbac.authorization.k8s.io/b",
        ),
        ("pdb p --selector=app=web --min-available=1", "poddisruptionbudget.policy/p"),
    ] {
        let out = c.ok(&format!("create {line} -n demo")).await;
        assert_eq!(out, format!("{created} created"));
    }
    let value = c.ok("get secret s -n demo -o jsonpath={.data.user\\.conf}").await;
    assert_eq!(value, "d29ya19tZW09N01C");
    let port = c.ok("get svc web -n demo -o jsonpath={.spec.ports[0].targetPort}").await;
    assert_eq!(port, "8080");
    let least = c.ok("get pdb p -n demo -o jsonpath={.spec.minAvailable}").await;
    assert_eq!(least, "1");
    let rule = c.ok("get role r -n demo -o jsonpath={.rules[0].resources[0]}").await;
    assert_eq!(rule, "pods");
    let refused = c.fails("create deployment d --image=x -n demo").await;
    assert!(refused.contains("kubectl apply -f -"), "{refused}");
    assert_eq!(c.ok("auth can-i delete pods").await, "yes");
    assert!(c.ok("auth whoami").await.contains("sandbox-admin"));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_fields_are_refused_and_warned_about() {
    let c = demo().await;
    let wrong = c.file(
        "wrong.yaml",
        "
apiVersion: v1
kind: ConfigMap
metadata: {name: x, namespace: demo}
dota: {a: b}
",
    );
    let refused = c.fails(&format!("apply -f {wrong}")).await;
    assert!(refused.ends_with("ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"dota\""), "{refused}");
    let warned = c.ok(&format!("apply -f {wrong} --validate=warn")).await;
    assert!(warned.contains("Warning: unknown field \"dota\""), "{warned}");
    assert_eq!(c.ok(&format!("apply -f {wrong} --validate=false")).await, "configmap/x configured");
    let absent = c.file(
        "absent.yaml",
        "
apiVersion: nobody.example.com/v1
kind: Thing
metadata: {name: x}
",
    );
    let refused = c.fails(&format!("apply -f {absent}")).await;
    assert!(refused.contains("ensure CRDs are installed first"), "{refused}");
    let missing = c.fails("get nonsense").await;
    assert_eq!(missing, "error: the server doesn't have a resource type \"nonsense\"");
    let unserved = c.fails("get --raw /apis/batch/v1/jobs").await;
    assert!(unserved.contains("the sandbox does not serve jobs.batch"), "{unserved}");
    assert!(c.ok("explain sts.spec.replicas").await.contains("FIELD: replicas <integer>"));
    assert!(c.ok("version").await.contains("Server Version: v1.36.0-pgitops-sandbox"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_shown_logged_and_end_gracefully() {
    let c = demo().await;
    c.apply(POD).await;
    let pods: Api<Pod> = Api::namespaced(c.client(), "demo");
    let status = json!({"status": {
        "phase": "Running", "podIP": "127.3.2.1",
        "containerStatuses": [{"name": "c", "ready": true, "restartCount": 0, "image": "x",
            "imageID": "", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    pods.patch_status("one", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let rows = c.table("get pods -n demo -o wide").await;
    assert_eq!(rows[0], "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES");
    assert!(rows[1].starts_with("one 1/1 Running 0 "), "{rows:?}");
    assert!(rows[1].ends_with(" 127.3.2.1 sandbox <none> <none>"), "{rows:?}");
    assert_eq!(c.ok("wait --for=condition=Ready pod/one -n demo").await, "pod/one condition met");
    assert!(c.ok("describe pod one -n demo").await.contains("IP:           127.3.2.1"));
    assert_eq!(
        c.table("get pods -A --field-selector status.phase=Running -o name").await,
        ["pod/one"]
    );
    assert_eq!(c.table("get pods -A -l app!=one -o name").await, [""; 0]);

    let early = c.fails("logs one -n demo").await;
    assert!(early.contains("is waiting to start or has no log"), "{early}");
    c.file("one.log", "first\nsecond\nthird\n");
    assert_eq!(c.ok("logs one -n demo").await, "first\nsecond\nthird");
    assert_eq!(c.ok("logs one -n demo --tail=2 -c c").await, "second\nthird");
    assert!(c.fails("logs one -n demo -c other").await.contains("container other is not valid"));
    let exec = c.fails("exec one -n demo -- ls").await;
    assert!(exec.contains("has no exec; use instead: psql -h one.demo"), "{exec}");

    let mut follow = c.spawn("logs -f one -n demo --tail=1");
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "third");
    c.file("one.log", "first\nsecond\nthird\nfourth\n");
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "fourth");

    assert_eq!(c.ok("delete pod one -n demo --wait=false").await, "pod \"one\" deleted");
    let rows = c.table("get pods -n demo").await;
    assert!(rows[1].starts_with("one 1/1 Terminating"), "{rows:?}");
    c.ok("delete pod one -n demo --grace-period=0 --force").await;
    assert_eq!(lines.next_line().await.unwrap(), None);
    assert_eq!(c.table("get pods -n demo -o name").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_print_rows_as_they_come() {
    let c = demo().await;
    c.ok("create configmap first --from-literal=a=b -n demo").await;
    let mut watch = c.spawn("get configmaps -n demo -w");
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = async || -> String {
        let line = lines.next_line().await.unwrap().unwrap();
        line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(next().await, "NAME DATA");
    assert_eq!(next().await, "first 1");
    c.ok("create configmap second --from-literal=a=b --from-literal=c=d -n demo").await;
    assert_eq!(next().await, "second 2");
    c.ok(r#"patch configmap first -n demo --type merge -p {"data":{"x":"y"}}"#).await;
    assert_eq!(next().await, "first 2");
    c.ok("delete configmap first -n demo").await;
    assert_eq!(next().await, "first 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_shown_with_their_objects() {
    let c = demo().await;
    c.ok("create configmap x --from-literal=a=b -n demo").await;
    let uid = c.ok("get configmap x -n demo -o jsonpath={.metadata.uid}").await;
    c.apply(&format!(
        "
apiVersion: v1
kind: Event
metadata: {{name: x.1, namespace: demo}}
type: Warning
reason: Broken
message: it is broken
involvedObject: {{kind: ConfigMap, name: x, namespace: demo, uid: {uid}, apiVersion: v1}}
firstTimestamp: 2026-01-01T00:00:00Z
lastTimestamp: 2026-01-01T00:00:00Z
count: 3
source: {{component: test}}
"
    ))
    .await;
    assert!(c.ok("describe configmap x -n demo").await.contains("Broken"), "describe shows events");
    let rows = c.table("get events -n demo").await;
    assert_eq!(rows[0], "LAST SEEN TYPE REASON OBJECT MESSAGE");
    assert!(rows[1].ends_with("Warning Broken configmap/x it is broken"), "{rows:?}");
    let rows = c.table("events -n demo --for configmap/x").await;
    assert!(rows[1].ends_with("Warning Broken ConfigMap/x it is broken"), "{rows:?}");
    let rows = c.table("get events.v1.events.k8s.io -n demo").await;
    assert!(rows[1].ends_with("Warning Broken configmap/x it is broken"), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dependents_follow_their_owner() {
    let c = demo().await;
    for (policy, stays) in [("background", false), ("foreground", false), ("orphan", true)] {
        c.ok("create configmap owner --from-literal=a=b -n demo").await;
        let uid = c.ok("get configmap owner -n demo -o jsonpath={.metadata.uid}").await;
        c.apply(&format!(
            "
apiVersion: v1
kind: ConfigMap
metadata:
  name: owned
  namespace: demo
  ownerReferences:
  - {{apiVersion: v1, kind: ConfigMap, name: owner, uid: {uid}, blockOwnerDeletion: true}}
"
        ))
        .await;
        c.ok(&format!("delete configmap owner -n demo --cascade={policy}")).await;
        let names = c.table("get configmap -n demo -o name").await;
        assert_eq!(names, if stays { vec!["configmap/owned"] } else { vec![] }, "{policy}");
    }
    let owners = c.ok("get configmap owned -n demo -o jsonpath={.metadata.ownerReferences}").await;
    assert_eq!(owners, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_after_all_that_is_in_it() {
    let c = demo().await;
    c.apply(
        "
apiVersion: v1
kind: ConfigMap
metadata: {name: held, namespace: demo, finalizers: [example.com/hold]}
",
    )
    .await;
    c.ok("delete namespace demo --wait=false").await;
    let phase = c.ok("get namespace demo -o jsonpath={.status.phase}").await;
    assert_eq!(phase, "Terminating");
    let refused = c.fails("create configmap x --from-literal=a=b -n demo").await;
    assert!(refused.contains("because it is being terminated"), "{refused}");
    c.ok(r#"patch configmap held -n demo --type json -p [{"op":"remove","path":"/metadata/finalizers"}]"#)
        .await;
    until("the namespace is gone", async || !c.ok("get namespaces -o name").await.contains("demo"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_encoded_and_can_be_immutable() {
    let c = demo().await;
    let secret = "
apiVersion: v1
kind: Secret
metadata: {name: s, namespace: demo}
stringData: {password: hunter2}
immutable: true
";
    c.apply(secret).await;
    let shown =
        c.ok("get secret s -n demo -o jsonpath={.data.password},{.stringData},{.type}").await;
    assert_eq!(shown, "aHVudGVyMg==,,Opaque");
    let refused = c.fails(r#"patch secret s -n demo -p {"stringData":{"password":"other"}}"#).await;
    assert!(refused.contains("field is immutable when `immutable` is set"), "{refused}");
    let dry = c.ok("delete secret s -n demo --dry-run=server").await;
    assert_eq!(dry, "secret \"s\" deleted (server dry run)");
    let rows = c.table("get secrets -n demo").await;
    assert!(rows[1].starts_with("s Opaque 1 "), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn server_side_apply_knows_who_owns_what() {
    let c = demo().await;
    let file = c.file("set.yaml", SET);
    assert_eq!(
        c.ok(&format!("apply --server-side -f {file}")).await,
        "statefulset.apps/web serverside-applied"
    );
    c.ok("scale sts web -n demo --replicas=5").await;
    let conflict = c.fails(&format!("apply --server-side -f {file}")).await;
    assert!(
        conflict.contains("Apply failed with 1 conflict: conflict with \"kubectl\""),
        "{conflict}"
    );
    assert!(conflict.contains(": .spec.replicas"), "{conflict}");
    c.ok(&format!("apply --server-side -f {file} --force-conflicts")).await;
    assert_eq!(c.ok("get sts web -n demo -o jsonpath={.spec.replicas}").await, "2");
    // Taking over from a client-side apply: what that alone had owned goes as well.
    c.ok("delete sts web -n demo").await;
    c.apply(SET).await;
    c.ok(&format!("apply --server-side -f {file}")).await;
    // A field that its only owner no longer applies goes.
    let file = c.file("less.yaml", &SET.replace("        env: [{name: A, value: b}]\n", ""));
    c.ok(&format!("apply --server-side -f {file}")).await;
    let env = c.ok("get sts web -n demo -o jsonpath={.spec.template.spec.containers[0].env}").await;
    assert_eq!(env, "");
    let ports =
        c.ok("get sts web -n demo -o jsonpath={.spec.template.spec.containers[0].ports}").await;
    assert_eq!(ports, r#"[{"containerPort":80,"protocol":"TCP"}]"#);
}
