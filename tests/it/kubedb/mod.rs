//! pgitops beside KubeDB: KubeDB's own definitions, its webhooks' rules and a small KubeDB to play
//! against, on the sandbox's server and on a real control plane. Of pgitops only the loop `sync`
//! runs, as a person starts it (`pgitops controller --loops sync`).
//!
//! Every case ends with [`Beside::end`], which looks at all that pgitops wrote.

pub mod cases;
pub mod operator;
pub mod webhook;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use pgitops::api::ConfigRepository;
use pgitops::cli::controller::{self, Loop, Settings};
use pgitops::cluster::Cluster as Connection;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::conformance::line::git;
use crate::conformance::{Cluster, eventually};
use operator::{KubeDb, OPS_MANAGER, OWNER, PROVISIONER};

/// Calls `$each!` with all cases.
macro_rules! beside_cases {
    ($each:ident) => {
        $each! {
            a_change_its_removal_and_a_replacement,
            a_failure_is_told_and_tried_again_only_with_new_content,
            a_denied_request_is_told,
            a_request_that_waits_for_approval_is_followed,
            a_request_merged_with_somebody_elses_is_followed,
            a_merged_request_that_fails_is_held,
            other_operations_go_first,
            phases_and_pauses_are_waited_for,
            what_a_tool_would_write_back_is_held,
            old_and_odd_databases_are_understood,
            a_change_without_a_restart_waits_for_one,
            what_kubedb_may_restart_for_is_planned_as_a_restart,
            what_the_document_does_not_name_is_not_taken_away,
            an_old_definition_gets_no_request,
        }
    };
}
pub(crate) use beside_cases;

/// Field manager of pgitops.
const PGITOPS: &str = "pgitops";

/// Puts KubeDB's definitions in the place of ours.
pub async fn define(client: &Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let texts = [include_str!("postgreses.yaml"), include_str!("postgresopsrequests.yaml")];
    for text in texts {
        let mut definition: CustomResourceDefinition = serde_yaml::from_str(text).unwrap();
        let name = definition.name_any();
        let found = definitions.get(&name).await.unwrap();
        definition.metadata.resource_version = found.metadata.resource_version;
        let parameters = PostParams::default();
        let stored = definitions.replace(&name, &parameters, &definition).await.unwrap();
        eventually(&format!("{name} is served as it is written"), || async {
            let found = definitions.get(&name).await.unwrap();
            let said = found.status.unwrap_or_default().conditions.unwrap_or_default();
            let is = |type_: &str| said.iter().any(|c| c.type_ == type_ && c.status == "True");
            assert!(!is("NonStructuralSchema"), "{said:?}");
            let ours = found.metadata.generation >= stored.metadata.generation;
            if ours && is("Established") { Ok(()) } else { Err(format!("{said:?}")) }
        })
        .await;
    }
    pruned(client).await;
}

/// Puts a definition of requests in place that is older than `restart` and `tuning`.
pub async fn define_old_requests(client: &Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = "postgresopsrequests.ops.kubedb.com";
    let fields = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/configuration/properties";
    let gone = |field: &str| json!({"op": "remove", "path": format!("{fields}/{field}")});
    let patch = serde_json::from_value(json!([gone("restart"), gone("tuning")])).unwrap();
    let patch = Patch::Json::<()>(patch);
    definitions.patch(name, &PatchParams::default(), &patch).await.unwrap();
    restart_is(client, false).await;
}

