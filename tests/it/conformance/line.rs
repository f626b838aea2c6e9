//! The whole line on one server: three nodes from a manifest, requests by hand, a push to git, the
//! notes, the end. pgitops runs as a process of its own, as it does in a cluster.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use pgitops::api::ops_request::OpsPhase;
use pgitops::api::postgres::Phase;
use pgitops::api::{ConfigRepository, Postgres, PostgresOpsRequest, conditions};
use serde_json::{Value, json};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::{Cluster, eventually};
use crate::fixture::MAJOR;

/// How long the steps took, as a person at kubectl and git sees them.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// From the manifest to phase Ready, three nodes.
    pub ready: Duration,
    /// From a request that needs a reload to Successful.
    pub reload: Duration,
    /// From a request that needs restarts to Successful.
    pub restart: Duration,
    /// From a push that needs a reload to its note.
    pub push: Duration,
}

/// Runs the whole line with the given executable of pgitops.
pub async fn the_whole_line(c: &Cluster, executable: &Path) -> Figures {
    let line = Line::start(c, executable);
    let ready = line.database().await;
    let (reload, restart) = line.requests_by_hand().await;
    let push = line.pushes().await;
    line.end().await;
    Figures { ready, reload, restart, push }
}

struct Line<'a> {
    c: &'a Cluster,
    folder: tempfile::TempDir,
    _controller: tokio::process::Child,
}

