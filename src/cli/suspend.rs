//! `pgitops suspend`, `resume`, `reconcile`, `retry`: small writes to objects that people may also
//! make with kubectl; each prints what it wrote.

use std::process::ExitCode;

use anyhow::Context as _;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::connection::Connection;
use crate::api::names::annotations;
use crate::api::{ConfigRepository, Postgres};

/// Arguments of `suspend`, `resume` and `reconcile`.
#[derive(Debug, clap::Args)]
pub struct RepositoryArgs {
    /// Name of the ConfigRepository
    name: String,
    #[command(flatten)]
    connection: Connection,
}

/// Arguments of `retry`.
#[derive(Debug, clap::Args)]
pub struct DatabaseArgs {
    /// Name of the Postgres object
    name: String,
    #[command(flatten)]
    connection: Connection,
}

/// Stops (or lets go on) the emitting of requests; a running request finishes.
///
/// # Errors
/// When there is no such repository, or the cluster refuses.
pub async fn suspend(args: &RepositoryArgs, suspend: bool) -> anyhow::Result<ExitCode> {
    let (cluster, namespace) = args.connection.open().await?;
    let cluster = cluster.of_a_person();
    let patch = json!({"spec": {"suspend": suspend}});
    cluster
        .merge::<ConfigRepository>(&namespace, &args.name, &patch)
        .await
        .with_context(|| missing("configrepositories", &namespace))?;
    let word = if suspend { "suspended" } else { "resumed" };
    println!("configrepository {namespace}/{} {word}", args.name);
    Ok(ExitCode::SUCCESS)
}

/// Makes the controller look at a repository now.
///
/// # Errors
/// When there is no such repository, or the cluster refuses.
pub async fn reconcile(args: &RepositoryArgs) -> anyhow::Result<ExitCode> {
    let (cluster, namespace) = args.connection.open().await?;
    let cluster = cluster.of_a_person();
    let patch = annotate(annotations::REQUESTED_AT);
    cluster
        .merge::<ConfigRepository>(&namespace, &args.name, &patch)
        .await
        .with_context(|| missing("configrepositories", &namespace))?;
    println!("configrepository {namespace}/{} is looked at now", args.name);
    Ok(ExitCode::SUCCESS)
}

/// Lifts the hold of a failed change, so that it is tried once more.
///
/// # Errors
/// When there is no such database, or the cluster refuses.
pub async fn retry(args: &DatabaseArgs) -> anyhow::Result<ExitCode> {
    let (cluster, namespace) = args.connection.open().await?;
    let cluster = cluster.of_a_person();
    let patch = annotate(annotations::RETRY);
    cluster
        .merge::<Postgres>(&namespace, &args.name, &patch)
        .await
        .with_context(|| missing("postgreses", &namespace))?;
    println!("postgres {namespace}/{}: a failed change is tried once more", args.name);
    Ok(ExitCode::SUCCESS)
}

fn annotate(name: &str) -> serde_json::Value {
    json!({"metadata": {"annotations": {name: Timestamp::now().to_string()}}})
}

fn missing(plural: &str, namespace: &str) -> String {
    format!("nothing was changed; `kubectl get {plural} -n {namespace}` shows what is there")
}
