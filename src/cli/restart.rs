//! `pgitops restart`: a rolling restart of one database, as a request of type Restart.
//!
//! Leaves the execution to the controller; with `--wait` it follows the request to its end.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::core::ObjectMeta;
use kube::runtime::wait::await_condition;

use super::connection::Connection;
use crate::api::ops_request::{Apply, DatabaseName, OpsPhase, OpsType, PostgresOpsRequestSpec};
use crate::api::{Postgres, PostgresOpsRequest};
use crate::cluster::Cluster;

/// Arguments of `pgitops restart`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the Postgres object
    name: String,
    /// Wait for the end, at most this many seconds
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    #[command(flatten)]
    connection: Connection,
}

/// Creates the request.
///
/// # Errors
/// When there is no such database, the cluster refuses, or the wait ends without a result.
pub async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (cluster, namespace) = args.connection.open().await?;
    let cluster = cluster.of_a_person();
    let there = cluster.get::<Postgres>(&namespace, &args.name).await?;
    anyhow::ensure!(
        there.is_some(),
        "postgres {namespace}/{}: not found; `kubectl get pg -n {namespace}` shows what is there",
        args.name
    );
    let request = cluster.create(&request(&namespace, &args.name)).await?;
    let crate::cluster::Created::New(request) = request else {
        anyhow::bail!("a request of that name is there already; try again in a second");
    };
    let name = request.request_name();
    println!("postgresopsrequest {namespace}/{name} created");
    match args.wait {
        None => Ok(ExitCode::SUCCESS),
        Some(seconds) => follow(&cluster, &namespace, &name.0, seconds).await,
    }
}

fn request(namespace: &str, database: &str) -> PostgresOpsRequest {
    // As `kubectl dba restart` names it, with a time instead of a random word.
    let stem: String = database.chars().take(40).collect();
    let name = format!("{stem}-restart-{}", Timestamp::now().as_millisecond());
    PostgresOpsRequest {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace.to_owned()),
            ..Default::default()
        },
        spec: PostgresOpsRequestSpec {
            database_ref: DatabaseName { name: database.to_owned() },
            type_: OpsType::Restart,
            configuration: None,
            timeout: None,
            apply: Apply::Always,
            max_retries: None,
            other: std::collections::BTreeMap::new(),
        },
        status: None,
    }
}

async fn follow(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    seconds: u64,
) -> anyhow::Result<ExitCode> {
    let api = Api::<PostgresOpsRequest>::namespaced(cluster.client(), namespace);
    let ended = |request: Option<&PostgresOpsRequest>| {
        request.is_none_or(|request| request.phase().is_terminal())
    };
    let wait = await_condition(api, name, ended);
    let last = tokio::time::timeout(Duration::from_secs(seconds), wait)
        .await
        .with_context(|| format!("{name} has not ended after {seconds} s; it goes on"))??;
    let phase = last.map_or(OpsPhase::Skipped, |request| request.phase());
    println!("postgresopsrequest {namespace}/{name} {phase:?}");
    Ok(if phase == OpsPhase::Successful { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
