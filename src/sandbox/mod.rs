//! A small Kubernetes of our own.

pub mod node;
pub mod workload;
