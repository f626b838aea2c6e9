//! Arguments → command; prints an error chain once; exit code.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // The sandbox starts this program as a container's first process: before any thread.
    if let Some(code) = pgitops::cli::sandbox::container_init() {
        return code;
    }
    // One TLS provider for the whole process: rustls panics at first use when it has to guess.
    // Refused only when one is installed already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    match pgitops::cli::run(pgitops::cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pgitops: {}", pgitops::cli::chain(&error));
            ExitCode::FAILURE
        }
    }
}
