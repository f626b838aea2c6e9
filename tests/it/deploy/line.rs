//! The whole line under the account's name in a sandbox: what the account did in it.
//!
//! Goes on purpose where the loops seldom go, so that few of their rights are left unused. What
//! the results are is the matter of other tests; here they are only waited for.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::PathBuf;
use std::process::Command;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use pgitops::api::ops_request::OpsPhase;
use pgitops::api::postgres::Phase;
use pgitops::api::{ConfigRepository, Postgres, PostgresOpsRequest};
use pgitops::cli::controller::{self, Loop, Settings};
use pgitops::cluster::Cluster;
use pgitops::sandbox::api_server::Access;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::manifests;
use super::rights::{ACCOUNT, HOME};
use crate::fixture::{MAJOR, World, until};
use crate::sync::{document, git};

/// What the steps below read and write.
trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
{
}

/// A sandbox with a controller that works under the account's name.
pub struct Line {
    world: World,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
    work: PathBuf,
    _folder: tempfile::TempDir,
}

impl Line {
    /// Beside somebody who carries requests out and whose databases these are.
    pub async fn run_sync_alone() -> BTreeSet<Access> {
        let line = Self::start("beside-kubedb", vec![Loop::Sync]).await;
        line.world.apply(&json!({
            "apiVersion": "kubedb.com/v1", "kind": "Postgres",
            "metadata": {"name": "orders", "namespace": "demo"},
            "spec": {"version": *MAJOR, "storageType": "Ephemeral"},
        }));
        line.set_status::<Postgres>("orders", json!({"phase": "Ready", "conditions": []})).await;

        // A newer commit takes the place of a request that nobody has begun.
        line.push("orders.yaml", &document("orders", "work_mem: 15MB"));
        let overtaken = line.open_request().await;
        let first = line.push("orders.yaml", &document("orders", "work_mem: 16MB"));
        until("another request", || async {
            let open = line.open_request().await.name_any();
            if open != overtaken.name_any() { Ok(()) } else { Err(open) }
        })
        .await;
        line.carry_out().await;
        line.noted(&first, "APPLIED").await;
        // Rendered Secrets, more than are kept once their requests are gone.
        for work_mem in 1..=5 {
            let commit = line.replace(work_mem);
            line.carry_out().await;
            line.noted(&commit, "APPLIED").await;
        }
        let mut requests = line.requests().await;
        requests.sort_by_key(|request| request.metadata.creation_timestamp.clone().map(|t| t.0));
        let old: Vec<String> = requests.iter().map(ResourceExt::name_any).collect();
        let last = line.replace(6);
        let newest = line.open_request().await.name_any();
        for name in old.iter().filter(|name| **name != newest) {
            line.gone::<PostgresOpsRequest>(name).await;
        }
        line.carry_out().await;
        line.noted(&last, "APPLIED").await;
        until("old Secrets are pruned", || async {
            let selector = ListParams::default().labels("pgitops.dev/rendered-for=orders");
            let left = line.api::<Secret>().list(&selector).await.unwrap().items.len();
            if left <= 4 { Ok(()) } else { Err(format!("{left} are left")) }
        })
        .await;
        line.ask_for_another_namespace().await;
        // The brake: a request of ours that somebody deleted is asked for by its name.
        line.replace(7);
        let braked = line.open_request().await.name_any();
        line.gone::<PostgresOpsRequest>(&braked).await;
        line.repository("the brake is seen", |status| status.to_string().contains("deleted our"))
            .await;
        line.gone::<ConfigRepository>("config").await;
        line.stop().await
    }

    /// From a manifest to servers that are reconfigured and go away.
    pub async fn run_everything() -> BTreeSet<Access> {
        let line = Self::start("standalone", Loop::ALL.to_vec()).await;
        line.world.apply(&json!({
            "apiVersion": "kubedb.com/v1", "kind": "Postgres",
            "metadata": {"name": "orders", "namespace": "demo"},
            "spec": {
                "version": *MAJOR, "replicas": 2,
                "storage": {"resources": {"requests": {"storage": "1Gi"}}},
                // 16 MB of shared buffers: other tests run on this machine.
                "podTemplate": {"spec": {"containers": [
                    {"name": "postgres", "resources": {"limits": {"memory": "64Mi"}}}
                ]}},
            },
        }));
        line.ready().await;
        // By hand: a change and a restart.
        let inline = json!({"applyConfig": {"user.conf": "max_connections = 120"}});
        line.ask("by-hand", json!({"type": "Reconfigure", "configuration": inline})).await;
        line.ask("restart", json!({"type": "Restart"})).await;
        // By git: both modes, drift, a change while suspended.
        let merged = line.push("orders.yaml", &document("orders", "work_mem: 16MB"));
        line.noted(&merged, "APPLIED").await;
        let replaced = line.replace(17);
        line.noted(&replaced, "APPLIED").await;
        line.drift().await;
        line.change::<ConfigRepository>("config", json!({"spec": {"suspend": true}})).await;
        let suspended = line.replace(18);
        let held = |status: &Value| status["held"].as_array().is_some_and(|held| !held.is_empty());
        line.repository("the change is held", held).await;
        line.change::<ConfigRepository>("config", json!({"spec": {"suspend": false}})).await;
        line.noted(&suspended, "APPLIED").await;
        line.ask_for_another_namespace().await;
        // Away again: the standby, the repository, the database with its volumes.
        line.change::<Postgres>("orders", json!({"spec": {"replicas": 1}})).await;
        until("the standbys' Service is gone", || async {
            let left = line.api::<Service>().get_opt("orders-standby").await.unwrap();
            if left.is_none() { Ok(()) } else { Err("it is there".to_owned()) }
        })
        .await;
        line.gone::<ConfigRepository>("config").await;
        line.change::<Postgres>("orders", json!({"spec": {"deletionPolicy": "WipeOut"}})).await;
        line.gone::<Postgres>("orders").await;
        line.stop().await
    }

