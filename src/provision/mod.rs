//! A `Postgres` object → its children.

pub mod blueprint;
pub mod children;
pub mod deletion;
pub mod members;
pub mod roles;
#[cfg(test)]
mod sample;
mod same;
pub mod status;
