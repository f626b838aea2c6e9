//! One file per command.

pub mod instance;
