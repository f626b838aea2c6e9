//! What commands that look at a cluster as the loop `sync` does have in common: its context, with
//! watches that are in and a mirror that lasts as long as the command.
//!
//! Leaves to each command what it looks at. Never writes to the cluster.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::cluster::{Cluster, Leadership, Watched};
use crate::git::{MirrorOptions, Mirrors};
use crate::sync;
use crate::telemetry::Metrics;

/// The first lists of the watches have this long to come in.
const LISTS: Duration = Duration::from_secs(30);

/// The eyes of the loop `sync`, for one question.
pub struct Look {
    /// The context of a pass.
    pub cx: sync::Context,
    cache: PathBuf,
}

impl Look {
    /// Opens them: waits until the cluster's objects are listed.
    ///
    /// # Errors
    /// When there is no room for a mirror, or the objects cannot be listed in time.
    pub async fn open(cluster: &Cluster) -> anyhow::Result<Self> {
        let cache = folder()?;
        let options = MirrorOptions { allow_local: true, ..MirrorOptions::default() };
        let mirrors = Mirrors::open(&cache, options).context("cache folder")?;
        let cx = sync::Context::new(
            cluster.clone(),
            mirrors,
            Watched::start(cluster, None),
            Watched::start(cluster, None),
            Watched::start(cluster, None),
            Leadership::fixed(0),
            Arc::new(Metrics::default()),
        );
        let look = Self { cx, cache };
        tokio::time::timeout(LISTS, look.cx.ready())
            .await
            .context("the cluster's objects could not be listed; the log says why")?;
        Ok(look)
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        // The mirror was only made for this question.
        drop(std::fs::remove_dir_all(&self.cache));
    }
}

/// A folder of our own for the mirror.
fn folder() -> anyhow::Result<PathBuf> {
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("randomness: {error}"))?;
    let name = format!("pgitops-look-{:016x}", u64::from_ne_bytes(random));
    Ok(std::env::temp_dir().join(name))
}
