//! The HTTP endpoint of the controller: `/metrics`, `/healthz` and `/readyz`.
//!
//! Healthy means that the process answers; ready means that every watch has its first list. Who
//! does not lead is ready too: it waits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::cluster::Leadership;

/// What the endpoint tells of.
#[derive(Clone)]
pub struct Told {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Whether every watch has its first list.
    pub in_sync: Arc<AtomicBool>,
    /// Whether we lead.
    pub leadership: Leadership,
}

/// Serves until `shutdown`.
///
/// # Errors
/// When the address cannot be bound or the listener breaks.
pub async fn serve(
    address: SocketAddr,
    told: Told,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness))
        .with_state(told);
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

async fn metrics(State(told): State<Told>) -> impl IntoResponse {
    told.metrics.leading.set(i64::from(told.leadership.transitions().is_some()));
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], told.metrics.render())
}

async fn readiness(State(told): State<Told>) -> impl IntoResponse {
    let leading = if told.leadership.transitions().is_some() { "leading" } else { "waiting" };
    if told.in_sync.load(Ordering::Acquire) {
        (StatusCode::OK, format!("in sync, {leading}\n"))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("watches are not in sync, {leading}\n"))
    }
}
