//! A Postgres object → its children.

pub mod members;
pub mod roles;