/// Waits until the servers know `restart`, or do not.
pub async fn restart_is(client: &Client, known: bool) {
    let object = json!({
        "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest",
        "metadata": {"name": "tried", "namespace": "default"},
        "spec": {"databaseRef": {"name": "none"}, "type": "Reconfigure",
            "configuration": {"restart": "false", "applyConfig": {}}},
    });
    let path = "/apis/ops.kubedb.com/v1alpha1/namespaces/default/postgresopsrequests\
                ?dryRun=All&fieldValidation=Strict";
    eventually(&format!("restart is known: {known}"), || async {
        let call = http::Request::post(path).header("content-type", "application/json");
        let call = call.body(object.to_string().into_bytes()).unwrap();
        match client.request::<Value>(call).await {
            Err(kube::Error::Api(said))
                if !known && said.message.contains("configuration.restart") =>
            {
                Ok(())
            }
            Ok(_) if known => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// Waits until the servers prune what KubeDB does not define: a definition takes a moment.
async fn pruned(client: &Client) {
    eventually("KubeDB's definitions are in force", || async {
        let api = Api::<pgitops::api::Postgres>::namespaced(client.clone(), "default");
        let spec = json!({"version": "16.4", "deletionPolicy": "Delete"});
        let object = json!({"metadata": {"name": "trial"}, "spec": spec});
        let parameters = PostParams { dry_run: true, ..PostParams::default() };
        let object = serde_json::from_value(object).unwrap();
        let stored = api.create(&parameters, &object).await.map_err(|e| e.to_string())?;
        // A default that only KubeDB's definition has.
        let filled_in = stored.spec.other.contains_key("healthChecker");
        if filled_in { Ok(()) } else { Err(format!("{:?}", stored.spec.other)) }
    })
    .await;
}

/// pgitops and KubeDB in one namespace.
pub struct Beside<'a> {
    pub c: &'a Cluster,
    pub kubedb: KubeDb,
    folder: tempfile::TempDir,
    seen: Arc<Mutex<Vec<Value>>>,
    watching: JoinHandle<()>,
    stop: CancellationToken,
    controller: JoinHandle<anyhow::Result<()>>,
}

/// Keeps every state of every request that the API server tells of.
fn watch(kubedb: &KubeDb, seen: &Arc<Mutex<Vec<Value>>>) -> JoinHandle<()> {
    let (requests, all) = (kubedb.requests.clone(), seen.clone());
    tokio::spawn(async move {
        let events = watcher(requests, watcher::Config::default()).default_backoff();
        let mut objects = std::pin::pin!(events.applied_objects());
        while let Some(object) = objects.next().await {
            if let Ok(object) = object {
                all.lock().unwrap().push(serde_json::to_value(object).unwrap());
            }
        }
    })
}

impl<'a> Beside<'a> {
    /// Starts `sync` alone with a repository of its own.
    pub async fn start(c: &'a Cluster) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bare = folder.path().join("config.git");
        let work = folder.path().join("work");
        git(folder.path(), &["init", "-q", "--bare", "-b", "main", "config.git"]).await.unwrap();
        git(folder.path(), &["init", "-q", "-b", "main", "work"]).await.unwrap();
        git(&work, &["remote", "add", "origin", bare.to_str().unwrap()]).await.unwrap();
        let kubedb = KubeDb::new(c);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let watching = watch(&kubedb, &seen);
        let settings = Settings {
            lease_namespace: c.namespace.clone(),
            ..Settings::sandbox(folder.path().join("mirrors"))
        };
        let stop = CancellationToken::new();
        let connection = Connection::new(c.client.clone());
        let work = controller::work(connection, vec![Loop::Sync], settings, stop.clone());
        let controller = tokio::spawn(work);
        let beside = Self { c, kubedb, folder, seen, watching, stop, controller };
        beside.push("README.md", "hello").await;
        let url = beside.bare();
        let object = json!({"metadata": {"name": "config"},
            "spec": {"url": url.to_str().unwrap(), "interval": "10s"}});
        let object = serde_json::from_value(object).unwrap();
        let parameters =
            PostParams { field_manager: Some(OWNER.to_owned()), ..PostParams::default() };
        beside.repositories().create(&parameters, &object).await.unwrap();
        beside
    }

    /// Watches anew, so that nothing is told as an older definition keeps it.
    pub fn watch_anew(&mut self) {
        self.watching.abort();
        self.watching = watch(&self.kubedb, &self.seen);
    }

    fn bare(&self) -> PathBuf {
        self.folder.path().join("config.git")
    }

    pub fn repositories(&self) -> Api<ConfigRepository> {
        self.c.api()
    }

    /// Commits a file and pushes it; the commit's id.
    pub async fn push(&self, file: &str, text: &str) -> String {
        let work = self.folder.path().join("work");
        std::fs::write(work.join(file), text).unwrap();
        git(&work, &["add", "."]).await.unwrap();
        git(&work, &["commit", "-q", "-m", file]).await.unwrap();
        git(&work, &["push", "-q", "origin", "main"]).await.unwrap();
        git(&work, &["rev-parse", "HEAD"]).await.unwrap()
    }

    /// Commits a document in mode Merge.
    pub async fn merge(&self, database: &str, parameters: &str) -> String {
        self.push(&format!("{database}.yaml"), &document(database, "", parameters)).await
    }

    /// Waits until the note of a commit begins like this; gives it.
    pub async fn note(&self, commit: &str, begins: &str) -> String {
        let bare = self.bare();
        eventually(&format!("a note {begins:?} on {commit}"), || async {
            let text = git(&bare, &["notes", "--ref=pgitops/default", "show", commit]).await?;
            if text.starts_with(begins) { Ok(text) } else { Err(text) }
        })
        .await
    }

    /// Waits until the repository's status says that a database is held because of this.
    pub async fn held(&self, database: &str, because: &str) {
        let begin = format!("{}/{database}: ", self.c.namespace);
        eventually(&format!("{database} is held: {because}"), || async {
            let status = self.repositories().get("config").await.unwrap().status;
            let held = status.unwrap_or_default().held;
            let is = held.iter().any(|line| line.starts_with(&begin) && line.contains(because));
            if is { Ok(()) } else { Err(format!("{held:?}")) }
        })
        .await;
    }

    /// Waits until nothing more is to be done for this commit.
    pub async fn settled(&self, commit: &str) {
        eventually(&format!("the repository is settled at {commit}"), || async {
            let status = self.repositories().get("config").await.unwrap().status;
            let status = status.unwrap_or_default();
            let applied = status.applied.as_deref() == Some(commit);
            if applied && status.held.is_empty() { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
    }

    /// The requests of pgitops for a database, oldest first.
    pub async fn ours(&self, database: &str) -> Vec<Value> {
        let all = self.kubedb.requests.list(&ListParams::default()).await.unwrap().items;
        let mut ours: Vec<Value> = all
            .iter()
            .map(|request| serde_json::to_value(request).unwrap())
            .filter(|request| {
                let repository = &request["metadata"]["annotations"]["pgitops.dev/repository"];
                repository.is_string() && request["spec"]["databaseRef"]["name"] == database
            })
            .collect();
        ours.sort_by_key(|request| request["metadata"]["creationTimestamp"].to_string());
        ours
    }

    /// Waits until pgitops has an open request for a database; its name.
    pub async fn asked(&self, database: &str) -> String {
        eventually(&format!("a request for {database}"), || async {
            let ended = ["Successful", "Failed", "Denied", "Skipped"];
            let ours = self.ours(database).await;
            let open = ours.iter().find(|request| {
                !ended.contains(&request["status"]["phase"].as_str().unwrap_or_default())
            });
            let name = open.map(|request| request["metadata"]["name"].as_str().unwrap());
            name.map(str::to_owned).ok_or_else(|| format!("{ours:#?}"))
        })
        .await
    }

    /// Looks again, to the end, and says how many requests there are then.
    pub async fn look(&self, database: &str) -> usize {
        let mark = format!("look {}", self.seen.lock().unwrap().len());
        let mark = format!("{mark} {}", jiff::Timestamp::now());
        let patch = json!({"metadata": {"annotations": {"pgitops.dev/requestedAt": mark}}});
        let parameters =
            PatchParams { field_manager: Some(OWNER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(&patch);
        self.repositories().patch("config", &parameters, &patch).await.unwrap();
        eventually("a look that was asked for", || async {
            let status = self.repositories().get("config").await.unwrap().status;
            let handled = status.unwrap_or_default().last_handled_request;
            if handled.as_deref() == Some(&mark) { Ok(()) } else { Err(format!("{handled:?}")) }
        })
        .await;
        self.ours(database).await.len()
    }

    /// What `pgitops plan` says of a document that is not pushed yet.
    pub async fn plan(&self, file: &str, text: &str) -> String {
        let draft = self.folder.path().join("draft");
        std::fs::create_dir_all(&draft).unwrap();
        std::fs::write(draft.join(file), text).unwrap();
        self.pgitops(&["plan", "--folder", draft.to_str().unwrap()]).await
    }

    /// What `pgitops` prints for this cluster, whatever it exits with.
    pub async fn pgitops(&self, arguments: &[&str]) -> String {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_pgitops"))
            .args(arguments)
            .args(["-n", &self.c.namespace, "--kubeconfig"])
            .arg(&self.c.kubeconfig)
            .env("HOME", self.folder.path())
            .output()
            .await
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8(text).unwrap()
    }

    /// Ends pgitops: its repository goes first, so that every database is released. Then looks at
    /// everything in the namespace.
    pub async fn end(self) {
        self.only_the_claim_is_written(true).await;
        self.repositories().delete("config", &DeleteParams::default()).await.unwrap();
        eventually("the repository is gone", || async {
            let left = self.repositories().get_opt("config").await.unwrap();
            if left.is_none() { Ok(()) } else { Err("it is there".to_owned()) }
        })
        .await;
        self.only_the_claim_is_written(false).await;
        self.every_request_is_valid().await;
        self.nothing_else_is_written().await;
        self.stop.cancel();
        self.controller.await.unwrap().unwrap();
        self.watching.abort();
    }

    /// Of each database pgitops owns the claim and nothing else, and the rest of it is what KubeDB
    /// and its owner wrote.
    async fn only_the_claim_is_written(&self, claimed: bool) {
        let claim = json!({"f:metadata": {"f:annotations": {"f:pgitops.dev/claim": {}}}});
        let mut claims = 0;
        for name in self.kubedb.names() {
            let mut object = self.kubedb.get(&name).await;
            let entries = object["metadata"]["managedFields"].as_array().cloned();
            for entry in entries.unwrap_or_default() {
                let manager = entry["manager"].as_str().unwrap();
                if manager == PGITOPS {
                    assert_eq!((&entry["fieldsV1"], &entry["subresource"]), (&claim, &Value::Null));
                    claims += 1;
                }
                assert_ne!(manager, "unknown", "{entry}");
            }
            let annotations = object["metadata"]["annotations"].as_object_mut().unwrap();
            let there = annotations.remove("pgitops.dev/claim").is_some();
            assert!(claimed || !there, "{name} is still claimed");
            // A person's, if there is one.
            annotations.remove("pgitops.dev/retry");
            assert_eq!(json!(annotations), json!({"example.com/cost-centre": "4711"}));
            assert_eq!(object["metadata"]["labels"], json!({"team": "payments"}));
            let expected = self.kubedb.expected(&name);
            assert_eq!(object["spec"].to_string(), expected["spec"].to_string());
            assert_eq!(object["status"].to_string(), expected["status"].to_string());
        }
        assert!(claims > 0 || !claimed, "nothing was claimed");
    }

    /// KubeDB's webhooks would have admitted every request, and every change of it.
    async fn every_request_is_valid(&self) {
        webhook::check();
        let databases: BTreeSet<String> = self.kubedb.names().into_iter().collect();
        // A watch that was cut (a definition changed, say) pauses before it goes on.
        let all = self.kubedb.requests.list(&ListParams::default()).await.unwrap().items;
        eventually("the watch has told of every request", || async {
            let seen = self.seen.lock().unwrap();
            let told = |uid: &String| seen.iter().any(|known| known["metadata"]["uid"] == **uid);
            let missing = all.iter().find(|request| !request.metadata.uid.iter().any(told));
            missing.map_or(Ok(()), |request| Err(request.name_any()))
        })
        .await;
        let seen = self.seen.lock().unwrap().clone();
        let mut ours = 0;
        for (at, request) in seen.iter().enumerate() {
            let uid = &request["metadata"]["uid"];
            let before = seen[..at].iter().rev().find(|other| other["metadata"]["uid"] == *uid);
            assert_eq!(webhook::refusal(request, before, &databases), None, "{request:#}");
            let entries = request["metadata"]["managedFields"].as_array().unwrap();
            let own = entries.iter().filter(|entry| entry["manager"] == PGITOPS);
            for entry in own {
                ours += 1;
                // It is KubeDB who says how far a request is.
                assert_eq!(entry["subresource"], Value::Null, "{entry}");
                assert!(request["metadata"]["annotations"]["pgitops.dev/repository"].is_string());
                assert!(entry["fieldsV1"]["f:status"].is_null(), "{entry}");
            }
        }
        assert!(ours > 0, "no request of pgitops was seen");
    }

    /// Every Secret is its own or was never touched; there is nothing else.
    async fn nothing_else_is_written(&self) {
        for secret in self.kubedb.secrets.list(&ListParams::default()).await.unwrap() {
            let rendered = secret.labels().contains_key("pgitops.dev/rendered-for");
            let managers: BTreeSet<&str> =
                secret.managed_fields().iter().filter_map(|e| e.manager.as_deref()).collect();
            let expected =
                if rendered { [PGITOPS].as_slice() } else { &[PROVISIONER, OPS_MANAGER, OWNER] };
            assert!(
                managers.iter().all(|manager| expected.contains(manager)),
                "{}: {managers:?}",
                secret.name_any()
            );
        }
        async fn none<K>(c: &Cluster)
        where
            K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
                + Clone
                + std::fmt::Debug
                + serde::de::DeserializeOwned,
        {
            let all = c.api::<K>().list(&ListParams::default()).await.unwrap().items;
            let names: Vec<String> = all.iter().map(kube::ResourceExt::name_any).collect();
            let names: Vec<_> = names.iter().filter(|n| *n != "kube-root-ca.crt").collect();
            assert!(names.is_empty(), "{}: {names:?}", K::kind(&()));
        }
        none::<StatefulSet>(self.c).await;
        none::<Service>(self.c).await;
        none::<Pod>(self.c).await;
        none::<ConfigMap>(self.c).await;
    }

    /// A Secret of its owner's.
    pub async fn secret(&self, name: &str, user_conf: &str) {
        let data = json!({"metadata": {"name": name}, "stringData": {"user.conf": user_conf}});
        self.kubedb.put_secret(data, OWNER).await;
    }

    /// A Secret as it is.
    pub async fn text(&self, name: &str) -> String {
        let secret: Secret = self.kubedb.secrets.get(name).await.unwrap();
        let data = secret.data.unwrap_or_default();
        String::from_utf8(data["user.conf"].0.clone()).unwrap()
    }
}

/// A document; `more`: lines of its spec in flow form, as `restart: "false", `.
pub fn document(database: &str, more: &str, parameters: &str) -> String {
    format!(
        "apiVersion: pgitops.dev/v1alpha1\nkind: PostgresConfig\nmetadata: {{name: {database}}}\n\
         spec: {{databaseRef: {{name: {database}}}, {more}parameters: {{{parameters}}}}}\n"
    )
}
