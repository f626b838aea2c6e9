//! Hints that a local repository may have changed, so that a push acts at once.
//!
//! A hint only says when to look, never what is there, and it may be wrong or missing: whoever
//! follows it looks at least every interval anyway. Many events make one hint. When the folder
//! vanishes or is replaced the watch is set up again at the next interval. Reads nothing of the
//! repository but which folders it has.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::SourceUrl;

/// How long the events of one push may still go on after the first: git writes a lock file,
/// renames it and writes its log within a few milliseconds.
const SETTLE: Duration = Duration::from_millis(10);

/// Why it is time to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// Something happened among the references.
    Changed,
    /// The interval is over.
    Interval,
}

/// The hints of one repository. Of a remote one only the interval.
pub struct Hints {
    folder: Option<PathBuf>,
    events: Arc<Notify>,
    watching: Option<Watching>,
}

struct Watching {
    /// Ends the watch when dropped.
    _watcher: RecommendedWatcher,
    /// What is watched.
    folders: Vec<Folder>,
}

/// A folder, and what tells it from another one that takes its place.
#[derive(Debug, PartialEq, Eq)]
struct Folder {
    path: PathBuf,
    device: u64,
    number: u64,
    /// A number is given again at once; where the file system knows it, the birth differs.
    born: Option<SystemTime>,
}

impl Hints {
    /// Begins to watch, when there is something to watch already.
    pub fn new(url: &SourceUrl) -> Self {
        let folder = url.local_path().map(Path::to_owned);
        let mut hints = Self { folder, events: Arc::default(), watching: None };
        hints.refresh();
        hints
    }

    /// Waits until something happened, at most for `interval`. Safe to drop at any time.
    pub async fn next(&mut self, interval: Duration) -> Hint {
        self.refresh();
        let until = Instant::now() + interval;
        let events = self.events.clone();
        if timeout_at(until, events.notified()).await.is_err() {
            return Hint::Interval;
        }
        sleep_until(Instant::now() + SETTLE).await;
        Hint::Changed
    }

    /// Whether events are being received; otherwise the interval is all there is.
    pub fn is_watching(&self) -> bool {
        self.watching.is_some()
    }

    /// Watches what is there now, unless that is what is watched already.
    fn refresh(&mut self) {
        let Some(folder) = &self.folder else { return };
        let folders = watched_folders(folder);
        if self.watching.as_ref().is_some_and(|w| w.folders == folders) {
            return;
        }
        let had = self.watching.take().is_some();
        if folders.is_empty() {
            return;
        }
        match watch(&folders, self.events.clone()) {
            Ok(watcher) => {
                self.watching = Some(Watching { _watcher: watcher, folders });
                // Between the end of one watch and the begin of the next something may be missed.
                if had {
                    self.events.notify_one();
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot watch the repository; looking at intervals only");
            }
        }
    }
}

fn watch(folders: &[Folder], events: Arc<Notify>) -> Result<RecommendedWatcher, notify::Error> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the repository must not look like a change of it. An error may be one.
        if !matches!(event.map(|event| event.kind), Ok(EventKind::Access(_))) {
            events.notify_one();
        }
    })?;
    for (at, folder) in folders.iter().enumerate() {
        // The first is the repository itself: HEAD and packed-refs, not its objects.
        let mode = if at == 0 { RecursiveMode::NonRecursive } else { RecursiveMode::Recursive };
        watcher.watch(&folder.path, mode)?;
    }
    Ok(watcher)
}

/// The repository's folder, then those with its branches and tags. Notes are not among them: our
/// own push must not wake us up.
fn watched_folders(folder: &Path) -> Vec<Folder> {
    let inner = folder.join(".git");
    let git = if inner.is_dir() { inner } else { folder.to_owned() };
    let inside = ["refs/heads", "refs/tags", "reftable"].map(|name| git.join(name));
    let identified = |path: PathBuf| {
        let found = fs::metadata(&path).ok().filter(fs::Metadata::is_dir)?;
        let born = found.created().ok();
        Some(Folder { path, device: found.dev(), number: found.ino(), born })
    };
    let Some(top) = identified(git) else { return vec![] };
    [top].into_iter().chain(inside.into_iter().filter_map(identified)).collect()
}
