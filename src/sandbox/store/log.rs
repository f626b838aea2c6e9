//! The watch log: the last changes, in order, so that a watch can begin in the past.
//!
//! Each change has its own revision and revisions have no gaps, so a watch is a cursor. What is
//! older than the log is answered with 410 and the client lists again.

use super::{Key, refusal::Refusal};
use serde_json::Value;
use std::{collections::VecDeque, sync::Arc};

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It is new.
    Added,
    /// It was there before.
    Modified,
    /// It is gone; the change carries its last state.
    Deleted,
}

impl Verb {
    /// The word in a watch event.
    pub fn word(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change.
#[derive(Debug, Clone)]
pub struct Change {
    /// The revision it made.
    pub revision: u64,
    /// What happened.
    pub verb: Verb,
    /// To which object.
    pub key: Key,
    /// The object after the change, or its last state.
    pub object: Arc<Value>,
    /// The object before the change.
    pub previous: Option<Arc<Value>>,
}

/// The last changes.
#[derive(Debug)]
pub struct Log {
    changes: VecDeque<Change>,
    limit: usize,
    /// The revision before the first change that is kept.
    floor: u64,
}

impl Log {
    /// An empty log after a revision; it keeps the last `limit` changes.
    pub fn after(revision: u64, limit: usize) -> Self {
        Self { changes: VecDeque::new(), limit, floor: revision }
    }

    /// Adds the next change.
    pub fn push(&mut self, change: Change) {
        self.changes.push_back(change);
        while self.changes.len() > self.limit {
            if let Some(gone) = self.changes.pop_front() {
                self.floor = gone.revision;
            }
        }
    }

    /// All changes after a revision.
    ///
    /// # Errors
    /// 410 if some of them are no longer kept.
    pub fn after_revision(
        &self,
        revision: u64,
    ) -> Result<impl DoubleEndedIterator<Item = &Change>, Refusal> {
        if revision < self.floor {
            let why = format!("too old resource version: {revision} ({})", self.floor);
            return Err(Refusal::expired(why));
        }
        let skip = usize::try_from(revision - self.floor).unwrap_or(usize::MAX);
        Ok(self.changes.range(skip.min(self.changes.len())..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: u64) -> Change {
        let key = Key { storage: "pods".into(), namespace: "a".into(), name: "b".into() };
        Change { revision, verb: Verb::Added, key, object: Arc::default(), previous: None }
    }

    #[test]
    fn a_cursor_reads_on_and_an_old_one_is_refused() {
        let mut log = Log::after(10, 3);
        (11..=15).for_each(|r| log.push(change(r)));
        let read = |after| -> Result<Vec<u64>, u16> {
            let changes = log.after_revision(after).map_err(|r| r.code)?;
            Ok(changes.map(|c| c.revision).collect())
        };
        assert_eq!(read(12), Ok(vec![13, 14, 15]));
        assert_eq!(read(15), Ok(vec![]));
        assert_eq!(read(99), Ok(vec![]));
        assert_eq!(read(11), Err(410));
    }
}
