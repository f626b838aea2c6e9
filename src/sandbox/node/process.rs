//! Containers and commands as processes of this machine.
//!
//! A container is started under `init`, which ends with everything below it; [`run_to_end`] is
//! for probes and hooks. Both begin with nothing but the environment they are given, as the pod's
//! user. Leaves deciding when to start and stop to `worker`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Gid, Pid, Uid};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::init;
use super::logs::Log;
use super::paths::PathMap;
use super::proc::{self, Identity};
use super::user::RunAs;

/// How long a container's first process may take to say that it started: exec and nothing else.
const START_LIMIT: Duration = Duration::from_secs(20);

/// After the container's end its output ends too; a little later it is given up.
const OUTPUT_LIMIT: Duration = Duration::from_secs(2);

/// Output of a probe or hook that is shown in an event.
const OUTPUT_BYTES: u64 = 1024;

/// Seconds for a container to stop by itself when the sandbox is gone.
const ORPHAN_GRACE: u64 = 10;

/// How to run something for one container.
#[derive(Clone)]
pub struct Launch {
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Working folder.
    pub directory: PathBuf,
    /// As whom.
    pub user: RunAs,
    /// Our own executable, where that user can run it.
    pub executable: PathBuf,
    /// Folder of records of what runs.
    pub records: PathBuf,
    /// The container's paths, for commands that come later (probes, hooks).
    pub paths: PathMap,
}

impl Launch {
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.env).current_dir(&self.directory).process_group(0);
        if self.user.switch {
            command.uid(self.user.uid).gid(self.user.gid);
        }
        command
    }
}

/// How a container's first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// Nobody knows: its `init` was killed.
    Lost,
}

/// A running container.
pub struct Process {
    commands: ChildStdin,
    /// Pid of the container's own first process.
    pub pid: i32,
}

impl Process {
    /// Starts `command` and returns it with the news of its end.
    ///
    /// # Errors
    /// Words that say why it could not be started.
    pub async fn start(
        launch: &Launch,
        id: &str,
        command: &[String],
        log: Log,
    ) -> Result<(Self, oneshot::Receiver<Exit>), String> {
        let mut child = launch
            .command(&launch.executable)
            .env(proc::MARK, id)
            .arg(init::ARGUMENT)
            .arg(ORPHAN_GRACE.to_string())
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| {
                format!("starting {:?} as {}: {e}", launch.executable, launch.user.name)
            })?;
        let (Some(commands), Some(output), Some(reports)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err("starting a container: its pipes are missing".to_owned());
        };
        if launch.user.switch {
            // So that the container can open /dev/stdout and /dev/stderr by name.
            let (uid, gid) = (Uid::from_raw(launch.user.uid), Gid::from_raw(launch.user.gid));
            let _ = nix::unistd::fchown(&output, Some(uid), Some(gid));
        }
        let init = child.id().and_then(|pid| Identity::of(pid as i32));
        let mut reports = BufReader::new(reports).lines();
        let first = timeout(START_LIMIT, reports.next_line()).await;
        let pid = match first {
            Ok(Ok(Some(line))) => started(&line)?,
            Ok(Ok(None) | Err(_)) => return Err(format!("starting {command:?}: no report")),
            Err(_) => {
                if let Some(init) = init {
                    proc::kill_tree(init);
                }
                return Err(format!("starting {command:?}: no report within {START_LIMIT:?}"));
            }
        };
        let record = Record::write(&launch.records, id, init, Identity::of(pid));
        let pump = tokio::spawn(log.pump(output));
        let (tell, told) = oneshot::channel();
        let id = id.to_owned();
        tokio::spawn(async move {
            let exit = watch(reports, child).await;
            if exit == Exit::Lost {
                // Somebody killed the init: what it kept together has to go another way.
                let _ = tokio::task::spawn_blocking(move || proc::kill_marked(&id)).await;
            }
            let _ = timeout(OUTPUT_LIMIT, pump).await;
            record.remove();
            let _ = tell.send(exit);
        });
        Ok((Self { commands, pid }, told))
    }

    /// Sends a signal to the container's first process.
    pub async fn signal(&mut self, name: &str) {
        let _ = self.commands.write_all(format!("signal {name}\n").as_bytes()).await;
    }

    /// Kills everything in the container.
    pub async fn kill(&mut self) {
        let _ = self.commands.write_all(b"kill\n").await;
    }
}

fn started(line: &str) -> Result<i32, String> {
    match line.split_once(' ') {
        Some(("started", pid)) => pid.parse().map_err(|_| format!("unexpected report {line:?}")),
        Some(("failed", words)) => Err(words.to_owned()),
        Some(_) | None => Err(line.to_owned()),
    }
}

