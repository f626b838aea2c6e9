//! Containers' logs for an API server, as a kubelet serves them.
//!
//! `GET /containerLogs/<namespace>/<pod>/<container>` over TLS on a free port of 127.0.0.1, to
//! clients only whose certificate a given authority has signed. Where it listens stands in the
//! Node object. The rest of a kubelet's API answers 404. Never serves anything but logs.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path as Segments, Query, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::StatusCode;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::logs;
use crate::sandbox::log_file::{self, Follow, Part};
use crate::sandbox::tls_listener::Listener;

struct Served {
    shared: Arc<Shared>,
    stop: CancellationToken,
}

/// Serves until `stop`; returns the port.
///
/// # Errors
/// The authority cannot be read, or there is no port.
pub(super) async fn start(
    shared: Arc<Shared>,
    authority: &Path,
    stop: CancellationToken,
) -> Result<u16> {
    let acceptor = acceptor(authority).context("serving logs")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("serving logs")?;
    let port = listener.local_addr()?.port();
    let listener = Listener::new(listener, acceptor)?;
    let served = Arc::new(Served { shared, stop: stop.clone() });
    let router = Router::new()
        .route("/containerLogs/{namespace}/{pod}/{container}", get(answer))
        .with_state(served);
    let serve =
        axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await });
    tokio::spawn(async move {
        if let Err(error) = serve.await {
            tracing::warn!("serving logs: {error}");
        }
    });
    Ok(port)
}

/// A certificate of our own making (API servers do not verify it unless told to), and a demand
/// for one of the authority's.
fn acceptor(authority: &Path) -> Result<TlsAcceptor> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority)
        .with_context(|| format!("reading the authority {authority:?}"))?
    {
        roots.add(certificate.with_context(|| format!("reading the authority {authority:?}"))?)?;
    }
    ensure!(!roots.is_empty(), "the authority {authority:?} holds no certificate");
    let key = rcgen::KeyPair::generate()?;
    let names = vec!["127.0.0.1".to_owned()];
    let certificate = rcgen::CertificateParams::new(names)?.self_signed(&key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.der().clone()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

type Parameters = Query<BTreeMap<String, String>>;

async fn answer(
    State(served): State<Arc<Served>>,
    Segments((namespace, pod, container)): Segments<(String, String, String)>,
    Query(query): Parameters,
) -> Response {
    let refuse = |code: StatusCode, words: String| (code, words).into_response();
    if ![&namespace, &pod, &container].into_iter().all(|name| is_name(name)) {
        return refuse(StatusCode::BAD_REQUEST, "not a container's name\n".to_owned());
    }
    let number = |name: &str| query.get(name).map(|text| text.parse::<u64>()).transpose();
    let (Ok(tail), Ok(limit)) = (number("tailLines"), number("limitBytes")) else {
        return refuse(StatusCode::BAD_REQUEST, "not a number of lines or bytes\n".to_owned());
    };
    let is = |name: &str| query.get(name).is_some_and(|value| value == "true");
    let mut path = logs::path(&served.shared.folders.logs, &namespace, &pod, &container);
    if is("previous") {
        path = logs::previous(&path);
    }
    let key = format!("{namespace}/{pod}");
    let follow = is("follow").then(|| {
        let shared = served.shared.clone();
        Follow { lives: Box::new(move || shared.works_on(&key)), stop: served.stop.clone() }
    });
    match log_file::read(&path, Part { tail, limit }, follow).await {
        Ok(pieces) => Body::from_stream(pieces).into_response(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let which = if is("previous") { "previous terminated container" } else { "container" };
            let words =
                format!("{which} {container:?} in pod {pod:?} is waiting to start or has no log");
            refuse(StatusCode::BAD_REQUEST, words)
        }
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// Whether it can be a part of a log's path: what names of Kubernetes objects are made of.
fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    !text.is_empty() && text.bytes().all(plain) && !text.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn no_name_leads_out_of_the_folder() {
        for name in ["a", "orders-0", "a.b-c.1"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", "../x", "a/b", "A", "a\0", "a b"] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
