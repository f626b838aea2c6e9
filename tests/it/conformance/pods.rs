//! Pods as processes of the sandbox's node, and StatefulSets over them: the node is the same on
//! both sides, the API server and the controllers are not.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{Cluster, eventually};

/// A pod whose only container runs a script.
fn pod(name: &str, script: &str, changes: &Value) -> Pod {
    let mut object = json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "containers": [{"name": "c", "image": "pgitops:test", "command": ["sh", "-c", script]}],
        },
    });
    json_patch::merge(&mut object["spec"], changes);
    serde_json::from_value(object).unwrap()
}

/// Waits without an end, and ends at once when asked to.
const WAIT: &str = "trap 'echo asked; exit 0' TERM; while :; do sleep 0.05; done";

async fn until_pod(c: &Cluster, name: &str, what: &str, wanted: impl Fn(&Pod) -> bool) -> Pod {
    let pods: Api<Pod> = c.api();
    eventually(&format!("{name} {what}"), || async {
        match pods.get_opt(name).await.unwrap() {
            Some(pod) if wanted(&pod) => Ok(pod),
            other => Err(format!("{:#}", json!(other)["status"])),
        }
    })
    .await
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

async fn until_logged(c: &Cluster, name: &str, text: &str) -> String {
    eventually(&format!("{name} logs {text:?}"), || async {
        let log = c.run(&format!("logs {name}")).await?;
        if log.contains(text) { Ok(log) } else { Err(log) }
    })
    .await
}

pub async fn a_pod_runs_is_logged_and_ends(c: &Cluster) {
    let pods: Api<Pod> = c.api();
    let pp = PostParams::default();
    let script = format!("echo first; echo second; echo third; {WAIT}");
    pods.create(&pp, &pod("one", &script, &json!({}))).await.unwrap();
    let met = "pod/one condition met";
    assert_eq!(c.ok("wait --for=condition=Ready pod/one --timeout=60s").await, met);
    let one = until_pod(c, "one", "has an address", |p| address(p).is_some()).await;
    assert_eq!(one.status.as_ref().unwrap().phase.as_deref(), Some("Running"));
    let rows = c.table("get pods -o wide").await;
    assert_eq!(rows[0], "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES");
    assert!(rows[1].starts_with("one 1/1 Running 0 "), "{rows:?}");
    let end = format!(" {} sandbox <none> <none>", address(&one).unwrap());
    assert!(rows[1].ends_with(&end), "{rows:?}");
    let told = c.table("describe pod one").await;
    assert!(told.contains(&format!("IP: {}", address(&one).unwrap())), "{told:?}");
    let running = c.table("get pods --field-selector status.phase=Running -o name").await;
    assert_eq!(running, ["pod/one"]);
    assert_eq!(c.table("get pods -l app!=one -o name").await, [""; 0]);
    eventually("its events", || async {
        let events = c.run("events --for pod/one").await?;
        let all = ["Scheduled", "Started"].iter().all(|reason| events.contains(reason));
        if all { Ok(()) } else { Err(events) }
    })
    .await;

    until_logged(c, "one", "third").await;
    assert_eq!(c.ok("logs one").await, "first\nsecond\nthird");
    assert_eq!(c.ok("logs one --tail=2 -c c").await, "second\nthird");
    assert!(c.fails("logs one -c other").await.contains("container other is not valid"));
    assert!(c.fails("logs none").await.contains("pods \"none\" not found"));
    let absent = json!({"containers": [{"name": "c", "image": "nginx:1"}]});
    pods.create(&pp, &pod("never", "", &absent)).await.unwrap();
    until_pod(c, "never", "is refused its image", |p| json!(p.status).to_string().contains("Pull"))
        .await;
    let early = c.fails("logs never").await;
    assert!(early.contains("\"c\" in pod \"never\" is waiting to start"), "{early}");

    let mut follow = c.spawn("logs -f one --tail=1");
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "third");
    assert_eq!(c.deleted("pod one --wait=false").await, "pod \"one\" deleted");
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "asked");
    assert_eq!(lines.next_line().await.unwrap(), None);
    eventually("one is gone", || async {
        match pods.get_opt("one").await.unwrap() {
            None => Ok(()),
            Some(pod) => Err(format!("{:#}", json!(pod.status))),
        }
    })
    .await;

    pods_that_end(c).await;
    // A pod whose node never hears of it any more is removed by force.
    pods.delete("never", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert!(pods.get_opt("never").await.unwrap().is_none());
}

