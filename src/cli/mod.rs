//! The command line: one file per command.
//!
//! This file only knows which commands there are. kubectl's habits: `-n`, `--context`, `-o`.

pub mod connection;
pub mod controller;
pub mod crd;
pub mod demo;
pub mod instance;
pub mod log;
pub mod look;
pub mod plan;
pub mod restart;
pub mod sandbox;
pub mod status;
pub mod suspend;
pub mod validate;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand};

use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::telemetry::{LogFormat, Loudness};

/// GitOps for Postgres configuration: push a change to git, read the proven result in `git log`.
#[derive(Debug, Parser)]
#[command(name = "pgitops", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How lines of the log look
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controller: the three loops, under one lease
    Controller(controller::Args),
    /// Run a small cluster on this machine, until interrupted
    Sandbox(sandbox::Args),
    /// Watch the whole line at work on this machine, in a minute
    Demo(demo::Args),
    /// Show what a folder or commit would change in the cluster
    Plan(plan::Args),
    /// Check documents without a cluster
    Validate(validate::Args),
    /// Show what git says, what the spec says and what runs, and whether the next start is safe
    Status(status::Args),
    /// Show commits with their notes and requests, without any git set-up
    Log(log::Args),
    /// Look at a repository now
    Reconcile(suspend::RepositoryArgs),
    /// Stop emitting requests for a repository; a running one finishes
    Suspend(suspend::RepositoryArgs),
    /// Go on emitting requests for a repository
    Resume(suspend::RepositoryArgs),
    /// Try a change that failed once more
    Retry(suspend::DatabaseArgs),
    /// Restart a database, standbys first, node by node
    Restart(restart::Args),
    /// Supervise a Postgres server in its pod, or probe one that is supervised
    Instance(instance::Args),
    /// Print the definitions of our Kubernetes kinds, for `kubectl apply -f -`
    Crd(crd::Args),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Runs the command that was asked for.
///
/// # Errors
/// What the command could not do, with its causes; the caller prints the chain once.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let tells_itself = matches!(cli.command, Command::Demo(_));
    let loudness = if tells_itself { Loudness::Warnings } else { Loudness::Info };
    crate::telemetry::start_logs(cli.log_format, loudness);
    match cli.command {
        Command::Controller(args) => wait(controller::run(args)),
        Command::Sandbox(args) => wait(sandbox::run(args, Some(Box::new(in_sandbox)))),
        Command::Demo(args) => wait(demo::run(args)),
        Command::Instance(args) => wait(instance::run(args)),
        Command::Plan(args) => wait(plan::run(args)),
        Command::Validate(args) => wait(validate::run(args)),
        Command::Status(args) => wait(status::run(args)),
        Command::Log(args) => wait(log::run(&args)),
        Command::Reconcile(args) => wait(suspend::reconcile(&args)),
        Command::Suspend(args) => wait(suspend::suspend(&args, true)),
        Command::Resume(args) => wait(suspend::suspend(&args, false)),
        Command::Retry(args) => wait(suspend::retry(&args)),
        Command::Restart(args) => wait(restart::run(&args)),
        Command::Crd(args) => crd::run(&args),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "pgitops", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The controller of a sandbox: all loops, local repositories allowed.
fn in_sandbox(
    client: kube::Client,
    kubeconfig: &Path,
    shutdown: CancellationToken,
) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>> {
    let mirrors = kubeconfig.with_file_name("mirrors");
    let settings = controller::Settings::sandbox(mirrors);
    let loops = controller::Loop::ALL.to_vec();
    Box::pin(controller::work(Cluster::new(client), loops, settings, shutdown))
}

/// Runs an asynchronous command to its end.
fn wait(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("tokio runtime")?.block_on(command)
}

/// An error and its causes on one line, none of them twice.
pub fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Some libraries repeat their source in their own message.
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    text
}
