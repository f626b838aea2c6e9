//! The machine that the figures are of: without it they mean nothing.

use std::process::Command;

use anyhow::Context as _;

/// Cores, load before the run, versions, how this was built.
///
/// # Errors
/// When this is no Linux, or a program that is needed is missing.
pub fn describe() -> anyhow::Result<String> {
    let cores = std::thread::available_parallelism().context("number of cores")?;
    let load = std::fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    let load: Vec<&str> = load.split(' ').take(3).collect();
    let processors = std::fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
    let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |rest| rest.trim_start_matches(['\t', ' ', ':']));
    let git = said(Command::new("git").arg("--version"))?;
    let checks =
        if cfg!(debug_assertions) { ", with debug assertions: no figures to quote" } else { "" };
    let busy = load.first().and_then(|load| load.parse::<f64>().ok()).unwrap_or(0.0);
    let busy = if busy > 0.5 { "; the machine is not idle" } else { "" };
    Ok(format!(
        "pgitops {}{checks}; {cores} cores of {model}; load average {}{busy}; {git}",
        env!("CARGO_PKG_VERSION"),
        load.join(" "),
    ))
}

fn said(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{command:?}: install it"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
