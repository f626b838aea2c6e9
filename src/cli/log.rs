//! `pgitops log`: commits with their notes and requests, without any git set-up.
//!
//! Reads the repository that a ConfigRepository names (or `--url`) through a mirror of its own in
//! a temporary folder, and the requests that its commits asked for from the cluster.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use super::connection::{Connection, Output, print};
use crate::api::names::annotations;
use crate::api::{CommitId, ConfigRepository, PostgresOpsRequest};
use crate::git::{Annotated, MirrorOptions, Mirrors, SourceUrl};

/// Arguments of `pgitops log`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Commits: `A..B`, or one commit, by full or abbreviated id; the newest when absent
    range: Option<String>,
    /// The ConfigRepository to read
    #[arg(long, default_value = "config", value_name = "NAME", conflicts_with = "url")]
    repository: String,
    /// Read this repository instead, without a cluster
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Branch or ref, with --url
    #[arg(long = "ref", default_value = "main", requires = "url", value_name = "REF")]
    reference: String,
    /// At most this many commits
    #[arg(long, default_value_t = 20, value_name = "N")]
    max: usize,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// One commit as it is printed.
#[derive(Debug, Serialize)]
struct Entry {
    commit: String,
    author: String,
    time: String,
    subject: String,
    /// Instance → text for people.
    notes: BTreeMap<String, String>,
    /// Instance → lines for machines, parsed.
    records: BTreeMap<String, Vec<serde_json::Value>>,
    requests: Vec<Request>,
}

/// A request that a commit asked for.
#[derive(Clone, Debug, Serialize)]
struct Request {
    name: String,
    database: String,
    phase: String,
}

/// One git operation may take this long; reading a log is one listing and one copy.
const GIT_DEADLINE: Duration = Duration::from_secs(60);

/// Prints the log.
///
/// # Errors
/// When the repository or the cluster cannot be read, or the range names no commit.
pub async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (url, reference, requests) = match &args.url {
        Some(url) => (url.clone(), args.reference.clone(), BTreeMap::new()),
        None => from_cluster(args).await?,
    };
    let cache = tempfile::tempdir().context("temporary folder for a mirror")?;
    let options = MirrorOptions { allow_local: true, timeout: GIT_DEADLINE };
    let mirrors = Mirrors::open(cache.path(), options)?;
    let source = mirrors.get(&SourceUrl::parse(&url)?)?;
    let head = source.head(&reference).await?;
    let log = source.log(None, &head).await?;
    let chosen = choose(&log, args.range.as_deref())?;
    let entries: Vec<Entry> =
        chosen.iter().take(args.max).map(|commit| entry(commit, &requests)).collect();
    match args.output {
        Output::Text => text(&entries)?,
        Output::Json | Output::Yaml => print(&entries, args.output)?,
    }
    Ok(ExitCode::SUCCESS)
}

type Requests = BTreeMap<CommitId, Vec<Request>>;

async fn from_cluster(args: &Args) -> anyhow::Result<(String, String, Requests)> {
    let (cluster, namespace) = args.connection.open().await?;
    let name = &args.repository;
    let repository = cluster
        .get::<ConfigRepository>(&namespace, name)
        .await?
        .with_context(|| format!("configrepository {namespace}/{name}: not found; name another with --repository, or give --url"))?;
    let mut requests = Requests::new();
    for request in cluster.list::<PostgresOpsRequest>(None, "").await? {
        let ours = request.annotation(annotations::REPOSITORY)
            == Some(repository.repository().to_string().as_str());
        let commit = request.annotation(annotations::COMMIT).map(CommitId::parse);
        if let (true, Some(Ok(commit))) = (ours, commit) {
            requests.entry(commit).or_default().push(Request {
                name: request.request_name().0,
                database: request.database().to_string(),
                phase: format!("{:?}", request.phase()),
            });
        }
    }
    Ok((repository.spec.url.clone(), repository.spec.reference.clone(), requests))
}

/// The commits of a range, newest first as in the log.
fn choose<'a>(log: &'a [Annotated], range: Option<&str>) -> anyhow::Result<Vec<&'a Annotated>> {
    let position = |id: &str| {
        let mut found =
            log.iter().enumerate().filter(|(_, c)| c.commit.id.as_str().starts_with(id));
        match (found.next(), found.next()) {
            (Some((at, _)), None) => Ok(at),
            (Some(_), Some(_)) => {
                anyhow::bail!("{id} stands for several commits; write more of it")
            }
            (None, _) => anyhow::bail!("{id}: no such commit among the newest {}", log.len()),
        }
    };
    let Some(range) = range else { return Ok(log.iter().collect()) };
    Ok(match range.split_once("..") {
        None => vec![&log[position(range)?]],
        Some((from, to)) => {
            let newest = if to.is_empty() { 0 } else { position(to)? };
            let oldest = if from.is_empty() { log.len() } else { position(from)? };
            log.get(newest..oldest).unwrap_or_default().iter().collect()
        }
    })
}

fn entry(annotated: &Annotated, requests: &Requests) -> Entry {
    let commit = &annotated.commit;
    let text = |note: &crate::git::Note| note.text.clone().unwrap_or_default();
    let record = |line: &String| {
        // A line that somebody else broke is still shown, as text.
        serde_json::from_str(line).unwrap_or_else(|_| serde_json::Value::String(line.clone()))
    };
    let of = |(name, note): (&crate::git::InstanceName, &crate::git::Note)| {
        (name.to_string(), note.lines.iter().map(record).collect())
    };
    Entry {
        commit: commit.id.to_string(),
        author: commit.author.clone(),
        time: commit.time.to_string(),
        subject: commit.subject.clone(),
        notes: annotated.notes.iter().map(|(name, note)| (name.to_string(), text(note))).collect(),
        records: annotated.notes.iter().map(of).collect(),
        requests: requests.get(&commit.id).cloned().unwrap_or_default(),
    }
}

fn text(entries: &[Entry]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for entry in entries {
        writeln!(out, "commit {}", entry.commit)?;
        writeln!(out, "Author: {}", entry.author)?;
        writeln!(out, "Date:   {}", entry.time)?;
        writeln!(out, "\n    {}\n", entry.subject)?;
        for (instance, note) in &entry.notes {
            writeln!(out, "Notes ({instance}):")?;
            for line in note.lines() {
                writeln!(out, "{}", format!("    {line}").trim_end())?;
            }
            writeln!(out)?;
        }
        for request in &entry.requests {
            writeln!(
                out,
                "    request {} for {}: {}",
                request.name, request.database, request.phase
            )?;
        }
        if !entry.requests.is_empty() {
            writeln!(out)?;
        }
    }
    Ok(())
}
