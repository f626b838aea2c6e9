//! Whether the source as a whole may be followed.
//!
//! A rewritten history and a source that shrank are the two ways in which a slip of one hand could
//! undo a fleet: both stop everything until a person names the commit that is meant. Leaves single
//! databases to the gates.

use crate::api::names::{CommitId, DatabaseRef};
use crate::sync::desired::Desired;
use crate::sync::live::{Live, Observed};
use crate::sync::source::Source;

/// Why nothing at all may be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stalled {
    /// The head does not descend from the accepted commit.
    HistoryRewritten {
        /// The accepted commit.
        accepted: CommitId,
        /// The head.
        head: CommitId,
    },
    /// Documents of many databases vanished at once.
    SourceShrank {
        /// The databases.
        gone: Vec<DatabaseRef>,
        /// How many databases are claimed.
        of: usize,
        /// The head.
        head: CommitId,
    },
}

/// More than this share of the claimed databases losing their document at once is a slip.
const TENTH: usize = 10;

/// Looks at the source as a whole.
pub fn of(source: &Source, desired: &Desired, live: &Observed) -> Option<Stalled> {
    if source.is_acknowledged() {
        return None;
    }
    if let Some(accepted) = &source.rewritten {
        let (accepted, head) = (accepted.clone(), source.head.clone());
        return Some(Stalled::HistoryRewritten { accepted, head });
    }
    let claimed: Vec<&DatabaseRef> = live
        .iter()
        .filter(|(_, live)| is_claimed(live, source))
        .map(|(database, _)| database)
        .collect();
    let gone: Vec<DatabaseRef> = claimed
        .iter()
        .filter(|database| !desired.targets.contains_key(database))
        .map(|database| (*database).clone())
        .collect();
    // What stands in a file that cannot be read has not vanished: it counts as refused.
    let explained = !desired.unreadable.is_empty() || !desired.complete;
    let nothing_left = desired.targets.is_empty() && !gone.is_empty();
    let many = gone.len() > 1 && gone.len() * TENTH > claimed.len();
    if !explained && (nothing_left || many) {
        let head = source.head.clone();
        return Some(Stalled::SourceShrank { gone, of: claimed.len(), head });
    }
    None
}

fn is_claimed(live: &Live, source: &Source) -> bool {
    match live {
        Live::Absent | Live::Unknown(_) => false,
        Live::Present(present) => {
            present.claim.as_ref().is_some_and(|claim| claim.repository == source.uid)
        }
    }
}

impl Stalled {
    /// The word for the condition and for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::HistoryRewritten { .. } => "HistoryRewritten",
            Self::SourceShrank { .. } => "SourceShrank",
        }
    }

    /// What happened, and the way out.
    pub fn text(&self, source: &Source) -> String {
        let (what, head) = match self {
            Self::HistoryRewritten { accepted, head } => {
                let what = format!("{} does not descend from {}", head.short(), accepted.short());
                (what, head)
            }
            Self::SourceShrank { gone, of, head } => {
                let names: Vec<String> = gone.iter().take(3).map(ToString::to_string).collect();
                let more = if gone.len() > 3 { ", ..." } else { "" };
                let count = format!("{} of {of} claimed databases", gone.len());
                let names = names.join(", ");
                (format!("{} names {count} no more ({names}{more})", head.short()), head)
            }
        };
        let repository = &source.repository;
        format!(
            "{what}; nothing is sent. If that is meant: kubectl annotate pgrepo -n {} {} \
             pgitops.dev/acknowledge={head} --overwrite",
            repository.namespace, repository.name
        )
    }
}
