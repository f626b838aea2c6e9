//! The controller as a whole: what it does before it can work, beside what it cannot read, and when
//! there is nothing to do.

use std::net::{SocketAddr, TcpListener};

use pgitops::cli::controller::{self, Loop, Settings};
use pgitops::cluster::Cluster;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fixture::{EXECUTABLE, MAJOR, World, until};

/// A controller with all its loops.
struct Controller {
    metrics: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
    _mirrors: tempfile::TempDir,
}

impl Controller {
    fn start(world: &World) -> Self {
        let mirrors = tempfile::tempdir().unwrap();
        // Free a moment ago; an address is not known before the endpoint is bound.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let metrics = free.local_addr().unwrap();
        drop(free);
        let settings = Settings {
            metrics_address: Some(metrics),
            ..Settings::sandbox(mirrors.path().to_owned())
        };
        let stop = CancellationToken::new();
        let cluster = Cluster::new(world.client());
        let work = controller::work(cluster, Loop::ALL.to_vec(), settings, stop.clone());
        Self { metrics, stop, task: tokio::spawn(work), _mirrors: mirrors }
    }

    /// What the endpoint answers: status and body.
    async fn get(&self, path: &str) -> Result<(u16, String), String> {
        let words = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect(self.metrics).await.map_err(words)?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.map_err(words)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map_err(words)?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        status.zip(body).ok_or(answer)
    }

    /// Waits until the endpoint answers so.
    async fn says(&self, path: &str, status: u16, words: &str) {
        until(&format!("{path} says {status} {words:?}"), || async {
            let (found, body) = self.get(path).await?;
            match found == status && body.contains(words) {
                true => Ok(()),
                false => Err(format!("{found} {body}")),
            }
        })
        .await;
    }

