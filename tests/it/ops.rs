//! Requests carried out on real servers: made with kubectl, judged by what the servers answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use pgitops::api::conditions;
use pgitops::api::ops_request::{OpsPhase, ProofReport};
use pgitops::api::postgres::Phase;
use pgitops::api::{Condition, PetSet, Postgres, PostgresOpsRequest};
use pgitops::cluster::{Cluster, Leadership, Watched};
use pgitops::ops::status::{self, Pause};
use pgitops::provision::SELECTOR;
use pgitops::{ops, provision};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;

use crate::fixture::{MAJOR, World, until};

/// The provisioner and ops beside a sandbox, as one controller runs them.
struct Loops {
    cluster: Cluster,
    postgreses: Arc<Watched<Postgres>>,
    requests: Arc<Watched<PostgresOpsRequest>>,
    shutdown: CancellationToken,
    provision: JoinHandle<()>,
}

impl Loops {
    fn start(world: &World) -> Self {
        // `RUST_LOG=pgitops=debug` shows what the loops do.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        drop(tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init());
        let cluster = Cluster::new(world.client());
        let postgreses = Watched::start(&cluster, None);
        let pods = Watched::start(&cluster, Some(SELECTOR));
        let requests = Watched::start(&cluster, None);
        let leadership = Leadership::fixed(1);
        let context = provision::Context::new(
            cluster.clone(),
            postgreses.clone(),
            pods,
            leadership,
            provision::Options::default(),
            Arc::default(),
        );
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let provision = tokio::spawn(async move {
            provision::run(Arc::new(context.await), stop).await.unwrap();
        });
        Self { cluster, postgreses, requests, shutdown, provision }
    }

    /// Ops, which can be ended like a killed process: its tasks vanish where they are.
    fn ops(&self, transitions: u64) -> Ops {
        let context = Arc::new(ops::Context::new(
            self.cluster.clone(),
            self.postgreses.clone(),
            self.requests.clone(),
            Leadership::fixed(transitions),
            Timestamp::now,
            Arc::default(),
        ));
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(async move { ops::run(context, stop).await.unwrap() });
        Ops { runtime: Some(runtime), shutdown }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(10), self.provision).await;
        ended.expect("the provisioner ends when it is told to").unwrap();
    }
}

struct Ops {
    runtime: Option<tokio::runtime::Runtime>,
    shutdown: CancellationToken,
}

impl Ops {
    fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Drop for Ops {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The database `orders` and its requests.
struct Orders<'a>(&'a World);

impl Orders<'_> {
    async fn create(&self, replicas: i32, configuration: Value) {
        self.0.apply(&json!({
            "apiVersion": "kubedb.com/v1", "kind": "Postgres",
            "metadata": {"name": "orders", "namespace": "demo"},
            "spec": {
                "version": *MAJOR, "replicas": replicas,
                "storage": {"resources": {"requests": {"storage": "1Gi"}}},
                "configuration": configuration,
                // 16 MB of shared buffers: three servers share this machine with other tests.
                "podTemplate": {"spec": {"containers": [
                    {"name": "postgres", "resources": {"limits": {"memory": "64Mi"}}}
                ]}},
            },
        }));
        let look = || async {
            let postgres = self.get().await;
            match postgres.phase() == Some(Phase::Ready) {
                true => Ok(()),
                false => Err(format!("{:#}", json!(postgres.status))),
            }
        };
        until("orders is Ready", look).await;
    }

    async fn get(&self) -> Postgres {
        Api::namespaced(self.0.client(), "demo").get("orders").await.unwrap()
    }

    async fn change(&self, patch: Value) {
        let api = Api::<Postgres>::namespaced(self.0.client(), "demo");
        let parameters = PatchParams::default();
        api.patch("orders", &parameters, &Patch::Merge(patch)).await.unwrap();
    }

    fn requests(&self) -> Api<PostgresOpsRequest> {
        Api::namespaced(self.0.client(), "demo")
    }

    fn send(&self, name: &str, spec: Value) {
        let mut whole = json!({"databaseRef": {"name": "orders"}});
        json_patch::merge(&mut whole, &spec);
        self.0.apply(&json!({
            "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest",
            "metadata": {"name": name, "namespace": "demo"}, "spec": whole,
        }));
    }