async fn pods_that_end(c: &Cluster) {
    let (pods, pp): (Api<Pod>, _) = (c.api(), PostParams::default());
    let once = json!({"restartPolicy": "Never"});
    pods.create(&pp, &pod("failing", "exit 3", &once)).await.unwrap();
    pods.create(&pp, &pod("fine", "exit 0", &once)).await.unwrap();
    for (name, phase) in [("failing", "Failed"), ("fine", "Succeeded")] {
        let line = format!("wait --for=jsonpath={{.status.phase}}={phase} pod/{name}");
        assert_eq!(c.ok(&line).await, format!("pod/{name} condition met"));
    }
    let code = "{.status.containerStatuses[0].state.terminated.exitCode}";
    assert_eq!(c.ok(&format!("get pod failing -o jsonpath={code}")).await, "3");
    // The run before has a log of its own.
    let script =
        format!("[ -e /s/x ] && echo again || {{ touch /s/x; echo first; exit 1; }}; {WAIT}");
    let volumes = json!({"volumes": [{"name": "s", "emptyDir": {}}], "containers": [{
        "name": "c", "image": "pgitops:test", "command": ["sh", "-c", script],
        "volumeMounts": [{"name": "s", "mountPath": "/s"}]}]});
    pods.create(&pp, &pod("twice", "", &volumes)).await.unwrap();
    until_logged(c, "twice", "again").await;
    assert_eq!(c.ok("logs twice --previous").await, "first");
    let count = "{.status.containerStatuses[0].restartCount}=1";
    let met = c.ok(&format!("wait --for=jsonpath={count} pod/twice")).await;
    assert_eq!(met, "pod/twice condition met");
}

fn address(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref()
}

/// A set whose pods count their starts on their volumes.
fn set(value: &str) -> StatefulSet {
    let script = format!("echo x >> /data/starts; echo run $(wc -l < /data/starts) $VALUE; {WAIT}");
    serde_json::from_value(json!({
        "metadata": {"name": "app"},
        "spec": {
            "replicas": 2, "serviceName": "app", "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "selector": {"matchLabels": {"app": "app"}},
            "template": {
                "metadata": {"labels": {"app": "app"}},
                "spec": {"terminationGracePeriodSeconds": 5, "containers": [{
                    "name": "c", "image": "pgitops:test", "command": ["sh", "-c", script],
                    "env": [{"name": "VALUE", "value": value}],
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                }]},
            },
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}}],
        },
    }))
    .unwrap()
}

async fn until_status(c: &Cluster, what: &str, wanted: impl Fn(&StatefulSet) -> bool) {
    let sets: Api<StatefulSet> = c.api();
    eventually(what, || async {
        let set = sets.get("app").await.unwrap();
        let status = set.status.clone().unwrap_or_default();
        let current = status.observed_generation == set.metadata.generation;
        if current && wanted(&set) { Ok(()) } else { Err(format!("{:#}", json!(status))) }
    })
    .await;
}

async fn uids(c: &Cluster) -> BTreeMap<String, Option<String>> {
    let pods: Api<Pod> = c.api();
    let all = pods.list(&ListParams::default().labels("app=app")).await.unwrap();
    all.items.into_iter().map(|p| (p.name_any(), p.metadata.uid)).collect()
}

pub async fn a_set_replaces_pods_only_when_they_are_deleted(c: &Cluster) {
    let sets: Api<StatefulSet> = c.api();
    sets.create(&PostParams::default(), &set("one")).await.unwrap();
    for name in ["app-0", "app-1"] {
        until_pod(c, name, "is Ready", is_ready).await;
        until_logged(c, name, "run 1 one").await;
    }
    let number = |set: &StatefulSet, field: &str| json!(set.status)[field].as_i64();
    until_status(c, "both are ready", |set| number(set, "readyReplicas") == Some(2)).await;
    let rows = c.table("get sts app").await;
    assert!(rows[1].starts_with("app 2/2 "), "{rows:?}");
    let pods: Api<Pod> = c.api();
    let zero = pods.get("app-0").await.unwrap();
    let label = |pod: &Pod, name: &str| pod.labels().get(name).cloned().unwrap_or_default();
    assert_eq!(label(&zero, "statefulset.kubernetes.io/pod-name"), "app-0");
    assert_eq!(label(&zero, "apps.kubernetes.io/pod-index"), "0");
    let revision = label(&zero, "controller-revision-hash");
    assert!(revision.starts_with("app-"), "{revision}");
    let owner = &zero.owner_references()[0];
    assert_eq!((owner.kind.as_str(), owner.controller), ("StatefulSet", Some(true)));
    let claims: Api<PersistentVolumeClaim> = c.api();
    let claim = claims.get("data-app-0").await.unwrap();
    assert_eq!(claim.status.unwrap().phase.as_deref(), Some("Bound"));

    let before = uids(c).await;
    let env = json!([{"name": "VALUE", "value": "two"}]);
    let change =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "env": env}]}}}});
    sets.patch("app", &PatchParams::default(), &Patch::Strategic(&change)).await.unwrap();
    until_status(c, "there is a new revision", |set| {
        let status = set.status.as_ref().unwrap();
        status.update_revision.as_ref().is_some_and(|r| *r != revision)
            && status.current_revision.as_ref() == Some(&revision)
    })
    .await;
    assert_eq!(uids(c).await, before, "nothing is replaced by itself");

    pods.delete("app-1", &DeleteParams::default()).await.unwrap();
    until_logged(c, "app-1", "run 2 two").await;
    let one = until_pod(c, "app-1", "is Ready", is_ready).await;
    assert_ne!(label(&one, "controller-revision-hash"), revision);
    assert_eq!(uids(c).await["app-0"], before["app-0"]);
    until_status(c, "one is updated", |set| number(set, "updatedReplicas") == Some(1)).await;
    pods.delete("app-0", &DeleteParams::default()).await.unwrap();
    until_logged(c, "app-0", "run 2 two").await;
    until_status(c, "both are updated", |set| number(set, "updatedReplicas") == Some(2)).await;
    scaled_down_and_deleted(c).await;
}