pub async fn git(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = tokio::process::Command::new("git")
        .current_dir(folder)
        .args(["-c", "user.name=ana", "-c", "user.email=ana@example.com"])
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .await
        .expect("git is needed by this test: install it");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

impl<'a> Line<'a> {
    fn start(c: &'a Cluster, executable: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(folder.path().join("controller.log")).unwrap();
        let controller = tokio::process::Command::new(executable)
            .args(["controller", "--allow-local-repositories"])
            .args(["--lease-namespace", &c.namespace])
            .arg("--kubeconfig")
            .arg(&c.kubeconfig)
            .arg("--cache-directory")
            .arg(folder.path().join("mirrors"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { c, folder, _controller: controller }
    }

    fn databases(&self) -> Api<Postgres> {
        self.c.api()
    }

    /// Creates a database of three nodes; how long it took to be Ready.
    async fn database(&self) -> Duration {
        let began = Instant::now();
        let object = json!({
            "metadata": {"name": "orders"},
            "spec": {
                "version": *MAJOR, "replicas": 3,
                "storage": {"resources": {"requests": {"storage": "1Gi"}}},
                // 16 MB of shared buffers: three servers share this machine with other tests.
                "podTemplate": {"spec": {"containers": [
                    {"name": "postgres", "resources": {"limits": {"memory": "64Mi"}}}
                ]}},
            },
        });
        let object: Postgres = serde_json::from_value(object).unwrap();
        self.databases().create(&PostParams::default(), &object).await.unwrap();
        eventually("orders is Ready", || async {
            let postgres = self.databases().get("orders").await.unwrap();
            if postgres.phase() == Some(Phase::Ready) {
                return Ok(());
            }
            let log = std::fs::read_to_string(self.folder.path().join("controller.log"));
            Err(format!("{:#}\n{}", json!(postgres.status), log.unwrap_or_default()))
        })
        .await;
        let took = began.elapsed();
        let waited = self.c.ok("wait pg/orders --for=condition=Ready --timeout=30s").await;
        assert_eq!(waited, "postgres.kubedb.com/orders condition met");
        let log = self.c.ok("logs orders-0").await;
        assert!(!log.is_empty(), "the node serves its log");
        took
    }

    /// Sends a request; how long it took to be Successful.
    async fn ask(&self, name: &str, spec: Value) -> Duration {
        let mut whole = json!({"databaseRef": {"name": "orders"}});
        json_patch::merge(&mut whole, &spec);
        let object = json!({"metadata": {"name": name}, "spec": whole});
        let requests: Api<PostgresOpsRequest> = self.c.api();
        let began = Instant::now();
        let object = serde_json::from_value(object).unwrap();
        requests.create(&PostParams::default(), &object).await.unwrap();
        let ended = eventually(&format!("{name} has ended"), || async {
            let request = requests.get(name).await.unwrap();
            if request.phase().is_terminal() { Ok(request) } else { Err(json!(request.status)) }
                .map_err(|status| format!("{status:#}"))
        })
        .await;
        let took = began.elapsed();
        assert_eq!(ended.phase(), OpsPhase::Successful, "{name}: {:#}", json!(ended.status));
        let proof = ended.status.and_then(|s| s.proof).unwrap_or_default();
        assert_eq!(proof.proven, 3, "{name}: {proof:?}");
        took
    }

    async fn requests_by_hand(&self) -> (Duration, Duration) {
        let pods = self.uids().await;
        let change = |text: &str| {
            json!({"type": "Reconfigure",
                   "configuration": {"applyConfig": {"user.conf": text}}})
        };
        let reload = self.ask("reload", change("work_mem = 8MB")).await;
        assert_eq!(self.show("work_mem").await, ["8MB"; 3]);
        let restart = self.ask("raise", change("max_connections = 150")).await;
        assert_eq!(self.show("max_connections").await, ["150"; 3]);
        let starts = self.show_all("select pg_postmaster_start_time()").await;
        self.ask("restart", json!({"type": "Restart"})).await;
        let again = self.show_all("select pg_postmaster_start_time()").await;
        assert!(starts.iter().zip(&again).all(|(before, after)| before != after), "{starts:?}");
        assert_eq!(self.uids().await, pods, "no pod was replaced");
        (reload, restart)
    }

    async fn uids(&self) -> Vec<Option<String>> {
        let pods: Api<Pod> = self.c.api();
        let all = pods.list(&ListParams::default()).await.unwrap().items;
        all.into_iter().map(|pod| pod.metadata.uid).collect()
    }

    async fn show(&self, name: &str) -> Vec<String> {
        self.show_all(&format!("show {name}")).await
    }

    /// The answer of every node.
    async fn show_all(&self, query: &str) -> Vec<String> {
        let secrets: Api<Secret> = self.c.api();
        let password =
            secrets.get("orders-auth").await.unwrap().data.unwrap()["password"].0.clone();
        let pods: Api<Pod> = self.c.api();
        let mut all = Vec::new();
        for ordinal in 0..3 {
            let pod = pods.get(&format!("orders-{ordinal}")).await.unwrap();
            let mut config = tokio_postgres::Config::new();
            config.host(pod.status.unwrap().pod_ip.unwrap()).user("postgres");
            config.password(&password).dbname("postgres");
            let (client, connection) = config.connect(NoTls).await.unwrap();
            tokio::spawn(connection);
            let rows = client.simple_query(query).await.unwrap();
            let row = rows.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            });
            all.push(row.unwrap());
        }
        all
    }

    /// Pushes commits; how long the first took to its note.
    async fn pushes(&self) -> Duration {
        let bare = self.folder.path().join("config.git");
        let work = self.folder.path().join("work");
        git(self.folder.path(), &["init", "-q", "--bare", "-b", "main", "config.git"])
            .await
            .unwrap();
        git(self.folder.path(), &["init", "-q", "-b", "main", "work"]).await.unwrap();
        git(&work, &["remote", "add", "origin", bare.to_str().unwrap()]).await.unwrap();
        let empty = self.push(&work, "README.md", "hello").await;
        let object =
            json!({"metadata": {"name": "config"}, "spec": {"url": bare, "interval": "10s"}});
        let repositories: Api<ConfigRepository> = self.c.api();
        let object = serde_json::from_value(object).unwrap();
        repositories.create(&PostParams::default(), &object).await.unwrap();
        self.applied(&repositories, &empty).await;

        let document = |parameters: &str| {
            format!(
                "apiVersion: pgitops.dev/v1alpha1\nkind: PostgresConfig\n\
                 metadata: {{name: orders}}\nspec:\n  databaseRef: {{name: orders}}\n  \
                 parameters: {{{parameters}}}\n"
            )
        };
        let began = Instant::now();
        let first = self.push(&work, "orders.yaml", &document("work_mem: 16MB")).await;
        let note = note(&bare, &first, "APPLIED: 1 of 1 database applied").await;
        let took = began.elapsed();
        assert!(note.contains("Outcome: applied, proven on 3 of 3 nodes"), "{note}");
        assert!(note.contains("Changed: work_mem 8MB -> 16MB (reload; orders.yaml:6)"), "{note}");
        assert_eq!(self.show("work_mem").await, ["16MB"; 3]);

        let values = "work_mem: 16MB, max_connections: 160";
        let second = self.push(&work, "orders.yaml", &document(values)).await;
        let note_of_second = note_of(&bare, &second).await;
        assert!(note_of_second.contains("max_connections 150 -> 160 (restart"), "{note_of_second}");
        assert_eq!(self.show("max_connections").await, ["160"; 3]);

        let values = "work_mem: 16MB, shared_preload_libraries: nosuch";
        let third = self.push(&work, "orders.yaml", &document(values)).await;
        let refused = note_of(&bare, &third).await;
        assert!(refused.contains("nosuch"), "{refused}");
        assert!(!refused.starts_with("APPLIED"), "{refused}");
        git(&work, &["revert", "--no-edit", "HEAD"]).await.unwrap();
        git(&work, &["push", "-q", "origin", "main"]).await.unwrap();
        let revert = git(&work, &["rev-parse", "HEAD"]).await.unwrap();
        self.applied(&repositories, &revert).await;
        assert_eq!(self.show("max_connections").await, ["160"; 3]);
        took
    }

    /// Commits a file and pushes it; the commit's id.
    async fn push(&self, work: &Path, file: &str, text: &str) -> String {
        std::fs::write(work.join(file), text).unwrap();
        git(work, &["add", "."]).await.unwrap();
        git(work, &["commit", "-q", "-m", file]).await.unwrap();
        git(work, &["push", "-q", "origin", "main"]).await.unwrap();
        git(work, &["rev-parse", "HEAD"]).await.unwrap()
    }

    /// Waits until the repository is Ready at a commit.
    async fn applied(&self, repositories: &Api<ConfigRepository>, commit: &str) {
        eventually(&format!("the repository is Ready at {commit}"), || async {
            let status = repositories.get("config").await.unwrap().status.unwrap_or_default();
            let ready = conditions::is_true(&status.conditions, "Ready");
            let told = format!("{:#}", json!(status));
            if ready && told.contains(commit) { Ok(()) } else { Err(told) }
        })
        .await;
    }

    /// Takes everything away again.
    async fn end(&self) {
        let repositories: Api<ConfigRepository> = self.c.api();
        repositories.delete("config", &DeleteParams::default()).await.unwrap();
        self.databases().delete("orders", &DeleteParams::default()).await.unwrap();
        let pods: Api<Pod> = self.c.api();
        eventually("the database and its pods are gone", || async {
            let database = self.databases().get_opt("orders").await.unwrap();
            let left = pods.list(&ListParams::default()).await.unwrap().items.len();
            if database.is_none() && left == 0 { Ok(()) } else { Err(format!("{left} pods left")) }
        })
        .await;
    }
}

async fn note(bare: &Path, commit: &str, begins: &str) -> String {
    eventually(&format!("a note {begins:?}"), || async {
        let text = git(bare, &["notes", "--ref=pgitops/default", "show", commit]).await?;
        if text.starts_with(begins) { Ok(text) } else { Err(text) }
    })
    .await
}

/// The final note of a commit.
async fn note_of(bare: &Path, commit: &str) -> String {
    let bare: PathBuf = bare.to_owned();
    eventually("a final note", || async {
        let text = git(&bare, &["notes", "--ref=pgitops/default", "show", commit]).await?;
        if text.starts_with("IN PROGRESS") { Err(text) } else { Ok(text) }
    })
    .await
}
