//! In the pod: the server's supervisor and its control API.
//!
//! PID 1 of the Postgres container. Runs the image's own Postgres, restarts it without the pod
//! noticing, keeps its configuration sets on the data volume, tries out what it is sent before the
//! live server sees it, and reports what is in force. [`client`] is the only way from the
//! controller to a server; [`protocol`] is what they say to each other.
//! Decides nothing about roles, order or content: it does what it is told, refuses what is stale,
//! and comes back by itself in its last role on its last good set.

pub mod certificates;
pub mod client;
pub mod health;
pub mod options;
pub mod protocol;
pub mod run;

mod changes;
mod control_data;
mod control_file;
mod dry_run;
mod facts;
mod files;
mod fill;
mod left_over;
mod peers;
mod process;
mod prove;
mod server;
mod server_file;
mod sql;
mod store;
mod supervisor;
mod tls;
mod words;
mod work;

pub use crate::api::names::{CONTROL_PORT, POSTGRES_PORT};

/// The name in every instance's certificate. It is verified instead of the address, which changes.
pub const SERVER_NAME: &str = "instance.pgitops.dev";

/// The name in the controller's certificate: who bears it may make every call.
pub const CONTROLLER_NAME: &str = "controller.pgitops.dev";

/// Files of the folder with the instance's certificates, as in a Secret of type
/// `kubernetes.io/tls`: its certificate, its key, and the CA's certificate.
pub const TLS_FILES: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// File of the seed folder that holds the first configuration of an empty volume.
pub const SEED_FILE: &str = crate::api::names::RENDERED_CONF;