async fn scaled_down_and_deleted(c: &Cluster) {
    c.ok("scale sts app --replicas=1").await;
    let pods: Api<Pod> = c.api();
    let names = || async { uids(c).await.into_keys().collect::<Vec<_>>().join(" ") };
    eventually("the second pod is gone", || async {
        let names = names().await;
        if names == "app-0" { Ok(()) } else { Err(names) }
    })
    .await;
    c.ok("scale sts app --replicas=2").await;
    until_logged(c, "app-1", "run 3 two").await;
    c.ok("delete sts app").await;
    eventually("all pods are gone", || async {
        let left = pods.list(&ListParams::default()).await.unwrap().items.len();
        if left == 0 { Ok(()) } else { Err(format!("{left} left")) }
    })
    .await;
    let claims: Api<PersistentVolumeClaim> = c.api();
    let left = claims.list(&ListParams::default()).await.unwrap().items;
    let left: Vec<String> = left.iter().map(ResourceExt::name_any).collect();
    assert_eq!(left, ["data-app-0", "data-app-1"], "volumes outlive the set");
    claims.delete("data-app-0", &DeleteParams::default()).await.unwrap();
    eventually("the claim is gone", || async {
        match claims.get_opt("data-app-0").await.unwrap() {
            None => Ok(()),
            Some(claim) => Err(format!("{:#}", json!(claim.metadata))),
        }
    })
    .await;
}

pub async fn volumes_follow_their_objects(c: &Cluster) {
    let secrets: Api<Secret> = c.api();
    let pods: Api<Pod> = c.api();
    let pp = PostParams::default();
    let waiting = json!({
        "volumes": [{"name": "s", "projected": {"sources": [
            {"secret": {"name": "s", "items": [{"key": "user.conf", "path": "conf"}]}},
            {"downwardAPI": {"items": [{"path": "name",
                                        "fieldRef": {"fieldPath": "metadata.name"}}]}}]}}],
        "containers": [{"name": "c", "image": "pgitops:test",
            "env": [{"name": "FROM", "valueFrom": {"secretKeyRef": {"name": "s", "key": "user.conf"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "volumeMounts": [{"name": "s", "mountPath": "/conf"}],
            "command": ["sh", "-c", "trap 'exit 0' TERM; echo $FROM of $(cat /conf/name) at $IP; \
                                     while :; do n=$(cat /conf/conf); \
                                     [ \"$n\" = \"$o\" ] || echo now $n; o=$n; sleep 0.05; done"]}],
    });
    pods.create(&pp, &pod("app", "", &waiting)).await.unwrap();
    // Held until the Secret is there, and told so.
    eventually("it says what it waits for", || async {
        let events = c.run("events --for pod/app").await?;
        if events.contains("secret \"s\" not found") { Ok(()) } else { Err(events) }
    })
    .await;
    let object = json!({"metadata": {"name": "s"}, "stringData": {"user.conf": "one"}});
    secrets.create(&pp, &serde_json::from_value(object).unwrap()).await.unwrap();
    let app = until_pod(c, "app", "is Ready", is_ready).await;
    until_logged(c, "app", &format!("one of app at {}", address(&app).unwrap())).await;
    until_logged(c, "app", "now one").await;
    let change = json!({"stringData": {"user.conf": "two"}});
    secrets.patch("s", &PatchParams::default(), &Patch::Merge(&change)).await.unwrap();
    until_logged(c, "app", "now two").await;
}
