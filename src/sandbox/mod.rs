//! A small Kubernetes of our own: the embedded default for trying pgitops out, for demos, for
//! offline plans and for tests. Nothing in the rest of the program knows about it.
//!
//! | file | what |
//! |---|---|
//! | `cluster.rs` | the whole: starts and stops all of the below |
//! | `store/`, `api_server/`, `endpoint.rs` | objects; the HTTP API; where it is found |
//! | `workload/` | StatefulSets, PetSets if it is to serve them, and volumes for claims |
//! | `node/` | runs pods as local processes |
//! | `log_file.rs`, `tls_listener.rs` | what both of their servers need |
//! | `scratch_repository.rs` | a repository to push to |
//!
//! Leaves to `cli` how it is started. Must never be imported by anything but `cli` and tests.

pub mod api_server;
pub mod cluster;
mod endpoint;
mod log_file;
pub mod node;
pub mod scratch_repository;
pub mod store;
mod tls_listener;
pub mod workload;
