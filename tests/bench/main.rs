//! The benchmark command: what is reached, beside what is to be reached.
//!
//! `cargo bench --profile fast` prints a table of all subjects; `cargo bench --profile fast --
//! reload plan` only of those. Each subject is a file here: it starts what it needs, measures, and
//! leaves nothing behind. The command judges no figure: it fails only when something is wrong,
//! such as a value that is not in force. Leaves what is measured to the subjects, and whether a
//! figure is good enough to the reader.

mod controller;
mod figure;
mod fleet;
mod line;
mod load;
mod machine;
mod memory;
mod notes;
mod plan;
mod poll;
mod reload;
mod restart;
mod rollback;
mod signs;
mod takeover;

use std::pin::Pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use figure::Figure;

/// Arguments after `cargo bench … --`.
#[derive(Debug, Parser)]
#[command(name = "figures")]
struct Args {
    /// Subjects to measure, by a part of their name; all when none is given
    subjects: Vec<String>,
    /// Name the subjects and measure nothing
    #[arg(long)]
    list: bool,
    /// Print one JSON object a figure as well
    #[arg(long)]
    json: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

type Measured = Pin<Box<dyn Future<Output = anyhow::Result<Vec<Figure>>>>>;

/// Something that is measured.
struct Subject {
    name: &'static str,
    what: &'static str,
    measure: fn() -> Measured,
}

const SUBJECTS: [Subject; 11] = [
    Subject {
        name: "reload",
        what: "a change that a reload is enough for, on three idle nodes",
        measure: || Box::pin(reload::measure()),
    },
    Subject {
        name: "restart",
        what: "max_connections up and down, on three idle nodes",
        measure: || Box::pin(restart::idle()),
    },
    Subject {
        name: "takeover",
        what: "another controller takes over",
        measure: || Box::pin(takeover::measure()),
    },
    Subject {
        name: "restart-load",
        what: "the same while eight clients work",
        measure: || Box::pin(restart::under_load()),
    },
    Subject {
        name: "restart-synchronous",
        what: "the same with synchronous replication, idle",
        measure: || Box::pin(restart::synchronous()),
    },
    Subject {
        name: "rollback",
        what: "a primary that does not start with the new configuration",
        measure: || Box::pin(rollback::measure()),
    },
    Subject {
        name: "poll",
        what: "a look at a repository in which nothing has changed",
        measure: || Box::pin(poll::measure()),
    },
    Subject {
        name: "plan",
        what: "a plan of many documents",
        measure: || Box::pin(plan::measure()),
    },
    Subject { name: "notes", what: "a note among 50 000", measure: || Box::pin(notes::measure()) },
    Subject {
        name: "memory-1000",
        what: "the controller's memory with 1 and with 1 000 databases",
        measure: || Box::pin(memory::small()),
    },
    Subject {
        name: "memory-10000",
        what: "the controller's memory with 10 000 databases",
        measure: || Box::pin(memory::large()),
    },
];

/// A subject that takes longer than this is stuck; on two idle cores each takes well under a
/// minute, on a busy machine a few.
const LIMIT: Duration = Duration::from_secs(420);

fn main() -> ExitCode {
    let args = Args::parse();
    // What the sandbox has to say belongs between no figures; `RUST_LOG` shows it.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.context("tokio runtime").and_then(|runtime| runtime.block_on(run(&args)));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("figures: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every subject could be measured.
async fn run(args: &Args) -> anyhow::Result<bool> {
    let wanted = |subject: &&Subject| {
        args.subjects.is_empty() || args.subjects.iter().any(|part| subject.name.contains(&**part))
    };
    let chosen: Vec<&Subject> = SUBJECTS.iter().filter(wanted).collect();
    anyhow::ensure!(!chosen.is_empty(), "no subject is called like that; --list names them");
    if args.list {
        chosen.iter().for_each(|subject| println!("{:20} {}", subject.name, subject.what));
        return Ok(true);
    }
    println!("{}\n", machine::describe()?);
    let mut all_well = true;
    for subject in chosen {
        let begun = Instant::now();
        let figures = match bounded(subject).await {
            Ok(figures) => figures,
            Err(error) => {
                all_well = false;
                println!("{}: NOT MEASURED: {error:#}\n", subject.name);
                continue;
            }
        };
        let took = begun.elapsed().as_secs_f64();
        println!("{}: {} ({took:.0} s)", subject.name, subject.what);
        println!("{}", figure::table(&figures));
        if args.json {
            figures.iter().for_each(|figure| println!("{}", figure.json(subject.name)));
        }
    }
    Ok(all_well)
}

/// Measures one subject; an interrupt or the deadline drops it, and what it started ends with it.
async fn bounded(subject: &Subject) -> anyhow::Result<Vec<Figure>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        measured = tokio::time::timeout(LIMIT, (subject.measure)()) => {
            measured.with_context(|| format!("no end within {LIMIT:?}"))?
        }
        _ = interrupt.recv() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("terminated"),
    }
}
