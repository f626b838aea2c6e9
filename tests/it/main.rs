//! The one test binary: linking is most of a test build, and shared fixtures stay in one place.

mod api_server;
mod deploy;
mod fixture;
mod git;
mod instance;
mod ops;
mod pgconf_oracle;
mod postgres;
mod provision;
mod sandbox;
mod scenarios;
mod simulate;
mod tidy;
