//! Eight clients that keep the primary busy: pgbench, or clients of our own where it is missing.
//!
//! Both come back at once after a restart has cut them off. Leaves the write gap to the writer.

use std::net::IpAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use pgitops::api::names::POSTGRES_PORT;
use pgitops::cli::demo::servers::Servers;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

/// Clients at work.
const CLIENTS: usize = 8;
/// pgbench's scale: 150 MB, more than the servers' buffers, and still filled within seconds.
const SCALE: usize = 10;
/// How long filling may take on a busy machine.
const FILL: Duration = Duration::from_secs(120);
/// Pause before coming back after being cut off.
const PAUSE: Duration = Duration::from_millis(20);
/// A connection takes milliseconds; a server that stops answers nobody.
const PATIENCE: Duration = Duration::from_secs(2);
/// Committed transactions so far.
const COMMITTED: &str =
    "SELECT xact_commit::text FROM pg_stat_database WHERE datname = current_database()";

/// Clients at work; they end when it is dropped.
pub struct Load {
    told: &'static str,
    tasks: JoinSet<()>,
    begun: Instant,
    committed: f64,
}

impl Load {
    /// Fills the tables and begins to work.
    ///
    /// # Errors
    /// When the tables cannot be filled.
    pub async fn start(servers: &Servers) -> anyhow::Result<Self> {
        let (address, password) = (servers.primary(), servers.password());
        let mut tasks = JoinSet::new();
        let scale = SCALE.to_string();
        let found = Command::new("pgbench").arg("--version").stdout(Stdio::null()).status().await;
        let told = if found.is_ok_and(|status| status.success()) {
            let arguments = ["--initialize", "--scale", &scale];
            let filled = pgbench(address, &password, &arguments);
            let filled = tokio::time::timeout(FILL, filled).await;
            anyhow::ensure!(filled.context("pgbench --initialize")?, "pgbench --initialize failed");
            tasks.spawn(keep_pgbench(address, password));
            "pgbench, 8 clients, scale 10"
        } else {
            let client = connect(address, &password).await.context("load: first connection")?;
            client.batch_execute(TABLE).await.context("load: table")?;
            for number in 0..CLIENTS {
                tasks.spawn(keep_updating(address, password.clone(), number));
            }
            "no pgbench here: 8 clients of our own, one UPDATE a transaction"
        };
        let committed = committed(servers).await?;
        Ok(Self { told, tasks, begun: Instant::now(), committed })
    }

    /// Ends it: what it was, and committed transactions per second of all clients of the primary.
    ///
    /// # Errors
    /// When nothing was committed: then there was no load.
    pub async fn stop(mut self, servers: &Servers) -> anyhow::Result<(&'static str, f64)> {
        let committed = committed(servers).await? - self.committed;
        let rate = committed / self.begun.elapsed().as_secs_f64();
        self.tasks.shutdown().await;
        anyhow::ensure!(committed > 0.0, "{}: nothing was committed", self.told);
        Ok((self.told, rate))
    }
}

async fn committed(servers: &Servers) -> anyhow::Result<f64> {
    servers.ask_primary(COMMITTED).await?.parse().context("xact_commit")
}

/// Whether it ended well.
async fn pgbench(address: IpAddr, password: &SecretString, arguments: &[&str]) -> bool {
    let mut command = Command::new("pgbench");
    command
        .args(arguments)
        .args(["--host", &address.to_string(), "--port", &POSTGRES_PORT.to_string()])
        .args(["--username", "postgres", "postgres"])
        .env("PGPASSWORD", password.expose_secret())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command.status().await.is_ok_and(|status| status.success())
}

/// Runs pgbench again whenever a restart has cut it off.
async fn keep_pgbench(address: IpAddr, password: SecretString) {
    let clients = CLIENTS.to_string();
    let arguments = ["--no-vacuum", "--protocol", "prepared", "--client", &clients, "--time=3600"];
    loop {
        // It ends when all its clients are cut off, and that is no failure here.
        pgbench(address, &password, &arguments).await;
        tokio::time::sleep(PAUSE).await;
    }
}

const TABLE: &str = "CREATE TABLE pgitops_load (id int PRIMARY KEY, balance int NOT NULL);
    INSERT INTO pgitops_load SELECT generate_series(0, 7), 0;";

async fn keep_updating(address: IpAddr, password: SecretString, number: usize) {
    let update = format!("UPDATE pgitops_load SET balance = balance + 1 WHERE id = {number}");
    loop {
        if let Ok(client) = connect(address, &password).await {
            while client.batch_execute(&update).await.is_ok() {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn connect(
    address: IpAddr,
    password: &SecretString,
) -> anyhow::Result<tokio_postgres::Client> {
    let mut config = tokio_postgres::Config::new();
    config.hostaddr(address).host(address.to_string()).port(POSTGRES_PORT).user("postgres");
    config.dbname("postgres").password(password.expose_secret()).connect_timeout(PATIENCE);
    let connecting = tokio::time::timeout(PATIENCE, config.connect(NoTls));
    let (client, connection) = connecting.await.context("no answer in time")??;
    // Ends with the client.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}
