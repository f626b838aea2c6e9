//! The HTTP endpoint of the controller: `/metrics`, `/healthz` and `/readyz`.
//!
//! Healthy means that the process answers; ready means that every watch has its first list, for
//! which the kinds must be defined. Who does not lead is ready too: it waits, and a rollout of the
//! Deployment would never end otherwise. An API server that goes away later makes nobody unready:
//! there is nothing that a restart or another replica could do about it. Says who leads.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::cluster::{InSync, Leadership};

/// What the endpoint tells of.
#[derive(Clone)]
pub struct Told {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The watches of the process.
    pub watches: watch::Receiver<Watches>,
    /// Whether we lead, and who does.
    pub leadership: Leadership,
}

/// How far the watches of the process are.
#[derive(Clone, Debug)]
pub enum Watches {
    /// They wait for these definitions.
    Undefined(Vec<String>),
    /// They run.
    Running(Vec<InSync>),
}

impl Default for Watches {
    fn default() -> Self {
        Self::Undefined(Vec::new())
    }
}

impl Watches {
    /// What keeps us from being ready; `None`: nothing.
    fn wait(&self) -> Option<String> {
        match self {
            Self::Undefined(definitions) if definitions.is_empty() => {
                Some("definitions not looked for yet".to_owned())
            }
            Self::Undefined(definitions) => {
                Some(format!("not defined: {}", definitions.join(", ")))
            }
            Self::Running(watches) => {
                let waiting = watches.iter().filter(|watch| !watch.is_ready());
                let kinds: Vec<&str> = waiting.map(|watch| watch.kind.as_str()).collect();
                (!kinds.is_empty()).then(|| format!("no list of {} yet", kinds.join(", ")))
            }
        }
    }
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
    let wait = told.watches.borrow().wait();
    let leading = told.leadership.transitions().is_some();
    let words = words(wait.as_deref(), leading, told.leadership.holder().as_deref());
    let status = if wait.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, words)
}

/// How it stands, for people. `wait`: what keeps us from being ready.
fn words(wait: Option<&str>, leading: bool, holder: Option<&str>) -> String {
    let watches = match wait {
        None => "in sync".to_owned(),
        Some(wait) => format!("not in sync: {wait}"),
    };
    let leader = match (leading, holder) {
        (true, _) => "this process".to_owned(),
        // A lease that was not renewed for long, or that we have just lost.
        (false, Some(holder)) => format!("{holder} holds the lease; this process waits"),
        (false, None) => "nobody holds the lease; this process waits".to_owned(),
    };
    format!("watches: {watches}\nleader: {leader}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wait: Option<&str>, leading: bool, holder: Option<&str>, said: &str) {
        assert_eq!(words(wait, leading, holder), said);
    }

    #[test]
    fn who_leads_and_what_is_waited_for_is_said() {
        check(None, true, Some("a"), "watches: in sync\nleader: this process\n");
        let waits = "watches: in sync\nleader: b holds the lease; this process waits\n";
        check(None, false, Some("b"), waits);
        let blind = "watches: not in sync: no list of Postgres yet\n\
                     leader: nobody holds the lease; this process waits\n";
        check(Some("no list of Postgres yet"), false, None, blind);
    }

    #[test]
    fn ready_is_who_has_seen_everything() {
        let missing = Watches::Undefined(vec!["postgreses.kubedb.com".to_owned()]);
        assert_eq!(missing.wait().as_deref(), Some("not defined: postgreses.kubedb.com"));
        assert!(Watches::default().wait().is_some());
        assert_eq!(Watches::Running(Vec::new()).wait(), None);
    }
}
