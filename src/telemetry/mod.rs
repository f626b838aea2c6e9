//! Logs, metrics, health and readiness.
//!
//! What is told to machines and to people who watch them. Never carries a value of a parameter, a
//! secret, or text of unbounded variety in a label.

pub mod files;
pub mod logs;
pub mod metrics;
pub mod server;

pub use logs::{LogFormat, Loudness, start as start_logs};
pub use metrics::Metrics;
