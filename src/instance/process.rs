//! Programs of the server: run once to their end, or the postmaster that stays.
//!
//! A program runs as the server's user, in a process group of its own, with its output read and
//! bounded. The postmaster is watched as a process, not by a probe: whoever waits for its end
//! knows it within a millisecond. Decides nothing about when to start or stop.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

use super::{options::Options, server_file, words};

/// Lines of log kept for the server's words; a failed start writes about ten.
const MAX_LINES: usize = 300;
/// Longest line kept; longer ones (a statement in the log) are cut.
const MAX_LINE: usize = 8 * 1024;
/// Most output read from a program that runs once: `postgres -C` writes one line, `initdb` forty.
const MAX_OUTPUT: u64 = 256 * 1024;

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be started.
    #[error("run {program}: {source}; is it there, and made for this system?")]
    Start {
        /// Its path.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It was not ready in time and was ended.
    #[error("run {program}: it took longer than {within:?}")]
    Late {
        /// Its path.
        program: String,
        /// The time it was given.
        within: Duration,
    },
}

/// What a program that ran once has left.
#[derive(Debug)]
pub struct Output {
    /// Whether it exited with 0.
    pub success: bool,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs a program to its end.
pub async fn run<S: AsRef<std::ffi::OsStr>>(
    options: &Options,
    program: &Path,
    arguments: impl IntoIterator<Item = S>,
    environment: &[(&str, &str)],
    within: Duration,
) -> Result<Output, Error> {
    let name = || program.to_string_lossy().into_owned();
    let mut command = command(options, program);
    command.args(arguments).envs(environment.iter().copied());
    command.kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = |source| Error::Start { program: name(), source };
    let (mut child, _own) = spawn(command).map_err(start)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ran = async {
        let (out, err, status) = tokio::join!(read_all(out), read_all(err), child.wait());
        Ok(Output { success: status.map_err(start)?.success(), out, err })
    };
    timeout(within, ran).await.map_err(|_| Error::Late { program: name(), within })?
}

async fn read_all(from: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        // What was read before an error is all there is to say.
        let _ = (&mut from).take(MAX_OUTPUT).read_to_end(&mut bytes).await;
        let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn command(options: &Options, program: &Path) -> Command {
    let mut command = Command::new(program);
    // Words are read by us and by people who do not share the container's language.
    command.env_remove("LC_ALL").env("LC_MESSAGES", "C").env_remove("PGDATA");
    // A terminal's interrupt is for us alone; we stop the server in order.
    command.stdin(Stdio::null()).current_dir("/").process_group(0);
    if let Some(account) = options.account {
        command.uid(account.uid.as_raw()).gid(account.gid.as_raw());
    }
    command
}

/// Process ids of what we started and have not waited for yet.
static STARTED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Stands for an entry of [`STARTED`].
#[derive(Debug)]
struct Own(i32);

impl Drop for Own {
    fn drop(&mut self) {
        STARTED.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

fn spawn(mut command: Command) -> io::Result<(Child, Own)> {
    // Held over the start, so that a child which ends at once is known when it has ended.
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn()?;
    let id = child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or_default();
    started.insert(id);
    Ok((child, Own(id)))
}

/// Collects one child that has ended and that we did not start; false: there is none now. As
/// process 1 of a container we inherit every orphan, such as backends of a killed postmaster.
pub fn reap_orphan() -> bool {
    let started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let pid = match waitid(Id::All, flags) {
        Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) => pid,
        // Nobody has ended, or there are no children.
        Ok(_) | Err(_) => return false,
    };
    !started.contains(&pid.as_raw()) && waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_ok()
}

/// The last lines of the server's log, shared by all its starts.
#[derive(Clone, Debug, Default)]
pub struct Tail(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<String>,
    /// Number of the first line kept, counted since the instance began.
    first: usize,
}

impl Tail {
    /// Where the log is now; lines after it belong to what happens next.
    #[must_use]
    pub fn mark(&self) -> usize {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.first + kept.lines.len()
    }

    /// What was written since.
    #[must_use]
    pub fn since(&self, mark: usize) -> Vec<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.lines.iter().skip(mark.saturating_sub(kept.first)).cloned().collect()
    }

    fn push(&self, line: String) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.lines.push_back(line);
        if kept.lines.len() > MAX_LINES {
            kept.lines.pop_front();
            kept.first += 1;
        }
    }
}

/// A postmaster that was started and may have ended.
#[derive(Debug)]
pub struct Postmaster {
    pid: Pid,
    exit: watch::Receiver<Option<ExitStatus>>,
    log: Tail,
    /// Where its log begins.
    mark: usize,
}

impl Postmaster {
    /// Starts `postgres` on the data folder with the file that is in place.
    pub fn spawn(options: &Options, log: &Tail) -> Result<Self, Error> {
        Self::spawn_with(options, log, server_file::arguments(options))
    }

