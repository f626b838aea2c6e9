//! Many databases that nobody runs: their documents, a repository with them, and an API server
//! that has their objects and nothing else.
//!
//! Every value that a document asks for is in place already, so that nothing is left to do but to
//! look. Without a node, workload controllers and `ops` no server is ever started.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use pgitops::api::{ConfigRepository, Postgres};
use pgitops::sandbox::api_server::{ApiServer, Options, Running};
use pgitops::sandbox::cluster::{NAMESPACE, REPOSITORY, define};
use pgitops::sandbox::scratch_repository;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

/// Parameters of every document: as many as a considered one has, of every kind of value.
pub const PARAMETERS: [(&str, &str); 6] = [
    ("max_connections", "250"),
    ("work_mem", "16MB"),
    ("shared_buffers", "1GB"),
    ("random_page_cost", "1.1"),
    ("log_min_duration_statement", "500ms"),
    ("wal_compression", "lz4"),
];
/// Documents in one folder: a team's.
const IN_ONE_FOLDER: usize = 100;
/// Objects that are created at the same time.
const AT_ONCE: usize = 16;
/// Filling a repository takes seconds.
const FILL: Duration = Duration::from_secs(60);

/// Name of a database.
pub fn name(number: usize) -> String {
    format!("db-{number:05}")
}

/// Path of its document.
pub fn path(number: usize) -> String {
    format!("team-{:03}/{}.yaml", number / IN_ONE_FOLDER, name(number))
}

/// Its document; `work_mem` as given.
pub fn document(number: usize, work_mem: &str) -> String {
    let name = name(number);
    let mut text = format!(
        "apiVersion: pgitops.dev/v1alpha1\nkind: PostgresConfig\nmetadata:\n  name: {name}\n\
         spec:\n  databaseRef:\n    name: {name}\n  parameters:\n"
    );
    for (parameter, value) in PARAMETERS {
        let value = if parameter == "work_mem" { work_mem } else { value };
        text.push_str(&format!("    {parameter}: {value}\n"));
    }
    text
}

/// `work_mem` as it is in place.
pub const WORK_MEM: &str = "16MB";

/// What is in place, as text of postgresql.conf.
pub fn in_place() -> String {
    PARAMETERS.iter().map(|(name, value)| format!("{name} = '{value}'\n")).collect()
}

/// A bare repository with one commit of all documents.
///
/// # Errors
/// When git refuses.
pub async fn repository(folder: &Path, databases: usize) -> anyhow::Result<PathBuf> {
    let bare = scratch_repository::create(&folder.join("config.git"))?;
    let files: Vec<(String, String)> =
        (0..databases).map(|number| (path(number), document(number, WORK_MEM))).collect();
    commit(&bare, &files, None).await?;
    Ok(bare)
}

/// Commits these files on top of a commit, or as the first ones.
///
/// # Errors
/// When git refuses.
pub async fn commit(
    bare: &Path,
    files: &[(String, String)],
    parent: Option<&str>,
) -> anyhow::Result<()> {
    let mut stream = String::from(
        "commit refs/heads/main\ncommitter Dana <dana@example.com> 1700000000 +0000\n\
         data 5\nfleet\n",
    );
    if let Some(parent) = parent {
        stream.push_str(&format!("from {parent}\n"));
    }
    for (path, text) in files {
        stream.push_str(&format!("M 100644 inline {path}\ndata {}\n{text}\n", text.len()));
    }
    // A sibling of what is there now may take its place.
    git(bare, &["fast-import", "--quiet", "--force"], &stream).await.map(drop)
}

/// The git program on a bare repository; its output.
///
/// # Errors
/// When it cannot be started or refuses.
pub async fn git(bare: &Path, arguments: &[&str], input: &str) -> anyhow::Result<String> {
    let mut child = tokio::process::Command::new("git")
        .arg("-C")
        .arg(bare)
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("git cannot be started; install it")?;
    let mut stdin = child.stdin.take().context("git's input")?;
    let talk = async {
        stdin.write_all(input.as_bytes()).await?;
        drop(stdin);
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(FILL, talk).await.context("git does not end")??;
    let words = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "git {arguments:?}: {}", words.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// An API server with a `ConfigRepository` and databases.
pub struct Fleet {
    /// The server, which counts what it is asked.
    pub server: Running,
    /// An administrator's client.
    pub client: kube::Client,
    /// The repository with the documents.
    pub repository: PathBuf,
    /// Folder of everything; goes with it.
    pub folder: tempfile::TempDir,
}

impl Fleet {
    /// Starts the server and creates everything.
    ///
    /// # Errors
    /// What cannot be started or created.
    pub async fn start(databases: usize) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("pgitops-bench").tempdir()?;
        let repository = repository(folder.path(), databases).await?;
        let server = ApiServer::start(Options::in_memory()?).await?;
        let client = server.client()?;
        let fleet = Self { server, client, repository, folder };
        match fleet.fill(databases).await {
            Ok(()) => Ok(fleet),
            Err(error) => {
                fleet.stop().await?;
                Err(error)
            }
        }
    }

    async fn fill(&self, databases: usize) -> anyhow::Result<()> {
        define(&self.client, &pgitops::api::crds()).await?;
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
        Api::all(self.client.clone()).create(&PostParams::default(), &namespace).await?;
        let all = Api::<Postgres>::namespaced(self.client.clone(), NAMESPACE);
        let creating = (0..databases).map(|number| create(&all, number));
        futures::stream::iter(creating).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        let url = self.repository.to_str().context("the temporary folder is not UTF-8")?;
        let repository: ConfigRepository = serde_json::from_value(json!({
            "apiVersion": "pgitops.dev/v1alpha1", "kind": "ConfigRepository",
            "metadata": {"name": REPOSITORY, "namespace": NAMESPACE},
            "spec": {"url": url, "path": ".", "interval": "10s"},
        }))?;
        let repositories = self.repositories();
        repositories.create(&PostParams::default(), &repository).await?;
        Ok(())
    }

    /// The repositories of the cluster: one.
    pub fn repositories(&self) -> Api<ConfigRepository> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Calls that the server has had so far, those for leases and the watches left out.
    pub fn calls(&self) -> u64 {
        self.server.asked().values().sum()
    }

    /// Stops the server.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.server.shutdown().await
    }
}

/// A database of three nodes that is Ready and has everything in place.
async fn create(all: &Api<Postgres>, number: usize) -> anyhow::Result<()> {
    let name = name(number);
    let postgres: Postgres = serde_json::from_value(json!({
        "apiVersion": "kubedb.com/v1", "kind": "Postgres",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "version": "15", "replicas": 3,
            "storage": {"resources": {"requests": {"storage": "1Gi"}}},
            "configuration": {"inline": {"user.conf": in_place()}},
        },
    }))?;
    all.create(&PostParams::default(), &postgres).await.with_context(|| name.clone())?;
    let status = json!({"status": {"phase": "Ready", "conditions": [{
        "type": "Provisioned", "status": "True", "reason": "DatabaseSuccessfullyProvisioned",
        "message": "The Postgres is provisioned", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]}});
    let patch = Patch::Merge(&status);
    all.patch_status(&name, &PatchParams::default(), &patch).await.with_context(|| name.clone())?;
    Ok(())
}
