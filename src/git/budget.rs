//! How long blocking work may take, and whether anybody still waits for it.
//!
//! libgit2 knows no total deadline and a dropped future does not stop a thread, so blocking code
//! asks [`Budget::check`] between its steps. Never sleeps and never blocks itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Error;

/// The deadline of one operation and the flag that ends it early.
#[derive(Clone)]
pub(crate) struct Budget {
    what: &'static str,
    total: Duration,
    until: Instant,
    cancelled: Arc<AtomicBool>,
}

impl Budget {
    /// A budget that begins now.
    pub(crate) fn new(what: &'static str, total: Duration) -> Self {
        let until = Instant::now() + total;
        Self { what, total, until, cancelled: Arc::default() }
    }

    /// An error once the time is over or nobody waits any more.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::Cancelled { what: self.what });
        }
        if Instant::now() >= self.until {
            return Err(self.timeout());
        }
        Ok(())
    }

    /// The name of the operation, for messages.
    pub(crate) fn what(&self) -> &'static str {
        self.what
    }

    /// What is left of it.
    pub(crate) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// The error that says that the time is over.
    pub(crate) fn timeout(&self) -> Error {
        Error::Timeout { what: self.what, after: self.total }
    }

    /// Cancels the work when dropped, so that a dropped future stops its thread at the next step.
    pub(crate) fn cancel_on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(self.cancelled.clone())
    }
}

/// Sets the flag of its [`Budget`] when it goes out of scope.
pub(crate) struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
