//! Whether the API server serves the kinds that we work with.
//!
//! A watch of a kind that is not defined fails again and again without saying what to do. Says
//! which definition is missing and what installs it, and waits. Never installs anything:
//! definitions are for who administers the cluster, and some of them are KubeDB's.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::client::{Cluster, Kind};
use super::error::Error;

/// Time between two looks.
const AGAIN: Duration = Duration::from_secs(2);
/// Who looks into the log later should find the reason near its end.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// A kind that has to be served.
pub struct Needed {
    name: String,
    install: String,
    served: Look,
}

type Look = fn(&Cluster) -> futures::future::BoxFuture<'_, Result<bool, Error>>;

impl Needed {
    /// A kind, and what to do where it is missing.
    pub fn kind<K: Kind>(install: &str) -> Self {
        Self {
            name: format!("{}.{}", K::plural(&()), K::group(&())),
            install: install.to_owned(),
            served: |cluster| Box::pin(cluster.serves::<K>()),
        }
    }
}

/// Whether something is to be said once more; keeps when it was.
fn is_due(said: &mut Option<Timestamp>, now: Timestamp) -> bool {
    let due = said.is_none_or(|at| now.duration_since(at).unsigned_abs() > SAY_AGAIN);
    if due {
        *said = Some(now);
    }
    due
}

/// Waits until all of these are served; `missing` is told those that are not, at every look.
pub async fn served(cluster: &Cluster, needed: &[Needed], mut missing: impl FnMut(Vec<String>)) {
    let mut said: Option<(Vec<String>, Timestamp)> = None;
    let mut failed_at = None;
    loop {
        let (mut absent, mut failed) = (Vec::new(), false);
        for one in needed {
            match (one.served)(cluster).await {
                Ok(true) => {}
                Ok(false) => absent.push(one),
                Err(error) => {
                    let now = Timestamp::now();
                    if is_due(&mut failed_at, now) {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::warn!(%error, cause, "cannot look for definitions; tried again");
                    }
                    missing(vec![format!("{} (not known: {})", one.name, error.class())]);
                    failed = true;
                    break;
                }
            }
        }
        if !failed {
            let names: Vec<String> = absent.iter().map(|one| one.name.clone()).collect();
            missing(names.clone());
            if absent.is_empty() {
                return;
            }
            let now = Timestamp::now();
            let old = |at: &Timestamp| now.duration_since(*at).unsigned_abs() > SAY_AGAIN;
            if said.as_ref().is_none_or(|(before, at)| *before != names || old(at)) {
                for Needed { name, install, .. } in absent {
                    tracing::warn!("waiting: {name} is not defined in this cluster; {install}");
                }
                said = Some((names, now));
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}
