//! The API server of a sandbox: where it keeps its objects, and at which address it is found.
//!
//! Address and token are kept, so that a kubeconfig of an earlier run still works and a controller
//! beside a sandbox survives its restart. Leaves serving to `api_server`. The token never leaves
//! files that only their owner can read.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::api_server::{ApiServer, Options, Running};
use super::node::addresses::AddressBook;
use super::node::logs as pod_logs;

/// What is kept of a server.
#[derive(Clone, Serialize, Deserialize)]
struct Endpoint {
    port: u16,
    token: String,
}

/// Starts the server of the sandbox in `directory` and writes `kubeconfig` there.
///
/// # Errors
/// As [`ApiServer::start`], and files that cannot be written.
pub async fn serve(directory: &Path, logs: &Path) -> Result<Running> {
    let file = directory.join("endpoint.json");
    let kept: Option<Endpoint> =
        std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let objects = directory.join("objects");
    super::cluster::closed_folder(&objects)?;
    let mut options = Options { directory: Some(objects), ..Options::in_memory()? };
    let (logs, book) = (logs.to_owned(), AddressBook::file(&directory.join("node")));
    options.log_path = Arc::new(move |namespace, pod, container, previous| {
        let path = pod_logs::path(&logs, namespace, pod, container);
        Some(if previous { pod_logs::previous(&path) } else { path })
    });
    options.psql_line = Arc::new(move |namespace, pod| psql_line(&book, namespace, pod));
    if let Some(kept) = &kept {
        options.token.clone_from(&kept.token);
        options.address = SocketAddr::from((Ipv4Addr::LOCALHOST, kept.port));
    }
    let token = options.token.clone();
    let server = match ApiServer::start(options.clone()).await {
        Err(error) if kept.is_some() => {
            // Nearly always: somebody else has the port by now.
            tracing::warn!("taking a new port for the API server: {error:#}");
            options.address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            ApiServer::start(options).await?
        }
        other => other?,
    };
    let endpoint = Endpoint { port: server.address().port(), token };
    write_closed(&file, &serde_json::to_vec(&endpoint)?)?;
    server.write_kubeconfig(&directory.join("kubeconfig"))?;
    Ok(server)
}

fn write_closed(path: &Path, text: &[u8]) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let opened = options.create(true).write(true).truncate(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| file.write_all(text));
    written.with_context(|| format!("writing {path:?}"))
}

/// What to type instead of `kubectl exec`: psql is on this machine already.
fn psql_line(book: &Path, namespace: &str, pod: &str) -> String {
    let address = AddressBook::look_up(book, &format!("{namespace}/{pod}"));
    let host = address.map_or_else(|| format!("<status.podIP of {pod}>"), |a| a.to_string());
    // Pods of a StatefulSet are <database>-<ordinal>.
    let database = pod.rsplit_once('-').map_or(pod, |(database, _)| database);
    format!(
        "PGPASSWORD=$(kubectl -n {namespace} get secret {database}-auth \
         -o jsonpath='{{.data.password}}' | base64 -d) \
         psql \"host={host} port=5432 user=postgres dbname=postgres\""
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_instead_of_exec_can_be_typed() {
        let line = psql_line(Path::new("/nowhere"), "demo", "my-db-0");
        assert_eq!(
            line,
            "PGPASSWORD=$(kubectl -n demo get secret my-db-auth -o jsonpath='{.data.password}' \
             | base64 -d) psql \"host=<status.podIP of my-db-0> port=5432 user=postgres \
             dbname=postgres\""
        );
    }
}
