//! A server and a kubectl that speaks with it.

use pgitops::sandbox::api_server::{ApiServer, Options, Running};
use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::process::{Child, Command};

/// Longer than anything here takes on a loaded machine; a kubectl that hangs fails its test.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub struct Cluster {
    pub running: Running,
    pub folder: tempfile::TempDir,
}

impl Cluster {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let running = Self::server(folder.path(), 20_000).await;
        Self { running, folder }
    }

    /// A server on a folder; its logs are `<folder>/<pod>.log`.
    pub async fn server(folder: &Path, log_limit: usize) -> Running {
        let logs = folder.to_owned();
        let options = Options {
            directory: Some(folder.join("objects")),
            log_path: Arc::new(move |_, pod, _, _| Some(logs.join(format!("{pod}.log")))),
            psql_line: Arc::new(|namespace, pod| format!("psql -h {pod}.{namespace}")),
            log_limit,
            ..Options::in_memory().unwrap()
        };
        let running = ApiServer::start(options).await.unwrap();
        running.write_kubeconfig(&folder.join("kubeconfig")).unwrap();
        running
    }

    pub fn client(&self) -> kube::Client {
        self.running.client().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .env("KUBECONFIG", self.folder.path().join("kubeconfig"))
            .env("HOME", self.folder.path())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// A kubectl that goes on running.
    pub fn spawn(&self, line: &str) -> Child {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        self.command(&arguments).spawn().expect(MISSING)
    }

    async fn output(&self, arguments: &[&str]) -> Output {
        let output = tokio::time::timeout(DEADLINE, self.command(arguments).output()).await;
        output.unwrap_or_else(|_| panic!("kubectl {arguments:?} did not end")).expect(MISSING)
    }

    /// What a kubectl prints that succeeds, warnings included.
    pub async fn ok(&self, line: &str) -> String {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let output = self.output(&arguments).await;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert!(output.status.success(), "kubectl {line} failed: {text}");
        text.trim_end().to_owned()
    }

    /// What a kubectl prints that fails.
    pub async fn fails(&self, line: &str) -> String {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let output = self.output(&arguments).await;
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!output.status.success(), "kubectl {line} succeeded: {text}");
        text.trim_end().to_owned()
    }

    /// A table without its ages, words separated by one space.
    pub async fn table(&self, line: &str) -> Vec<String> {
        let text = self.ok(line).await;
        let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(line).collect()
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    pub async fn apply(&self, text: &str) -> String {
        let file = self.file("applied.yaml", text);
        self.ok(&format!("apply -f {file}")).await
    }
}

const MISSING: &str =
    "kubectl is not on the PATH: install it (https://kubernetes.io/docs/tasks/tools/)";

/// Looks until a condition holds, with a deadline.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
