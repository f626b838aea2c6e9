//! A client that writes every millisecond, to measure for how long writes were not possible.
//!
//! One autocommit INSERT at a time over TCP, as an application would; after an error it connects
//! again at once. The gap is the largest distance between two successful commits (the method of
//! the project's reference measurements). Leaves the roll-out to others. Never retries a write.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;

use crate::api::names::POSTGRES_PORT;

/// Pause between two writes, and before connecting again.
const PAUSE: Duration = Duration::from_millis(1);
/// A connection or a write that takes longer counts as failed, so that a stuck one cannot hide a
/// server that already serves again.
const PATIENCE: Duration = Duration::from_secs(2);

/// A client at work.
pub struct Writer {
    seen: Arc<Mutex<Seen>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// What the client saw since the last [`Writer::take`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Writes that were committed.
    pub commits: u64,
    /// Writes and connections that failed.
    pub errors: u64,
    /// The largest distance between two commits.
    pub gap: Duration,
    last: Option<Instant>,
}

impl Writer {
    /// Begins to write to a primary; the table `pgitops_demo` is made first.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn start(address: IpAddr, password: SecretString) -> anyhow::Result<Self> {
        let client = connect(address, &password).await.context("writer: first connection")?;
        let table = "CREATE TABLE IF NOT EXISTS pgitops_demo (at timestamptz NOT NULL)";
        client.batch_execute(table).await.context("writer: table")?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = CancellationToken::new();
        let work = write(address, password, client, Arc::clone(&seen));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = work => {}
                () = stopped.cancelled() => {}
            }
        });
        Ok(Self { seen, stop, task })
    }

    /// What was seen since the last call, up to now: a gap that still lasts counts.
    pub fn take(&self) -> Seen {
        let mut seen = lock(&self.seen);
        let now = Instant::now();
        let lasting = seen.last.map_or(Duration::ZERO, |last| now - last);
        let taken = Seen { gap: seen.gap.max(lasting), ..*seen };
        *seen = Seen { last: seen.last, ..Seen::default() };
        taken
    }

    /// Stops writing.
    pub async fn stop(self) {
        self.stop.cancel();
        // It ends at its next wait; a panic in it would have been printed already.
        drop(self.task.await);
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn write(
    address: IpAddr,
    password: SecretString,
    first: tokio_postgres::Client,
    seen: Arc<Mutex<Seen>>,
) {
    let mut client = Some(first);
    loop {
        let committed = match &client {
            Some(client) => commit(client).await,
            None => false,
        };
        if committed {
            let now = Instant::now();
            let mut seen = lock(&seen);
            seen.commits += 1;
            seen.gap = seen.gap.max(seen.last.map_or(Duration::ZERO, |last| now - last));
            seen.last = Some(now);
        } else {
            lock(&seen).errors += 1;
            client = connect(address, &password).await.ok();
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn commit(client: &tokio_postgres::Client) -> bool {
    let insert = client.execute("INSERT INTO pgitops_demo VALUES (now())", &[]);
    matches!(tokio::time::timeout(PATIENCE, insert).await, Ok(Ok(1)))
}

async fn connect(
    address: IpAddr,
    password: &SecretString,
) -> anyhow::Result<tokio_postgres::Client> {
    let mut config = tokio_postgres::Config::new();
    config.hostaddr(address).host(address.to_string()).port(POSTGRES_PORT);
    config.user("postgres").dbname("postgres").password(password.expose_secret());
    config.application_name("pgitops-demo").connect_timeout(PATIENCE);
    let connecting = tokio::time::timeout(PATIENCE, config.connect(NoTls));
    let (client, connection) = connecting.await.context("no answer in time")??;
    // Ends with the client; its error is seen by the next write.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}
