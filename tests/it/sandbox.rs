//! The sandbox's node and workload controllers, by small shell programs in real pods.

use std::process::{Command, Stdio};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::fixture::{EXECUTABLE, Folder, MAJOR, Process, World, condition, is_alive, until};

fn merge(object: &mut Value, changes: &Value) {
    if changes.is_object() {
        json_patch::merge(object, changes);
    }
}

/// A StatefulSet `app` whose pods run `script`, with a volume at /data.
fn set(replicas: u32, script: &str, changes: Value) -> Value {
    let mut container = json!({
        "name": "main", "image": "pgitops:test", "command": ["sh", "-c", script],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    });
    merge(&mut container, &changes["container"]);
    let mut pod = json!({"containers": [container], "terminationGracePeriodSeconds": 10});
    merge(&mut pod, &changes["pod"]);
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "app"},
        "spec": {
            "replicas": replicas, "serviceName": "app", "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": "app"}},
            "updateStrategy": {"type": "OnDelete"},
            "template": {"metadata": {"labels": {"app": "app"}}, "spec": pod},
            "volumeClaimTemplates": [{
                "metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"],
                         "resources": {"requests": {"storage": "1Gi"}}},
            }],
        },
    })
}

/// A pod `app` that runs `script`.
fn pod(script: &str, changes: Value) -> Value {
    let mut container =
        json!({"name": "main", "image": "pgitops:test", "command": ["sh", "-c", script]});
    merge(&mut container, &changes["container"]);
    let mut spec = json!({"containers": [container], "terminationGracePeriodSeconds": 5});
    merge(&mut spec, &changes["pod"]);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app"}, "spec": spec})
}

/// Waits in a way that SIGTERM ends at once.
const WAIT: &str = "while :; do sleep 0.05; done";

fn restarts(pod: &Pod) -> i32 {
    pod.status
        .iter()
        .flat_map(|s| s.container_statuses.iter().flatten())
        .map(|c| c.restart_count)
        .sum()
}

fn state(pod: &Pod) -> Value {
    let status = serde_json::to_value(pod).unwrap()["status"].clone();
    let list = if status["initContainerStatuses"][0]["ready"] == json!(false) {
        "initContainerStatuses"
    } else {
        "containerStatuses"
    };
    status[list][0].clone()
}

