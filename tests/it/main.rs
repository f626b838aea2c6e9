//! The one test binary: linking is most of a test build, and shared fixtures stay in one place.

mod deploy;
mod fixture;
mod instance;
mod pgconf_oracle;
mod postgres;
mod provision;
mod sandbox;
mod tidy;
mod api_server;
mod pgconf_oracle;
mod postgres;
mod tidy;
