//! A server alone, without a node, and a kubectl that speaks with it.

use pgitops::sandbox::api_server::{ApiServer, Options, Running};
use std::{ops::Deref, path::Path, sync::Arc};

use crate::kubectl::Kubectl;

pub struct Cluster {
    pub running: Running,
    kubectl: Kubectl,
    _folder: tempfile::TempDir,
}

impl Cluster {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let running = Self::server(folder.path(), 20_000).await;
        let kubectl = Kubectl {
            kubeconfig: folder.path().join("kubeconfig"),
            folder: folder.path().to_owned(),
            namespace: None,
        };
        Self { running, kubectl, _folder: folder }
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
}

impl Deref for Cluster {
    type Target = Kubectl;

    fn deref(&self) -> &Kubectl {
        &self.kubectl
    }
}
