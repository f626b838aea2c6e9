//! Log files of containers.
//!
//! What a container wrote, line by line and without anything added. Capped; the file before is
//! kept as `.previous`: that of the run before, or of this one when it wrote too much. Leaves
//! serving them to the API server. Never looks at what is written.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Bytes after which a log is moved to `.previous`: two files of a chatty container stay small
/// beside its data.
const SIZE_LIMIT: u64 = 10 * 1024 * 1024;

/// A longer line is cut into several, as container runtimes do.
const LINE_LIMIT: usize = 16 * 1024;

/// The file of a container's log below the folder of logs.
pub fn path(logs: &Path, namespace: &str, pod: &str, container: &str) -> PathBuf {
    logs.join("pods").join(format!("{namespace}_{pod}")).join(format!("{container}.log"))
}

/// The file before it.
pub fn previous(log: &Path) -> PathBuf {
    log.with_extension("log.previous")
}

/// An open log.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Log {
    /// Begins a new log at `path`; the one of the run before becomes `.previous`.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn begin(path: PathBuf) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("creating {folder:?}"))?;
        }
        let file = Self::rotate(&path)?;
        Ok(Self { path, file, size: 0 })
    }

    fn rotate(path: &Path) -> Result<File> {
        if path.exists() {
            std::fs::rename(path, previous(path)).with_context(|| format!("moving {path:?}"))?;
        }
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("creating {path:?}"))
    }

    fn line(&mut self, line: &[u8]) -> Result<()> {
        let mut text = line.to_vec();
        text.push(b'\n');
        if self.size + text.len() as u64 > SIZE_LIMIT {
            self.file = Self::rotate(&self.path)?;
            self.size = 0;
        }
        self.size += text.len() as u64;
        self.file.write_all(&text).with_context(|| format!("writing {:?}", self.path))
    }

    /// Writes everything that comes out of `source`, until it ends. What cannot be written is
    /// read all the same: a full disk must not stop the container.
    pub async fn pump(mut self, source: impl AsyncRead + Unpin) {
        let mut source = source;
        if let Err(error) = self.copy(&mut source).await {
            tracing::warn!("a container's output is lost from here on: {error:#}");
            let _ = tokio::io::copy(&mut source, &mut tokio::io::sink()).await;
        }
    }

    async fn copy(&mut self, source: &mut (impl AsyncRead + Unpin)) -> Result<()> {
        let mut pending = Vec::with_capacity(LINE_LIMIT);
        let mut chunk = vec![0; LINE_LIMIT];
        loop {
            let count = source.read(&mut chunk).await.context("reading a container's output")?;
            let Some(fresh) = chunk.get(..count).filter(|fresh| !fresh.is_empty()) else { break };
            pending.extend_from_slice(fresh);
            while let Some((line, rest)) = cut(&pending) {
                self.line(line)?;
                pending = rest.to_vec();
            }
        }
        if pending.is_empty() { Ok(()) } else { self.line(&pending) }
    }
}

/// The first whole (or too long) line and what follows it.
fn cut(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    match bytes.iter().position(|b| *b == b'\n') {
        Some(at) if at <= LINE_LIMIT => Some((bytes.get(..at)?, bytes.get(at + 1..)?)),
        Some(_) => bytes.split_at_checked(LINE_LIMIT),
        None if bytes.len() > LINE_LIMIT => bytes.split_at_checked(LINE_LIMIT),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(written: &[u8], lines: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let at = path(folder.path(), "demo", "a", "c");
        Log::begin(at.clone()).unwrap().pump(written).await;
        let text = std::fs::read_to_string(&at).unwrap();
        assert_eq!(Vec::from_iter(text.lines()), lines);
    }

    #[tokio::test]
    async fn lines_are_kept_apart_and_bounded() {
        check(b"", &[]).await;
        check(b"a\nb\n", &["a", "b"]).await;
        check(b"a\n\nb", &["a", "", "b"]).await;
        let long = vec![b'x'; LINE_LIMIT * 2 + 1];
        let piece = "x".repeat(LINE_LIMIT);
        check(&long, &[&piece, &piece, "x"]).await;
    }

    #[tokio::test]
    async fn the_log_before_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let at = path(folder.path(), "demo", "a", "c");
        Log::begin(at.clone()).unwrap().pump(&b"first\n"[..]).await;
        Log::begin(at.clone()).unwrap().pump(&b"second\n"[..]).await;
        assert!(std::fs::read_to_string(previous(&at)).unwrap().ends_with("first\n"));
        assert!(std::fs::read_to_string(&at).unwrap().ends_with("second\n"));
        let mut log = Log::begin(at.clone()).unwrap();
        log.size = SIZE_LIMIT;
        log.line(b"third").unwrap();
        assert_eq!(std::fs::read_to_string(&at).unwrap().lines().count(), 1);
    }
}
