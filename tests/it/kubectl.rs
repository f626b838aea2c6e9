//! The real kubectl against any server, with a home and files of its own.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};

/// Longer than anything here takes on a loaded machine; a kubectl that hangs fails its test.
pub const DEADLINE: Duration = Duration::from_secs(60);

const MISSING: &str =
    "kubectl is not on the PATH: install it (https://kubernetes.io/docs/tasks/tools/)";

/// How kubectl is run.
#[derive(Clone)]
pub struct Kubectl {
    /// Where it finds the server.
    pub kubeconfig: PathBuf,
    /// Its home; files that tests hand to it lie here as well.
    pub folder: PathBuf,
    /// Given with `-n` unless absent.
    pub namespace: Option<String>,
}

impl Kubectl {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.folder);
        if let Some(namespace) = &self.namespace {
            command.args(["-n", namespace]);
        }
        command
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

    /// What a kubectl prints, warnings included: as `Ok` when it succeeds.
    pub async fn run(&self, line: &str) -> Result<String, String> {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let output = self.output(&arguments).await;
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let text = text.trim_end().to_owned();
        if output.status.success() { Ok(text) } else { Err(text) }
    }

    /// What a kubectl prints that succeeds, warnings included.
    pub async fn ok(&self, line: &str) -> String {
        self.run(line).await.unwrap_or_else(|text| panic!("kubectl {line} failed: {text}"))
    }

    /// What a kubectl prints that fails.
    pub async fn fails(&self, line: &str) -> String {
        match self.run(line).await {
            Err(text) => text,
            Ok(text) => panic!("kubectl {line} succeeded: {text}"),
        }
    }

    /// `kubectl delete`: what was deleted. Since 1.34 kubectl also says from which namespace.
    pub async fn deleted(&self, line: &str) -> String {
        let text = self.ok(&format!("delete {line}")).await;
        let namespace = self.namespace.as_deref().unwrap_or_default();
        text.replace(&format!(" from {namespace} namespace"), "")
    }

    /// A table, words separated by one space.
    pub async fn table(&self, line: &str) -> Vec<String> {
        let text = self.ok(line).await;
        let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(line).collect()
    }

    /// A file to hand to kubectl; its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// `kubectl apply` of a text.
    pub async fn apply(&self, text: &str) -> String {
        let file = self.file("applied.yaml", text);
        self.ok(&format!("apply -f {file}")).await
    }
}

/// Looks until a condition holds, with a deadline.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
