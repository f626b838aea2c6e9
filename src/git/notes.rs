//! Results as git notes: for people below `refs/notes/pgitops/<instance>`, for machines (one JSON
//! object a line, append-only) below `refs/notes/pgitops-data/<instance>`.
//!
//! libgit2's own writer rewrites one flat tree per note, so trees are written here in a 2/38
//! fan-out, and any fan-out is read. Notes of several commits go into one notes commit. What is
//! staged here stays in the mirror until the repository has it: a refused push loses nothing. The
//! text of a note is somebody else's business; here it is bytes with a limit.

mod batch;
mod fanout;
mod publish;
mod read;
mod text;

use std::fmt;
use std::time::Duration;

use super::Error;
use super::error::printable;
use crate::api::names::CommitId;

pub use batch::bench_note_writes;
pub(crate) use publish::{Work, publish};
pub(crate) use read::{annotated, notes_of};

/// Longest text for people on one commit: a block for each of 10 000 databases.
const MAX_TEXT: usize = 8 * 1024 * 1024;
/// Longest line for machines: a request with all its parameters.
const MAX_LINE: usize = 64 * 1024;
/// Most that stands on one commit: ten lines for machines for each of 10 000 databases. Larger
/// notes of others are not even copied.
pub(crate) const MAX_NOTE_BYTES: usize = 32 * 1024 * 1024;

/// The name of one writer of notes: 1 to 63 of `a-z`, `0-9`, `-`, as a DNS label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceName(String);

impl InstanceName {
    /// Checks a name as it is written into `spec.notes.instance`.
    ///
    /// # Errors
    /// When it is not a DNS label: it becomes part of a reference.
    pub fn parse(name: &str) -> Result<Self, Error> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let edges =
            name.bytes().next().is_some_and(plain) && name.bytes().last().is_some_and(plain);
        let inner = name.bytes().all(|b| plain(b) || b == b'-');
        if edges && inner && name.len() <= 63 {
            return Ok(Self(name.to_owned()));
        }
        Err(Error::BadInstance { name: printable(name, 80) })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The reference that `kind` of this instance is written to.
    pub(crate) fn reference(&self, kind: Kind) -> String {
        format!("{}{}", kind.folder(), self.0)
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// For whom a reference is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `refs/notes/pgitops/…`, replaced as a whole.
    People,
    /// `refs/notes/pgitops-data/…`, appended to.
    Machines,
}

impl Kind {
    /// Machines first: the record of a result must never lag behind its description.
    pub(crate) const ALL: [Self; 2] = [Self::Machines, Self::People];

    /// The folder of references of all instances.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::People => "refs/notes/pgitops/",
            Self::Machines => "refs/notes/pgitops-data/",
        }
    }
}

/// What is to stand on one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteUpdate {
    /// The annotated commit (never a tag).
    pub commit: CommitId,
    /// The whole text for people, replacing our earlier one; `None` leaves it alone.
    pub text: Option<String>,
    /// Lines for machines, each a JSON object; appended unless the very same line is there.
    pub lines: Vec<String>,
}

impl NoteUpdate {
    fn check(&self) -> Result<(), Error> {
        let bad = |reason: &str| {
            Err(Error::BadNote { commit: self.commit.to_string(), reason: reason.to_owned() })
        };
        let text = self.text.as_deref();
        if text.is_some_and(|text| text.trim().is_empty()) {
            return bad("its text is empty");
        }
        if text.is_some_and(|text| text.len() > MAX_TEXT) {
            return bad("its text is longer than 8 MiB");
        }
        if text.is_some_and(|text| text.contains('\0')) {
            return bad("its text contains a NUL character");
        }
        for line in &self.lines {
            if line.trim().is_empty() || line.contains(['\n', '\r', '\0']) || line.len() > MAX_LINE
            {
                return bad("a line for machines is empty, longer than 64 KiB or not one line");
            }
        }
        Ok(())
    }
}

/// What stands on one commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Note {
    /// The text for people, with whatever others added below.
    pub text: Option<String>,
    /// The lines for machines, oldest first.
    pub lines: Vec<String>,
}

/// The result of a publication: everything that was asked for is in the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Whether anything had to be sent.
    pub pushed: bool,
    /// Tip of the reference for people, when there is one.
    pub people: Option<CommitId>,
    /// Tip of the reference for machines, when there is one.
    pub machines: Option<CommitId>,
    /// What had happened to our references since the last publication.
    pub remote: RemoteNotes,
    /// Who else wrote to our references last (another pgitops with the same instance name looks
    /// like us; give each its own name).
    pub foreign: Option<String>,
}

/// What had happened to our references at the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RemoteNotes {
    /// Nothing.
    Unchanged,
    /// First publication to this repository, or from this cache.
    New,
    /// Others added notes, which are kept.
    Advanced,
    /// Somebody replaced the history of the notes; theirs counts and ours went on top.
    Rewritten,
    /// Somebody deleted them; only what was published now is there. Publish again what is known.
    Missing,
}

/// How often a contended push is tried, and how long to pause in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Rounds in all, at least 1.
    pub attempts: u32,
    /// Longest pause before the second round; it doubles each time.
    pub first: Duration,
    /// Longest pause at all.
    pub longest: Duration,
    /// Any number; different numbers make writers pause differently.
    pub jitter: u64,
}

impl Backoff {
    /// Eight rounds, 20 ms to 1 s: about two seconds in all, which outlasts a burst of writers.
    pub fn new(jitter: u64) -> Self {
        let (first, longest) = (Duration::from_millis(20), Duration::from_secs(1));
        Self { attempts: 8, first, longest, jitter }
    }

    /// The pause after round `round` (from 0): between a quarter and the whole of what doubling
    /// gives, so that two writers who met once do not meet again.
    pub(crate) fn pause(&self, round: u32) -> Duration {
        let doubled = self.first.saturating_mul(1u32.checked_shl(round).unwrap_or(u32::MAX));
        let mut mixed = self.jitter ^ (u64::from(round) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let share = 0.25 + 0.75 * f64::from((mixed >> 33) as u32) / f64::from(1u32 << 31);
        doubled.min(self.longest).mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_name_is_a_dns_label() {
        for good in ["default", "a", "eu-1", "0", &"a".repeat(63)] {
            assert!(InstanceName::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["", "-a", "a-", "A", "a/b", "a..b", "a.lock", "*", "ä", "a\n", &"a".repeat(64), "a b"]
        {
            assert!(InstanceName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pauses_grow_stay_bounded_and_differ() {
        let (a, b) = (Backoff::new(1), Backoff::new(2));
        for round in 0..70 {
            let pause = a.pause(round);
            assert!(pause <= a.longest && pause >= a.first / 4, "{round} {pause:?}");
        }
        assert!(a.pause(5) > a.pause(0));
        assert_ne!(a.pause(3), b.pause(3));
    }
}
