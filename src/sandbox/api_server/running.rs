//! Start, address, kubeconfig, shutdown.

use super::{
    count::{self, Access, Counts},
    handle,
    journal::Journal,
    state::State,
    tls::Identity,
};
use crate::sandbox::store::{By, LOG_LIMIT, Store, Validation};
use crate::sandbox::tls_listener::Listener;
use anyhow::Context;
use axum::Router;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, task::JoinHandle};

/// Finds the log file of a container: namespace, pod, container, and true for the run before this.
pub type LogPath = dyn Fn(&str, &str, &str, bool) -> Option<PathBuf> + Send + Sync;

/// Says what to type instead of `kubectl exec`: namespace, pod.
pub type PsqlLine = dyn Fn(&str, &str) -> String + Send + Sync;

/// What the composition chooses.
#[derive(Clone)]
pub struct Options {
    /// Where to listen. Must be loopback; port 0 takes a free one.
    pub address: SocketAddr,
    /// Where objects are kept between runs; `None` keeps them in memory only.
    pub directory: Option<PathBuf>,
    /// The bearer token that every request must carry; a directory from an earlier run keeps its
    /// own.
    pub token: String,
    /// The clock.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Fresh uids.
    pub uid: Arc<dyn Fn() -> String + Send + Sync>,
    /// Where logs are.
    pub log_path: Arc<LogPath>,
    /// What to type instead of `kubectl exec`.
    pub psql_line: Arc<PsqlLine>,
    /// How many changes watches can look back.
    pub log_limit: usize,
}

impl Options {
    /// A server on a free port of 127.0.0.1 with the machine's clock and randomness, in memory.
    ///
    /// # Errors
    /// If the machine has no randomness.
    pub fn in_memory() -> anyhow::Result<Self> {
        Ok(Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            directory: None,
            token: random_token()?,
            clock: Arc::new(Timestamp::now),
            uid: Arc::new(random_uid),
            log_path: Arc::new(|_, _, _, _| None),
            psql_line: Arc::new(|_, pod| format!("psql -h <status.podIP of {pod}> -U postgres")),
            log_limit: LOG_LIMIT,
        })
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the token.
        f.debug_struct("Options")
            .field("address", &self.address)
            .field("directory", &self.directory)
            .field("log_limit", &self.log_limit)
            .finish_non_exhaustive()
    }
}

/// The server.
pub struct ApiServer;

/// A server that runs; dropping it without [`Running::shutdown`] leaves it running.
pub struct Running {
    state: Arc<State>,
    address: SocketAddr,
    identity: Identity,
    task: JoinHandle<std::io::Result<()>>,
}

/// How long requests that run may take to end at shutdown; watches are ended at once.
const GRACE: Duration = Duration::from_secs(2);

impl ApiServer {
    /// Takes up what the directory holds and listens.
    ///
    /// # Errors
    /// If the address is not loopback or taken, or the directory cannot be read.
    pub async fn start(mut options: Options) -> anyhow::Result<Running> {
        anyhow::ensure!(
            options.address.ip().is_loopback(),
            "the sandbox listens on loopback only, not on {}",
            options.address
        );
        let mut store = Store::new(options.log_limit);
        let journal = match &options.directory {
            Some(folder) => Some(Journal::open(folder, &mut store, options.log_limit)?),
            None => None,
        };
        let listener = TcpListener::bind(options.address)
            .await
            .with_context(|| format!("listening on {}", options.address))?;
        let identity = Identity::of(options.directory.as_deref(), &options.token)?;
        options.token.clone_from(&identity.token);
        options.address = listener.local_addr()?;
        let address = options.address;
        let state = Arc::new(State::new(store, journal, options));
        first_objects(&state)?;
        let shared = Arc::clone(&state);
        let router = Router::new().fallback(move |request: http::Request<axum::body::Body>| {
            handle::handle(Arc::clone(&shared), request)
        });
        let stop = state.stop.clone();
        let listener = Listener::new(listener, identity.acceptor()?)?;
        let serve = axum::serve(listener, router)
            .with_graceful_shutdown(async move { stop.cancelled().await });
        let task = tokio::spawn(async move { serve.await });
        tokio::spawn(expire_events(Arc::clone(&state)));
        Ok(Running { state, address, identity, task })
    }
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client with all rights.
    ///
    /// # Errors
    /// If the client cannot be made.
    pub fn client(&self) -> anyhow::Result<kube::Client> {
        let mut config = kube::Config::new(format!("https://{}", self.address).parse()?);
        config.default_namespace = "default".into();
        config.root_cert = Some(vec![self.identity.authority_der()?]);
        config.auth_info.token = Some(self.state.options.token.clone().into());
        Ok(kube::Client::try_from(config)?)
    }

