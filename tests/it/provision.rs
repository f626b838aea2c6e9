//! The provisioner on real servers: from a manifest to a cluster that replicates, and away again.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret, Service};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use pgitops::api::Postgres;
use pgitops::api::conditions;
use pgitops::api::postgres::Phase;
use pgitops::cluster::{Cluster, Leadership, Watched};
use pgitops::provision::{Context, Options, SELECTOR, run};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;

use crate::fixture::{MAJOR, World, until};

/// The provisioner beside a sandbox.
struct Provisioner {
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Provisioner {
    fn start(world: &World, leadership: Leadership) -> Self {
        let cluster = Cluster::new(world.client());
        let postgreses = Watched::start(&cluster, None);
        let pods = Watched::start(&cluster, Some(SELECTOR));
        let options = Options::default();
        let context = Context::new(cluster, postgreses, pods, leadership, options, Arc::default());
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { run(Arc::new(context.await), stop).await.unwrap() });
        Self { shutdown, task }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(10), self.task).await;
        ended.expect("the provisioner ends when it is told to").unwrap();
    }
}

fn manifest(spec: Value) -> Value {
    json!({
        "apiVersion": "kubedb.com/v1", "kind": "Postgres",
        "metadata": {"name": "orders", "namespace": "demo"}, "spec": spec,
    })
}

fn minimal(replicas: i32) -> Value {
    let storage = json!({"resources": {"requests": {"storage": "1Gi"}}});
    manifest(json!({"version": *MAJOR, "replicas": replicas, "storage": storage}))
}

/// Questions about the database `orders`.
struct Orders<'a>(&'a World);

impl Orders<'_> {
    fn api(&self) -> Api<Postgres> {
        Api::namespaced(self.0.client(), "demo")
    }

    async fn get(&self) -> Postgres {
        self.api().get("orders").await.unwrap()
    }

    /// Waits until the object is as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&Postgres) -> bool) -> Postgres {
        let look = || async {
            let postgres = self.get().await;
            match wanted(&postgres) {
                true => Ok(postgres),
                false => Err(format!("{:#}", json!(postgres.status))),
            }
        };
        until(what, look).await
    }

    /// Waits until everything of this generation is Ready.
    async fn ready(&self) -> Postgres {
        self.until("orders is Ready", |postgres| {
            let observed = postgres.status.as_ref().and_then(|s| s.observed_generation);
            postgres.phase() == Some(Phase::Ready) && observed == postgres.metadata.generation
        })
        .await
    }

    /// The condition's message, once it is true.
    async fn told(&self, type_: &str) -> String {
        let postgres = self
            .until(&format!("orders says {type_}"), |postgres| {
                conditions::is_true(postgres.conditions(), type_)
            })
            .await;
        conditions::find(postgres.conditions(), type_).unwrap().message.clone()
    }

    async fn change(&self, patch: Value) {
        let parameters = PatchParams::default();
        self.api().patch("orders", &parameters, &Patch::Merge(patch)).await.unwrap();
    }

    async fn password(&self) -> String {
        let secrets = Api::<Secret>::namespaced(self.0.client(), "demo");
        let secret = secrets.get("orders-auth").await.unwrap();
        String::from_utf8(secret.data.unwrap()["password"].0.clone()).unwrap()
    }

    /// The answer of a node to a query with one text column, as an owner would ask.
    async fn ask(&self, pod: &str, query: &str) -> Result<String, String> {
        let pod = self.0.pods().get(pod).await.map_err(|error| error.to_string())?;
        let address = pod.status.and_then(|s| s.pod_ip).unwrap_or_default();
        let mut config = tokio_postgres::Config::new();
        config.host(&address).user("postgres").password(self.password().await).dbname("postgres");
        config.connect_timeout(Duration::from_secs(3));
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

    async fn shows(&self, pod: &str, query: &str, expected: &str) {
        let look = || async {
            match self.ask(pod, query).await {
                Ok(answer) if answer == expected => Ok(()),
                other => Err(format!("{other:?}")),
            }
        };
        until(&format!("{pod} answers {expected:?} to {query}"), look).await;
    }

    async fn pod(&self, name: &str) -> Pod {
        self.0.pods().get(name).await.unwrap()
    }

    async fn role(&self, pod: &str) -> Option<String> {
        self.pod(pod).await.metadata.labels?.get("kubedb.com/role").cloned()
    }

    /// Deletes a pod and waits until another one of that name is Ready and everything is well.
    async fn replace(&self, name: &str) {
        let before = self.pod(name).await.metadata.uid;
        self.0.pods().delete(name, &DeleteParams::default()).await.unwrap();
        self.0.pod_until(name, "is replaced", |pod| pod.metadata.uid != before).await;
        self.0.ready(name).await;
        self.ready().await;
    }

    /// Deletes the object, if nobody has, and waits until it is gone.
    async fn gone(&self) {
        drop(self.api().delete("orders", &DeleteParams::default()).await);
        let look = || async {
            let left = self.names::<Postgres>().await;
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        };
        until("orders is gone", look).await;
    }

    async fn names<K>(&self) -> Vec<String>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
        K::DynamicType: Default,
    {
        let list = Api::<K>::namespaced(self.0.client(), "demo").list(&Default::default()).await;
        list.unwrap().items.iter().filter_map(|object| object.meta().name.clone()).collect()
    }
}

