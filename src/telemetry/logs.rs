//! Logs: one line an event, for people or for machines, on standard error.
//!
//! Leaves what is said to the loops: they never put a value of a parameter into a field.

use clap::ValueEnum;
use tracing_subscriber::filter::{DynFilterFn, EnvFilter, LevelFilter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use super::files;

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged when `RUST_LOG` does not say: our own words, and only warnings of libraries.
const DEFAULT_FILTER: &str = "warn,pgitops=info";

/// How much people are told when `RUST_LOG` does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loudness {
    /// What happens.
    Info,
    /// What is wrong: for commands that tell by themselves what happens.
    Warnings,
}

/// Begins to log to standard error, filtered by `RUST_LOG`. Colour only on a terminal. Files of
/// components get what happens in any case.
///
/// A second call in one process changes nothing.
pub fn start(format: LogFormat, loudness: Loudness) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| DEFAULT_FILTER.into());
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let asked = std::env::var_os(EnvFilter::DEFAULT_ENV).is_some();
    let loudest = match (asked, loudness) {
        (true, _) | (false, Loudness::Info) => LevelFilter::TRACE,
        (false, Loudness::Warnings) => LevelFilter::WARN,
    };
    let people = || fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
    let files = fmt::layer().with_writer(files::ByComponent).with_ansi(false);
    let files = files.with_filter(DynFilterFn::new(|_, _| files::is_open()));
    let base = tracing_subscriber::registry().with(filter).with(files);
    let started = match format {
        LogFormat::Text => base.with(people().with_target(false).with_filter(loudest)).try_init(),
        LogFormat::Json => base.with(people().json().with_filter(loudest)).try_init(),
    };
    // Only a test or the sandbox starts twice in a process: the first one counts.
    drop(started);
}