    /// A database whose nodes a PetSet runs, and away with it.
    pub async fn run_on_pet_sets() -> BTreeSet<Access> {
        let world = World::start_with(|options| options.pet_sets = true).await;
        let line = Self::start_in(world, "standalone", Loop::ALL.to_vec()).await;
        line.world.apply(&json!({
            "apiVersion": "kubedb.com/v1", "kind": "Postgres",
            "metadata": {"name": "orders", "namespace": "demo"},
            "spec": {"version": *MAJOR, "storageType": "Ephemeral"},
        }));
        line.ready().await;
        line.gone::<Postgres>("orders").await;
        line.stop().await
    }

    /// Waits until all that the object asks for is Ready.
    async fn ready(&self) {
        until("orders is Ready", || async {
            let postgres = self.api::<Postgres>().get("orders").await.unwrap();
            let observed = postgres.status.as_ref().and_then(|s| s.observed_generation);
            let settled = observed == postgres.metadata.generation;
            match postgres.phase() == Some(Phase::Ready) && settled {
                true => Ok(()),
                false => Err(format!("{:#}", json!(postgres.status))),
            }
        })
        .await;
    }

    /// A request by hand, to its successful end.
    async fn ask(&self, name: &str, spec: Value) {
        let mut whole = json!({"databaseRef": {"name": "orders"}});
        json_patch::merge(&mut whole, &spec);
        self.world.apply(&json!({
            "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest",
            "metadata": {"name": name, "namespace": "demo"}, "spec": whole,
        }));
        until(&format!("{name} is Successful"), || async {
            let request = self.api::<PostgresOpsRequest>().get(name).await.unwrap();
            match request.phase() == OpsPhase::Successful {
                true => Ok(()),
                false => Err(format!("{:#}", json!(request.status))),
            }
        })
        .await;
    }

