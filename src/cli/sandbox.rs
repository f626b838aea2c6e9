//! `pgitops sandbox`: a small cluster on this machine, until interrupted.
//!
//! Starts what `sandbox` is made of, says `ready`, and stops all of it again. The controller that
//! works in it is given by the caller; without one the cluster runs alone.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::sandbox::cluster::{self, Options, Sandbox};
use crate::sandbox::node::init;

/// How long the controller has to end before the cluster goes away under it.
const CONTROLLER_END: Duration = Duration::from_secs(10);

/// Which part of the program writes into which file of `DIR/logs`.
const LOGS: [(&str, &str); 5] = [
    ("pgitops", "controller"),
    ("pgitops::sandbox", "sandbox"),
    ("pgitops::sandbox::api_server", "api-server"),
    ("pgitops::sandbox::workload", "workload"),
    ("pgitops::sandbox::node", "node"),
];

/// Run a small cluster on this machine: the API of Kubernetes, and pods as local processes.
#[derive(Debug, Parser)]
pub struct Args {
    /// Folder of everything; one from an earlier run is taken up again
    #[arg(short, long, value_name = "DIR", default_value = "pgitops-sandbox")]
    directory: PathBuf,
    /// Leave out the namespace `demo` and its repository
    #[arg(long)]
    empty: bool,
    /// Run the cluster alone; start `pgitops controller --kubeconfig DIR/kubeconfig` beside it
    #[arg(long)]
    no_controller: bool,
    /// The image that stands for PostgreSQL; the tag's major version picks an installed server
    #[arg(long, value_name = "IMAGE", default_value = "postgres:{version}")]
    postgres_image: String,
    /// The image that stands for this program
    #[arg(long, value_name = "IMAGE", default_value = "pgitops")]
    pgitops_image: String,
    /// More folders to look for PostgreSQL in, beside /usr/lib/postgresql
    #[arg(
        long = "postgres-root",
        value_name = "DIR",
        env = "PGITOPS_POSTGRES_ROOTS",
        value_delimiter = ':'
    )]
    postgres_roots: Vec<PathBuf>,
    /// User that pods run as when started by root; default postgres, else nobody
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// How long a changed Secret takes to reach a running pod, in milliseconds; up to 60 s and
    /// more on a real node
    #[arg(long, value_name = "MS", default_value_t = 0)]
    volume_delay: u64,
    /// Serve KubeDB's PetSets too, which databases then run as; a folder that was once started so
    /// goes on serving them
    #[arg(long = "petset")]
    pet_sets: bool,
}

/// The controller that works in the sandbox: gets a client, the kubeconfig of the same server and
/// the end, and returns when it has ended.
pub type Controller = Box<
    dyn FnOnce(
            kube::Client,
            &Path,
            CancellationToken,
        ) -> Pin<Box<dyn Future<Output = Result<()>> + Send>>
        + Send,
>;

/// If this process was started to be a container's first process, is that and returns its exit
/// code. To be called first in `main`: it must happen before any thread is started.
pub fn container_init() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != init::ARGUMENT {
        return None;
    }
    let arguments: Vec<_> = arguments.collect();
    Some(match init::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            init::report(&format!("failed {words}"));
            ExitCode::FAILURE
        }
    })
}

/// Runs the sandbox until SIGINT or SIGTERM, with `controller` in it unless told otherwise.
///
/// # Errors
/// What could not be started, or the controller's failure.
pub async fn run(args: Args, controller: Option<Controller>) -> Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    cluster::create_folder(&args.directory)?;
    let logs = args.directory.join("logs");
    let options = Options {
        empty: args.empty,
        postgres_image: args.postgres_image,
        pgitops_image: args.pgitops_image,
        postgres_roots: args.postgres_roots,
        user: args.user,
        volume_delay: Duration::from_millis(args.volume_delay),
        pet_sets: args.pet_sets,
        ..Options::new(args.directory)?
    };
    crate::telemetry::files::open(&logs, &LOGS).with_context(|| format!("opening {logs:?}"))?;

    let begun = tokio::select! {
        sandbox = Sandbox::start(options) => sandbox?,
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
    };
    let cancel = CancellationToken::new();
    let controller = controller.filter(|_| !args.no_controller);
    let mut working = controller
        .map(|controller| controller(begun.client.clone(), &begun.kubeconfig, cancel.clone()));
    say(&begun);
    let ended = tokio::select! {
        Some(ended) = async { Some(working.as_mut()?.await) } => Some(ended),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
    };
    cancel.cancel();
    if ended.is_none()
        && let Some(working) = working
        && tokio::time::timeout(CONTROLLER_END, working).await.is_err()
    {
        tracing::warn!("the controller did not end within {CONTROLLER_END:?}");
    }
    begun.shutdown().await;
    match ended {
        Some(result) => result.context("the controller ended").map(|()| ExitCode::SUCCESS),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// What a person needs to begin with, and the line that programs wait for.
fn say(sandbox: &Sandbox) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "kubeconfig  {}", sandbox.kubeconfig.display());
    if let Some(repository) = &sandbox.config_git {
        let _ = writeln!(out, "repository  {}", repository.display());
    }
    let _ = writeln!(out, "ready");
    let _ = out.flush();
}
