//! The only way from the controller to a server: calls an instance over mutual TLS.
//!
//! [`Identity`] holds the certificates, [`Client`] an address. `call` waits until the answer is
//! there or its time is over; the work in the instance goes on regardless, and the same call again
//! waits for the rest. A fixed name is verified, not the address: pods get new ones.
//! Leaves every decision to the caller. Never retries what was refused.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use secrecy::{ExposeSecret, SecretString};
use tokio::{net::TcpStream, time::timeout};

use super::{
    SERVER_NAME,
    protocol::{AskFacts, Call, Facts, Refused, Reply},
};

/// Largest answer read, in bytes: all of `pg_settings` is 200 kB.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// Connections kept per instance for the next call; a rollout makes one call at a time.
const MAX_IDLE: usize = 2;
/// Pause between two looks at a call that is still being worked on. The instance holds a call
/// for up to a second before it answers so, therefore this is hardly ever waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificates cannot be used.
    #[error("read the instance certificates: {words}; delete the Secret to have it made again")]
    Identity {
        /// What is wrong with them.
        words: String,
    },
    /// No connection, or it broke.
    #[error("reach the instance at {address}: {words}")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// How it failed, with its causes.
        words: String,
    },
    /// The time given to the call is over. What was begun goes on; repeat the call to wait.
    #[error("wait for the instance at {address}: {path} took longer than {within:?}")]
    Late {
        /// Where.
        address: SocketAddr,
        /// Which call.
        path: &'static str,
        /// The time it was given.
        within: Duration,
    },
    /// The instance refuses.
    #[error("instance at {address}: {refused}")]
    Refused {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        refused: Refused,
    },
    /// The instance tried and failed.
    #[error("instance at {address}: {words}")]
    Failed {
        /// Where.
        address: SocketAddr,
        /// What it says.
        words: String,
    },
    /// The answer makes no sense: another version, or not an instance.
    #[error("understand the instance at {address}: {words}; is its pgitops much older or newer?")]
    Protocol {
        /// Where.
        address: SocketAddr,
        /// What is wrong with it.
        words: String,
    },
}

impl Error {
    /// Whether the same call may succeed later without anything else being done.
    #[must_use]
    pub fn retry(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Late { .. } | Self::Failed { .. } => true,
            Self::Refused { refused, .. } => matches!(refused, Refused::Busy { .. }),
            Self::Identity { .. } | Self::Protocol { .. } => false,
        }
    }

    /// The refusal, if it is one.
    #[must_use]
    pub fn refused(&self) -> Option<&Refused> {
        match self {
            Self::Refused { refused, .. } => Some(refused),
            Self::Identity { .. }
            | Self::Unreachable { .. }
            | Self::Late { .. }
            | Self::Failed { .. }
            | Self::Protocol { .. } => None,
        }
    }
}

/// The controller's certificate for one database. Cheap to clone; displays nothing.
#[derive(Clone)]
pub struct Identity {
    tls: Arc<rustls::ClientConfig>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}

impl Identity {
    /// From PEM: the CA that signed the servers' certificates (several may be given while it is
    /// being replaced), the client's certificate and its key.
    pub fn from_pem(ca: &str, certificate: &str, key: &SecretString) -> Result<Self, Error> {
        let bad = |words: String| Error::Identity { words };
        let mut roots = rustls::RootCertStore::empty();
        for each in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            let each = each.map_err(|e| bad(e.to_string()))?;
            roots.add(each).map_err(|e| bad(e.to_string()))?;
        }
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| bad(e.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes())
            .map_err(|e| bad(e.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| bad(e.to_string()))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|e| bad(e.to_string()))?;
        Ok(Self { tls: Arc::new(tls) })
    }
}

type Connection = SendRequest<Full<Bytes>>;

/// One instance. Cheap to clone; clones share idle connections.
#[derive(Clone, Debug)]
pub struct Client {
    address: SocketAddr,
    identity: Identity,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Client {
    /// For the instance at the pod's address and [`super::CONTROL_PORT`]; connects when called.
    #[must_use]
    pub fn new(address: SocketAddr, identity: &Identity) -> Self {
        Self { address, identity: identity.clone(), idle: Arc::default() }
    }

    /// Where the instance is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the instance knows about itself and its server.
    pub async fn facts(&self, within: Duration) -> Result<Facts, Error> {
        self.call(&AskFacts::default(), within).await
    }

    /// Makes a call and waits for its answer for as long as `within`.
    pub async fn call<C: Call>(&self, call: &C, within: Duration) -> Result<C::Answer, Error> {
        let until = Instant::now() + within;
        let late = || Error::Late { address: self.address, path: C::PATH, within };
        let body = serde_json::to_vec(call).map_err(|e| self.nonsense(&e))?;
        let body = Bytes::from(body);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let sent = timeout(left, self.send(C::PATH, body.clone())).await;
            let answer = sent.map_err(|_| late())??;
            match serde_json::from_slice(&answer).map_err(|e| self.nonsense(&e))? {
                Reply::Done { answer } => return Ok(answer),
                Reply::Working => tokio::time::sleep(LOOK_AGAIN.min(left)).await,
                Reply::Refused { refused } => {
                    return Err(Error::Refused { address: self.address, refused });
                }
                Reply::Failed { words } => {
                    return Err(Error::Failed { address: self.address, words });
                }
            }
        }
    }

    /// One request and its body. A kept connection may have been closed at the other end, so its
    /// failure is no failure yet: a call may be repeated by design, on a new connection.
    async fn send(&self, path: &'static str, body: Bytes) -> Result<Bytes, Error> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(connection) = kept.filter(|c| !c.is_closed())
            && let Ok(answer) = self.send_on(connection, path, body.clone()).await
        {
            return Ok(answer);
        }
        let connection = self.connect().await?;
        self.send_on(connection, path, body).await
    }

    async fn send_on(
        &self,
        mut connection: Connection,
        path: &'static str,
        body: Bytes,
    ) -> Result<Bytes, Error> {
        let request = http::Request::post(path)
            .header(http::header::HOST, SERVER_NAME)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|e| self.nonsense(&e))?;
        let response = connection.send_request(request).await.map_err(|e| self.broken(&e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|e| self.broken(&*e))?.to_bytes();
        // Every reply is JSON, whatever its status; anything else comes from a stranger.
        if body.first() != Some(&b'{') {
            return Err(self.nonsense(&format!("HTTP status {status} to {path}")));
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
        Ok(body)
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let name = ServerName::try_from(SERVER_NAME).map_err(|e| self.nonsense(&e))?;
        let tcp = TcpStream::connect(self.address).await.map_err(|e| self.broken(&e))?;
        tcp.set_nodelay(true).map_err(|e| self.broken(&e))?;
        let connector = tokio_rustls::TlsConnector::from(self.identity.tls.clone());
        let tls = connector.connect(name, tcp).await.map_err(|e| self.broken(&e))?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
            .await
            .map_err(|e| self.broken(&e))?;
        // Ends with the sender; its errors reach whoever waits for an answer.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn broken(&self, error: &(dyn std::error::Error + 'static)) -> Error {
        let mut words = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            words = format!("{words}: {inner}");
            cause = inner.source();
        }
        Error::Unreachable { address: self.address, words }
    }

    fn nonsense(&self, what: &dyn std::fmt::Display) -> Error {
        Error::Protocol { address: self.address, words: what.to_string() }
    }
}
