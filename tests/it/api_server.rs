//! The sandbox's API server, spoken to by the real kube client and the real kubectl.

mod client;
mod cluster;
mod custom;
mod kubectl;
mod restart;
mod wire;
