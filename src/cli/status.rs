//! `pgitops status`: what git says, what the spec says and what runs on each node, parameter by
//! parameter, and whether the next start of each server is safe.
//!
//! Only asks: no call that it makes changes a server or carries a fence. What it reads is in
//! `status/read.rs`, what it makes of that in `status/sheet.rs` and `status/overview.rs`, how that
//! looks in `status/text.rs`. Exit code 0: all is as desired and safe, 2: something differs, waits,
//! is held or would not start, 1: something could not be found out.

mod overview;
mod read;
mod sheet;
mod text;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;

use super::connection::{Connection, Output, print};
use super::look::Look;
use crate::api::names::DatabaseRef;

/// Arguments of `pgitops status`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The database; all of the namespace in a line each when absent
    #[arg(value_name = "DATABASE")]
    pub database: Option<String>,
    /// How the status is printed
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// Prints the status.
///
/// # Errors
/// When the cluster cannot be read, or there is no such database.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (cluster, namespace) = args.connection.open().await?;
    let look = Look::open(&cluster).await?;
    match &args.database {
        Some(name) => {
            let database = DatabaseRef::new(namespace, name);
            let sheet = read::database(&database, &look.cx).await?;
            show(&sheet, args.output, text::sheet)?;
            Ok(sheet.result.exit_code())
        }
        None => {
            let overview = read::namespace(&namespace, &look.cx).await;
            show(&overview, args.output, text::overview)?;
            Ok(overview.result.exit_code())
        }
    }
}

impl sheet::Judgement {
    fn exit_code(self) -> ExitCode {
        match self {
            Self::AsDesired => ExitCode::SUCCESS,
            Self::Differs => ExitCode::from(2),
            Self::Unknown => ExitCode::FAILURE,
        }
    }
}

fn show<T: serde::Serialize>(
    value: &T,
    output: Output,
    lines: impl Fn(&T) -> Vec<String>,
) -> anyhow::Result<()> {
    match output {
        Output::Text => {
            let mut out = std::io::stdout().lock();
            for line in lines(value) {
                writeln!(out, "{line}").context("standard output")?;
            }
            Ok(())
        }
        Output::Json | Output::Yaml => print(value, output),
    }
}
