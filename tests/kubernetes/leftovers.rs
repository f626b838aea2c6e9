//! What a run may leave behind: nothing, also when it is killed.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use sha2::{Digest as _, Sha256};

use crate::control_plane::ControlPlane;
use crate::fixture::is_alive;
use crate::kubectl::{DEADLINE, until};

/// Argument of a run that only starts a control plane, tells its pids and waits to be killed.
pub const HOLD: &str = "--hold";

/// Starts a control plane, says what it is made of, and goes on until it is killed.
pub async fn hold() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let (pids, folder) = plane.traces();
    println!(
        "{} {}",
        folder.display(),
        pids.iter().map(i32::to_string).collect::<Vec<_>>().join(" ")
    );
    std::future::pending().await
}

/// Fails if a process still runs or the folder is still there.
pub fn none_of((pids, folder): &(Vec<i32>, PathBuf)) -> Result<()> {
    let left: Vec<&i32> = pids.iter().filter(|pid| is_alive(**pid)).collect();
    ensure!(left.is_empty(), "processes of the control plane still run: {left:?}");
    ensure!(!folder.exists(), "the folder of the control plane is still there: {folder:?}");
    Ok(())
}

/// Where a node keeps what only lives with its run: named by a hash of its folder's path.
fn node_folder(folder: &Path) -> PathBuf {
    let hash = Sha256::digest(folder.as_os_str().as_encoded_bytes());
    let id: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    Path::new("/tmp").join(format!("pgs-{id}"))
}

/// Kills a run with SIGKILL; its processes end all the same.
pub async fn a_killed_run_leaves_no_process() -> Result<()> {
    let began = Instant::now();
    let mut child = Command::new(std::env::current_exe()?)
        .arg(HOLD)
        .env("TMPDIR", "/tmp")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let output = child.stdout.take().context("its output")?;
    BufReader::new(output).read_line(&mut line)?;
    child.kill()?;
    child.wait()?;
    let mut words = line.split_whitespace();
    let folder = PathBuf::from(words.next().context("it told nothing")?);
    let pids: Vec<i32> = words.map(str::parse).collect::<Result<_, _>>()?;
    if pids.len() < 8 {
        bail!("four programs and their first processes, not {pids:?}");
    }
    let gone = async || !pids.iter().any(|pid| is_alive(*pid));
    until(&format!("all processes end within {DEADLINE:?}"), gone).await;
    // Nobody is left who could have removed the folders: that of the run, and the node's.
    let node = node_folder(&folder);
    std::fs::remove_dir_all(&folder)?;
    std::fs::remove_dir_all(&node).with_context(|| format!("removing {node:?}"))?;
    println!("case a_killed_run_leaves_no_process ... ok ({:.1?})", began.elapsed());
    Ok(())
}
