//! Log files by component, beside standard error.
//!
//! The sandbox runs several programs in one process; each gets a file of its own, chosen by the
//! longest target that a line's target begins with. Nothing is written until [`open`] is called.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::OnceLock;

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// A file that is larger than this at the start is moved to `.previous` first.
const SIZE_LIMIT: u64 = 20 * 1024 * 1024;

static FILES: OnceLock<Vec<(&'static str, File)>> = OnceLock::new();

/// Begins to write lines whose target begins with the first of a pair into `<second>.log` below
/// `folder`. A second call in one process changes nothing.
///
/// # Errors
/// A file that cannot be opened.
pub fn open(folder: &Path, components: &[(&'static str, &str)]) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut files = Vec::new();
    for (target, name) in components {
        let path = folder.join(format!("{name}.log"));
        if path.metadata().is_ok_and(|found| found.len() > SIZE_LIMIT) {
            std::fs::rename(&path, folder.join(format!("{name}.log.previous")))?;
        }
        files.push((*target, OpenOptions::new().create(true).append(true).open(path)?));
    }
    files.sort_by_key(|(target, _)| std::cmp::Reverse(target.len()));
    // The first one counts, as with the subscriber itself.
    drop(FILES.set(files));
    Ok(())
}

/// Whether anything is written at all; without it lines need not be formatted twice.
pub(super) fn is_open() -> bool {
    FILES.get().is_some()
}

/// Chooses the file of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct ByComponent;

impl<'a> MakeWriter<'a> for ByComponent {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(None)
    }

    fn make_writer_for(&'a self, line: &Metadata<'_>) -> Line {
        let mut files = FILES.get().into_iter().flatten();
        Line(files.find(|(target, _)| line.target().starts_with(target)).map(|(_, file)| file))
    }
}

/// The file of one line, or none.
#[derive(Debug)]
pub(super) struct Line(Option<&'static File>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.map_or(Ok(bytes.len()), |mut file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
