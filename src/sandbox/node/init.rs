//! The first process of a container: what pid 1 and the runtime's shim are to a real one.
//!
//! Runs as the pod's user. Starts the container's command in a process group of its own, adopts
//! what that leaves behind (subreaper), passes signals on, and ends everything below it when the
//! command ends, so that no container outlives its first process. Commands come as lines on stdin
//! (`signal NAME`, `kill`); when stdin closes, the sandbox is gone, however it ended, and the
//! container is stopped as if asked to. Reports (`started`, `failed`, `exited`) go to stderr,
//! while the container writes both its streams to our stdout. Never reads a file and never talks
//! to a network.

use std::ffi::OsString;
use std::io::{BufRead as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getpid};

use super::proc;

/// First argument that makes our executable a container's first process.
pub const ARGUMENT: &str = "sandbox-init";

/// How often what is left is killed before giving up: 10 ms apart, so 5 s, which only a process
/// in an uninterruptible wait survives.
const SWEEPS: u32 = 500;

/// Signals that a container may be sent through us.
const FORWARDED: [Signal; 6] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// The command's pid while it may be signalled: a pid that was waited for can belong to another.
type Alive = Arc<Mutex<Option<i32>>>;

/// Runs `<grace seconds> <program> [arguments…]` to its end.
///
/// # Errors
/// Words for the report when the command cannot be started.
pub fn run(arguments: &[OsString]) -> Result<(), String> {
    let [grace, program, arguments @ ..] = arguments else {
        return Err(format!("usage: {ARGUMENT} GRACE-SECONDS PROGRAM [ARGUMENT…]"));
    };
    let grace = grace.to_str().and_then(|text| text.parse().ok()).unwrap_or(10);
    let mut signals = SigSet::empty();
    signals.extend(FORWARDED);
    // Before any thread starts, so that all of them have it.
    signals.thread_block().map_err(|e| format!("blocking signals: {e}"))?;
    nix::sys::prctl::set_child_subreaper(true).map_err(|e| format!("adopting orphans: {e}"))?;

    let output = std::io::stdout().as_fd().try_clone_to_owned().map_err(|e| e.to_string())?;
    let errors = output.try_clone().map_err(|e| e.to_string())?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
    let child = spawn_unmasked(&mut command)
        .map_err(|e| format!("starting {}: {e}", program.to_string_lossy()))?;
    let pid = child.id() as i32;
    report(&format!("started {pid}"));

    let alive: Alive = Arc::new(Mutex::new(Some(pid)));
    let (to_forward, to_obey) = (alive.clone(), alive.clone());
    thread::spawn(move || forward(&signals, &to_forward));
    thread::spawn(move || obey(&to_obey, Duration::from_secs(grace)));
    let outcome = wait_for(pid, &alive);
    sweep();
    report(&outcome);
    Ok(())
}

/// Starts a command without the blocked signals of this process: a child inherits the mask of the
/// thread that starts it (std resets it no more), and could never be asked to stop.
fn spawn_unmasked(command: &mut Command) -> std::io::Result<Child> {
    let spawn = || {
        SigSet::empty().thread_set_mask()?;
        command.spawn()
    };
    let spawned = thread::scope(|scope| scope.spawn(spawn).join());
    spawned.unwrap_or_else(|_| Err(std::io::Error::other("the thread that starts it broke")))
}

/// One line on stderr; nobody to read it is no reason to stop.
pub fn report(line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", line.replace('\n', " "));
}

fn forward(signals: &SigSet, alive: &Alive) {
    while let Ok(signal) = signals.wait() {
        signal_command(alive, signal);
    }
}

fn signal_command(alive: &Alive, signal: Signal) {
    if let Some(pid) = *alive.lock().unwrap_or_else(PoisonError::into_inner) {
        proc::signal(pid, signal);
    }
}

/// Reads commands until the sandbox is gone, and then stops the container.
fn obey(alive: &Alive, grace: Duration) {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match line.split_once(' ') {
            Some(("signal", name)) => {
                signal_command(alive, Signal::from_str(name).unwrap_or(Signal::SIGTERM));
            }
            Some(_) | None => kill_below(),
        }
    }
    signal_command(alive, Signal::SIGTERM);
    thread::sleep(grace);
    kill_below();
}

fn kill_below() {
    for pid in proc::descendants(getpid().as_raw()) {
        proc::signal(pid, Signal::SIGKILL);
    }
}

/// Waits for the command and, on the way, for every orphan that was handed to us.
fn wait_for(command: i32, alive: &Alive) -> String {
    loop {
        let seen = waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        let pid = match seen {
            Ok(status) => status.pid(),
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => return format!("failed waiting: {error}"),
        };
        let Some(pid) = pid else { continue };
        if pid.as_raw() != command {
            let _ = waitpid(pid, None);
            continue;
        }
        let mut alive = alive.lock().unwrap_or_else(PoisonError::into_inner);
        let status = waitpid(pid, None);
        *alive = None;
        return match status {
            Ok(WaitStatus::Exited(_, code)) => format!("exited code {code}"),
            Ok(WaitStatus::Signaled(_, signal, _)) => format!("exited signal {}", signal as i32),
            Ok(other) => format!("failed waiting: {other:?}"),
            Err(error) => format!("failed waiting: {error}"),
        };
    }
}

/// Ends what the command left behind; returns when nothing is.
fn sweep() {
    for _ in 0..SWEEPS {
        kill_below();
        loop {
            match waitpid(Pid::from_raw(-1), Some(nix::sys::wait::WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => break,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
}