/// Follows the reports of an `init` to its end.
async fn watch(mut reports: Lines<BufReader<ChildStderr>>, mut init: Child) -> Exit {
    let mut exit = None;
    while let Ok(Some(line)) = reports.next_line().await {
        let mut words = line.split(' ');
        let number = |text: Option<&str>| text.and_then(|t| t.parse().ok()).unwrap_or(255);
        if words.next() == Some("exited") {
            exit = Some(match words.next() {
                Some("signal") => Exit::Signal(number(words.next())),
                Some(_) | None => Exit::Code(number(words.next())),
            });
        }
    }
    let _ = init.wait().await;
    exit.unwrap_or(Exit::Lost)
}

/// A file that says which processes belong to a container, for the next run of the sandbox.
struct Record(PathBuf);

impl Record {
    fn write(folder: &Path, id: &str, init: Option<Identity>, main: Option<Identity>) -> Self {
        let path = folder.join(format!("{id}.json"));
        let identities: Vec<Identity> = init.into_iter().chain(main).collect();
        let text = serde_json::to_vec(&identities).unwrap_or_default();
        // Without it only the clean-up after a double crash is lost: not worth failing a start.
        if let Err(error) = std::fs::write(&path, text) {
            tracing::warn!(path = %path.display(), %error, "recording a process failed");
        }
        Self(path)
    }

    fn remove(&self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Ends what the records of an earlier run name and is still there; gives it `grace` first, since
/// every `init` stops its container as soon as its sandbox is gone.
pub async fn end_recorded(records: &Path, grace: Duration) {
    let mut left: Vec<(PathBuf, Vec<Identity>)> = Vec::new();
    for entry in std::fs::read_dir(records).into_iter().flatten().flatten() {
        let text = std::fs::read(entry.path()).unwrap_or_default();
        left.push((entry.path(), serde_json::from_slice(&text).unwrap_or_default()));
    }
    let deadline = tokio::time::Instant::now() + grace;
    let runs = |list: &[Identity]| list.iter().any(|identity| identity.is_alive());
    while left.iter().any(|(_, list)| runs(list)) && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (path, list) in left {
        for identity in list.into_iter().filter(|identity| identity.is_alive()) {
            tracing::warn!(pid = identity.pid, "killing a process of an earlier run");
            proc::kill_tree(identity);
        }
        if let Some(id) = path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned) {
            let _ = tokio::task::spawn_blocking(move || proc::kill_marked(&id)).await;
        }
        let _ = std::fs::remove_file(path);
    }
}

/// Kills a process group when dropped: a probe that timed out leaves nothing behind.
struct Group(Option<i32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Runs a probe's or hook's command; success is exit code 0 within `limit`.
///
/// # Errors
/// The words for the event: the command's output, or why it could not be run.
pub async fn run_to_end(
    launch: &Launch,
    command: &[String],
    limit: Duration,
) -> Result<(), String> {
    let Some((program, arguments)) = command.split_first() else {
        return Err("the command is empty".to_owned());
    };
    let program = find_program(program, launch.env.get("PATH").map_or("", String::as_str));
    let mut child = launch
        .command(&program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("running {program:?}: {e}"))?;
    let mut group = Group(child.id().map(|pid| pid as i32));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let read_out = async {
            if let Some(stdout) = stdout {
                read_beginning(stdout, &mut out).await;
            }
        };
        let read_err = async {
            if let Some(stderr) = stderr {
                read_beginning(stderr, &mut err).await;
            }
        };
        let (status, (), ()) = tokio::join!(child.wait(), read_out, read_err);
        status
    };
    let status = match timeout(limit, work).await {
        Ok(status) => status.map_err(|e| format!("waiting for {program:?}: {e}"))?,
        Err(_) => return Err(format!("timed out after {} s", limit.as_secs())),
    };
    group.0 = None;
    if status.success() {
        return Ok(());
    }
    let text = format!("{}{}", String::from_utf8_lossy(&out), String::from_utf8_lossy(&err));
    let text = text.trim();
    Err(if text.is_empty() { format!("{status}") } else { text.to_owned() })
}

/// Keeps the first bytes and reads the rest away, so that the writer is not held up.
async fn read_beginning(source: impl tokio::io::AsyncRead + Unpin, kept: &mut Vec<u8>) {
    let mut limited = source.take(OUTPUT_BYTES);
    let _ = limited.read_to_end(kept).await;
    let _ = tokio::io::copy(&mut limited.into_inner(), &mut tokio::io::sink()).await;
}

/// Finds a program in the container's PATH rather than in ours.
fn find_program(program: &str, path: &str) -> PathBuf {
    if program.contains('/') {
        return PathBuf::from(program);
    }
    let found = path.split(':').map(|folder| Path::new(folder).join(program));
    found.into_iter().find(|p| p.is_file()).unwrap_or_else(|| PathBuf::from(program))
}
