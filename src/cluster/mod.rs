//! Edge: the Kubernetes client.
//!
//! One place where a call gets its deadline, where an API error becomes a class that decides when
//! to try again, where a kind is watched once for the whole process, and where the lease is held.
//! Leaves what is read and written to the loops. Never decides anything about a database.

pub mod client;
pub mod definitions;
pub mod error;
pub mod lease;
mod sieve;
pub mod tell;
pub mod unreadable;
pub mod watched;

pub use client::{Cluster, Created, EventKind};
pub use error::{Error, Retry};
pub use lease::Leadership;
pub use watched::{InSync, Watched};