fn address(pod: &Pod) -> String {
    pod.status.as_ref().unwrap().pod_ip.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_comes_up_and_a_deleted_pod_returns_with_its_name_volume_and_address() {
    let world = World::start().await;
    let script = format!("echo $POD_NAME on $POD_IP >> /data/starts; cat /data/starts; {WAIT}");
    let field = |f: &str| json!({"fieldRef": {"fieldPath": f}});
    world.apply(&set(
        2,
        &script,
        json!({"container": {
            "env": [{"name": "POD_NAME", "valueFrom": field("metadata.name")},
                    {"name": "POD_IP", "valueFrom": field("status.podIP")}],
            "readinessProbe": {"exec": {"command": ["test", "-s", "/data/starts"]}},
        }}),
    ));
    let (first, other) = (world.ready("app-0").await, world.ready("app-1").await);
    assert_ne!(address(&first), address(&other));
    let line = format!("app-0 on {}\n", address(&first));
    assert_eq!(world.logged("app-0", "on").await, line);

    world.kubectl(&["delete", "pod", "app-0"]);
    let again = world.ready("app-0").await;
    assert_ne!(again.uid(), first.uid());
    assert_eq!(address(&again), address(&first));
    assert_eq!(world.logged("app-0", "on").await, format!("{line}{line}"));
    let status = world.kubectl(&["get", "statefulset", "app", "-o", "jsonpath={.status}"]);
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["replicas"], 2);
    assert_eq!(status["currentRevision"], status["updateRevision"]);

    world.kubectl(&["scale", "statefulset/app", "--replicas=1"]);
    world.kubectl(&["wait", "--for=delete", "pod/app-1", "--timeout=60s"]);
    let claims = world.kubectl(&["get", "pvc", "-o", "name"]);
    assert_eq!(claims.lines().count(), 2, "a claim outlives its pod: {claims}");
    // A claim waits for its pod, and what it held is gone with it.
    world.kubectl(&["delete", "pvc", "data-app-0", "--wait=false"]);
    world.kubectl(&["delete", "pod", "app-0"]);
    let fresh = world.ready("app-0").await;
    assert_eq!(world.logged("app-0", "on").await, format!("app-0 on {}\n", address(&fresh)));

    world.kubectl(&["delete", "statefulset", "app", "--wait=false"]);
    world.kubectl(&["wait", "--for=delete", "pod/app-0", "--timeout=60s"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pet_set_runs_as_a_stateful_set_does() {
    let world = World::start_with(|options| options.pet_sets = true).await;
    let mut object = set(2, &format!("echo $HOSTNAME >> /data/starts; {WAIT}"), json!({}));
    object["apiVersion"] = json!("apps.k8s.appscode.com/v1");
    object["kind"] = json!("PetSet");
    object["spec"]["podPlacementPolicy"] = json!({"name": "default"});
    world.apply(&object);
    let first = world.ready("app-0").await;
    world.ready("app-1").await;
    world.kubectl(&["delete", "pod", "app-0"]);
    let again = world.ready("app-0").await;
    assert_ne!(again.uid(), first.uid());
    assert_eq!(address(&again), address(&first));
    let counted = || async {
        let status = world.kubectl(&["get", "petset", "app", "-o", "jsonpath={.status}"]);
        let status: Value = serde_json::from_str(&status).unwrap();
        if status["readyReplicas"] == 2 { Ok(()) } else { Err(status.to_string()) }
    };
    until("both are counted", counted).await;
    world.kubectl(&["scale", "petset/app", "--replicas=1"]);
    world.kubectl(&["wait", "--for=delete", "pod/app-1", "--timeout=60s"]);

    // What no PetSet has is refused like everywhere.
    object["spec"]["replicaz"] = json!(1);
    let refused = world.try_kubectl(&["apply", "-f", "-"], Some(&object)).unwrap_err();
    assert!(refused.contains("unknown field \"spec.replicaz\""), "{refused}");
    world.kubectl(&["delete", "petset", "app", "--wait=false"]);
    world.kubectl(&["wait", "--for=delete", "pod/app-0", "--timeout=60s"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordered_set_goes_one_by_one_and_rolls_an_update() {
    let world = World::start().await;
    let mut object = set(2, &format!("echo one; {WAIT}"), json!({}));
    object["spec"]["podManagementPolicy"] = json!("OrderedReady");
    object["spec"]["updateStrategy"] = json!({"type": "RollingUpdate"});
    world.apply(&object);
    let first = world.ready("app-0").await;
    let second = world.ready("app-1").await;
    assert!(first.creation_timestamp() <= second.creation_timestamp());
    object["spec"]["template"]["spec"]["containers"][0]["command"][2] =
        json!(format!("echo two; {WAIT}"));
    world.apply(&object);
    world.kubectl(&["rollout", "status", "statefulset/app", "--timeout=60s"]);
    world.logged("app-0", "two").await;
    world.logged("app-1", "two").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn environment_and_paths_are_those_of_the_pod() {
    let world = World::start().await;
    world.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
                        "stringData": {"word": "secret /etc/config"}}));
    world.apply(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"},
                        "data": {"user.conf": "work_mem = '1MB'\n"}}));
    let script = "env; cat /etc/config/user.conf; id -un; ls /run/empty; pwd; command -v pgitops; \
                  stat -c %a /etc/config/user.conf -L; sleep 1000";
    world.apply(&pod(
        script,
        json!({
            "container": {
                "workingDir": "/run/empty",
                "args": ["unused $(NAME)"],
                "env": [
                    {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "word"}}},
                    {"name": "CONF", "value": "/etc/config/user.conf:$(NAME)"},
                    {"name": "LISTEN", "value": "0.0.0.0:80"},
                ],
                "volumeMounts": [{"name": "conf", "mountPath": "/etc/config"},
                                 {"name": "empty", "mountPath": "/run/empty"}],
            },
            "pod": {"volumes": [
                {"name": "conf", "projected": {"defaultMode": 288, "sources": [
                    {"configMap": {"name": "m"}}]}},
                {"name": "empty", "emptyDir": {"medium": "Memory"}}]},
        }),
    ));
    let log = world.logged("app", "440").await;
    let seen = world.ready("app").await;
    for line in [
        "NAME=app",
        "HOSTNAME=app",
        "NODE=sandbox",
        &format!("IP={}", address(&seen)),
        &format!("LISTEN={}:80", address(&seen)),
        "WORD=secret /etc/config",
        "work_mem = '1MB'",
    ] {
        assert!(log.lines().any(|l| l == line), "no line {line:?} in\n{log}");
    }
    assert!(log.lines().any(|l| l.starts_with("CONF=/") && l.ends_with("/user.conf:app")), "{log}");
    assert!(!log.contains("root"), "pods do not run as root:\n{log}");
    assert!(log.contains("/bin/pgitops"), "our own image has our executable:\n{log}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_reaches_the_running_pod() {
    let world = World::start().await;
    let secret = |word: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
               "stringData": {"word": word}})
    };
    // The pod is there before its Secret, and waits.
    world.apply(&pod(
        "while :; do cat /etc/s/word; echo; sleep 0.1; done",
        json!({
            "container": {"volumeMounts": [{"name": "s", "mountPath": "/etc/s"}]},
            "pod": {"volumes": [{"name": "s", "secret": {"secretName": "s"}}]},
        }),
    ));
    let event = || async {
        let events = world.kubectl(&["get", "events"]);
        if events.contains("secret \"s\" not found") { Ok(()) } else { Err(events) }
    };
    until("the missing secret is told", event).await;
    world.apply(&secret("first"));
    world.logged("app", "first").await;
    world.apply(&secret("second"));
    world.logged("app", "second").await;
    assert_eq!(restarts(&world.ready("app").await), 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_decide_about_readiness_and_restarts() {
    let world = World::start().await;
    let server = r#"
        if [ -e /data/second ]; then echo healthy again; else touch /data/second; (sleep 1; touch /data/sick) & fi
        exec perl -MIO::Socket::INET -e '
            my $s = IO::Socket::INET->new(LocalAddr => $ENV{IP}, LocalPort => 8080, Listen => 5, ReuseAddr => 1) or die "listen: $!";
            while (my $c = $s->accept) {
                my $line = <$c> // "";
                print $c ($line =~ m{GET /ok } ? "HTTP/1.1 200 OK\r\n\r\n" : "HTTP/1.1 503 No\r\n\r\n");
                close $c;
            }'
    "#;
    world.apply(&set(1, server, json!({
        "container": {
            "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "ports": [{"name": "web", "containerPort": 8080}],
            "startupProbe": {"tcpSocket": {"port": "web"}, "periodSeconds": 1, "failureThreshold": 30},
            "readinessProbe": {"httpGet": {"path": "/ok", "port": 8080}, "periodSeconds": 1},
            "livenessProbe": {"exec": {"command": ["sh", "-c", "test ! -e /data/sick || { rm /data/sick; echo it is sick; exit 1; }"]},
                              "periodSeconds": 1, "failureThreshold": 1},
        },
    })));
    world.ready("app-0").await;
    let again = world.pod_until("app-0", "was restarted", |pod| restarts(pod) == 1).await;
    let last = state(&again)["lastState"]["terminated"].clone();
    assert_eq!(last["exitCode"], 143, "ended by SIGTERM: {last}");
    world.ready("app-0").await;
    world.logged("app-0", "healthy again").await;
    let before = world.kubectl(&["logs", "app-0", "--previous"]);
    assert!(!before.contains("healthy again"), "{before}");
    let events = world.kubectl(&["get", "events"]);
    assert!(events.contains("Liveness probe failed: it is sick"), "{events}");

    world.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "never"}, "spec": {
        "containers": [{"name": "c", "image": "pgitops:test", "command": ["sleep", "1000"],
            "readinessProbe": {"exec": {"command": ["sh", "-c", "echo not yet; false"]}, "periodSeconds": 1}}]}}));
    let running = |pod: &Pod| state(pod)["state"]["running"].is_object();
    let never = world.pod_until("never", "runs", running).await;
    assert_eq!(condition(&never, "Ready"), Some("False"));
    let told = || async {
        let events = world.kubectl(&["describe", "pod", "never"]);
        if events.contains("Readiness probe failed: not yet") { Ok(()) } else { Err(events) }
    };
    until("the failing probe is told", told).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_fails_is_restarted_and_backs_off() {
    let world = World::start().await;
    world.apply(&pod("echo broken; exit 3", json!({})));
    let backing_off = |pod: &Pod| {
        restarts(pod) >= 2 && state(pod)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    };
    let pod = world.pod_until("app", "backs off", backing_off).await;
    assert_eq!(state(&pod)["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(pod.status.unwrap().phase.as_deref(), Some("Running"));
    let text = world.kubectl(&["get", "pod", "app"]);
    assert!(text.contains("CrashLoopBackOff") || text.contains("Error"), "{text}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn init_containers_run_first_and_their_failure_holds_the_pod() {
    let world = World::start().await;
    let mounts = json!([{"name": "shared", "mountPath": "/shared"}]);
    let init = |script: &str| {
        json!([{"name": "first", "image": "pgitops:test", "volumeMounts": mounts,
                "command": ["sh", "-c", script]}])
    };
    let copied = |script: &str, changes: Value| {
        let mut object = pod(
            "ls -l /shared/pgitops; /shared/pgitops --version; sleep 1000",
            json!({
                "container": {"volumeMounts": mounts},
                "pod": {"initContainers": init(script), "volumes": [{"name": "shared", "emptyDir": {}}]},
            }),
        );
        json_patch::merge(&mut object, &changes);
        object
    };
    world.apply(&copied("cp /pgitops /shared/pgitops", json!({})));
    world.logged("app", "pgitops 0.").await;

    world.apply(&copied("exit 4", json!({"metadata": {"name": "stuck"}})));
    let failing = |pod: &Pod| state(pod)["lastState"]["terminated"]["exitCode"] == 4;
    let stuck = world.pod_until("stuck", "failed in its init container", failing).await;
    assert_eq!(condition(&stuck, "Initialized"), Some("False"));
    assert_eq!(stuck.status.unwrap().phase.as_deref(), Some("Pending"));

    let never = json!({"metadata": {"name": "never"}, "spec": {"restartPolicy": "Never"}});
    world.apply(&copied("exit 5", never));
    let failed = |pod: &Pod| pod.status.as_ref().unwrap().phase.as_deref() == Some("Failed");
    world.pod_until("never", "failed", failed).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_there_says_what_is() {
    let world = World::start().await;
    let image = |name: &str, image: &str| {
        let mut object = pod("true", json!({"container": {"image": image}}));
        object["metadata"]["name"] = json!(name);
        object
    };
    world.apply(&image("major", "postgres:9"));
    world.apply(&image("foreign", "nginx"));
    let refused = |pod: &Pod| {
        let reason = state(pod)["state"]["waiting"]["reason"].clone();
        reason == "ErrImagePull" || reason == "ImagePullBackOff"
    };
    let words = |pod: &Pod| state(pod)["state"]["waiting"]["message"].to_string();
    let major = world.pod_until("major", "is refused", refused).await;
    assert!(words(&major).contains("PostgreSQL 9 is not installed"), "{}", words(&major));
    assert!(words(&major).contains(MAJOR.as_str()), "says what is there: {}", words(&major));
    let foreign = world.pod_until("foreign", "is refused", refused).await;
    assert!(words(&foreign).contains("not known to the sandbox"), "{}", words(&foreign));
    let told = || async {
        let events = world.kubectl(&["get", "events"]);
        if events.contains("Failed to pull image \"nginx\"") { Ok(()) } else { Err(events) }
    };
    until("the refusal is told", told).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_asked_to_stop_before_it_is_killed() {
    let world = World::start().await;
    let script = format!(
        "cat /data/last 2>/dev/null; trap 'echo asked > /data/last; exit 0' TERM; echo up; {WAIT}"
    );
    world.apply(&set(
        1,
        &script,
        json!({"container": {"lifecycle": {
        "preStop": {"exec": {"command": ["sh", "-c", "echo hook >> /data/hooks"]}}}}}),
    ));
    world.logged("app-0", "up").await;
    world.kubectl(&["delete", "pod", "app-0"]);
    world.logged("app-0", "asked\nup").await;

    let stubborn = "trap '' TERM; echo up; while :; do sleep 0.05; done";
    let mut object = pod(stubborn, json!({"pod": {"terminationGracePeriodSeconds": 1}}));
    object["metadata"]["name"] = json!("stubborn");
    world.apply(&object);
    world.logged("stubborn", "up").await;
    world.kubectl(&["delete", "pod", "stubborn"]);
    assert!(world.try_kubectl(&["get", "pod", "stubborn"], None).is_err());

    // Removed by force: the object is gone at once, and soon so is the process.
    let mut object = pod("echo pid $$$$; sleep 1000", json!({}));
    object["metadata"]["name"] = json!("forced");
    world.apply(&object);
    let pid = pid_in(&world.logged("forced", "pid").await, "pid");
    assert!(is_alive(pid));
    world.kubectl(&["delete", "pod", "forced", "--force", "--grace-period=0"]);
    gone(&[pid]).await;
    world.stop().await;
}

/// `<word> 123` in a log → 123.
fn pid_in(log: &str, word: &str) -> i32 {
    let line = log.lines().find_map(|line| line.strip_prefix(word)).unwrap();
    line.trim().parse().unwrap()
}

async fn gone(pids: &[i32]) {
    let look = || async {
        let left: Vec<&i32> = pids.iter().filter(|pid| is_alive(**pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} run")) }
    };
    until("the processes are gone", look).await;
}

/// Says its own pid and that of a child in a session of its own, which a mere signal to the
/// process group does not reach. (`$$` is Kubernetes' way to write one `$`.)
const FAMILY: &str =
    "setsid sh -c 'echo child $$$$; exec sleep 1000' & echo main $$$$; wait; sleep 1000";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_behind_and_a_kept_folder_is_taken_up_again() {
    let world = World::start().await;
    world.apply(&set(
        1,
        &format!("echo x >> /data/starts; wc -l < /data/starts; {FAMILY}"),
        json!({}),
    ));
    let log = world.logged("app-0", "child").await;
    let log = if log.contains("main") { log } else { world.logged("app-0", "main").await };
    let pids = [pid_in(&log, "main"), pid_in(&log, "child")];
    let before = world.ready("app-0").await;
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    let folder = world.stop().await;
    assert!(!pids.iter().any(|pid| is_alive(*pid)), "shutdown waits until nothing runs");

    let world = World::start_in(folder, |_| {}).await;
    let after = world.pod_until("app-0", "was restarted", |pod| restarts(pod) == 1).await;
    assert_eq!(after.uid(), before.uid());
    assert_eq!(address(&after), address(&before));
    world.logged("app-0", "2\n").await;
    world.ready("app-0").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_first_process_is_killed_leaves_nothing() {
    let world = World::start().await;
    world.apply(&pod(FAMILY, json!({})));
    let log = world.logged("app", "child").await;
    let log = if log.contains("main") { log } else { world.logged("app", "main").await };
    let pids = [pid_in(&log, "main"), pid_in(&log, "child")];
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pids[0])).unwrap();
    let init: i32 =
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap();
    let init = nix::unistd::Pid::from_raw(init);
    nix::sys::signal::kill(init, nix::sys::signal::Signal::SIGKILL).unwrap();
    gone(&pids).await;
    world.pod_until("app", "was restarted", |pod| restarts(pod) == 1).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_serves_at_its_address_even_from_a_closed_folder() {
    use std::os::unix::fs::PermissionsExt as _;
    let major = *crate::postgres::bin_dirs().last_key_value().unwrap().0;
    let folder = Folder::new();
    // As below /root: the pods' user cannot pass.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let world = World::start_in(folder, |_| {}).await;
    let script = "[ -e $PGDATA ] || initdb -U postgres -A trust --no-sync >/dev/null; \
                  echo 'host all all all trust' >> $PGDATA/pg_hba.conf; \
                  exec postgres -c listen_addresses=$(IP) -c unix_socket_directories=/run/pg -c fsync=off";
    world.apply(&set(
        1,
        script,
        json!({
            "container": {
                "image": format!("docker.io/library/postgres:{major}-bookworm"),
                "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                        {"name": "PGDATA", "value": "/data/pg"}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"},
                                 {"name": "run", "mountPath": "/run/pg"}],
                "readinessProbe": {"exec": {"command": ["pg_isready", "-h", "/run/pg"]}},
            },
            "pod": {"volumes": [{"name": "run", "emptyDir": {}}]},
        }),
    ));
    let query = async |world: &World, sql: &str| {
        let pod = world.ready("app-0").await;
        let mut config = tokio_postgres::Config::new();
        config.host(address(&pod)).user("postgres").dbname("postgres");
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let row = client.query_one(sql, &[]).await;
        row.map(|row| row.get::<_, String>(0)).unwrap_or_default()
    };
    let version = query(&world, "SHOW server_version").await;
    assert!(version.starts_with(&major.to_string()), "{version}");
    query(&world, "CREATE TABLE kept AS SELECT 'yes'::text AS word").await;
    let folder = world.stop().await;
    let world = World::start_in(folder, |_| {}).await;
    world.pod_until("app-0", "was restarted", |pod| restarts(pod) == 1).await;
    assert_eq!(query(&world, "SELECT word FROM kept").await, "yes");
    let folder = world.stop().await;
    let claims = folder.path().join("s/node/claims");
    std::fs::remove_dir_all(claims.canonicalize().unwrap().parent().unwrap()).unwrap();
}

/// Starts a sandbox as a process of its own, up to the line `ready`.
fn process(folder: &Folder) -> Process {
    use std::io::{BufRead as _, BufReader};
    let mut child = Command::new(EXECUTABLE)
        .args(["sandbox", "--no-controller", "--directory"])
        .arg(folder.path().join("s"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let process = Process(child);
    assert!(lines.any(|line| line.unwrap() == "ready"), "the sandbox ended before it was ready");
    process
}

async fn family(folder: &Folder) -> [i32; 2] {
    let kubeconfig = folder.path().join("s/kubeconfig");
    let look = || async {
        let log = crate::fixture::kubectl(&kubeconfig, &["logs", "app"], None)?;
        if log.contains("main") && log.contains("child") {
            Ok([pid_in(&log, "main"), pid_in(&log, "child")])
        } else {
            Err(log)
        }
    };
    until("the pod tells its pids", look).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_ends_everything_however_it_ends() {
    let folder = Folder::new();
    let kubeconfig = folder.path().join("s/kubeconfig");
    let mut first = process(&folder);
    let object = pod(FAMILY, json!({}));
    crate::fixture::kubectl(&kubeconfig, &["apply", "-f", "-"], Some(&object)).unwrap();
    let repository = ["get", "configrepository", "config", "-o", "jsonpath={.spec.url}"];
    let url = crate::fixture::kubectl(&kubeconfig, &repository, None).unwrap();
    assert!(url.ends_with("/s/config.git"), "{url}");
    let pids = family(&folder).await;
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    gone(&pids).await;

    let mut second = process(&folder);
    let again = || async {
        let pids = family(&folder).await;
        if pids.iter().all(|pid| is_alive(*pid)) { Ok(pids) } else { Err("not yet".to_owned()) }
    };
    let pids = until("the pod runs again", again).await;
    let pid = nix::unistd::Pid::from_raw(second.0.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let status = tokio::task::spawn_blocking(move || second.0.wait().unwrap()).await.unwrap();
    assert!(status.success(), "{status}");
    assert!(!pids.iter().any(|pid| is_alive(*pid)), "nothing runs when it has ended");
}
