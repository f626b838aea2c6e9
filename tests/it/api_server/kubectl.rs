//! The real kubectl against the sandbox's API server.

use pgitops::sandbox::api_server::{ApiServer, Options, Running};
use std::{path::PathBuf, process::Stdio};
use tokio::process::Command;

/// A server and a kubectl that speaks with it.
struct Cluster {
    running: Running,
    folder: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            directory: Some(folder.path().join("objects")),
            ..Options::in_memory().unwrap()
        };
        let running = ApiServer::start(options).await.unwrap();
        running.write_kubeconfig(&folder.path().join("kubeconfig")).unwrap();
        Self { running, folder }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("kubectl");
        command
            .env("KUBECONFIG", self.folder.path().join("kubeconfig"))
            .env("HOME", self.folder.path())
            .args(line.split_whitespace())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// What kubectl prints, its errors included, and whether it succeeded.
    async fn run(&self, line: &str) -> (bool, String) {
        let output = self.command(line).output().await.expect(
            "kubectl is not on the PATH: install it (https://kubernetes.io/docs/tasks/tools/)",
        );
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn smoke() {
    let c = Cluster::start().await;
    c.file("sts.yaml", STS);
    c.file("ns.yaml", "{apiVersion: v1, kind: Namespace, metadata: {name: demo}}");
    c.file(
        "secret.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s2, namespace: demo}\nstringData: {a: b}\n",
    );
    for line in std::fs::read_to_string("/tmp/smoke.txt").unwrap().lines() {
        let line = line.replace("DIR", &c.folder.path().display().to_string());
        println!("$ kubectl {line}");
        let (ok, out) = c.run(&line).await;
        println!("{}{out}", if ok { "" } else { "[FAILED] " });
    }
    println!("{:?}", c.running.counts());
}
const STS: &str = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: web}\nspec:\n  serviceName: web\n  replicas: 2\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec:\n      containers:\n      - name: c\n        image: nginx:1.25\n        ports: [{containerPort: 80}]\n        env: [{name: A, value: b}]\n";
