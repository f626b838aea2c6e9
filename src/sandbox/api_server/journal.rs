//! The store on disk: a snapshot and the changes after it, a line each.
//!
//! A line is written before the change is visible to anybody, without fsync: a killed process
//! loses nothing, a crashed machine perhaps the last moments. At start, at a clean end and when
//! the journal has grown, snapshot and journal become one new snapshot (temporary file, rename).

use crate::sandbox::store::{Store, snapshot};
use anyhow::Context;
use serde_json::Value;
use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

/// Bytes of journal after which it is folded into the snapshot: some ten thousand changes, a
/// fraction of a second to read again.
const COMPACT_AT: u64 = 64 * 1024 * 1024;

/// The two files.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    file: File,
    size: u64,
}

impl Journal {
    /// Takes up what a folder holds into an empty store, and goes on from there.
    ///
    /// # Errors
    /// If the folder cannot be read or written, or the snapshot is no JSON.
    pub fn open(folder: &Path, store: &mut Store, log_limit: usize) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let snapshot = folder.join(SNAPSHOT);
        if snapshot.exists() {
            let text = fs::read(&snapshot).with_context(|| format!("reading {SNAPSHOT}"))?;
            let value: Value = serde_json::from_slice(&text).with_context(|| {
                format!("{} is damaged; remove it to start empty", snapshot.display())
            })?;
            store.restore(&value, log_limit);
        }
        if let Ok(file) = File::open(folder.join(JOURNAL)) {
            // The last line may be cut off; it and all after it count as never written.
            for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
                let Ok(line) = serde_json::from_slice(&line) else { break };
                store.replay(&line);
            }
        }
        let file = append(folder)?;
        let mut journal = Self { folder: folder.to_owned(), file, size: 0 };
        journal.compact(store)?;
        Ok(journal)
    }

    /// Writes the changes after a revision.
    ///
    /// # Errors
    /// If the disk does not take them.
    pub fn record(&mut self, store: &Store, after: u64) -> anyhow::Result<()> {
        let Ok(changes) = store.changes(after) else { return self.compact(store) };
        let mut lines = Vec::new();
        for change in changes {
            serde_json::to_writer(&mut lines, &snapshot::line(change))?;
            lines.push(b'\n');
        }
        self.file.write_all(&lines)?;
        self.size += lines.len() as u64;
        if self.size > COMPACT_AT { self.compact(store) } else { Ok(()) }
    }

    /// Makes one snapshot of all.
    ///
    /// # Errors
    /// If the disk does not take it; the old files are then still whole.
    pub fn compact(&mut self, store: &Store) -> anyhow::Result<()> {
        let temporary = self.folder.join(format!("{SNAPSHOT}.new"));
        let mut file = BufWriter::new(private(&temporary)?);
        serde_json::to_writer(&mut file, &store.snapshot())?;
        file.into_inner().map_err(|e| e.into_error())?.sync_all()?;
        fs::rename(&temporary, self.folder.join(SNAPSHOT))?;
        // Lines that the snapshot holds already would be skipped: a kill here loses nothing.
        self.file = append(&self.folder)?;
        self.file.set_len(0)?;
        self.size = 0;
        Ok(())
    }
}

const SNAPSHOT: &str = "objects.json";
const JOURNAL: &str = "journal.jsonl";

fn append(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join(JOURNAL);
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    restrict(&mut options);
    options.open(&path).with_context(|| format!("opening {}", path.display()))
}

fn private(path: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(true);
    restrict(&mut options);
    options.open(path).with_context(|| format!("opening {}", path.display()))
}

/// The files hold Secrets.
fn restrict(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600);
}
