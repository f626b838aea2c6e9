//! `pgitops crd`: the definitions of our kinds.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;

/// Arguments of `pgitops crd`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this kind: Postgres, PostgresOpsRequest or ConfigRepository
    #[arg(long)]
    kind: Option<String>,
}

/// Prints the definitions as a stream of YAML documents.
///
/// # Errors
/// When there is no such kind, or standard output is closed.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut crds = crate::api::crds();
    if let Some(kind) = &args.kind {
        let known: Vec<String> = crds.iter().map(|crd| crd.spec.names.kind.clone()).collect();
        crds.retain(|crd| crd.spec.names.kind.eq_ignore_ascii_case(kind));
        anyhow::ensure!(!crds.is_empty(), "no kind {kind:?}; there are {}", known.join(", "));
    }
    let mut out = std::io::stdout().lock();
    for crd in &crds {
        let yaml = serde_saphyr::to_string(crd).context("a definition could not be written")?;
        write!(out, "---\n{yaml}")?;
    }
    Ok(ExitCode::SUCCESS)
}
