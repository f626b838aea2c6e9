//! `pgitops controller` as a process of its own, so that its memory is its own.
//!
//! Ends with its owner; its log is shown when something went wrong.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// Our own program, built with the same profile.
pub const EXECUTABLE: &str = env!("CARGO_BIN_EXE_pgitops");

/// It ends within half a second; a busy machine gets its time.
const END: Duration = Duration::from_secs(10);
/// Lines of its log that say what went wrong.
const WORDS: usize = 15;

/// A controller that runs.
pub struct Controller {
    child: Child,
    log: PathBuf,
}

impl Controller {
    /// Starts one that keeps its mirrors and its log in `folder`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(kubeconfig: &Path, folder: &Path, loops: &str) -> anyhow::Result<Self> {
        let log = folder.join("controller.log");
        let file = std::fs::File::create(&log).context("the controller's log")?;
        let child = Command::new(EXECUTABLE)
            .args(["controller", "--allow-local-repositories", "--loops", loops])
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--cache-directory")
            .arg(folder.join("mirrors"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{EXECUTABLE} cannot be started"))?;
        Ok(Self { child, log })
    }

    /// Memory that it holds now and held at most, in bytes.
    ///
    /// # Errors
    /// When it does not run any more.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        let path = format!("/proc/{}/status", self.pid()?);
        let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
            let number = number.and_then(|number| number.parse::<u64>().ok());
            Ok::<_, anyhow::Error>(number.with_context(|| format!("{path}: no {name}"))? * 1024)
        };
        Ok(Memory { resident: field("VmRSS:")?, most: field("VmHWM:")? })
    }

    /// The last lines of its log.
    pub fn words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(WORDS)..].join("\n")
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it does not run any more.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("the controller has ended")
    }

    /// Waits until its log has these words.
    ///
    /// # Errors
    /// When it does not say them in time.
    pub async fn heard(&self, words: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + END;
        while !std::fs::read_to_string(&self.log).unwrap_or_default().contains(words) {
            anyhow::ensure!(Instant::now() < deadline, "no {words:?} within {END:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Kills it, as a node that goes away does.
    ///
    /// # Errors
    /// When it does not run any more.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("the controller has ended")
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it had ended by itself, or does not end.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(ended) = self.child.try_wait().context("controller")? {
            anyhow::bail!("the controller ended by itself ({ended}):\n{}", self.words());
        }
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        kill(Pid::from_raw(pid.context("the controller has ended")?), Signal::SIGTERM)?;
        tokio::time::timeout(END, self.child.wait())
            .await
            .with_context(|| format!("the controller does not end within {END:?}"))??;
        Ok(())
    }
}

/// Memory of a process.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Resident now.
    pub resident: u64,
    /// Resident at most so far.
    pub most: u64,
}