    /// Somebody changes a value behind our back, and it is put back.
    async fn drift(&self) {
        let before: BTreeSet<String> =
            self.requests().await.iter().map(ResourceExt::name_any).collect();
        let inline = json!({"inline": {"user.conf": "work_mem = 1MB"}});
        self.change::<Postgres>("orders", json!({"spec": {"configuration": inline}})).await;
        until("the drift is corrected", || async {
            let all = self.requests().await;
            let new = all.iter().find(|request| !before.contains(&request.name_any()));
            match new.map(PostgresOpsRequest::phase) {
                Some(OpsPhase::Successful) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// A document for a database where nobody allows us to be.
    async fn ask_for_another_namespace(&self) {
        let text = document("orders", "work_mem: 1MB");
        let text = text.replace("{name: orders}\n  par", "{name: orders, namespace: other}\n  par");
        self.push("other.yaml", &text);
        let said = |status: &Value| status.to_string().contains("other");
        self.repository("the other namespace is looked at", said).await;
    }

    /// The open request for the database.
    async fn open_request(&self) -> PostgresOpsRequest {
        until("a request", || async {
            let open = self.requests().await.into_iter().find(|r| !r.phase().is_terminal());
            open.ok_or_else(|| "none".to_owned())
        })
        .await
    }

    /// Carries the open request out as KubeDB would: the object says the new thing.
    async fn carry_out(&self) {
        let request = self.open_request().await;
        let asked = request.spec.configuration.as_ref().unwrap();
        let configuration = match &asked.config_secret {
            Some(secret) => json!({"secretName": secret.name, "inline": null}),
            None => json!({"inline": {"user.conf": asked.settings()}}),
        };
        self.change::<Postgres>("orders", json!({"spec": {"configuration": configuration}})).await;
        let status = json!({"phase": OpsPhase::Successful, "conditions": []});
        self.set_status::<PostgresOpsRequest>(&request.name_any(), status).await;
    }

    async fn set_status<K: Kind>(&self, name: &str, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.api::<K>().patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }

    async fn start(overlay: &str, loops: Vec<Loop>) -> Self {
        Self::start_in(World::start().await, overlay, loops).await
    }

    async fn start_in(world: World, overlay: &str, loops: Vec<Loop>) -> Self {
        manifests::apply(&world.client(), &manifests::overlay(overlay)).await;
        let folder = tempfile::tempdir().unwrap();
        let bare = world.sandbox.config_git.clone().unwrap();
        git(folder.path(), &["clone", "-q", bare.to_str().unwrap(), "work"]);
        let work = folder.path().join("work");
        git(&work, &["checkout", "-q", "-b", "main"]);
        let settings = Settings {
            lease_namespace: HOME.to_owned(),
            ..Settings::sandbox(folder.path().join("mirrors"))
        };
        let cluster = Cluster::new(Self::client(&world).await);
        let stop = CancellationToken::new();
        let task = tokio::spawn(controller::work(cluster, loops, settings, stop.clone()));
        Self { world, stop, task, work, _folder: folder }
    }

    async fn client(world: &World) -> Client {
        let config = kube::config::Kubeconfig::read_from(&world.sandbox.kubeconfig).unwrap();
        let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await;
        let mut config = config.unwrap();
        config.auth_info.impersonate = Some(ACCOUNT.to_owned());
        Client::try_from(config).unwrap()
    }

    fn api<K: Kind>(&self) -> Api<K> {
        Api::namespaced(self.world.client(), "demo")
    }

    /// Commits a file and pushes it; gives the commit's id.
    fn push(&self, file: &str, text: &str) -> String {
        std::fs::write(self.work.join(file), text).unwrap();
        git(&self.work, &["add", "."]);
        git(&self.work, &["commit", "-q", "-m", file]);
        git(&self.work, &["push", "-q", "origin", "main"]);
        git(&self.work, &["rev-parse", "HEAD"])
    }

    /// A document that is all there is, so that its text becomes a Secret.
    fn replace(&self, work_mem: u32) -> String {
        let text = document("orders", &format!("work_mem: {work_mem}MB"));
        self.push("orders.yaml", &text.replace("spec:\n", "spec:\n  mode: Replace\n"))
    }

    /// Waits until the commit's note begins like this.
    async fn noted(&self, commit: &str, begins: &str) {
        let bare = self.world.sandbox.config_git.clone().unwrap();
        until(&format!("a note {begins:?} on {commit}"), || async {
            let show = ["notes", "--ref=pgitops/default", "show", commit];
            let output = Command::new("git").current_dir(&bare).args(show).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if text.starts_with(begins) { Ok(()) } else { Err(text) }
        })
        .await;
    }

    /// Waits until the repository is as wanted.
    async fn repository(&self, what: &str, wanted: impl Fn(&Value) -> bool) {
        until(what, || async {
            let repository = self.api::<ConfigRepository>().get("config").await.unwrap();
            let status = json!(repository.status);
            if wanted(&status) { Ok(()) } else { Err(format!("{status:#}")) }
        })
        .await;
    }

    async fn change<K: Kind>(&self, name: &str, patch: Value) {
        let parameters = PatchParams::default();
        self.api::<K>().patch(name, &parameters, &Patch::Merge(patch)).await.unwrap();
    }

    async fn requests(&self) -> Vec<PostgresOpsRequest> {
        self.api().list(&ListParams::default()).await.unwrap().items
    }

    /// Deletes an object and waits until it is gone.
    async fn gone<K: Kind>(&self, name: &str) {
        let api = self.api::<K>();
        api.delete(name, &DeleteParams::default()).await.unwrap();
        until(&format!("{name} is gone"), || async {
            match api.get_opt(name).await.unwrap() {
                None => Ok(()),
                Some(left) => Err(format!("{:?}", left.meta().finalizers)),
            }
        })
        .await;
    }

    /// Ends the controller; what the account did.
    async fn stop(self) -> BTreeSet<Access> {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        // The only lease, by the name that the role allows; given back, so that nobody has to wait
        // for it to expire.
        let leases = Api::<Lease>::namespaced(self.world.client(), HOME);
        let leases = leases.list(&ListParams::default()).await.unwrap().items;
        assert_eq!(leases.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["pgitops"]);
        let spec = leases[0].spec.as_ref().unwrap();
        assert_eq!(spec.holder_identity.as_deref(), Some(""));
        let all = self.world.sandbox.accesses();
        self.world.stop().await;
        all.into_iter().filter(|access| access.user == ACCOUNT).collect()
    }
}