    /// A counter's value now; 0 before it was counted for the first time.
    async fn counted(&self, counter: &str) -> f64 {
        let (_, body) = self.get("/metrics").await.unwrap();
        let line = body.lines().find_map(|line| line.strip_prefix(counter));
        line.map_or(0.0, |rest| rest.trim().parse().unwrap())
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

fn database(name: &str, storage: &Value) -> Value {
    json!({
        "apiVersion": "kubedb.com/v1", "kind": "Postgres",
        "metadata": {"name": name, "namespace": "demo"},
        "spec": {
            "version": *MAJOR, "storage": storage,
            // 16 MB of shared buffers: other tests run on this machine.
            "podTemplate": {"spec": {"containers": [
                {"name": "postgres", "resources": {"limits": {"memory": "64Mi"}}}
            ]}},
        },
    })
}

fn one_gigabyte() -> Value {
    json!({"resources": {"requests": {"storage": "1Gi"}}})
}

/// Waits until `kubectl get` prints this for a JSON path.
async fn prints(world: &World, object: &str, path: &str, expected: &str) {
    until(&format!("{object}: {path} is {expected:?}"), || async {
        let output = format!("-o=jsonpath={{{path}}}");
        let found = world.try_kubectl(&["get", object, &output], None)?;
        if found.contains(expected) { Ok(()) } else { Err(found) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_cannot_be_read_hides_no_other() {
    let world = World::start().await;
    world.apply(&database("broken", &json!({"accessModes": "hunter2"})));
    world.apply(&database("fine", &one_gigabyte()));
    let controller = Controller::start(&world);
    let stalled = ".status.conditions[?(@.type=='Stalled')]";
    prints(&world, "pg/broken", &format!("{stalled}.reason"), "Unreadable").await;
    let said = world.kubectl(&["get", "pg/broken", "-o", "yaml"]);
    assert!(said.contains("spec.storage.accessModes has a form"), "{said}");
    let message = world.kubectl(&["get", "pg/broken", &format!("-o=jsonpath={{{stalled}}}")]);
    assert!(!message.contains("hunter2"), "{message}");
    until("an event", || async {
        let select = "--field-selector=reason=Unreadable";
        let events = world.try_kubectl(&["get", "events", select], None)?;
        assert!(!events.contains("hunter2"), "{events}");
        if events.contains("broken") { Ok(()) } else { Err(events) }
    })
    .await;
    world.kubectl(&["wait", "pg/fine", "--for=condition=Ready", "--timeout=60s"]);
    // One that becomes unreadable while it runs is left as it is, and comes back.
    world.apply(&database("fine", &json!({"accessModes": 5})));
    prints(&world, "pg/fine", &format!("{stalled}.reason"), "Unreadable").await;
    world.apply(&database("fine", &one_gigabyte()));
    world.apply(&database("broken", &one_gigabyte()));
    for mended in ["pg/broken", "pg/fine"] {
        world.kubectl(&["wait", mended, "--for=condition=Ready", "--timeout=60s"]);
        until(&format!("{mended} is not stalled"), || async {
            let conditions = "-o=jsonpath={.status.conditions[*].type}";
            let types = world.try_kubectl(&["get", mended, conditions], None)?;
            if types.contains("Stalled") { Err(types) } else { Ok(()) }
        })
        .await;
    }
    controller.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_is_missing_is_named_and_waited_for() {
    let world = World::start_with(|options| options.empty = true).await;
    let all = pgitops::api::crds();
    let requests = all.iter().find(|crd| crd.spec.names.kind == "PostgresOpsRequest").unwrap();
    let name = "postgresopsrequests.ops.kubedb.com";
    world.kubectl(&["delete", "crd", name]);
    let controller = Controller::start(&world);
    controller.says("/readyz", 503, &format!("not defined: {name}")).await;
    controller.says("/healthz", 200, "ok").await;
    world.apply(&json!(requests));
    controller.says("/readyz", 200, "watches: in sync").await;
    controller.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_settled_is_left_alone() {
    let world = World::start().await;
    let controller = Controller::start(&world);
    let mut orders = database("orders", &one_gigabyte());
    // Looked at every second, so that there is something to count.
    orders["spec"]["healthChecker"] = json!({"periodSeconds": 1});
    world.apply(&orders);
    world.kubectl(&["wait", "pg/orders", "--for=condition=Ready", "--timeout=60s"]);
    world.apply(&json!({
        "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest",
        "metadata": {"name": "more", "namespace": "demo"},
        "spec": {
            "type": "Reconfigure", "databaseRef": {"name": "orders"},
            "configuration": {"applyConfig": {"user.conf": "work_mem = 8MB"}},
        },
    }));
    world.kubectl(&["wait", "pgops/more", "--for=condition=Ready", "--timeout=60s"]);
    let passes = "pgitops_reconcile_total{controller=\"provision\",result=\"done\"}";
    let three_passes = || async {
        let (before, then) = (world.sandbox.asked(), controller.counted(passes).await);
        until("three passes", || async {
            let now = controller.counted(passes).await;
            if now >= then + 3.0 { Ok(()) } else { Err(format!("{now} passes")) }
        })
        .await;
        let mut more = world.sandbox.asked();
        for (what, number) in &mut more {
            *number -= before.get(what).copied().unwrap_or_default();
        }
        more.retain(|_, number| *number > 0);
        more
    };
    // The last words of the request and of the sandbox's own controllers may still come.
    until("three passes without a call", || async {
        let more = three_passes().await;
        if more.is_empty() { Ok(()) } else { Err(format!("{more:?}")) }
    })
    .await;
    controller.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_is_served() {
    let world = World::start().await;
    let controller = Controller::start(&world);
    world.apply(&database("orders", &one_gigabyte()));
    world.kubectl(&["wait", "pg/orders", "--for=condition=Ready", "--timeout=60s"]);
    prints(&world, "pg/orders", ".status.serverVersion", MAJOR.as_str()).await;
    for counter in [
        "pgitops_reconcile_total{controller=\"provision\",result=\"done\"}",
        "pgitops_reconcile_duration_seconds_count{controller=\"provision\"}",
        "pgitops_kubernetes_requests_total{verb=\"apply\",result=\"done\"}",
        "pgitops_git_request_duration_seconds_count{request=\"look\",result=\"failed\"}",
        "pgitops_leading",
    ] {
        until(&format!("{counter} is above 0"), || async {
            let now = controller.counted(counter).await;
            if now > 0.0 { Ok(()) } else { Err(now.to_string()) }
        })
        .await;
    }
    controller.stop().await;
    world.stop().await;
}

/// 2 is how `plan` says that something differs: a typing error must not look like that.
#[test]
fn a_wrong_argument_is_an_error_and_no_difference() {
    let ends = |arguments: &[&str]| {
        let output = std::process::Command::new(EXECUTABLE).args(arguments).output().unwrap();
        output.status.code()
    };
    assert_eq!(ends(&["plan", "--no-such-flag"]), Some(1));
    assert_eq!(ends(&["status", "a", "b", "c"]), Some(1));
    assert_eq!(ends(&["plan", "--help"]), Some(0));
    assert_eq!(ends(&["--version"]), Some(0));
}