    async fn ended(&self, name: &str) -> PostgresOpsRequest {
        let look = || async {
            let request = self.requests().get(name).await.unwrap();
            let guarded = request.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty());
            match request.phase().is_terminal() && !guarded {
                true => Ok(request),
                false => Err(format!("{:#}", json!(request.status))),
            }
        };
        until(&format!("{name} has ended"), look).await
    }

    /// Writes the database's conditions, as somebody else may.
    async fn say(&self, all: &[Condition]) {
        let api = Api::<Postgres>::namespaced(self.0.client(), "demo");
        let patch = Patch::Merge(json!({"status": {"conditions": all}}));
        api.patch_status("orders", &PatchParams::default(), &patch).await.unwrap();
    }

    /// Waits until whatever is created now is younger than this request: ages are whole seconds.
    async fn a_second_after(&self, name: &str) {
        let created = self.requests().get(name).await.unwrap().creation_timestamp().unwrap().0;
        until("the next second", || async {
            let now = Timestamp::now();
            if now.as_second() > created.as_second() { Ok(()) } else { Err(now.to_string()) }
        })
        .await;
    }

    /// What was told of requests, by name and reason, in order.
    async fn events(&self) -> Vec<(String, String)> {
        let api = Api::<Event>::namespaced(self.0.client(), "demo");
        let mut all = api.list(&ListParams::default()).await.unwrap().items;
        all.retain(|event| {
            let about = event.regarding.as_ref().and_then(|about| about.kind.as_deref());
            about == Some("PostgresOpsRequest")
        });
        all.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
        let told = all.into_iter().map(|event| {
            let name = event.regarding.and_then(|about| about.name).unwrap_or_default();
            (name, event.reason.unwrap_or_default())
        });
        told.collect()
    }

    /// Sends a request and waits for its end.
    async fn ask(&self, name: &str, spec: Value) -> Told {
        let began = Instant::now();
        self.send(name, spec);
        let request = self.ended(name).await;
        let report = request.status.as_ref().and_then(|s| s.proof.clone()).unwrap_or_default();
        println!(
            "{name}: {:?} after {} ms (with kubectl {:?}); order {:?}, writes paused {:?} ms",
            request.phase(),
            report.duration_ms,
            began.elapsed(),
            report.restarted,
            report.writes_paused_ms
        );
        assert_eq!(status::paused(&self.get().await), Pause::Not, "{name} left it paused");
        Told { request, report }
    }

    async fn reconfigure(&self, name: &str, configuration: Value) -> Told {
        let spec = json!({"type": "Reconfigure", "configuration": configuration});
        self.ask(name, spec).await
    }

    async fn query(&self, pod: &str, query: &str) -> Result<String, String> {
        let pod = self.0.pods().get(pod).await.map_err(|error| error.to_string())?;
        let address = pod.status.and_then(|s| s.pod_ip).unwrap_or_default();
        let secret = Api::<Secret>::namespaced(self.0.client(), "demo").get("orders-auth").await;
        let password = secret.unwrap().data.unwrap()["password"].0.clone();
        let mut config = tokio_postgres::Config::new();
        config.host(&address).user("postgres").password(password).dbname("postgres");
        let connected = config.connect(NoTls).await.map_err(|error| error.to_string())?;
        let (client, connection) = connected;
        tokio::spawn(connection);
        let rows = client.simple_query(query).await.map_err(|error| error.to_string())?;
        let row = rows.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        Ok(row.unwrap_or_default())
    }

    /// What a parameter is on every node.
    async fn show(&self, name: &str) -> Vec<String> {
        let mut all = Vec::new();
        for ordinal in 0..self.get().await.spec.nodes() {
            let pod = format!("orders-{ordinal}");
            all.push(self.query(&pod, &format!("show {name}")).await.unwrap());
        }
        all
    }
}

/// How a request ended.
struct Told {
    request: PostgresOpsRequest,
    report: ProofReport,
}

impl Told {
    fn successful(self) -> Self {
        assert_eq!(self.request.phase(), OpsPhase::Successful, "{:#}", json!(self.request.status));
        self
    }

    /// The sentence of the failure.
    fn failed(&self) -> &str {
        assert_eq!(self.request.phase(), OpsPhase::Failed, "{:#}", json!(self.request.status));
        let failed = conditions::find(self.request.conditions(), "Failed");
        &failed.expect("a condition Failed").message
    }

    fn order(&self) -> Vec<&str> {
        self.report.restarted.iter().map(String::as_str).collect()
    }
}

