//! The sync loop against a real git repository and the sandbox's API server, with somebody else
//! carrying the requests out: as it is beside KubeDB.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use pgitops::api::names::annotations;
use pgitops::api::ops_request::OpsPhase;
use pgitops::api::{Claim, ConfigRepository, Postgres, PostgresOpsRequest, conditions};
use pgitops::cluster::{Cluster, Leadership, Watched};
use pgitops::git::{MirrorOptions, Mirrors};
use pgitops::sync::{Context, reconcile};
use pgitops::telemetry::Metrics;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::fixture::{MAJOR, World, until};

struct Line {
    world: World,
    cx: Arc<Context>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    work: PathBuf,
    _folder: tempfile::TempDir,
}

/// Runs git as a person of that folder; what it prints.
pub fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(folder)
        .args(["-c", "user.name=ana", "-c", "user.email=ana@example.com"])
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("git is needed by this test: install it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Line {
    async fn start() -> Self {
        let world = World::start().await;
        let folder = tempfile::tempdir().unwrap();
        let bare = world.sandbox.config_git.clone().unwrap();
        git(folder.path(), &["clone", "-q", bare.to_str().unwrap(), "work"]);
        let work = folder.path().join("work");
        git(&work, &["checkout", "-q", "-b", "main"]);
        let cluster = Cluster::new(world.client());
        let options = MirrorOptions { allow_local: true, ..MirrorOptions::default() };
        let mirrors = Mirrors::open(folder.path().join("mirrors"), options).unwrap();
        let cx = Arc::new(Context::new(
            cluster.clone(),
            mirrors,
            Watched::<ConfigRepository>::start(&cluster, None),
            Watched::<Postgres>::start(&cluster, None),
            Watched::<PostgresOpsRequest>::start(&cluster, None),
            Leadership::fixed(1),
            Arc::new(Metrics::default()),
        ));
        let stop = CancellationToken::new();
        let run = pgitops::sync::run(cx.clone(), stop.clone());
        let task = tokio::spawn(async move { run.await.unwrap() });
        Self { world, cx, stop, task, work, _folder: folder }
    }

    /// How often the API server was asked for something that has to do with us.
    fn asked(&self) -> u64 {
        self.world.sandbox.asked().values().sum()
    }

    /// A database that somebody set up.
    async fn database(&self, name: &str) {
        self.world.apply(&json!({
            "apiVersion": "kubedb.com/v1", "kind": "Postgres",
            "metadata": {"name": name, "namespace": "demo"},
            "spec": {"version": *MAJOR, "storageType": "Ephemeral"},
        }));
        let status = json!({"status": {"phase": "Ready", "conditions": []}});
        let patch = Patch::Merge(&status);
        self.databases().patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }

    fn databases(&self) -> Api<Postgres> {
        Api::namespaced(self.world.client(), "demo")
    }

    fn requests(&self) -> Api<PostgresOpsRequest> {
        Api::namespaced(self.world.client(), "demo")
    }

    fn repositories(&self) -> Api<ConfigRepository> {
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

    /// The open request of a database.
    async fn open_request(&self, name: &str) -> PostgresOpsRequest {
        until(&format!("a request for {name}"), || async {
            let all = self.requests().list(&Default::default()).await.unwrap().items;
            let open = all
                .into_iter()
                .find(|r| r.spec.database_ref.name == name && !r.phase().is_terminal());
            open.ok_or_else(|| "none".to_owned())
        })
        .await
    }

    /// Carries a request out as KubeDB would: no proof, but the object says the new thing.
    async fn carry_out(&self, request: &PostgresOpsRequest) {
        self.carry_out_with(request, json!({})).await;
    }

    /// Carries a request out, with more of a status.
    async fn carry_out_with(&self, request: &PostgresOpsRequest, more: serde_json::Value) {
        let settings = request.spec.configuration.as_ref().unwrap().settings();
        let inline = json!({"spec": {"configuration": {"inline": {"user.conf": settings}}}});
        let name = &request.spec.database_ref.name;
        let parameters = PatchParams::default();
        self.databases().patch(name, &parameters, &Patch::Merge(&inline)).await.unwrap();
        let mut status = json!({"phase": OpsPhase::Successful, "conditions": []});
        status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let status = json!({ "status": status });
        let patch = Patch::Merge(&status);
        self.requests().patch_status(&request.name_any(), &parameters, &patch).await.unwrap();
    }

    /// Waits until the note of a commit begins as expected; gives it.
    async fn note(&self, commit: &str, begins: &str) -> String {
        self.world.note(commit, begins).await
    }

    async fn ready(&self, status: &str) -> String {
        until(&format!("Ready={status}"), || async {
            let repository = self.repositories().get("config").await.unwrap();
            let said = repository.status.unwrap_or_default();
            let ready = conditions::find(&said.conditions, "Ready").cloned();
            match ready {
                Some(ready) if ready.status == status => Ok(ready.message),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    async fn claim(&self, name: &str) -> Option<Claim> {
        let postgres = self.databases().get(name).await.unwrap();
        Claim::parse(postgres.annotations().get(annotations::CLAIM)?)
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        self.world.stop().await;
    }
}

/// A document with these parameters, in the flow form.
pub fn document(database: &str, parameters: &str) -> String {
    format!(
        "apiVersion: pgitops.dev/v1alpha1\nkind: PostgresConfig\nmetadata: {{name: {database}}}\n\
         spec:\n  databaseRef: {{name: {database}}}\n  parameters: {{{parameters}}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_becomes_a_request_and_its_result_a_note() {
    let line = Line::start().await;
    line.database("orders").await;
    let first = line.push("orders.yaml", &document("orders", "work_mem: 16MB"));

    let request = line.open_request("orders").await;
    assert_eq!(request.annotation(annotations::COMMIT), Some(first.as_str()));
    assert_eq!(request.spec.configuration.as_ref().unwrap().settings(), "work_mem = '16MB'\n");
    line.note(&first, "IN PROGRESS").await;
    let claim = line.claim("orders").await.unwrap();
    assert!(claim.managed.contains("work_mem"));
    line.carry_out(&request).await;
    let note = line.note(&first, "APPLIED: 1 of 1 database applied").await;
    assert!(note.contains("Outcome: applied, reported by KubeDB, not proven"), "{note}");
    assert!(note.contains("Changed: work_mem 4MB -> 16MB (reload; orders.yaml:6)"), "{note}");
    line.ready("True").await;
    assert_eq!(line.claim("orders").await.unwrap().applied.unwrap().as_str(), first);

    // A broken file beside it hides nothing; a commit that changes no document gets no note.
    let broken = line.push("broken.yaml", "kind: PostgresConfig\nspec: [");
    let note = line.note(&broken, "REFUSED").await;
    assert!(note.contains("File: broken.yaml"), "{note}");
    let message = line.ready("False").await;
    assert!(message.contains("broken.yaml:2:7 not YAML: unclosed bracket"), "{message}");
    std::fs::remove_file(line.work.join("broken.yaml")).unwrap();
    line.push("README.md", "hello");
    line.ready("True").await;

    // Somebody changes the value behind our back. KubeDB may restart for the correction.
    let other = json!({"spec": {"configuration": {"inline": {"user.conf": "work_mem=1MB"}}}});
    let parameters = PatchParams::default();
    line.databases().patch("orders", &parameters, &Patch::Merge(&other)).await.unwrap();
    let message = line.ready("False").await;
    let why = "somebody changed work_mem; correcting it may need a restart";
    assert!(message.contains(why), "{message}");
    let policy = "apiVersion: pgitops.dev/v1alpha1\nkind: ConfigPolicy\n\
                  spec: {drift: EnforceWithRestart}\n";
    line.push("pgitops.yaml", policy);
    let correction = line.open_request("orders").await;
    assert_eq!(correction.annotation(annotations::CAUSE), Some("drift"));
    let previous = request.name_any();
    assert_eq!(correction.annotation(annotations::PREVIOUS), Some(previous.as_str()));
    line.carry_out(&correction).await;
    line.ready("True").await;
    let told = format!(
        "Drift-Corrected: demo/orders work_mem 1MB -> 16MB, reported by KubeDB, not proven (demo/{})",
        correction.name_any()
    );
    until("a line about the correction", || async {
        let note = line.note(&first, "APPLIED: 1 of 1 database applied").await;
        if note.lines().any(|line| line == told) { Ok(()) } else { Err(note) }
    })
    .await;
    let metrics = line.cx.metrics.render();
    assert!(metrics.contains("pgitops_requests_ended_total{phase=\"Successful\"} 2"), "{metrics}");
    // Nobody gave proof.
    assert!(metrics.contains("pgitops_commit_to_proven_seconds_count 0"), "{metrics}");

    // The repository goes: the database is released with its values.
    line.repositories().delete("config", &Default::default()).await.unwrap();
    until("released", || async {
        let gone = line.repositories().get_opt("config").await.unwrap().is_none();
        match (gone, line.claim("orders").await) {
            (true, None) => Ok(()),
            state => Err(format!("{state:?}")),
        }
    })
    .await;
    let postgres = line.databases().get("orders").await.unwrap();
    assert_eq!(postgres.spec.inline(), "work_mem = '16MB'\n");
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_repository_costs_no_api_call() {
    let line = Line::start().await;
    line.database("orders").await;
    let first = line.push("orders.yaml", &document("orders", "work_mem: 16MB"));
    let request = line.open_request("orders").await;
    line.carry_out(&request).await;
    line.note(&first, "APPLIED").await;
    line.ready("True").await;
    line.stop.cancel();
    let look = || async {
        let repository = Arc::new(line.repositories().get("config").await.unwrap());
        let before = line.asked();
        reconcile::reconcile(repository, line.cx.clone()).await.unwrap();
        line.asked() - before
    };
    // The first look may still write what the last pass of the loop left.
    until("a look without a call", || async {
        match look().await {
            0 => Ok(()),
            calls => Err(format!("{calls} calls")),
        }
    })
    .await;
    assert_eq!(look().await, 0);
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_is_counted_once() {
    let line = Line::start().await;
    line.database("orders").await;
    let first = line.push("orders.yaml", &document("orders", "work_mem: 16MB"));
    let request = line.open_request("orders").await;
    let proof = json!({"proof": {"proven": 1, "nodes": 1, "durationMs": 700}});
    line.carry_out_with(&request, proof).await;
    line.note(&first, "APPLIED").await;
    line.ready("True").await;
    let counted = || {
        let metrics = line.cx.metrics.render();
        for expected in [
            "pgitops_requests_ended_total{phase=\"Successful\"} 1",
            "pgitops_rollout_seconds_sum 0.7",
            "pgitops_rollout_seconds_count 1",
            "pgitops_commit_to_proven_seconds_count 1",
        ] {
            assert!(metrics.lines().any(|line| line == expected), "{expected}: {metrics}");
        }
    };
    counted();
    line.stop.cancel();
    let repository = Arc::new(line.repositories().get("config").await.unwrap());
    reconcile::reconcile(repository, line.cx.clone()).await.unwrap();
    counted();
    line.stop().await;
}
