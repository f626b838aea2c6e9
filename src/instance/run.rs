//! The life of an instance: from its arguments to a server that runs, until it is told to stop.
//!
//! The order matters: a server that an earlier process has left behind is stopped first, then
//! everything that can be wrong with the arguments is found, then a restart that was begun is
//! finished, then the loop keeps the server running. Never exits while it is to serve.

use std::{io, sync::Arc, time::Duration};

use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    changes, dry_run, facts, files, health, left_over,
    options::Options,
    peers, process,
    server::{self, Api},
    server_file,
    store::Store,
    supervisor::Supervisor,
    tls::Acceptor,
    work::Work,
};

/// Why an instance does not come up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Postgres refuses root.
    #[error("start as root: Postgres never runs as root; set runAsUser, or give --user")]
    Root,
    /// The server's program does not work here.
    #[error("{0}; give --postgres-bin-directory, or an image with glibc of Debian 12 or newer")]
    Program(String),
    /// A folder or file is not usable.
    #[error("prepare {what}")]
    Prepare {
        /// Which one.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Runs an instance until `stopping`; then stops the server and returns.
pub async fn run(options: Options, stopping: CancellationToken) -> Result<(), Error> {
    if nix::unistd::geteuid().is_root() && options.account.is_none_or(|a| a.uid.is_root()) {
        return Err(Error::Root);
    }
    let version = facts::version(&options).await.map_err(Error::Program)?;
    let store = prepare(&options).await?;
    let what = |what: String| move |source| Error::Prepare { what, source };
    let acceptor = Acceptor::open(&options.tls_directory);
    let acceptor = acceptor.map_err(what("the certificates".to_owned()))?;
    let address = (options.listen_address, options.control_port);
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(what(format!("the control API on {address:?}")))?;
    let probes = health::listen(&options.health_socket());
    let probes = probes.map_err(what(format!("{}", options.health_socket().display())))?;
    let grace = options.stop_grace;
    let supervisor = Arc::new(Supervisor::new(options, store, stopping.clone()));
    let (own, work) = (supervisor.clone(), Arc::new(Work::default()));
    let api = Arc::new(Api { supervisor: supervisor.clone(), work, version });
    let serving = tokio::spawn(server::serve(api, listener, Arc::new(acceptor), stopping.clone()));
    let probing = tokio::spawn(health::serve(own.clone(), probes, stopping.clone()));
    let introducing = {
        let own = own.clone();
        tokio::spawn(async move { peers::introduce(&own).await })
    };
    let reaping = tokio::spawn(reap(stopping.clone()));
    let keeping = tokio::spawn(async move {
        changes::resume_restart(&own).await;
        own.keep().await;
    });
    stopping.cancelled().await;
    tracing::info!("stopping the server");
    // A change that has the server brings its step to an end first.
    let mut server = supervisor.lock().await;
    supervisor.stop(&mut server, grace).await;
    drop(server);
    for task in [serving, probing, introducing, reaping, keeping] {
        task.abort();
    }
    let _ = std::fs::remove_file(supervisor.options.health_socket());
    Ok(())
}

/// Folders, owned files, and a clean place to start from.
async fn prepare(options: &Options) -> Result<Store, Error> {
    let owner = options.account;
    let what = |path: &std::path::Path| {
        let what = path.display().to_string();
        |source| Error::Prepare { what, source }
    };
    files::folder(&options.socket_directory, owner).map_err(what(&options.socket_directory))?;
    let store = Store::open(options).map_err(what(&options.state_directory))?;
    for (path, text) in [(options.hba_file(), server_file::HBA), (options.ident_file(), "")] {
        files::replace(&path, text.as_bytes(), owner).map_err(what(&path))?;
    }
    left_over::stop(options).await.map_err(what(&options.data_directory))?;
    dry_run::tidy(options);
    Ok(store)
}

/// Collects orphans, where they come to us.
async fn reap(stopping: CancellationToken) {
    if std::process::id() != 1 {
        return;
    }
    // A zombie costs nothing but an entry; a second is soon enough.
    const PAUSE: Duration = Duration::from_secs(1);
    while !stopping.is_cancelled() {
        while process::reap_orphan() {}
        sleep(PAUSE).await;
    }
}
