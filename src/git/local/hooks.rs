//! The receiving hooks of a local repository, run around a push as git's receive-pack does.
//!
//! libgit2 runs none, and a push that goes around the owner's `pre-receive` would be a hole. A
//! hook runs only when the repository, the folder and the file belong to us or to root and nobody
//! else may write them: otherwise whoever can write a folder that we push to could run programs
//! as us. Such a hook is not skipped but counts as a refusal. Runs `pre-receive`, `update`,
//! `post-receive` and `post-update`; `reference-transaction` and `proc-receive` are not run.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use git2::{Oid, Repository};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, geteuid};

use super::super::budget::Budget;
use super::super::error::printable;
use super::WORDS_LIMIT;

/// How long we sleep between two looks at a running hook.
const LOOK: Duration = Duration::from_millis(5);
/// How long we wait for the rest of the output of a hook that has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Most output that is read from a hook.
const OUTPUT_LIMIT: u64 = 16 * 1024;

/// The reference that moves.
pub(super) struct Change<'a> {
    pub(super) reference: &'a str,
    pub(super) before: Oid,
    pub(super) after: Oid,
}

impl Change<'_> {
    fn line(&self) -> String {
        format!("{} {} {}\n", self.before, self.after, self.reference)
    }
}

/// Asks `pre-receive` and `update`. The words of the one that declines are the error.
pub(super) fn before(
    repository: &Repository,
    change: &Change<'_>,
    budget: &Budget,
) -> Result<(), String> {
    run(repository, "pre-receive", &[], &change.line(), budget)?;
    let (old, new) = (change.before.to_string(), change.after.to_string());
    run(repository, "update", &[change.reference, &old, &new], "", budget)
}

/// Tells `post-receive` and `post-update`, whose opinion no longer counts.
pub(super) fn after(repository: &Repository, change: &Change<'_>, budget: &Budget) {
    let told = [
        run(repository, "post-receive", &[], &change.line(), budget),
        run(repository, "post-update", &[change.reference], "", budget),
    ];
    for words in told.into_iter().filter_map(Result::err) {
        tracing::warn!(reference = change.reference, words, "a hook failed after the push");
    }
}

fn run(
    repository: &Repository,
    name: &str,
    arguments: &[&str],
    input: &str,
    budget: &Budget,
) -> Result<(), String> {
    let Some(hook) = find(repository, name) else { return Ok(()) };
    trusted(repository, &hook).map_err(|why| format!("{name} was not run because {why}"))?;
    let mut child = Command::new(&hook)
        .args(arguments)
        .current_dir(repository.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()))
        .env("GIT_DIR", repository.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("{name} could not be started: {error}"))?;
    feed(&mut child, input);
    let words = collect(&mut child);
    if wait(&mut child, budget).map_err(|why| format!("{name} {why}"))? {
        return Ok(());
    }
    // A program that the hook left behind may hold its output open for ever.
    let words = words.recv_timeout(LAST_WORDS).unwrap_or_default();
    Err(if words.is_empty() { format!("{name} declined without a word") } else { words })
}

/// The hook's file, when there is an executable one.
fn find(repository: &Repository, name: &str) -> Option<PathBuf> {
    let configured = repository.config().ok().and_then(|c| c.get_path("core.hooksPath").ok());
    let folder = configured.unwrap_or_else(|| repository.commondir().join("hooks"));
    // A relative folder is relative to where hooks run.
    let file = repository.path().join(folder).join(name);
    let found = fs::metadata(&file).ok()?;
    (found.is_file() && found.permissions().mode() & 0o111 != 0).then_some(file)
}

fn trusted(repository: &Repository, hook: &Path) -> Result<(), String> {
    let us = geteuid().as_raw();
    let folder = hook.parent().unwrap_or(hook);
    for path in [repository.commondir(), folder, hook] {
        let found = fs::metadata(path).map_err(|error| error.to_string())?;
        if found.uid() != us && found.uid() != 0 {
            return Err(format!("{} belongs to user {}", path.display(), found.uid()));
        }
        if found.mode() & 0o002 != 0 {
            return Err(format!("everybody may write {}", path.display()));
        }
    }
    Ok(())
}

/// One line fits into a pipe's buffer, so this cannot block. A hook that does not read is fine.
fn feed(child: &mut Child, input: &str) {
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
}

/// Reads both outputs on threads of their own, so that a talkative hook never blocks.
fn collect(child: &mut Child) -> mpsc::Receiver<String> {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (said, words) = mpsc::channel();
    thread::spawn(move || {
        let err = thread::spawn(move || err.map(drain).unwrap_or_default());
        let out = out.map(drain).unwrap_or_default();
        let text = format!("{}{out}", err.join().unwrap_or_default());
        // Nobody listens when the hook agreed.
        let _ = said.send(printable(text.trim(), WORDS_LIMIT));
    });
    words
}

/// Keeps the beginning and throws the rest away.
fn drain(mut from: impl Read) -> String {
    let mut kept = vec![];
    let _ = from.by_ref().take(OUTPUT_LIMIT).read_to_end(&mut kept);
    let _ = std::io::copy(&mut from, &mut std::io::sink());
    String::from_utf8_lossy(&kept).replace('\n', " ")
}

/// Whether the hook agreed; its whole process group is ended when the time is over.
fn wait(child: &mut Child, budget: &Budget) -> Result<bool, String> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status.success()),
            Ok(None) => {}
            Err(error) => return Err(format!("could not be waited for: {error}")),
        }
        if let Err(error) = budget.check() {
            if let Ok(group) = i32::try_from(child.id()) {
                let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            }
            let _ = child.wait();
            return Err(format!("was ended: {error}"));
        }
        thread::sleep(LOOK);
    }
}
