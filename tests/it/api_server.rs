//! The sandbox's API server by itself; what it shares with a real one is in `conformance`.

mod client;
pub mod cluster;
mod kubectl;
mod restart;
mod wire;
