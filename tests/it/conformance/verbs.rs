//! The verbs of the real kubectl: what they print, and what they complain about.

use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::Cluster;

/// A StatefulSet that replaces pods only when they are deleted.
pub const SET: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
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

pub async fn objects_are_created_read_changed_and_deleted(c: &Cluster) {
    assert_eq!(c.apply(SET).await, "statefulset.apps/web created");
    assert_eq!(c.apply(SET).await, "statefulset.apps/web unchanged");
    let rows = c.table("get sts -o wide").await;
    assert_eq!(rows[0], "NAME READY AGE CONTAINERS IMAGES");
    assert!(rows[1].starts_with("web 0/2 ") && rows[1].ends_with(" c nginx:1.25"), "{rows:?}");
    assert_eq!(c.ok("label sts web x=y").await, "statefulset.apps/web labeled");
    assert_eq!(c.ok("annotate sts web x=y").await, "statefulset.apps/web annotated");
    assert_eq!(c.ok("scale sts web --replicas=5").await, "statefulset.apps/web scaled");
    let patch = r#"patch sts web -p {"spec":{"template":{"spec":{"containers":[{"name":"c","image":"nginx:2"}]}}}}"#;
    assert_eq!(c.ok(patch).await, "statefulset.apps/web patched");
    let shown = c
        .ok("get sts web -o jsonpath={.spec.replicas},{.metadata.generation},{.spec.template.spec.containers[0].image},{.spec.template.spec.containers[0].env[0].value},{.metadata.labels.x}")
        .await;
    assert_eq!(shown, "5,3,nginx:2,b,y");
    assert!(c.ok("get sts web -o json").await.contains(r#""podManagementPolicy": "OrderedReady""#));
    assert!(c.ok("get sts web -o yaml").await.contains("revisionHistoryLimit: 10"));
    let refused = c.fails(r#"patch sts web -p {"spec":{"serviceName":"other"}}"#).await;
    assert!(refused.contains("spec: Forbidden: updates to statefulset spec for fields other than"));
    assert!(c.ok("describe sts web").await.contains("Replicas:           5 desired | "));
    assert_eq!(c.deleted("sts web").await, "statefulset.apps \"web\" deleted");
    let gone = c.fails("get sts web").await;
    assert_eq!(gone, "Error from server (NotFound): statefulsets.apps \"web\" not found");
}

pub async fn create_commands_work(c: &Cluster) {
    for (line, created) in [
        ("secret generic s --from-literal=user.conf=work_mem=7MB", "secret/s"),
        ("configmap c --from-literal=a=b", "configmap/c"),
        ("serviceaccount a", "serviceaccount/a"),
        ("service clusterip web --tcp=80:8080", "service/web"),
        ("role r --verb=get --resource=pods", "role.rbac.authorization.k8s.io/r"),
        ("rolebinding b --role=r --serviceaccount=x:a", "rolebinding.rbac.authorization.k8s.io/b"),
        ("pdb p --selector=app=web --min-available=1", "poddisruptionbudget.policy/p"),
    ] {
        let out = c.ok(&format!("create {line}")).await;
        assert_eq!(out, format!("{created} created"));
    }
    let value = c.ok("get secret s -o jsonpath={.data.user\\.conf}").await;
    assert_eq!(value, "d29ya19tZW09N01C");
    let port = c.ok("get svc web -o jsonpath={.spec.ports[0].targetPort}").await;
    assert_eq!(port, "8080");
    let least = c.ok("get pdb p -o jsonpath={.spec.minAvailable}").await;
    assert_eq!(least, "1");
    let rule = c.ok("get role r -o jsonpath={.rules[0].resources[0]}").await;
    assert_eq!(rule, "pods");
    assert_eq!(c.ok("auth can-i delete pods").await, "yes");
}

pub async fn wrong_fields_are_refused_and_warned_about(c: &Cluster) {
    let wrong = c.file(
        "wrong.yaml",
        "
apiVersion: v1
kind: ConfigMap
metadata: {name: x}
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
    assert!(c.ok("explain sts.spec.replicas").await.contains("FIELD: replicas <integer>"));
}

pub async fn watches_print_rows_as_they_come(c: &Cluster) {
    c.ok("create secret generic first --from-literal=a=b").await;
    let mut watch = c.spawn("get secrets -w");
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = async || -> String {
        let line = lines.next_line().await.unwrap().unwrap();
        line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(next().await, "NAME TYPE DATA");
    assert_eq!(next().await, "first Opaque 1");
    c.ok("create secret generic second --from-literal=a=b --from-literal=c=d").await;
    assert_eq!(next().await, "second Opaque 2");
    c.ok(r#"patch secret first --type merge -p {"stringData":{"x":"y"}}"#).await;
    assert_eq!(next().await, "first Opaque 2");
    c.ok("delete secret first").await;
    assert_eq!(next().await, "first Opaque 2");
}
