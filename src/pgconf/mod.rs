//! Words: Postgres configuration.
//!
//! What the server would make of a piece of configuration, without a server: its grammar
//! ([`lexer`]), its values ([`value`]), what it knows in each major version ([`catalogue`]), what
//! is dangerous or not ours to give away ([`tiers`]), and which of several files wins ([`layers`]).
//! `check` puts these together for documents and requests; [`change`] says what an edit costs.
//!
//! Leaves to the other rooms: where text comes from and which file a line stands in ([`Position`]
//! knows line and column only), the order of nodes, and proving anything on a running server.
//! Never does I/O, reads a clock or logs. The proof that all this agrees with real servers is
//! `tests/it/pgconf_oracle.rs`.

pub mod catalogue;
pub mod change;
pub mod check;
pub mod kubedb;
pub mod layers;
pub mod lexer;
pub mod name;
mod number;
pub mod problem;
pub mod provisioned;
pub mod settings;
pub mod suggest;
mod text;
pub mod tiers;
pub mod tuning;
pub mod unit;
pub mod value;

pub use catalogue::{Catalogue, Context, Kind, Parameter};
pub use change::{Change, Class};
pub use check::{Checked, check};
pub use layers::{Effective, Layer, Layers};
pub use name::{Name, Value};
pub use problem::{Position, Problem, Severity};
pub use settings::Settings;
pub use tiers::Tier;
pub use value::{Normalised, Refusal, Why};
