//! Who the server is: its certificate, the authority that signed it, and the token it asks for.
//!
//! kubectl sends no token over plain HTTP, so even loopback speaks TLS. The identity is kept
//! beside the objects: a kubeconfig from an earlier run stays good.

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde::{Deserialize, Serialize};
use std::{fs, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc};
use tokio_rustls::TlsAcceptor;

/// Keys, certificates and token. Has no `Debug`: it is secret.
#[derive(Clone, Serialize, Deserialize)]
pub struct Identity {
    authority: String,
    certificate: String,
    key: String,
    /// The bearer token.
    pub token: String,
}

impl Identity {
    /// Takes up the identity of a folder, or makes one with this token and keeps it there.
    ///
    /// # Errors
    /// If the folder cannot be read or written.
    pub fn of(folder: Option<&Path>, token: &str) -> anyhow::Result<Self> {
        let Some(folder) = folder else { return Self::make(token) };
        let path = folder.join("identity.json");
        if let Ok(text) = fs::read(&path)
            && let Ok(identity) = serde_json::from_slice(&text)
        {
            return Ok(identity);
        }
        let identity = Self::make(token)?;
        let mut options = fs::OpenOptions::new();
        let file = options.create(true).write(true).truncate(true).mode(0o600).open(&path);
        let file = file.with_context(|| format!("writing {}", path.display()))?;
        serde_json::to_writer(file, &identity)?;
        Ok(identity)
    }

    fn make(token: &str) -> anyhow::Result<Self> {
        let authority_key = KeyPair::generate()?;
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "pgitops sandbox");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority_pem = authority.self_signed(&authority_key)?.pem();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate()?;
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
        Ok(Self {
            authority: authority_pem,
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            token: token.to_owned(),
        })
    }

    /// The authority as a kubeconfig carries it.
    pub fn authority_base64(&self) -> String {
        STANDARD.encode(&self.authority)
    }

    /// The authority as a client carries it.
    ///
    /// # Errors
    /// If the kept text is damaged.
    pub fn authority_der(&self) -> anyhow::Result<Vec<u8>> {
        Ok(CertificateDer::from_pem_slice(self.authority.as_bytes())?.to_vec())
    }

    /// What a connection is accepted with.
    ///
    /// # Errors
    /// If the kept text is damaged.
    pub fn acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
