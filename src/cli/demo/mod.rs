//! `pgitops demo`: the whole line, from a push to a note, on real servers, in a minute.
//!
//! Starts a sandbox with a controller, brings a database of three nodes up, pushes commits to a
//! real repository one after another and reads each one's note. What it prints is what happened:
//! times, restarts and the write gap are measured on the running servers. Leaves nothing behind
//! unless it is told to keep its folder.

pub mod repository;
pub mod servers;
pub mod story;
pub mod writer;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::controller::{self, Loop, Settings};
use crate::cluster::Cluster;
use crate::sandbox::cluster::{Options, Sandbox};
use repository::Clone;
use servers::{Servers, three_nodes};
use story::{CHAPTERS, Chapter};
use writer::Writer;

/// Arguments of `pgitops demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Keep everything in this folder, to look at afterwards with `pgitops sandbox --directory`
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Major version of PostgreSQL; the newest installed one when absent
    #[arg(long, value_name = "MAJOR")]
    major: Option<u32>,
}

/// Three empty nodes are up in a few seconds; a slow machine gets its time.
const UP: Duration = Duration::from_secs(120);
/// A rollout of three idle nodes takes a second or two.
const TOLD: Duration = Duration::from_secs(90);

/// Tells the story.
///
/// # Errors
/// When a part cannot be started, or a chapter does not end as it must.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let temporary = tempfile::tempdir().context("temporary folder")?;
    let directory = args.directory.clone().unwrap_or_else(|| temporary.path().join("sandbox"));
    let begun = Instant::now();
    let step = Step::begin("starting the sandbox: an API server, a node, a repository");
    let sandbox = Sandbox::start(Options::new(directory)?).await?;
    step.done(begun.elapsed());
    let shutdown = CancellationToken::new();
    let working = tokio::spawn(controller::work(
        Cluster::new(sandbox.client.clone()),
        Loop::ALL.to_vec(),
        Settings::sandbox(temporary.path().join("mirrors")),
        shutdown.clone(),
    ));
    let told = tell(&sandbox, temporary.path(), args.major).await;
    shutdown.cancel();
    let worked = working.await.context("controller")?;
    let kept = sandbox.config_git.clone();
    sandbox.shutdown().await;
    told?;
    worked?;
    if let (Some(directory), Some(repository)) = (&args.directory, kept) {
        println!("\nKept in {}. Read the notes again with:", directory.display());
        println!("  git -C {} log --notes='pgitops/*' main", repository.display());
    }
    Ok(ExitCode::SUCCESS)
}

async fn tell(
    sandbox: &Sandbox,
    temporary: &std::path::Path,
    major: Option<u32>,
) -> anyhow::Result<()> {
    let cluster = Cluster::new(sandbox.client.clone());
    let begun = Instant::now();
    let step = Step::begin("a database of three nodes, from nothing to Ready");
    let servers = Servers::create(&cluster, &three_nodes(major)?, UP).await?;
    step.done(begun.elapsed());
    println!("  {}", servers.describe().await?);
    let origin = sandbox.config_git.as_ref().context("the sandbox has no repository")?;
    let clone = Clone::of(origin, &temporary.join("work")).await?;
    let writer = Writer::start(servers.primary(), servers.password()).await?;
    for (number, chapter) in CHAPTERS.iter().enumerate() {
        tell_chapter(number + 1, chapter, &clone, &servers, &writer).await?;
    }
    writer.stop().await;
    println!("\n$ git log --notes='pgitops/*'\n");
    print!("{}", clone.log().await?);
    Ok(())
}

async fn tell_chapter(
    number: usize,
    chapter: &Chapter,
    clone: &Clone,
    servers: &Servers,
    writer: &Writer,
) -> anyhow::Result<()> {
    let before = servers.started().await?;
    writer.take();
    let commit = match chapter.document {
        Some(document) => clone.commit(document, chapter.message).await?,
        None => clone.revert().await?,
    };
    let step = Step::begin(&format!("commit {number}: {}", chapter.message));
    let pushed = Instant::now();
    clone.push().await?;
    let note = clone.verdict(&commit, TOLD).await?;
    let took = pushed.elapsed();
    let seen = writer.take();
    let restarted = servers.started().await?.differing(&before);
    step.done(took);
    println!("  note: {}", note.lines().next().unwrap_or_default());
    println!(
        "  restarted: {}; longest pause between two writes {} ms ({} commits, {} errors)",
        if restarted.is_empty() { "nothing".to_owned() } else { restarted.join(", ") },
        seen.gap.as_millis(),
        seen.commits,
        seen.errors,
    );
    for line in servers.show(chapter.parameters).await? {
        println!("  {line}");
    }
    let verdict = note.split(':').next().unwrap_or_default().to_owned();
    anyhow::ensure!(
        chapter.verdicts.contains(&verdict.as_str()),
        "this chapter should end with one of {:?}, and ended with:\n{note}",
        chapter.verdicts
    );
    Ok(())
}

/// A line that says what goes on: a spinner on a terminal, plain lines elsewhere.
struct Step {
    bar: ProgressBar,
    text: String,
}

impl Step {
    fn begin(text: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(text.to_owned());
        // Ten frames a second: smooth, and costs nothing.
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, text: text.to_owned() }
    }

    fn done(self, took: Duration) {
        self.bar.finish_and_clear();
        println!("{} ({:.2} s)", self.text, took.as_secs_f64());
    }
}
