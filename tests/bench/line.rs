//! The whole line on this machine: a sandbox, a controller beside it, a database of three nodes, a
//! clone to push from. The parts of `pgitops demo`, with the controller as a process of its own.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use pgitops::api::Postgres;
use pgitops::cli::demo::repository::{Clone, document};
use pgitops::cli::demo::servers::Servers;
use pgitops::cluster::Cluster;
use pgitops::sandbox::cluster::{Options, Sandbox};

use crate::controller::{Controller, EXECUTABLE};
use crate::signs::{Signs, Timeline};

/// Three empty nodes are up in a few seconds; a busy machine gets its time.
const UP: Duration = Duration::from_secs(180);

/// The parts, all of them running.
pub struct Line<'a> {
    /// The database, over SQL.
    pub servers: Servers,
    sandbox: &'a Sandbox,
    clone: Clone,
    signs: Signs,
}

/// Starts everything, works, and ends everything.
///
/// # Errors
/// What cannot be started or ended, and what goes wrong in the work, with the controller's words.
pub async fn with<T>(
    database: Postgres,
    work: impl AsyncFnOnce(&mut Line<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let folder = tempfile::Builder::new().prefix("pgitops-bench").tempdir()?;
    // The pods' user passes through to its volumes.
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711))?;
    let mut options = Options::new(folder.path().join("s"))?;
    options.executable = PathBuf::from(EXECUTABLE);
    let sandbox = Sandbox::start(options).await.context("sandbox")?;
    let done = match Controller::start(&sandbox.kubeconfig, folder.path(), "sync,ops,provision") {
        Err(error) => Err(error),
        Ok(controller) => {
            let done = begin_and(&sandbox, folder.path(), database, work).await;
            let words = controller.words();
            let done = done.with_context(|| format!("the controller's last words:\n{words}\n"));
            let ended = controller.stop().await;
            done.and_then(|done| ended.map(|()| done))
        }
    };
    sandbox.shutdown().await;
    done
}

async fn begin_and<T>(
    sandbox: &Sandbox,
    folder: &std::path::Path,
    database: Postgres,
    work: impl AsyncFnOnce(&mut Line<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let cluster = Cluster::new(sandbox.client.clone());
    let servers = Servers::create(&cluster, &database, UP).await?;
    let origin = sandbox.config_git.as_ref().context("the sandbox has no repository")?;
    let clone = Clone::of(origin, &folder.join("work")).await?;
    let signs = Signs::watch(&cluster, origin).await?;
    work(&mut Line { servers, sandbox, clone, signs }).await
}

impl Line<'_> {
    /// Commits and pushes this document, and follows it until its final note.
    ///
    /// # Errors
    /// When git refuses, or there is no end in time.
    pub async fn change(&mut self, document: &str) -> anyhow::Result<Timeline> {
        self.signs.forget();
        let commit = self.clone.commit_document(document, "a change").await?;
        let before = self.asked();
        self.clone.push().await?;
        let mut timeline = self.signs.follow(&commit).await?;
        timeline.calls = self.asked() - before;
        Ok(timeline)
    }

    fn asked(&self) -> u64 {
        self.sandbox.asked().values().sum()
    }

    /// The same for parameters that must succeed and be in force on every node afterwards.
    ///
    /// # Errors
    /// As [`Line::change`], and when it is not so.
    pub async fn applied(&mut self, parameters: &[(&str, &str)]) -> anyhow::Result<Timeline> {
        let timeline = self.change(&document(parameters)).await?;
        let note = &timeline.note;
        anyhow::ensure!(note.starts_with("APPLIED"), "{parameters:?} ended with:\n{note}");
        for (name, value) in parameters {
            self.in_force(name, value).await?;
        }
        Ok(timeline)
    }

    /// Fails unless every node runs with this value.
    ///
    /// # Errors
    /// When one does not.
    pub async fn in_force(&self, name: &str, value: &str) -> anyhow::Result<()> {
        for (pod, shown) in self.servers.ask_all(&format!("SHOW {name}")).await? {
            anyhow::ensure!(shown == value, "{name} is {shown} on {pod}, not {value}");
        }
        Ok(())
    }
}
