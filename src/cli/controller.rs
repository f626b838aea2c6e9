//! `pgitops controller`: the three loops, under one lease.
//!
//! Composes; decides nothing. Stops its loops when the lease is lost and takes part in the next
//! election: who does not lead does not work.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use crate::api::{ConfigRepository, Postgres, PostgresOpsRequest};
use crate::cluster::definitions::{self, Needed};
use crate::cluster::lease::{self, Terms};
use crate::cluster::tell::{self, StatusOf};
use crate::cluster::{Cluster, InSync, Leadership, Watched};
use crate::git::{MirrorOptions, Mirrors};
use crate::telemetry::Metrics;
use crate::telemetry::server::{Endpoint, Told, Watches};
use crate::{ops, provision, sync};

/// Arguments of `pgitops controller`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Which loops run; beside a real KubeDB only `sync`
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Loop::ALL)]
    pub loops: Vec<Loop>,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    settings: Settings,
}

/// What the loops need to know beyond the cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// Image of the server; `{version}` is replaced by spec.version
    #[arg(long, default_value = "postgres:{version}", value_name = "IMAGE")]
    pub postgres_image: String,
    /// Image of pgitops, copied into the pods of databases
    #[arg(long, default_value = "pgitops", value_name = "IMAGE")]
    pub pgitops_image: String,
    /// Allow repositories that are paths of this machine
    #[arg(long)]
    pub allow_local_repositories: bool,
    /// Folder of the mirrors of git repositories; may be emptied at any time
    #[arg(long, default_value = "/var/cache/pgitops", value_name = "DIR")]
    pub cache_directory: PathBuf,
    /// Address of /metrics, /healthz and /readyz; none when absent
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics_address: Option<SocketAddr>,
    /// Namespace of the lease
    #[arg(long, env = "POD_NAMESPACE", default_value = "default", value_name = "NAMESPACE")]
    pub lease_namespace: String,
    /// Seconds after which others take a lease over that is not renewed
    #[arg(long, default_value_t = 15, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(3..))]
    pub lease_duration: u64,
}

impl Settings {
    /// What suits a sandbox: its repository is a path, and its API server is never far.
    pub fn sandbox(cache_directory: PathBuf) -> Self {
        Self {
            postgres_image: "postgres:{version}".to_owned(),
            pgitops_image: "pgitops".to_owned(),
            allow_local_repositories: true,
            cache_directory,
            metrics_address: None,
            lease_namespace: "default".to_owned(),
            lease_duration: 15,
        }
    }
}

/// One of the three loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Loop {
    /// git → requests → notes.
    Sync,
    /// Requests → servers.
    Ops,
    /// `Postgres` → its children.
    Provision,
}

impl Loop {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sync, Self::Ops, Self::Provision];
}

impl std::fmt::Display for Loop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sync => "sync",
            Self::Ops => "ops",
            Self::Provision => "provision",
        })
    }
}

/// Loops have this long to end by themselves after the lease is lost or a signal came. A pass that
/// is still under way is then dropped where it waits: that is what a crash does, and whoever leads
/// next goes on from what it observes.
const END: Duration = Duration::from_millis(500);

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// When the cluster cannot be reached at all, or a loop cannot be ended.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (cluster, _) = args.connection.open().await?;
    let shutdown = CancellationToken::new();
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
    });
    work(cluster, args.loops, args.settings, shutdown).await?;
    Ok(ExitCode::SUCCESS)
}

/// Takes part in the election and runs the loops while leading, until `shutdown`.
///
/// # Errors
/// When the cache folder or the metrics address cannot be used, or a loop cannot be ended.
pub async fn work(
    cluster: Cluster,
    loops: Vec<Loop>,
    settings: Settings,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let duration = Duration::from_secs(settings.lease_duration);
    let terms = Terms {
        duration,
        // client-go's proportions: 10 s and 2 s of 15 s.
        renew_deadline: duration * 2 / 3,
        retry: duration * 2 / 15,
        ..Terms::new(&settings.lease_namespace, "pgitops", &identity())
    };
    let endpoint = match settings.metrics_address {
        Some(address) => Some(
            Endpoint::bind(address).await.with_context(|| format!("metrics address {address}"))?,
        ),
        None => None,
    };
    let mut leadership = lease::start(&cluster, terms, shutdown.clone());
    let metrics = Arc::new(Metrics::default().with_calls(cluster.counted()));
    let (tell, watches) = watch::channel(Watches::default());
    let told = Told { metrics: Arc::clone(&metrics), watches, leadership: leadership.clone() };
    let endpoint = endpoint.map(|endpoint| tokio::spawn(endpoint.serve(told, shutdown.clone())));
    let needed = needed(&loops);
    let defined = definitions::served(&cluster, &needed, |missing| {
        tell.send_replace(Watches::Undefined(missing));
    });
    if shutdown.run_until_cancelled(defined).await.is_some() {
        let seen = Seen::start(&cluster);
        tell.send_replace(Watches::Running(seen.in_sync()));
        let process = Process { cluster, seen, loops, settings, metrics };
        lead_when_elected(&process, &mut leadership, &shutdown).await?;
    }
    leadership.over().await;
    if let Some(endpoint) = endpoint {
        endpoint.await.context("metrics endpoint")?.context("metrics endpoint")?;
    }
    Ok(())
}

