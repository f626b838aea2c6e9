//! A sandbox for tests: started in a folder of its own, asked through the real client and kubectl.
//!
//! Leaves to each suite what it runs in it. Never sleeps for something to happen: [`until`] polls
//! a condition and has a deadline. Every sandbox is stopped with [`World::stop`]; one that a
//! failed test drops ends its pods by itself.

use std::fs::Permissions;
use std::future::Future;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use pgitops::sandbox::cluster::{Options, Sandbox};
use serde_json::Value;
use tokio::time::Instant;

/// Deadline of everything that is waited for: generous, because builds run beside tests.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Time between two looks.
const STEP: Duration = Duration::from_millis(20);

/// Our own executable.
pub const EXECUTABLE: &str = env!("CARGO_BIN_EXE_pgitops");

/// The newest major version of PostgreSQL that is installed.
pub static MAJOR: LazyLock<String> = LazyLock::new(|| {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let whole = versions.filter(|version| version.path().join("bin/postgres").exists());
    let majors = whole.filter_map(|version| version.file_name().to_str()?.parse::<u32>().ok());
    majors.max().expect("PostgreSQL is needed by this test: install package postgresql").to_string()
});

/// A folder below /tmp that the pods' user can pass through; removed on drop.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("pgw").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
        Self(folder)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// A process of its own, killed when it is dropped: a failed test leaves none.
pub struct Process(pub std::process::Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running sandbox and its folder.
pub struct World {
    pub sandbox: Sandbox,
    folder: Folder,
}

impl World {
    /// A sandbox as a person starts it.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same, with options changed.
    pub async fn start_with(change: impl FnOnce(&mut Options)) -> Self {
        Self::start_in(Folder::new(), change).await
    }

    /// In a folder that another one may have left.
    pub async fn start_in(folder: Folder, change: impl FnOnce(&mut Options)) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut options = Options::new(folder.path().join("s")).unwrap();
        options.executable = PathBuf::from(EXECUTABLE);
        change(&mut options);
        let sandbox = Sandbox::start(options).await.unwrap();
        Self { sandbox, folder }
    }

    /// Stops the sandbox and keeps its folder.
    pub async fn stop(self) -> Folder {
        self.sandbox.shutdown().await;
        self.folder
    }

    pub fn client(&self) -> Client {
        self.sandbox.client.clone()
    }

    /// Pods of the namespace `demo`.
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client(), "demo")
    }

    /// Runs the real kubectl in namespace `demo`; its output, or its words of failure.
    pub fn try_kubectl(&self, arguments: &[&str], input: Option<&Value>) -> Result<String, String> {
        kubectl(&self.sandbox.kubeconfig, arguments, input)
    }

    /// The same, and fails the test when kubectl does.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments, None).unwrap_or_else(|e| panic!("kubectl {arguments:?}: {e}"))
    }

    /// `kubectl apply -f -`.
    pub fn apply(&self, object: &Value) {
        let applied = self.try_kubectl(&["apply", "-f", "-"], Some(object));
        applied.unwrap_or_else(|e| panic!("kubectl apply: {e}\n{object}"));
    }

    /// Waits until a pod is as wanted.
    pub async fn pod_until(&self, name: &str, what: &str, wanted: impl Fn(&Pod) -> bool) -> Pod {
        let pods = self.pods();
        let look = || async {
            let pod = pods.get_opt(name).await.unwrap();
            match pod {
                Some(pod) if wanted(&pod) => Ok(pod),
                other => Err(format!("{:#}", serde_json::to_value(&other).unwrap()["status"])),
            }
        };
        until(&format!("pod {name} {what}"), look).await
    }

    /// Waits until a pod is Ready.
    pub async fn ready(&self, name: &str) -> Pod {
        self.pod_until(name, "is Ready", is_ready).await
    }

    /// Waits until the note of a commit in the sandbox's repository begins as expected; gives it.
    pub async fn note(&self, commit: &str, begins: &str) -> String {
        let bare = self.sandbox.config_git.clone().unwrap();
        until(&format!("a note {begins:?}"), || async {
            let output = Command::new("git")
                .current_dir(&bare)
                .args(["notes", "--ref=pgitops/default", "show", commit])
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if text.starts_with(begins) { Ok(text) } else { Err(text) }
        })
        .await
    }

    /// Waits until the log of a pod contains some text; returns the log.
    pub async fn logged(&self, pod: &str, text: &str) -> String {
        let look = || async {
            match self.try_kubectl(&["logs", pod], None) {
                Ok(log) if log.contains(text) => Ok(log),
                Ok(log) => Err(log),
                Err(words) => Err(words),
            }
        };
        until(&format!("pod {pod} logs {text:?}"), look).await
    }
}

/// Runs the real kubectl with a kubeconfig, in namespace `demo`.
pub fn kubectl(
    kubeconfig: &Path,
    arguments: &[&str],
    input: Option<&Value>,
) -> Result<String, String> {
    use std::io::Write as _;
    let cache = kubeconfig.parent().unwrap().join(".kubectl-cache");
    let mut child = Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .arg("--cache-dir")
        .arg(cache)
        .args(["-n", "demo"])
        .args(arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect(
            "kubectl is needed by this test: install it (https://kubernetes.io/docs/tasks/tools)",
        );
    if let Some(input) = input {
        child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Polls until `look` has a value; panics with its last words after [`LIMIT`].
pub async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + LIMIT;
    loop {
        match look().await {
            Ok(value) => return value,
            Err(words) => {
                assert!(Instant::now() < deadline, "not after {LIMIT:?}: {what}: {words}")
            }
        }
        tokio::time::sleep(STEP).await;
    }
}

/// Whether the pod's condition Ready is True.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|status| status == "True")
        && pod.metadata.deletion_timestamp.is_none()
}

/// Status of one of the pod's conditions.
pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == type_).map(|c| c.status.as_str())
}

/// Whether a process runs (a zombie does not).
pub fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
