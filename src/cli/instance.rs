//! `pgitops instance`: what runs in the pods.
//!
//! Resolves arguments and environment once; everything after that is `crate::instance`.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use tokio_util::sync::CancellationToken;

use crate::instance::{
    CONTROL_PORT, POSTGRES_PORT,
    health::{self, Probe},
    options::{self, Account, Options},
    run,
};

/// Arguments of `pgitops instance`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Supervise the server and serve the control API, until SIGTERM
    Run(Box<Run>),
    /// Exit 0 if the instance on this socket folder is healthy (for exec probes)
    Health(Health),
    /// Copy this program into a folder (for an init container without cp)
    Install {
        /// Folder to copy to
        folder: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Name of the pod; a standby calls itself so when it streams
    #[arg(long, env = "POD_NAME")]
    pod_name: String,
    /// Address to listen on, for Postgres and the control API
    #[arg(long, env = "POD_IP", default_value = "0.0.0.0")]
    listen_address: IpAddr,
    /// Port of the control API
    #[arg(long, default_value_t = CONTROL_PORT)]
    control_port: u16,
    /// Port of Postgres
    #[arg(long, default_value_t = POSTGRES_PORT)]
    postgres_port: u16,
    /// Where the volume is mounted
    #[arg(long, default_value = "/var/pv")]
    data_volume: PathBuf,
    /// PGDATA [default: <data-volume>/data]
    #[arg(long)]
    data_directory: Option<PathBuf>,
    /// Configuration sets and state [default: <data-volume>/pgitops]
    #[arg(long)]
    state_directory: Option<PathBuf>,
    /// Mounted Secret with the first configuration of an empty volume
    #[arg(long, default_value = "/etc/pgitops/config")]
    seed_directory: PathBuf,
    /// Mounted Secret with tls.crt, tls.key, ca.crt
    #[arg(long, default_value = "/etc/pgitops/tls")]
    tls_directory: PathBuf,
    /// Short folder for unix sockets
    #[arg(long, default_value = "/var/run/postgresql")]
    socket_directory: PathBuf,
    /// Folder of the server's programs [default: from PATH, else the newest Debian one]
    #[arg(long)]
    postgres_bin_directory: Option<PathBuf>,
    /// Another instance of this database, host or host:port; repeat or separate with commas
    #[arg(long = "peer", env = "PGITOPS_PEERS", value_delimiter = ',')]
    peers: Vec<String>,
    /// User that Postgres runs as, when this process is root
    #[arg(long)]
    user: Option<String>,
    /// Memory limit in bytes [default: that of the control group]
    #[arg(long, env = "PGITOPS_MEMORY_LIMIT")]
    memory_limit: Option<u64>,
    /// Locale of a new database
    #[arg(long, default_value = "C.UTF-8")]
    locale: String,
    /// Seconds that a fast shutdown may take at the end, before it is enforced
    #[arg(long, default_value_t = 25)]
    stop_grace: u64,
}

#[derive(Debug, clap::Args)]
struct Health {
    /// The server accepts connections (default)
    #[arg(long, conflicts_with_all = ["liveness", "startup"])]
    readiness: bool,
    /// The supervisor answers, whatever the server does
    #[arg(long, conflicts_with = "startup")]
    liveness: bool,
    /// The instance has come up
    #[arg(long)]
    startup: bool,
    /// As given to `run`
    #[arg(long, default_value = "/var/run/postgresql")]
    socket_directory: PathBuf,
}

/// Runs the command to its end.
///
/// # Errors
/// When the instance does not come up, or a probe fails; the words say why.
pub async fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Run(run) => run.run().await?,
        Command::Health(health) => health.run().await?,
        Command::Install { folder } => install(&folder)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Run {
    async fn run(self) -> Result<()> {
        let stopping = CancellationToken::new();
        let told = stopping.clone();
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
                .context("listen for SIGTERM")?;
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            told.cancel();
        });
        run::run(self.options()?, stopping).await.context("run the instance")
    }

    fn options(self) -> Result<Options> {
        let account = self.user.as_deref().map(account).transpose()?;
        let volume = self.data_volume;
        Ok(Options {
            pod: self.pod_name,
            data_directory: self.data_directory.unwrap_or_else(|| volume.join("data")),
            state_directory: self.state_directory.unwrap_or_else(|| volume.join("pgitops")),
            seed_directory: self.seed_directory,
            tls_directory: self.tls_directory,
            socket_directory: self.socket_directory,
            bin_directory: self.postgres_bin_directory.map_or_else(bin_directory, Ok)?,
            listen_address: self.listen_address,
            control_port: self.control_port,
            postgres_port: self.postgres_port,
            peers: self.peers,
            account,
            memory_limit: self.memory_limit.or_else(options::memory_limit),
            locale: self.locale,
            stop_grace: Duration::from_secs(self.stop_grace),
            echo_log: true,
        })
    }
}

impl Health {
    async fn run(self) -> Result<()> {
        let probe = match (self.liveness, self.startup) {
            (true, _) => Probe::Liveness,
            (_, true) => Probe::Startup,
            (false, false) => Probe::Readiness,
        };
        let socket = options::health_socket(&self.socket_directory);
        match health::ask(&socket, probe).await {
            Ok(state) => println!("{state}"),
            Err(words) => bail!(words),
        }
        Ok(())
    }
}

/// A user of the passwd file.
pub fn account(name: &str) -> Result<Account> {
    let user = nix::unistd::User::from_name(name).context("read the users of this system")?;
    let user = user.with_context(|| format!("find user {name:?}: no such user; create it"))?;
    Ok(Account { uid: user.uid, gid: user.gid })
}

/// Where `postgres` is: beside its tools, so a lone link somewhere on the PATH does not count.
pub fn bin_directory() -> Result<PathBuf> {
    let whole = |folder: &Path| {
        ["postgres", "initdb", "pg_basebackup", "pg_controldata"]
            .iter()
            .all(|program| folder.join(program).is_file())
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(folder) = std::env::split_paths(&path).find(|folder| whole(folder)) {
        return Ok(folder);
    }
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut majors: Vec<(u32, PathBuf)> = debian
        .filter_map(|entry| {
            let major = entry.file_name().to_string_lossy().parse().ok()?;
            Some((major, entry.path().join("bin")))
        })
        .filter(|(_, folder)| whole(folder))
        .collect();
    majors.sort();
    let newest = majors.pop().map(|(_, folder)| folder);
    newest.context(
        "find Postgres: neither on the PATH nor below /usr/lib/postgresql; \
         give --postgres-bin-directory",
    )
}

fn install(folder: &Path) -> Result<()> {
    let own = std::env::current_exe().context("find this program")?;
    let target = folder.join("pgitops");
    let new = folder.join(".pgitops.new");
    // Under its own name only when it is whole: another container may start it at any moment.
    std::fs::copy(&own, &new).with_context(|| format!("copy to {}", folder.display()))?;
    std::fs::rename(&new, &target).with_context(|| format!("copy to {}", folder.display()))?;
    println!("{}", target.display());
    Ok(())
}