/// The kinds without which nothing can be done, and what installs them.
fn needed(loops: &[Loop]) -> [Needed; 3] {
    let ours = "install it: pgitops crd | kubectl apply --server-side -f -";
    let kubedb = "it is KubeDB's and comes with KubeDB; without KubeDB run all loops, and \
                  pgitops crd | kubectl apply --server-side -f -";
    let alone = loops.contains(&Loop::Ops) || loops.contains(&Loop::Provision);
    let theirs = if alone { ours } else { kubedb };
    let repository =
        "install it: pgitops crd --kind ConfigRepository | kubectl apply --server-side -f -";
    [
        Needed::kind::<Postgres>(theirs),
        Needed::kind::<PostgresOpsRequest>(theirs),
        Needed::kind::<ConfigRepository>(repository),
    ]
}

/// Leads whenever it is our turn, until `shutdown`.
async fn lead_when_elected(
    process: &Process,
    leadership: &mut Leadership,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    while !shutdown.is_cancelled() {
        tokio::select! {
            () = leadership.led() => {}
            () = shutdown.cancelled() => break,
        }
        tracing::info!(transitions = leadership.transitions(), "leading");
        lead(process, leadership, shutdown).await?;
    }
    Ok(())
}

/// What does not change while the process lives.
struct Process {
    cluster: Cluster,
    seen: Seen,
    loops: Vec<Loop>,
    settings: Settings,
    metrics: Arc<Metrics>,
}

/// The kinds that are watched, once for the whole process.
#[derive(Clone)]
struct Seen {
    databases: Arc<Watched<Postgres>>,
    requests: Arc<Watched<PostgresOpsRequest>>,
    repositories: Arc<Watched<ConfigRepository>>,
}

impl Seen {
    fn start(cluster: &Cluster) -> Self {
        Self {
            databases: Watched::start(cluster, None),
            requests: Watched::start(cluster, None),
            repositories: Watched::start(cluster, None),
        }
    }

    fn in_sync(&self) -> Vec<InSync> {
        let Self { databases, requests, repositories } = self;
        vec![databases.in_sync(), requests.in_sync(), repositories.in_sync()]
    }
}

/// Runs the loops until the lease is lost or `shutdown`.
async fn lead(
    process: &Process,
    leadership: &Leadership,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let stop = shutdown.child_token();
    let mut running = begin(process, leadership, &stop)?;
    let mut leadership = leadership.clone();
    let ended = tokio::select! {
        () = leadership.lost() => None,
        () = shutdown.cancelled() => None,
        ended = running.join_next(), if !running.is_empty() => ended,
    };
    stop.cancel();
    let all_ended = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(END, all_ended).await.is_err() {
        running.shutdown().await;
    }
    match ended {
        None => {}
        Some(result) => result.context("a loop panicked")??,
    }
    Ok(())
}

/// Starts the loops that are asked for.
fn begin(
    process: &Process,
    leadership: &Leadership,
    stop: &CancellationToken,
) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    let Process { cluster, seen, loops, settings, metrics } = process;
    let mut running = JoinSet::new();
    tell_of_unreadable(process, &mut running, stop);
    if loops.contains(&Loop::Provision) {
        let options = provision::Options {
            postgres_image: settings.postgres_image.clone(),
            pgitops_image: settings.pgitops_image.clone(),
        };
        let context = provision::Context::new(
            cluster.clone(),
            Arc::clone(&seen.databases),
            Watched::<Pod>::start(cluster, Some(provision::SELECTOR)),
            leadership.clone(),
            options,
            Arc::clone(metrics),
        );
        let stop = stop.clone();
        running.spawn(async move {
            match stop.clone().run_until_cancelled(context).await {
                Some(cx) => provision::run(Arc::new(cx), stop).await.context("provision"),
                None => Ok(()),
            }
        });
    }
    if loops.contains(&Loop::Ops) {
        let cx = ops::Context::new(
            cluster.clone(),
            Arc::clone(&seen.databases),
            Arc::clone(&seen.requests),
            leadership.clone(),
            Timestamp::now,
            Arc::clone(metrics),
        );
        let run = ops::run(Arc::new(cx), stop.clone());
        running.spawn(async move { run.await.context("ops") });
    }
    if loops.contains(&Loop::Sync) {
        let options = MirrorOptions {
            allow_local: settings.allow_local_repositories,
            ..MirrorOptions::default()
        };
        let cx = sync::Context::new(
            cluster.clone(),
            Mirrors::open(&settings.cache_directory, options)?,
            Arc::clone(&seen.repositories),
            Arc::clone(&seen.databases),
            Arc::clone(&seen.requests),
            leadership.clone(),
            Arc::clone(metrics),
        );
        let run = sync::run(Arc::new(cx), stop.clone());
        running.spawn(async move { run.await.context("sync") });
    }
    Ok(running)
}

/// Tells of objects that cannot be read. Their status is ours where the loop runs that writes it.
fn tell_of_unreadable(
    process: &Process,
    running: &mut JoinSet<anyhow::Result<()>>,
    stop: &CancellationToken,
) {
    let Seen { databases, requests, repositories } = process.seen.clone();
    let status = |of: Loop| match process.loops.contains(&of) {
        true => StatusOf::Ours,
        false => StatusOf::Theirs,
    };
    let cluster = || process.cluster.clone();
    let telling = [
        tell::unreadable(cluster(), databases, status(Loop::Provision)).boxed(),
        tell::unreadable(cluster(), requests, status(Loop::Ops)).boxed(),
        tell::unreadable(cluster(), repositories, status(Loop::Sync)).boxed(),
    ];
    for telling in telling {
        let stop = stop.clone();
        running.spawn(async move {
            stop.run_until_cancelled(telling).await;
            Ok(())
        });
    }
}

fn identity() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let mut random = [0u8; 4];
    // Without randomness the process id still tells two processes of one machine apart.
    let _ = getrandom::fill(&mut random);
    let random = u32::from_ne_bytes(random);
    format!("{}_{}_{random:08x}", host.unwrap_or_default(), std::process::id())
}
