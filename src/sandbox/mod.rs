//! A small Kubernetes of our own: the embedded default for trying pgitops out, for demos, for
//! offline plans and for tests. Nothing in the rest of the program knows about it.
//!
//! Leaves to `cli` how it is started. Must never be imported by anything but `cli` and tests.

pub mod api_server;
pub mod store;
