//! A person's clone of the repository: the git program, as that person would use it.
//!
//! Only the demonstration and benchmarks have a clone; the controller reads blobs of a mirror.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::process::Command;

/// A git command on a small local repository takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(20);
/// Pause between two looks for a note; much less than what is measured.
const LOOK: Duration = Duration::from_millis(10);
/// Words with which a note begins that is not final yet.
const INTERIM: &str = "IN PROGRESS";

/// A work tree with a remote.
pub struct Clone {
    folder: PathBuf,
    origin: PathBuf,
}

/// The document that asks for these parameters; more fields of `spec` may follow it.
pub fn document(parameters: &[(&str, &str)]) -> String {
    let mut document = String::from(
        "apiVersion: pgitops.dev/v1alpha1\nkind: PostgresConfig\nmetadata:\n  name: orders\n\
         spec:\n  databaseRef:\n    name: ha-postgres\n  parameters:\n",
    );
    for (name, value) in parameters {
        document.push_str(&format!("    {name}: {value}\n"));
    }
    document
}

impl Clone {
    /// Clones a repository, which may be empty.
    ///
    /// # Errors
    /// When git is missing or refuses.
    pub async fn of(origin: &Path, folder: &Path) -> anyhow::Result<Self> {
        let clone = Self { folder: folder.to_owned(), origin: origin.to_owned() };
        std::fs::create_dir_all(folder).context("folder of the clone")?;
        clone.git(&["init", "--quiet", "--initial-branch=main"]).await?;
        let origin = origin.to_str().context("the repository's path is not UTF-8")?;
        clone.git(&["remote", "add", "origin", origin]).await?;
        Ok(clone)
    }

    /// Writes `orders.yaml` with these parameters and commits it; the commit's id.
    ///
    /// # Errors
    /// When the file cannot be written or git refuses.
    pub async fn commit(
        &self,
        parameters: &[(&str, &str)],
        message: &str,
    ) -> anyhow::Result<String> {
        self.commit_document(&document(parameters), message).await
    }

    /// Writes `orders.yaml` as given and commits it; the commit's id.
    ///
    /// # Errors
    /// When the file cannot be written or git refuses.
    pub async fn commit_document(&self, document: &str, message: &str) -> anyhow::Result<String> {
        std::fs::write(self.folder.join("orders.yaml"), document).context("orders.yaml")?;
        self.git(&["add", "orders.yaml"]).await?;
        self.git(&["commit", "--quiet", "-m", message]).await?;
        self.head().await
    }

    /// Reverts the newest commit; the new commit's id.
    ///
    /// # Errors
    /// When git refuses.
    pub async fn revert(&self) -> anyhow::Result<String> {
        self.git(&["revert", "--no-edit", "HEAD"]).await?;
        self.head().await
    }

    /// Pushes the branch.
    ///
    /// # Errors
    /// When git refuses.
    pub async fn push(&self) -> anyhow::Result<()> {
        self.git(&["push", "--quiet", "origin", "main"]).await.map(drop)
    }

    /// Waits for the final note of a commit, and reads it.
    ///
    /// # Errors
    /// When there is none in time; says what was there instead.
    pub async fn verdict(&self, commit: &str, within: Duration) -> anyhow::Result<String> {
        let begun = Instant::now();
        loop {
            let note = self.note(commit).await.unwrap_or_default();
            if !note.is_empty() && !note.starts_with(INTERIM) {
                return Ok(note);
            }
            anyhow::ensure!(
                begun.elapsed() < within,
                "commit {commit} has no final note after {within:?}; so far: {note:?}"
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The note as it stands on the remote now.
    async fn note(&self, commit: &str) -> anyhow::Result<String> {
        let origin = self.origin.to_str().context("the repository's path is not UTF-8")?;
        self.git(&["-C", origin, "notes", "--ref=pgitops/default", "show", commit]).await
    }

    /// What `git log` shows after fetching the notes.
    ///
    /// # Errors
    /// When git refuses.
    pub async fn log(&self) -> anyhow::Result<String> {
        let notes = "+refs/notes/pgitops/*:refs/notes/pgitops/*";
        self.git(&["fetch", "--quiet", "origin", notes]).await?;
        self.git(&["log", "--notes=pgitops/*"]).await
    }

    async fn head(&self) -> anyhow::Result<String> {
        Ok(self.git(&["rev-parse", "HEAD"]).await?.trim().to_owned())
    }

    async fn git(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("git");
        command.arg("-C").arg(&self.folder).args(arguments).kill_on_drop(true);
        // Nobody's configuration, and a name on the commits.
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "Dana");
            command.env(format!("GIT_{who}_EMAIL"), "dana@example.com");
        }
        let what = || format!("git {}", arguments.join(" "));
        let output = tokio::time::timeout(DEADLINE, command.output())
            .await
            .with_context(|| format!("{}: no end within {DEADLINE:?}", what()))?
            .context("git cannot be started; install it")?;
        let words = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{}: {}", what(), words.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
