//! Real Postgres servers for tests: where they are, as whom they run, and how they end.
//!
//! Leaves to each test what it asks of a server. Never leaves a process or a folder behind, and
//! never passes when there is no server: it fails and says what to install.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};

/// Names a folder with servers in `<major>/bin`, as `tests/catalogue/make.sh` makes one.
pub const ROOTS: &str = "PGITOPS_POSTGRES_ROOTS";

/// A scratch server starts in a third of a second on an idle machine; a build beside it is slow.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The folders with `postgres` and `initdb`, by major version: Debian's, and those below
/// `PGITOPS_POSTGRES_ROOTS`. Fails if there is none.
pub fn bin_dirs() -> BTreeMap<u32, PathBuf> {
    let extra = std::env::var_os(ROOTS).map(PathBuf::from);
    let mut found = BTreeMap::new();
    for root in [extra, Some(PathBuf::from("/usr/lib/postgresql"))].into_iter().flatten() {
        for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
            let major = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            let bin = entry.path().join("bin");
            if let (Some(major), true) = (major, bin.join("postgres").exists()) {
                found.insert(major, bin);
            }
        }
    }
    assert!(
        !found.is_empty(),
        "no Postgres server found: install one (Debian: apt install postgresql-15), \
         or run tests/catalogue/make.sh DIR and set {ROOTS}=DIR"
    );
    found
}

/// A command that runs as a user Postgres accepts: `postgres` (or `nobody`) when we are root.
pub fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    if let Some(user) = server_user() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    // Messages in English, and no settings of the person who runs the tests.
    command.env("LC_ALL", "C").env_remove("PGDATA").env_remove("PGPORT").env_remove("PGHOST");
    command.current_dir("/");
    command
}

fn server_user() -> Option<User> {
    nix::unistd::geteuid().is_root().then(|| {
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .expect("Postgres refuses to run as root: add a user named postgres")
    })
}

/// A folder that the server's user owns, removed on drop. Its path is short: a socket's path has at
/// most 107 bytes.
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// A new, empty folder.
    pub fn new() -> Folder {
        let folder = tempfile::Builder::new().prefix("pgo").tempdir_in("/tmp");
        let folder = Folder(folder.expect("a folder in /tmp"));
        folder.give(folder.path());
        folder
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file that the server's user can read.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        fs::write(&path, content).expect("write into the scratch folder");
        self.give(&path);
    }

    fn give(&self, path: &Path) {
        if let Some(user) = server_user() {
            let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
            std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("chown a scratch file");
        }
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod a scratch file");
    }
}

/// A running scratch server that listens on a socket in its own folder and nowhere else. Superuser
/// `postgres`, no password. Ends, and its folder goes, on drop.
pub struct Server {
    folder: Folder,
    child: Child,
}

impl Server {
    /// Makes a cluster and starts it with these lines of configuration.
    pub fn start(bin: &Path, configuration: &str) -> Server {
        let folder = Folder::new();
        let data = folder.path().join("data");
        let made = command(bin.join("initdb"))
            .args(["--no-sync", "--locale=C", "--encoding=UTF8", "-A", "trust", "-U", "postgres"])
            .arg("-D")
            .arg(&data)
            .output()
            .expect("run initdb");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let folder_name = folder.path().display();
        folder.write(
            "data/postgresql.conf",
            format!(
                "listen_addresses = ''\nunix_socket_directories = '{folder_name}'\nfsync = off\n\
                 {configuration}"
            ),
        );
        let log = fs::File::create(folder.path().join("log")).expect("a log in the scratch folder");
        let child = command(bin.join("postgres"))
            .arg("-D")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start postgres");
        let mut server = Server { folder, child };
        server.await_ready();
        server
    }

    fn await_ready(&mut self) {
        let deadline = Instant::now() + START_LIMIT;
        let pid_file = self.folder.path().join("data/postmaster.pid");
        loop {
            // The eighth line of the lock file is the server's state.
            let state = fs::read_to_string(&pid_file).unwrap_or_default();
            if state.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
                return;
            }
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("postgres ended with {status}: {}", log());
            }
            assert!(Instant::now() < deadline, "postgres is not ready: {}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The folder of the cluster; `data` below it is the data directory.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// What tokio-postgres needs to connect as superuser.
    pub fn connection(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.folder.path()).user("postgres").dbname("postgres");
        config
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Immediate shutdown: nobody will read this cluster again.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGQUIT);
        }
        let _ = self.child.wait();
    }
}

/// The newest installed major version and its programs.
pub fn newest() -> (u32, PathBuf) {
    let found = bin_dirs().into_iter().next_back();
    found.expect("no PostgreSQL server is installed; install the package postgresql")
}
