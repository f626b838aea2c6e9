//! A program of the control plane as a process that cannot outlive this one.
//!
//! Started under `pgitops sandbox-init`, the first process of the sandbox's containers: when the
//! pipe to it closes, because this process stops it or is gone, it ends the program and everything
//! below it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use pgitops::sandbox::node::init;

/// Seconds that a program has to end by itself.
const GRACE: u64 = 5;

/// After its grace and a kill a program is gone within this time or never.
const LIMIT: Duration = Duration::from_secs(20);

/// Lines of a log that are shown when its program ends.
const LINES: usize = 12;

/// A running program.
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `program`; its log is `<folder>/<name>.log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(init: &Path, program: &Path, arguments: &[String], folder: &Path) -> Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("creating {log:?}"))?;
        let child = Command::new(init)
            .arg(init::ARGUMENT)
            .arg(GRACE.to_string())
            .arg(program)
            .args(arguments)
            .env_clear()
            .env("HOME", folder)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .current_dir(folder)
            // A terminal's interrupt is for us.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {program:?}"))?;
        Ok(Self { name, child, log })
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    fn stop(&mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + LIMIT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                self.child.kill()?;
                self.child.wait()?;
                bail!("{} did not end within {LIMIT:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// Programs in the order of their start; dropped, they end in the reverse order.
#[derive(Default)]
pub struct Programs(Vec<Program>);

impl Programs {
    pub fn push(&mut self, program: Program) {
        self.0.push(program);
    }

    /// Fails with the last words of a program that has ended.
    ///
    /// # Errors
    /// One has ended.
    pub fn must_run(&mut self) -> Result<()> {
        for program in &mut self.0 {
            if let Some(status) = program.child.try_wait()? {
                bail!("{} ended ({status}):\n{}", program.name, program.last_words());
            }
        }
        Ok(())
    }

    /// Pids of the first processes and of all below them.
    pub fn pids(&self) -> Vec<i32> {
        let first: Vec<i32> = self.0.iter().map(|program| program.child.id() as i32).collect();
        let below = first.iter().flat_map(|pid| children(*pid));
        first.iter().copied().chain(below).collect()
    }

    /// Ends all of them.
    ///
    /// # Errors
    /// One does not end.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let mut result = Ok(());
        while let Some(mut program) = self.0.pop() {
            result = result.and(program.stop());
        }
        result
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

fn children(pid: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    text.unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok()).collect()
}
