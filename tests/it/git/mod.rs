//! The room `git/` against real repositories, with the `git` program as the oracle.

mod files;
mod history;
mod mirror;
mod notes;
mod notes_random;
mod notes_refused;
mod watch;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use pgitops::api::names::CommitId;
use pgitops::git::{
    Backoff, InstanceName, MirrorOptions, Mirrors, NoteUpdate, Publishing, Source, SourceUrl,
};
use tempfile::TempDir;

/// A repository to push to, a clone to commit in, and a cache folder.
pub struct World {
    pub folder: TempDir,
    pub hub: PathBuf,
    pub clone: PathBuf,
}

impl World {
    /// An empty bare repository.
    pub fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (hub, clone) = (folder.path().join("config.git"), folder.path().join("clone"));
        git(folder.path(), &["init", "-q", "--bare", "-b", "main", "config.git"]);
        git(folder.path(), &["init", "-q", "-b", "main", "clone"]);
        git(&clone, &["remote", "add", "origin", hub.to_str().unwrap()]);
        Self { folder, hub, clone }
    }

    /// A repository with one commit.
    pub fn new() -> Self {
        let world = Self::empty();
        world.commit("first", &[("orders.yaml", "a: 1\n")]);
        world
    }

    /// Commits these files and pushes them to `main`.
    pub fn commit(&self, message: &str, files: &[(&str, &str)]) -> CommitId {
        for (path, text) in files {
            let path = self.clone.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        git(&self.clone, &["add", "-A"]);
        git(&self.clone, &["commit", "-q", "--allow-empty", "-m", message]);
        git(&self.clone, &["push", "-q", "--force", "origin", "HEAD:main"]);
        self.tip()
    }

    /// The commit that the clone is at.
    pub fn tip(&self) -> CommitId {
        CommitId::parse(git(&self.clone, &["rev-parse", "HEAD"]).trim()).unwrap()
    }

    /// What the program `git` says in the hub.
    pub fn git(&self, arguments: &[&str]) -> String {
        git(&self.hub, arguments)
    }

    pub fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    pub fn url(&self) -> SourceUrl {
        SourceUrl::parse(self.hub.to_str().unwrap()).unwrap()
    }

    /// The repository as a process sees it that was just started.
    pub fn source(&self) -> Source {
        self.source_with_cache("cache")
    }

    /// The same with a cache of its own, as from another machine.
    pub fn source_with_cache(&self, name: &str) -> Source {
        mirrors(&self.folder.path().join(name)).get(&self.url()).unwrap()
    }

    /// The only mirror below the cache.
    pub fn mirror(&self) -> PathBuf {
        let entries = fs::read_dir(self.cache()).unwrap().map(|entry| entry.unwrap().path());
        entries.into_iter().find(|path| path.extension().is_some_and(|e| e == "git")).unwrap()
    }

    /// Writes an executable hook into the hub.
    pub fn hook(&self, name: &str, script: &str) {
        let path = self.hub.join("hooks").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        chmod(&path, 0o755);
    }

    /// The repository is whole, by git's strictest look.
    pub fn assert_sound(&self) {
        self.git(&["fsck", "--strict", "--no-dangling"]);
    }
}

pub fn mirrors(cache: &Path) -> Mirrors {
    let options = MirrorOptions { allow_local: true, timeout: Duration::from_secs(60) };
    Mirrors::open(cache, options).unwrap()
}

pub fn chmod(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs([("GIT_AUTHOR_NAME", "Ann"), ("GIT_AUTHOR_EMAIL", "ann@example.com")])
        .envs([("GIT_COMMITTER_NAME", "Ann"), ("GIT_COMMITTER_EMAIL", "ann@example.com")]);
    command
}

/// Runs `git`, which must succeed; its output.
#[track_caller]
pub fn git(folder: &Path, arguments: &[&str]) -> String {
    let done = command(folder, arguments).output().expect("install git: these tests need it");
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "git {arguments:?}: {errors}");
    String::from_utf8(done.stdout).unwrap()
}

/// Runs `git` with bytes on its standard input.
#[track_caller]
pub fn git_with_input(folder: &Path, arguments: &[&str], input: &[u8]) -> String {
    use std::io::Write;
    let mut child = command(folder, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("install git: these tests need it");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let done = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "git {arguments:?}: {errors}");
    String::from_utf8(done.stdout).unwrap()
}

pub fn instance(name: &str) -> InstanceName {
    InstanceName::parse(name).unwrap()
}

pub fn publishing() -> Publishing {
    Publishing { now: Timestamp::from_second(1_700_000_000).unwrap(), backoff: Backoff::new(7) }
}

/// An update of the text for people.
pub fn text(commit: &CommitId, text: &str) -> NoteUpdate {
    NoteUpdate { commit: commit.clone(), text: Some(text.to_owned()), lines: vec![] }
}

/// An update of both.
pub fn both(commit: &CommitId, text: &str, line: &str) -> NoteUpdate {
    let lines = vec![line.to_owned()];
    NoteUpdate { commit: commit.clone(), text: Some(text.to_owned()), lines }
}
