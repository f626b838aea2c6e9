//! The HTTP endpoint of the controller: `/metrics`, `/healthz` and `/readyz`.
//!
//! Healthy means that the process answers; ready means that every watch has its first list. Who
//! does not lead is ready too: it waits, and a rollout of the Deployment would never end otherwise.
//! An API server that goes away later makes nobody unready: there is nothing that a restart or
//! another replica could do about it. Says who leads.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::cluster::{InSync, Leadership};

/// What the endpoint tells of.
#[derive(Clone)]
pub struct Told {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The watches of the process.
    pub watches: Vec<InSync>,
    /// Whether we lead, and who does.
    pub leadership: Leadership,
}

/// A bound endpoint.
pub struct Endpoint {
    listener: TcpListener,
}

impl Endpoint {
    /// Binds the address.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await? })
    }

    /// Serves until `shutdown`.
    ///
    /// # Errors
    /// When the listener breaks.
    pub async fn serve(self, told: Told, shutdown: CancellationToken) -> std::io::Result<()> {
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readiness))
            .with_state(told);
        let serving = axum::serve(self.listener, router);
        serving.with_graceful_shutdown(shutdown.cancelled_owned()).await
    }
}

async fn metrics(State(told): State<Told>) -> impl IntoResponse {
    told.metrics.leading.set(i64::from(told.leadership.transitions().is_some()));
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], told.metrics.render())
}

async fn readiness(State(told): State<Told>) -> impl IntoResponse {
    let waiting = told.watches.iter().filter(|watch| !watch.is_ready());
    let waiting: Vec<&str> = waiting.map(|watch| watch.kind.as_str()).collect();
    let leading = told.leadership.transitions().is_some();
    let (ready, words) = words(&waiting, leading, told.leadership.holder().as_deref());
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, words)
}

/// Whether we are ready, and how it stands, for people.
fn words(waiting: &[&str], leading: bool, holder: Option<&str>) -> (bool, String) {
    let watches = match waiting {
        [] => "in sync".to_owned(),
        kinds => format!("not in sync: no list of {} yet", kinds.join(", ")),
    };
    let leader = match (leading, holder) {
        (true, _) => "this process".to_owned(),
        // A lease that was not renewed for long, or that we have just lost.
        (false, Some(holder)) => format!("{holder} holds the lease; this process waits"),
        (false, None) => "nobody holds the lease; this process waits".to_owned(),
    };
    (waiting.is_empty(), format!("watches: {watches}\nleader: {leader}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(waiting: &[&str], leading: bool, holder: Option<&str>, ready: bool, said: &str) {
        assert_eq!(words(waiting, leading, holder), (ready, said.to_owned()));
    }

    #[test]
    fn ready_is_who_has_seen_everything_leading_or_not() {
        check(&[], true, Some("a"), true, "watches: in sync\nleader: this process\n");
        let waits = "watches: in sync\nleader: b holds the lease; this process waits\n";
        check(&[], false, Some("b"), true, waits);
        let blind = "watches: not in sync: no list of Postgres, ConfigRepository yet\n\
                     leader: nobody holds the lease; this process waits\n";
        check(&["Postgres", "ConfigRepository"], false, None, false, blind);
    }
}
