//! In the pod: the server's supervisor and its control API.
//!
//! PID 1 of the Postgres container. Runs the image's own Postgres, restarts it without the pod
//! noticing, keeps its configuration sets on the data volume, tries out what it is sent before the
//! live server sees it, and reports what is in force. [`client`] is the only way from the
//! controller to a server; [`protocol`] is what they say to each other.
//! Decides nothing about roles, order or content: it does what it is told, refuses what is stale,
//! and comes back by itself in its last role on its last good set.

pub mod client;
pub mod protocol;

/// Port of the control API in every pod.
pub const CONTROL_PORT: u16 = 8743;

/// Port of Postgres in every pod.
pub const POSTGRES_PORT: u16 = 5432;

/// The name in every instance's certificate. It is verified instead of the address, which changes.
pub const SERVER_NAME: &str = "instance.pgitops.dev";