fn apply(text: &str) -> Value {
    json!({"applyConfig": {"user.conf": text}})
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_wait_their_turn_and_tell_what_happens() {
    let world = World::start().await;
    let loops = Loops::start(&world);
    let running = loops.ops(1);
    let orders = Orders(&world);
    orders.create(1, json!({})).await;
    // While somebody else works on it, requests pile up.
    let mut others = orders.get().await.conditions().to_vec();
    let theirs = Condition::new("Paused", true, "Paused", "by hand", Timestamp::now());
    conditions::set(&mut others, theirs);
    orders.say(&others).await;
    let reconfigure = |text| json!({"type": "Reconfigure", "configuration": apply(text)});
    let (first, second, third) = ("c-first", "b-second", "a-third");
    orders.send(first, reconfigure("work_mem = 8MB"));
    orders.a_second_after(first).await;
    orders.send(second, json!({"type": "Restart"}));
    orders.a_second_after(second).await;
    orders.send(third, reconfigure("work_mem = 9MB"));
    until("the first says what it waits for", || async {
        let request = orders.requests().get(first).await.unwrap();
        let said = conditions::find(request.conditions(), status::WAITING);
        match said.is_some_and(|said| said.message.contains("by hand")) {
            true => Ok(()),
            false => Err(format!("{:#}", json!(request.status))),
        }
    })
    .await;
    conditions::remove(&mut others, "Paused");
    orders.say(&others).await;
    for name in [first, second, third] {
        let request = orders.ended(name).await;
        assert_eq!(request.phase(), OpsPhase::Successful, "{:#}", json!(request.status));
    }
    assert_eq!(orders.show("work_mem").await, ["9MB"]);
    let (begun, done) = (["DryRunPassed", "PauseDatabase"], ["Proven", "ResumeDatabase"]);
    let told = |middle: &str| {
        let middle = [middle];
        let all = [&["Accepted"][..], &begun, &middle, &done, &["Successful"]].concat();
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let expected = [(first, "Loaded"), (second, "Restarted"), (third, "Loaded")];
    let expected: Vec<(String, String)> = expected
        .into_iter()
        .flat_map(|(name, middle)| told(middle).into_iter().map(|word| (name.to_owned(), word)))
        .collect();
    // Events are told beside the work: the last ones may still be on their way.
    until("every event, in order", || async {
        let events = orders.events().await;
        if events == expected { Ok(()) } else { Err(format!("{events:#?}")) }
    })
    .await;
    drop(running);
    loops.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_are_reconfigured_in_every_way() {
    let world = World::start().await;
    let loops = Loops::start(&world);
    let running = loops.ops(1);
    let orders = Orders(&world);
    // Made with kubectl, with a configuration of its own: taken over by the first request.
    orders.create(3, json!({"inline": {"user.conf": "work_mem = 5MB"}})).await;
    assert_eq!(orders.show("work_mem").await, ["5MB"; 3]);

    let reload = orders.reconfigure("reload", apply("work_mem = 8MB")).await.successful();
    assert_eq!(orders.show("work_mem").await, ["8MB"; 3]);
    assert_eq!((reload.report.proven, reload.order().len()), (3, 0));
    assert_eq!(orders.get().await.spec.inline(), "work_mem = '8MB'\n");

    let raised = orders.reconfigure("raise", apply("max_connections=250")).await.successful();
    assert_eq!(orders.show("max_connections").await, ["250"; 3]);
    assert_eq!(raised.order(), ["orders-1 standby", "orders-2 standby", "orders-0 primary"]);
    assert!(raised.report.writes_paused_ms.is_some() && raised.report.roles_unchanged);

    orders.0.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "conf", "namespace": "demo"},
        "stringData": {"user.conf": "max_connections = 120\nmax_worker_processes = 12\n"},
    }));
    // Down in one, up in the other: the standbys restart twice.
    let mixed = json!({"removeCustomConfig": true, "configSecret": {"name": "conf"}});
    let mixed = orders.reconfigure("mixed", mixed).await.successful();
    assert_eq!(orders.show("max_connections").await, ["120"; 3]);
    assert_eq!(orders.show("max_worker_processes").await, ["12"; 3]);
    assert_eq!(orders.show("work_mem").await, ["4MB"; 3]);
    let (one, two, zero) = ("orders-1 standby", "orders-2 standby", "orders-0 primary");
    assert_eq!(mixed.order(), [one, two, zero, one, two]);
    assert_eq!(orders.get().await.spec.secret_name(), Some("conf"));
    assert_eq!(orders.get().await.spec.inline(), "");

    let refused = orders.reconfigure("refused", apply("shared_preload_libraries = nosuch")).await;
    assert!(refused.failed().contains("nosuch"), "{}", refused.failed());
    let unknown = orders.reconfigure("unknown", apply("wrok_mem = 4MB")).await;
    assert!(unknown.failed().contains("write work_mem"), "{}", unknown.failed());
    let owned = orders.reconfigure("owned", apply("port = 5433")).await;
    assert!(owned.failed().contains("belongs to the operator"), "{}", owned.failed());
    let missing = orders.reconfigure("missing", json!({"configSecret": {"name": "none"}})).await;
    assert!(missing.failed().contains("Secret demo/none is not there"), "{}", missing.failed());
    assert_eq!(orders.get().await.spec.secret_name(), Some("conf"));

    // Without a restart the value waits; a request Restart brings it into effect.
    let mut later = apply("max_connections = 140");
    later["restart"] = json!("false");
    let later = orders.reconfigure("later", later).await.successful();
    assert_eq!(later.report.pending_restart, ["max_connections"]);
    assert_eq!(orders.show("max_connections").await, ["120"; 3]);
    let restart = orders.ask("restart", json!({"type": "Restart"})).await.successful();
    assert_eq!(orders.show("max_connections").await, ["140"; 3]);
    assert_eq!(restart.order(), [one, two, zero]);

    orders.query("orders-0", "alter system set work_mem = '3MB'").await.unwrap();
    orders.query("orders-0", "select pg_reload_conf()").await.unwrap();
    let overridden = orders.reconfigure("overridden", apply("work_mem = 9MB")).await;
    assert!(overridden.failed().contains("ALTER SYSTEM RESET work_mem"), "{}", overridden.failed());
    orders.query("orders-0", "alter system reset work_mem").await.unwrap();

    let other = json!({"type": "ReconfigureTLS"});
    orders.send("other", other);
    let down = orders.reconfigure("down", json!({"removeCustomConfig": true})).await.successful();
    assert_eq!(orders.show("max_connections").await, ["100"; 3]);
    assert_eq!(down.order(), [zero, one, two]);
    let other = orders.requests().get("other").await.unwrap();
    assert_eq!(other.phase(), OpsPhase::Pending);
    assert!(conditions::is_true(other.conditions(), status::NOT_CARRIED_OUT));

    tuned(&orders).await;

    drop(running);
    loops.stop().await;
    world.stop().await;
}

