//! A container's log file: from where a reader wants it to its end, or as it grows.
//!
//! Shared by those who serve logs. Leaves finding the file, and saying whether more can come, to
//! them. Never writes.

use std::io::SeekFrom;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::sync::CancellationToken;

/// How often a followed file is looked at: soon enough for eyes.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Bytes of a piece of the reply.
const PIECE: usize = 64 * 1024;

/// How far back the last lines are looked for: the end of a very long file is enough.
const TAIL_WINDOW: u64 = 16 * 1024 * 1024;

/// Which part of a log is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Part {
    /// Only so many lines at the end.
    pub tail: Option<u64>,
    /// No more than so many bytes.
    pub limit: Option<u64>,
}

/// A log that is followed.
pub struct Follow {
    /// Says whether more can come; asked at the end of the file.
    pub lives: Box<dyn Fn() -> bool + Send>,
    /// Ends the following at once.
    pub stop: CancellationToken,
}

/// Opens the file and gives the part of it in pieces.
///
/// # Errors
/// The file system's refusal; later ones come as pieces.
pub async fn read(
    path: &Path,
    part: Part,
    follow: Option<Follow>,
) -> std::io::Result<impl Stream<Item = std::io::Result<Bytes>> + use<>> {
    let start = start(path, part.tail).await?;
    let mut file = File::open(path).await?;
    file.seek(SeekFrom::Start(start)).await?;
    let reader = Reader { file, follow, left: part.limit.unwrap_or(u64::MAX) };
    Ok(stream::unfold(reader, |mut reader| async move {
        reader.next().await.map(|piece| (piece, reader))
    }))
}

/// Where the last lines begin.
async fn start(path: &Path, tail: Option<u64>) -> std::io::Result<u64> {
    let Some(tail) = tail else { return Ok(0) };
    let mut file = File::open(path).await?;
    let size = file.metadata().await?.len();
    let from = size.saturating_sub(TAIL_WINDOW);
    file.seek(SeekFrom::Start(from)).await?;
    let mut end = Vec::new();
    file.take(TAIL_WINDOW).read_to_end(&mut end).await?;
    let wanted = usize::try_from(tail).unwrap_or(usize::MAX);
    let text = end.strip_suffix(b"\n").unwrap_or(&end);
    if wanted == 0 {
        return Ok(size);
    }
    let breaks: Vec<usize> =
        text.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at).collect();
    if breaks.len() < wanted {
        return Ok(from);
    }
    Ok(from + breaks[breaks.len() - wanted] as u64 + 1)
}

struct Reader {
    file: File,
    follow: Option<Follow>,
    left: u64,
}

impl Reader {
    async fn next(&mut self) -> Option<std::io::Result<Bytes>> {
        loop {
            let size = PIECE.min(usize::try_from(self.left).unwrap_or(PIECE));
            let mut piece = vec![0; size];
            match self.file.read(&mut piece).await {
                Ok(0) => {
                    let follow = self.follow.as_ref().filter(|_| size > 0)?;
                    if !(follow.lives)() {
                        return None;
                    }
                    tokio::select! {
                        () = follow.stop.cancelled() => return None,
                        () = tokio::time::sleep(LOOK_EVERY) => {}
                    }
                }
                Ok(read) => {
                    piece.truncate(read);
                    self.left -= read as u64;
                    return Some(Ok(Bytes::from(piece)));
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt as _;

    async fn check(tail: Option<u64>, limit: Option<u64>, expected: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "first\nsecond\nthird\n").unwrap();
        let pieces = read(file.path(), Part { tail, limit }, None).await.unwrap();
        let pieces: Vec<Bytes> = pieces.try_collect().await.unwrap();
        assert_eq!(String::from_utf8(pieces.concat()).unwrap(), expected, "{tail:?} {limit:?}");
    }

    #[tokio::test]
    async fn a_part_is_counted_in_lines_and_bytes() {
        check(None, None, "first\nsecond\nthird\n").await;
        check(Some(0), None, "").await;
        check(Some(2), None, "second\nthird\n").await;
        check(Some(9), None, "first\nsecond\nthird\n").await;
        check(None, Some(7), "first\ns").await;
        check(Some(1), Some(2), "th").await;
    }
}