    /// Starts `postgres` with these arguments.
    pub fn spawn_with(
        options: &Options,
        log: &Tail,
        arguments: Vec<String>,
    ) -> Result<Self, Error> {
        let program = options.program("postgres");
        let mut command = command(options, &program);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mark = log.mark();
        let failed = |source| Error::Start { program: program.to_string_lossy().into(), source };
        let (mut child, own) = spawn(command).map_err(failed)?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let pid = id.ok_or_else(|| failed(io::Error::other("it has no process id")))?;
        let (sender, exit) = watch::channel(None);
        let echo = options.echo_log;
        let readers = [
            child.stdout.take().map(|out| tokio::spawn(follow(out, log.clone(), echo))),
            child.stderr.take().map(|err| tokio::spawn(follow(err, log.clone(), echo))),
        ];
        tokio::spawn(watch_over(child, own, readers, sender));
        Ok(Self { pid: Pid::from_raw(pid), exit, log: log.clone(), mark })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        if !self.has_exited()
            && let Err(error) = kill(self.pid, signal)
        {
            tracing::warn!(%error, %signal, "could not signal the postmaster");
        }
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// Waits for its end.
    pub async fn exited(&self) {
        // An error means that the task that waits for the process is gone, so is the runtime.
        let _ = self.exit.clone().wait_for(Option::is_some).await;
    }

    /// What it has written to its log, as lines.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log.since(self.mark)
    }

    /// What it said last of why it ends.
    #[must_use]
    pub fn words(&self) -> String {
        let words = words::pick(self.log().iter().map(String::as_str));
        if words.is_empty() { "the server ended without a word".to_owned() } else { words }
    }
}

type Reader = Option<tokio::task::JoinHandle<()>>;

/// How long the log may take to arrive after the process ended. Backends that outlive a killed
/// postmaster hold the pipe open, so its end cannot be waited for.
const LAST_WORDS: Duration = Duration::from_millis(20);

async fn watch_over(
    mut child: Child,
    own: Own,
    readers: [Reader; 2],
    exit: watch::Sender<Option<ExitStatus>>,
) {
    let status = child.wait().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "could not wait for the postmaster");
        ExitStatus::default()
    });
    drop(own);
    // After a clean stop nobody needs last words, and every millisecond is an outage.
    if !status.success() {
        for reader in readers.into_iter().flatten() {
            let _ = timeout(LAST_WORDS, reader).await;
        }
    }
    exit.send_replace(Some(status));
}

async fn follow(from: impl AsyncRead + Unpin, log: Tail, echo: bool) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    let mut out = tokio::io::stdout();
    loop {
        line.clear();
        match (&mut reader).take(MAX_LINE as u64).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if echo {
            // A container log that cannot be written must not stop the server.
            let _ = out.write_all(&line).await;
            let _ = out.flush().await;
        }
        log.push(String::from_utf8_lossy(&line).trim_end().to_owned());
    }
}

/// Reads `postmaster.pid`.
#[derive(Debug, PartialEq, Eq)]
pub struct LockFile {
    /// The postmaster's process.
    pub pid: i32,
    /// The status line: `starting`, `stopping`, `ready`, `standby`.
    pub status: String,
}

impl LockFile {
    /// Of a data folder; `None`: no file, or one that is being written.
    #[must_use]
    pub fn read(data_directory: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(data_directory.join("postmaster.pid")).ok()?;
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok()?;
        // Line 8 is the status (postgres, src/include/utils/pidfile.h).
        let status = lines.nth(6).unwrap_or_default().trim().to_owned();
        Some(Self { pid, status })
    }
}