const RECOVERY: &str = "select pg_is_in_recovery()";

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_come_up_keep_their_roles_and_go() {
    let world = World::start().await;
    let provisioner = Provisioner::start(&world, Leadership::fixed(1));
    let orders = Orders(&world);
    let began = std::time::Instant::now();
    world.apply(&minimal(3));
    let ready = orders.ready().await;
    println!("three nodes Ready after {:?}", began.elapsed());
    let types: Vec<&str> = ready.conditions().iter().map(|c| c.type_.as_str()).collect();
    let expected =
        ["ProvisioningStarted", "ReplicaReady", "AcceptingConnection", "Ready", "Provisioned"];
    assert_eq!(types, expected);

    // One leads, two follow, and the owner's password opens all of them.
    orders.shows("orders-0", RECOVERY, "f").await;
    orders.ask("orders-0", "create table t as select 42 as n").await.unwrap();
    for standby in ["orders-1", "orders-2"] {
        orders.shows(standby, RECOVERY, "t").await;
        orders.shows(standby, "select n from t", "42").await;
        assert_eq!(orders.role(standby).await.as_deref(), Some("standby"));
    }
    assert_eq!(orders.role("orders-0").await.as_deref(), Some("primary"));
    orders.shows("orders-2", "show wal_log_hints", "on").await;
    orders.shows("orders-2", "show shared_buffers", "256MB").await;
    let service = Api::<Service>::namespaced(world.client(), "demo").get("orders").await.unwrap();
    let selector = service.spec.unwrap().selector.unwrap();
    assert_eq!(selector["statefulset.kubernetes.io/pod-name"], "orders-0");

    // A pod that goes comes back in its role, the primary too.
    orders.replace("orders-1").await;
    orders.shows("orders-1", RECOVERY, "t").await;
    orders.replace("orders-0").await;
    orders.shows("orders-0", RECOVERY, "f").await;
    assert_eq!(orders.role("orders-0").await.as_deref(), Some("primary"));
    orders.ask("orders-0", "insert into t values (43)").await.unwrap();
    for standby in ["orders-1", "orders-2"] {
        orders.shows(standby, "select count(*) from t", "2").await;
    }

    // Everything goes but the password (deletionPolicy Delete, the default).
    orders.gone().await;
    assert!(orders.names::<Pod>().await.is_empty());
    assert!(orders.names::<PersistentVolumeClaim>().await.is_empty());
    assert!(orders.names::<Service>().await.is_empty());
    assert_eq!(orders.names::<Secret>().await, ["orders-auth"]);
    provisioner.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_and_what_is_put_right_goes_on() {
    let world = World::start().await;
    let provisioner = Provisioner::start(&world, Leadership::fixed(1));
    let orders = Orders(&world);
    world.apply(&manifest(json!({"version": *MAJOR, "monitor": {"agent": "x"}})));
    let words = orders.told("SpecInvalid").await;
    assert!(words.starts_with("spec.storage: storageType Durable"), "{words}");
    assert_eq!(orders.told("FieldsNotActedOn").await, "nothing acts on these fields: monitor");
    let inline = |text: &str| json!({"inline": {"user.conf": text}});
    let storage = json!({"resources": {"requests": {"storage": "1Gi"}}});
    orders
        .change(json!({"spec": {"storage": storage, "configuration": inline("work_mem = 1gb")}}))
        .await;
    orders
        .until("the inline text is refused", |postgres| {
            let invalid = conditions::find(postgres.conditions(), "SpecInvalid");
            invalid.is_some_and(|c| c.message.contains("spec.configuration.inline: 1:12 work_mem"))
        })
        .await;
    assert!(orders.names::<Pod>().await.is_empty(), "nothing is built of a spec that is refused");

    // Put right, it comes up, and with the configuration of the spec.
    orders.change(json!({"spec": {"configuration": inline("work_mem = 7MB")}})).await;
    let ready = orders.ready().await;
    assert!(conditions::find(ready.conditions(), "SpecInvalid").is_none());
    orders.shows("orders-0", "show work_mem", "7MB").await;
    orders.ask("orders-0", "create table t as select 1 as n").await.unwrap();

    // An edit of the configuration is not ours to load, and is said.
    orders.change(json!({"spec": {"configuration": inline("work_mem = 9MB")}})).await;
    let words = orders.told("ConfigurationPending").await;
    assert!(words.contains("(work_mem)"), "{words}");
    orders.shows("orders-0", "show work_mem", "7MB").await;

    // A node more, which joins; and one less.
    orders.change(json!({"spec": {"replicas": 2}})).await;
    orders.ready().await;
    orders.shows("orders-1", "select n from t", "1").await;
    orders.change(json!({"spec": {"replicas": 1}})).await;
    let look = || async {
        let pods = orders.names::<Pod>().await;
        if pods == ["orders-0"] { Ok(()) } else { Err(format!("{pods:?}")) }
    };
    until("one node is left", look).await;
    orders.ready().await;

    // Halted, the data stays with its password, and a new object takes it up.
    orders.change(json!({"spec": {"deletionPolicy": "Halt"}})).await;
    let password = orders.password().await;
    orders.gone().await;
    let claims = orders.names::<PersistentVolumeClaim>().await;
    assert!(claims.contains(&"data-orders-0".to_owned()), "{claims:?}");
    world.apply(&minimal(1));
    orders.ready().await;
    assert_eq!(orders.password().await, password);
    orders.shows("orders-0", "select n from t", "1").await;

    // An object that may not be deleted goes on until it may.
    orders.change(json!({"spec": {"deletionPolicy": "DoNotTerminate"}})).await;
    orders.api().delete("orders", &DeleteParams::default()).await.unwrap();
    assert!(orders.told("DeletionHeld").await.contains("DoNotTerminate"));
    orders.shows("orders-0", "select n from t", "1").await;
    orders.change(json!({"spec": {"deletionPolicy": "WipeOut"}})).await;
    orders.gone().await;
    assert!(orders.names::<Secret>().await.is_empty());
    assert!(orders.names::<PersistentVolumeClaim>().await.is_empty());
    provisioner.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_not_there_is_said_in_the_nodes_words() {
    let world = World::start().await;
    let provisioner = Provisioner::start(&world, Leadership::fixed(1));
    let orders = Orders(&world);
    let there =
        |major: &u32| std::path::Path::new(&format!("/usr/lib/postgresql/{major}")).exists();
    let absent = (13..=18).find(|major| !there(major)).expect("a major that is not installed");
    world.apply(&manifest(json!({"version": absent.to_string(), "storageType": "Ephemeral"})));
    let words = orders.told("ImageMissing").await;
    assert!(words.contains(&format!("PostgreSQL {absent} is not installed")), "{words}");
    assert_eq!(orders.get().await.phase(), Some(Phase::Provisioning));
    let events = world.kubectl(&["get", "events", "-o", "yaml"]);
    assert!(events.contains("ImageMissing"), "{events}");
    orders.gone().await;
    provisioner.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_keeps_its_kind_of_workload() {
    let kinds = |world: &World| {
        let names = world.kubectl(&["get", "statefulsets,petsets", "-o", "name"]);
        names.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    // Before there are PetSets: nobody asks for them.
    let world = World::start().await;
    let provisioner = Provisioner::start(&world, Leadership::fixed(1));
    world.apply(&minimal(1));
    Orders(&world).ready().await;
    Orders(&world).ask("orders-0", "create table t as select 42 as n").await.unwrap();
    let asked = world.sandbox.accesses().into_iter().find(|access| access.plural == "petsets");
    assert_eq!(asked, None);
    provisioner.stop().await;

    // There are now: a new database gets one, the old one stays what it is.
    let folder = world.stop().await;
    let world = World::start_in(folder, |options| options.pet_sets = true).await;
    let provisioner = Provisioner::start(&world, Leadership::fixed(2));
    let mut other = minimal(1);
    other["metadata"]["name"] = json!("billing");
    world.apply(&other);
    world.kubectl(&["wait", "postgres/billing", "--for=condition=Ready", "--timeout=60s"]);
    Orders(&world).ready().await;
    Orders(&world).shows("orders-0", "select n from t", "42").await;
    let both = ["statefulset.apps/orders", "petset.apps.k8s.appscode.com/billing"];
    assert_eq!(kinds(&world), both);
    provisioner.stop().await;

    // A folder that served them goes on. The workload goes with its definition, the data does not:
    // the database is taken up again with what is served then.
    let folder = world.stop().await;
    let world = World::start_in(folder, |_| {}).await;
    world.ready("billing-0").await;
    assert_eq!(kinds(&world), both);
    world.kubectl(&["delete", "crd", "petsets.apps.k8s.appscode.com"]);
    world.kubectl(&["wait", "--for=delete", "pod/billing-0", "--timeout=60s"]);
    let provisioner = Provisioner::start(&world, Leadership::fixed(3));
    let made = || async {
        let names = world.kubectl(&["get", "statefulsets", "-o", "name"]);
        if names.contains("/billing") { Ok(()) } else { Err(names) }
    };
    until("billing has a StatefulSet", made).await;
    world.ready("billing-0").await;
    provisioner.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_controller_goes_on_where_one_stopped() {
    let world = World::start().await;
    let first = Provisioner::start(&world, Leadership::fixed(1));
    let orders = Orders(&world);
    world.apply(&minimal(2));
    world.pod_until("orders-0", "is there", |_| true).await;
    first.stop().await;
    let second = Provisioner::start(&world, Leadership::fixed(2));
    orders.ready().await;
    orders.shows("orders-1", RECOVERY, "t").await;
    second.stop().await;
    world.stop().await;
}