    /// A kubeconfig with all rights, as text. It holds the token.
    pub fn kubeconfig(&self) -> String {
        let name = "pgitops-sandbox";
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": name,
            "clusters": [{"name": name, "cluster": {
                "server": format!("https://{}", self.address),
                "certificate-authority-data": self.identity.authority_base64()}}],
            "contexts": [{"name": name, "context": {
                "cluster": name, "user": name, "namespace": "default"}}],
            "users": [{"name": name, "user": {"token": self.state.options.token}}],
        });
        format!("{config:#}\n")
    }

    /// Writes the kubeconfig, readable only by its owner.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_kubeconfig(&self, path: &Path) -> anyhow::Result<()> {
        use std::{io::Write, os::unix::fs::OpenOptionsExt};
        let mut options = std::fs::OpenOptions::new();
        options.create(true).write(true).truncate(true).mode(0o600);
        let file = options.open(path).with_context(|| format!("writing {}", path.display()));
        Ok(file?.write_all(self.kubeconfig().as_bytes())?)
    }

    /// How often each verb was asked of each resource.
    pub fn counts(&self) -> Counts {
        self.state.counter.read()
    }

    /// The same, without what is asked all the time: watches, leases, the nodes' heartbeat.
    pub fn asked(&self) -> Counts {
        count::without_heartbeats(self.counts())
    }

    /// Who asked for what in which scope, each once.
    pub fn accesses(&self) -> BTreeSet<Access> {
        self.state.counter.accesses()
    }

    /// The revision of the last change.
    pub fn revision(&self) -> u64 {
        self.state.read(Store::revision)
    }

    /// Ends watches and the server, and writes everything down.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub async fn shutdown(self) -> anyhow::Result<()> {
        self.state.stop.cancel();
        let abort = self.task.abort_handle();
        if tokio::time::timeout(GRACE, self.task).await.is_err() {
            abort.abort();
        }
        self.state.compact()
    }
}

/// How often old events are looked for; they live an hour.
const EXPIRE_EVERY: Duration = Duration::from_secs(300);

async fn expire_events(state: Arc<State>) {
    loop {
        tokio::select! {
            () = state.stop.cancelled() => return,
            () = tokio::time::sleep(EXPIRE_EVERY) => {
                let now = (state.options.clock)();
                state.write(|store| store.expire_events(now));
            }
        }
    }
}

/// The namespaces that every cluster has.
fn first_objects(state: &State) -> anyhow::Result<()> {
    let kind = state.read(|store| store.kinds().find("", "v1", "namespaces"));
    let kind = kind.context("namespaces are not served")?;
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let by: By = state.by("pgitops-sandbox".into(), false, Validation::Strict);
        let body: Value = json!({"metadata": {"name": name}});
        let created = state.write(|store| store.create(&kind, "", body, &by));
        if let Err(refusal) = created
            && refusal.code != 409
        {
            return Err(refusal.into());
        }
    }
    Ok(())
}

fn random_bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // A machine without randomness would already have refused to make the token.
        let now = Timestamp::now().as_nanosecond();
        bytes = now.to_be_bytes();
    }
    bytes
}

/// A random uid (RFC 4122, version 4).
fn random_uid() -> String {
    let mut b = random_bytes();
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let hex: String = b.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// A token of 128 random bits.
///
/// # Errors
/// If the machine has no randomness.
pub fn random_token() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
