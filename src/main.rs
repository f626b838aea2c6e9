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
    let cli = match pgitops::cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match pgitops::cli::run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pgitops: {}", pgitops::cli::chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Help and version are asked for; anything else is an error. clap would end with 2 then, which is
/// how `plan` and `status` say that something differs.
fn usage(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell when the terminal is gone.
    drop(error.print());
    if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
