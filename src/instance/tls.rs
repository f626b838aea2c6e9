//! Mutual TLS of the control API, with certificates that may change while we run.
//!
//! Files are looked at before every new connection and read again when they have changed. When
//! the new ones cannot be used the old ones stay, and the log says so. Never accepts a client
//! without a certificate of the database's own CA.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use rustls::{
    RootCertStore,
    client::verify_server_name,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::{ParsedCertificate, WebPkiClientVerifier},
};
use secrecy::SecretString;

use super::{
    CONTROLLER_NAME, SERVER_NAME, TLS_FILES,
    client::{self, Identity},
};

/// The server's side of TLS, from a folder.
#[derive(Debug)]
pub struct Acceptor {
    folder: PathBuf,
    current: Mutex<(Stamp, Arc<rustls::ServerConfig>)>,
}

/// What changes when a file is replaced: time and size of each.
type Stamp = [(Option<SystemTime>, u64); 3];

impl Acceptor {
    /// Reads the folder; it must be usable now.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let read = read(folder).map_err(|error| {
            let names = TLS_FILES.join(", ");
            io::Error::other(format!("read {names} in {}: {error}", folder.display()))
        })?;
        let current = Mutex::new((stamp(folder), Arc::new(read)));
        Ok(Self { folder: folder.to_owned(), current })
    }

    /// For a new connection.
    pub fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        let now = stamp(&self.folder);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 != now {
            match read(&self.folder) {
                Ok(config) => {
                    tracing::info!("took up new certificates");
                    current.1 = Arc::new(config);
                }
                Err(error) => tracing::warn!(%error, "new certificates cannot be used"),
            }
            current.0 = now;
        }
        current.1.clone().into()
    }
}

fn stamp(folder: &Path) -> Stamp {
    TLS_FILES.map(|name| {
        let found = fs::metadata(folder.join(name));
        found.map_or((None, 0), |found| (found.modified().ok(), found.len()))
    })
}

fn read(folder: &Path) -> io::Result<rustls::ServerConfig> {
    let [certificate, key, ca] = TLS_FILES.map(|name| fs::read(folder.join(name)));
    let mut roots = RootCertStore::empty();
    for each in CertificateDer::pem_slice_iter(&ca?) {
        roots.add(each.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let chain = CertificateDer::pem_slice_iter(&certificate?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_slice(&key?).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .build()
        .map_err(io::Error::other)?;
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .map_err(io::Error::other)
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The controller: may make every call.
    Controller,
    /// Another instance: may ask for the timeline.
    Instance,
}

/// By the name in a certificate whose signature was verified; `None`: neither.
#[must_use]
pub fn caller(certificates: &[CertificateDer<'_>]) -> Option<Caller> {
    let parsed = ParsedCertificate::try_from(certificates.first()?).ok()?;
    let is = |name: &'static str| {
        let name = ServerName::try_from(name).ok();
        name.is_some_and(|name| verify_server_name(&parsed, &name).is_ok())
    };
    if is(CONTROLLER_NAME) {
        return Some(Caller::Controller);
    }
    is(SERVER_NAME).then_some(Caller::Instance)
}

/// What this instance shows to its peers.
pub fn peer_identity(folder: &Path) -> Result<Identity, client::Error> {
    let [certificate, key, ca] = TLS_FILES.map(|name| fs::read_to_string(folder.join(name)));
    let bad = |e: io::Error| client::Error::Identity { words: e.to_string() };
    let key = SecretString::from(key.map_err(bad)?);
    Identity::from_pem(&ca.map_err(bad)?, &certificate.map_err(bad)?, &key)
}
