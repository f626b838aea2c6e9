//! The one test binary: linking is most of a test build, and shared fixtures stay in one place.

// Fixtures panic as tests do: clippy only knows functions marked #[test].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api_server;
mod beside;
mod conformance;
mod conforms;
mod controller;
mod deploy;
mod fixture;
mod git;
mod instance;
mod kubectl;
mod kubedb;
mod line;
mod ops;
mod pgconf_oracle;
mod postgres;
mod provision;
mod sandbox;
mod scenarios;
mod simulate;
mod sync;
mod tidy;
mod weather;
