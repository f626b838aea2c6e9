//! A note among 50 000: written into a repository, read from it, published to it.

use std::time::Instant;

use anyhow::Context as _;
use jiff::Timestamp;
use pgitops::api::names::CommitId;
use pgitops::git::{
    Backoff, InstanceName, MirrorOptions, Mirrors, NoteUpdate, Publishing, SourceUrl,
    bench_note_writes,
};

use crate::figure::Figure;
use crate::fleet;

/// Notes that are there.
const PRESENT: usize = 50_000;
/// Notes that are written among them.
const WRITES: usize = 200;
/// Notes that are read, and published.
const READS: usize = 20;
/// The instance that [`bench_note_writes`] writes as.
const INSTANCE: &str = "bench";

/// Measures.
///
/// # Errors
/// When a note is not what was written.
pub async fn measure() -> anyhow::Result<Vec<Figure>> {
    let folder = tempfile::Builder::new().prefix("pgitops-bench").tempdir()?;
    let bare = folder.path().join("config.git");
    let at = bare.clone();
    let writing = tokio::task::spawn_blocking(move || bench_note_writes(&at, PRESENT, WRITES));
    let written = writing.await??;
    let reference = format!("refs/notes/pgitops/{INSTANCE}");
    let listed = fleet::git(&bare, &["ls-tree", "-r", "--name-only", &reference], "").await?;
    let ids: Vec<CommitId> = listed
        .lines()
        .map(|path| CommitId::parse(&path.replace('/', "")))
        .collect::<Result<_, _>>()?;
    anyhow::ensure!(ids.len() == PRESENT + WRITES, "{} notes are there", ids.len());
    let options = MirrorOptions { allow_local: true, ..MirrorOptions::default() };
    let mirrors = Mirrors::open(folder.path().join("mirrors"), options)?;
    let url = SourceUrl::parse(bare.to_str().context("the temporary folder is not UTF-8")?)?;
    let (git, instance) = (mirrors.get(&url)?, InstanceName::parse(INSTANCE)?);
    let (mut read, mut published) = (Vec::new(), Vec::new());
    for id in ids.iter().step_by(ids.len() / (READS + 1)) {
        let begun = Instant::now();
        let notes = git.notes(&instance, std::slice::from_ref(id)).await?;
        read.push(begun.elapsed());
        let text = notes.get(id).and_then(|note| note.text.clone()).unwrap_or_default();
        anyhow::ensure!(text == format!("APPLIED: {id}\n"), "the note on {id} is {text:?}");
    }
    for id in ids.iter().step_by(ids.len() / (READS + 1)) {
        let text = Some(format!("FAILED: {id}\n"));
        let update = NoteUpdate { commit: id.clone(), text, lines: Vec::new() };
        let publishing = Publishing { now: Timestamp::now(), backoff: Backoff::new(1) };
        let begun = Instant::now();
        let done = git.publish(&instance, &[update], &publishing).await?;
        published.push(begun.elapsed());
        anyhow::ensure!(done.pushed, "the note on {id} was not pushed");
    }
    // The first of each copies all notes into a mirror that is new.
    let copied = [read.remove(0), published.remove(0)];
    Ok(vec![
        Figure::of_durations("write", written).reach(1.0),
        Figure::of_durations("read, with the listing before it", read).reach(1.0),
        Figure::of_durations("publish: write, push, compare and swap", published),
        Figure::of_durations("the first of either, with a new mirror", copied),
    ])
}
