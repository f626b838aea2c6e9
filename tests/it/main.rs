//! The one test binary: linking is most of a test build, and shared fixtures stay in one place.

mod deploy;
mod instance;
mod pgconf_oracle;
mod postgres;
mod simulate;
mod tidy;
