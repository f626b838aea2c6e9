//! The command line: one file per command.
//!
//! This file only knows which commands there are. kubectl's habits: `-n`, `--context`, `-o`.

pub mod crd;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// GitOps for Postgres configuration: push a change to git, read the proven result in `git log`.
#[derive(Debug, Parser)]
#[command(name = "pgitops", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the definitions of our Kubernetes kinds, for `kubectl apply -f -`
    Crd(crd::Args),
}

/// Runs the command that was asked for.
///
/// # Errors
/// What the command could not do, with its causes; the caller prints the chain once.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Crd(args) => crd::run(&args),
    }
}

/// An error and its causes on one line, none of them twice.
pub fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Some libraries repeat their source in their own message.
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    text
}