/// Tuning comes, stays below what is set by hand, and goes. The containers have 64 MiB.
async fn tuned(orders: &Orders<'_>) {
    let tuning = |inputs: Value| json!({"tuning": inputs});
    let tune = tuning(json!({"profile": "oltp", "maxConnections": 90}));
    orders.reconfigure("tune", tune).await.successful();
    assert_eq!(orders.show("max_connections").await, ["90"; 3]);
    assert_eq!(orders.show("work_mem").await, ["167kB"; 3]);
    assert_eq!(orders.show("max_wal_size").await, ["256MB"; 3]);
    assert_eq!(orders.show("wal_level").await, ["replica"; 3]);
    orders.reconfigure("by-hand", apply("work_mem = 5MB")).await.successful();
    assert_eq!(orders.show("work_mem").await, ["5MB"; 3]);
    assert_eq!(orders.show("random_page_cost").await, ["1.1"; 3]);
    let wrong = orders.reconfigure("wrong", tuning(json!({"profile": "fast"}))).await;
    assert!(wrong.failed().contains("write web, oltp"), "{}", wrong.failed());
    let less = tuning(json!({"disableAutoTune": true}));
    orders.reconfigure("untune", less).await.successful();
    assert_eq!(orders.show("max_connections").await, ["100"; 3]);
    assert_eq!(orders.show("random_page_cost").await, ["4"; 3]);
    assert_eq!(orders.show("work_mem").await, ["5MB"; 3]);
    let left = orders.get().await.spec.tuning().cloned().unwrap();
    assert_eq!(json!(left), json!({"disableAutoTune": true}));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_killed_is_finished_and_what_is_deleted_is_undone() {
    let world = World::start().await;
    let loops = Loops::start(&world);
    let orders = Orders(&world);
    orders.create(3, json!({})).await;

    // Killed ten times, each time somewhere else, in a change that goes up and down.
    let before = starts(&orders).await;
    let mut transitions = 1;
    let mut running = loops.ops(transitions);
    let values = "max_connections = 130\\nmax_worker_processes = 7\\nwork_mem = 6MB";
    let values = values.replace("\\n", "\n");
    orders.send("killed", json!({"type": "Reconfigure", "configuration": apply(&values)}));
    for kill in 1..=10u64 {
        // Different places at every run of the test; the simulation plays the same ones again.
        tokio::time::sleep(Duration::from_millis(kill * 13 % 90 + 5)).await;
        running.kill();
        transitions += 1;
        running = loops.ops(transitions);
    }
    let killed = orders.ended("killed").await;
    assert_eq!(killed.phase(), OpsPhase::Successful, "{:#}", json!(killed.status));
    assert_eq!(orders.show("max_connections").await, ["130"; 3]);
    assert_eq!(orders.show("max_worker_processes").await, ["7"; 3]);
    assert_eq!(orders.show("work_mem").await, ["6MB"; 3]);
    let after = starts(&orders).await;
    assert!(before.iter().all(|(pod, at)| after[pod] != *at), "all were restarted");

    // Deleted in the middle: what was before is in force again, and it is not left paused.
    orders.send(
        "deleted",
        json!({"type": "Reconfigure", "configuration": apply("max_connections = 90")}),
    );
    let look = || async {
        let paused = status::paused(&orders.get().await) != Pause::Not;
        if paused { Ok(()) } else { Err("not paused yet".to_owned()) }
    };
    until("the rollout has begun", look).await;
    orders.requests().delete("deleted", &DeleteParams::default()).await.unwrap();
    let look = || async {
        match orders.requests().get_opt("deleted").await.unwrap() {
            None => Ok(()),
            Some(request) => Err(format!("{:#}", json!(request.status))),
        }
    };
    until("the request is gone", look).await;
    assert_eq!(orders.show("max_connections").await, ["130"; 3]);
    assert_eq!(status::paused(&orders.get().await), Pause::Not);
    assert!(!orders.get().await.spec.inline().contains("90"));

    drop(running);
    loops.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pet_set_runs_the_nodes_where_the_cluster_serves_it() {
    let world = World::start_with(|options| options.pet_sets = true).await;
    let loops = Loops::start(&world);
    let running = loops.ops(1);
    let orders = Orders(&world);
    orders.create(3, json!({})).await;
    let pet_sets = Api::<PetSet>::namespaced(world.client(), "demo");
    let stateful_sets = Api::<StatefulSet>::namespaced(world.client(), "demo");
    let set = pet_sets.get("orders").await.unwrap();
    assert_eq!(set.spec.set.pod_management_policy.as_deref(), Some("Parallel"));
    assert_eq!(set.spec.set.update_strategy.unwrap().type_.as_deref(), Some("OnDelete"));
    assert_eq!(set.spec.set.revision_history_limit, Some(10), "the default of KubeDB's webhook");
    let all = Default::default();
    assert!(stateful_sets.list(&all).await.unwrap().items.is_empty());
    let before = world.pods().list(&all).await.unwrap().items;
    for pod in &before {
        assert_eq!(pod.owner_references()[0].kind, "PetSet");
    }

    // A policy for the pods is handed on, and no longer a field that nothing acts on.
    let policy = json!({"podPlacementPolicy": {"name": "default"}});
    orders.change(json!({"spec": {"podTemplate": {"spec": policy}}})).await;
    until("the policy is handed on", || async {
        let policy = pet_sets.get("orders").await.unwrap().spec.pod_placement_policy;
        let named = policy.is_some_and(|policy| policy.name == "default");
        let told = orders.get().await.conditions().iter().any(|c| c.type_ == "FieldsNotActedOn");
        if named && !told { Ok(()) } else { Err(format!("named {named}, told {told}")) }
    })
    .await;

    let raised = orders.reconfigure("raise", apply("max_connections=130")).await.successful();
    assert_eq!(orders.show("max_connections").await, ["130"; 3]);
    assert_eq!((raised.report.proven, raised.order().len()), (3, 3));
    let after = world.pods().list(&all).await.unwrap().items;
    let uids = |pods: &[Pod]| pods.iter().map(|pod| pod.uid()).collect::<Vec<_>>();
    assert_eq!(uids(&before), uids(&after), "no pod was replaced");

    // Fewer nodes, and none.
    orders.change(json!({"spec": {"replicas": 1}})).await;
    world.kubectl(&["wait", "--for=delete", "pod/orders-1", "pod/orders-2", "--timeout=60s"]);
    world.kubectl(&["delete", "postgres", "orders", "--timeout=60s"]);
    assert!(pet_sets.list(&all).await.unwrap().items.is_empty());
    assert!(world.pods().list(&all).await.unwrap().items.is_empty());
    let left = world.kubectl(&["get", "controllerrevisions,pvc,statefulsets", "-o", "name"]);
    assert_eq!(left, "");

    drop(running);
    loops.stop().await;
    world.stop().await;
}

/// When each server was started.
async fn starts(orders: &Orders<'_>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for ordinal in 0..orders.get().await.spec.nodes() {
        let pod = format!("orders-{ordinal}");
        let at = orders.query(&pod, "select pg_postmaster_start_time()").await.unwrap();
        all.insert(pod, at);
    }
    all
}
