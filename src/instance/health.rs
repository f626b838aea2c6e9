//! Health for exec probes, over a socket in the pod.
//!
//! Liveness asks whether the supervisor answers, never whether Postgres does: a kubelet that kills
//! the container because a server recovers makes everything worse. Readiness is that the server
//! accepts connections. Startup is liveness: an empty data folder waits to be told, ready or not.

use std::{io, path::Path, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{protocol::ServerState, supervisor::Supervisor};

/// How long the supervisor may take to answer; it takes a millisecond.
const WITHIN: Duration = Duration::from_secs(2);
/// An answer is a line with the state; words of a server that fails are the longest part.
const MAX_ANSWER: u64 = 64 * 1024;

/// What a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Does the supervisor work?
    Liveness,
    /// Does the server accept connections?
    Readiness,
    /// Has the instance come up so far that liveness counts?
    Startup,
}

#[derive(Debug, Serialize, Deserialize)]
struct Health {
    state: ServerState,
    accepts: bool,
}

/// Answers probes until the instance stops.
pub async fn serve(own: Arc<Supervisor>, listener: UnixListener, stopping: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping.cancelled() => return,
        };
        let Ok((mut stream, _)) = accepted else {
            // Out of file descriptors, for example.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let own = own.clone();
        tokio::spawn(async move {
            let state = own.state();
            let accepts = state == ServerState::Running
                && timeout(WITHIN / 2, own.local().connect()).await.is_ok_and(|c| c.is_ok());
            let Ok(line) = serde_json::to_vec(&Health { state, accepts }) else { return };
            let _ = timeout(WITHIN, stream.write_all(&line)).await;
        });
    }
}

/// Binds the socket; one that a dead process has left is removed.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => UnixListener::bind(path),
    }
}

/// Asks; the text says what is seen, an error why the probe fails.
pub async fn ask(path: &Path, probe: Probe) -> Result<String, String> {
    let asking = async {
        let mut stream = UnixStream::connect(path).await?;
        let mut answer = Vec::new();
        (&mut stream).take(MAX_ANSWER).read_to_end(&mut answer).await?;
        serde_json::from_slice::<Health>(&answer).map_err(io::Error::other)
    };
    let asked = timeout(WITHIN, asking).await;
    let health = asked
        .map_err(|_| format!("ask the supervisor: no answer within {WITHIN:?}"))?
        .map_err(|error| format!("ask the supervisor at {}: {error}", path.display()))?;
    let Health { state, accepts } = health;
    match probe {
        Probe::Liveness | Probe::Startup => Ok(state.to_string()),
        Probe::Readiness if accepts => Ok(state.to_string()),
        Probe::Readiness => Err(format!("the server does not accept connections: {state}")),
    }
}
