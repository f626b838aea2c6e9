//! Whether a look may end early: everything it would be made from is as it was when the last whole
//! look found nothing to do. Pure.
//!
//! What is not told by a watch (servers, the annotation of another namespace) is looked at again
//! when `until` has come, so nothing is overlooked for longer than [`LONGEST`]. Remembering nothing
//! only costs a whole look.

use jiff::{SignedDuration, Timestamp};

use super::live::{Live, Observed};
use super::plan::Plan;
use crate::api::names::CommitId;

/// Longest time that a whole look stands for: as long as a look at a server counts.
const LONGEST: SignedDuration = SignedDuration::from_secs(60);

/// Everything whose changes are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// `resourceVersion` of the `ConfigRepository`.
    pub repository: Option<String>,
    /// The repository's head.
    pub head: CommitId,
    /// How often the watches have told of a repository, a database, a request, a Secret.
    pub told: [u64; 4],
}

/// A look that found nothing to do.
#[derive(Clone, Debug)]
pub struct Settled {
    inputs: Inputs,
    until: Timestamp,
}

impl Settled {
    /// What a look has settled, if it has: it wrote nothing, waits for nothing, and everything was
    /// known. `servers`: when one of the servers is to be looked at again.
    #[must_use]
    pub fn after(
        inputs: Inputs,
        plan: &Plan,
        live: &Observed,
        servers: Option<Timestamp>,
        now: Timestamp,
    ) -> Option<Self> {
        let unknown = live.values().any(|live| matches!(live, Live::Unknown(_)));
        if unknown || !plan.is_empty() || !plan.running.is_empty() {
            return None;
        }
        let longest = now.checked_add(LONGEST).ok()?;
        let until = [Some(longest), servers, plan.wake].into_iter().flatten().min()?;
        Some(Self { inputs, until })
    }

    /// Whether a look with these inputs would find the same.
    #[must_use]
    pub fn stands(&self, inputs: &Inputs, now: Timestamp) -> bool {
        self.inputs == *inputs && now < self.until
    }

    /// When it does not stand any more, whatever the inputs.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs() -> Inputs {
        let head = CommitId::parse(&"a".repeat(40)).unwrap();
        Inputs { repository: Some("7".to_owned()), head, told: [1, 2, 3, 4] }
    }

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_look_stands_until_something_is_told_or_has_to_be_asked() {
        let check = |wake: Option<i64>, servers: Option<i64>, until: i64| {
            let plan = Plan { wake: wake.map(second), ..Plan::default() };
            let live = Observed::default();
            let settled =
                Settled::after(inputs(), &plan, &live, servers.map(second), second(100)).unwrap();
            assert!(settled.stands(&inputs(), second(until - 1)), "{wake:?} {servers:?}");
            assert!(!settled.stands(&inputs(), second(until)), "{wake:?} {servers:?}");
            let told = Inputs { told: [1, 2, 3, 5], ..inputs() };
            assert!(!settled.stands(&told, second(100)));
            let edited = Inputs { repository: Some("8".to_owned()), ..inputs() };
            assert!(!settled.stands(&edited, second(100)));
        };
        check(None, None, 160);
        check(Some(130), None, 130);
        check(Some(130), Some(110), 110);
    }

    #[test]
    fn a_look_that_left_something_open_settles_nothing() {
        let settled = |plan: &Plan, live: &Observed| {
            Settled::after(inputs(), plan, live, None, second(100)).is_some()
        };
        let database =
            crate::api::names::DatabaseRef { namespace: "demo".into(), name: "pg".into() };
        assert!(settled(&Plan::default(), &Observed::default()));
        let unknown = [(database.clone(), Live::Unknown("no answer".to_owned()))].into();
        assert!(!settled(&Plan::default(), &unknown));
        let request = crate::api::names::RequestName("r".to_owned());
        let running = Plan { running: [(database, request)].into(), ..Plan::default() };
        assert!(!settled(&running, &Observed::default()));
    }
}
