//! A small Kubernetes of our own.

pub mod cluster;
mod endpoint;
pub mod node;
mod scratch_repository;
pub mod workload;
