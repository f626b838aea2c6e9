//! Who of those that may be changed is changed now: waves, windows, failures, limits.
//!
//! Looks at the databases of the repository together, which the gates do not. Leaves the requests
//! themselves to `request.rs`. Never lets more change at once than the policy says.

use std::collections::BTreeMap;

use super::request::{build, changes_of, next_name};
use super::{Cause, Emission, Held, Plan, Wish, World, gates};
use crate::api::claim::Asked;
use crate::api::names::{CommitId, DatabaseRef};
use crate::api::ops_request::{PostgresOpsRequest, Restart};
use crate::sync::desired::{Document, Target};
use crate::sync::drift::may_restart;
use crate::sync::live::{Live, is_ours, is_over};
use crate::sync::window::{self, Gate};

/// Lets those go that may, and says of the others why not.
pub(super) fn admit<'a>(world: World<'a>, mut wishes: Vec<Wish<'a>>, plan: &mut Plan) {
    // Where nothing was taken last time nothing may come of it now either: others go first, or it
    // would stand in their way for ever.
    let turn = |wish: &Wish<'_>| (wish.document.wave, wish.present.not_taken);
    wishes.sort_by_key(|wish| (turn(wish), wish.database.clone()));
    let mut busy = Busy::count(world, plan);
    let failed = failures(plan);
    let unproven = unproven(world, plan);
    for wish in wishes {
        let restarts = wish.difference.restarts(wish.document, wish.present);
        let held = behind_a_wave(&wish, &unproven)
            .or_else(|| outside_of_windows(world, restarts))
            .or_else(|| after_failures(world, &wish, &failed))
            .or_else(|| busy.full(world, restarts));
        match held {
            Some(held) => plan.hold(wish.database, held),
            None => {
                busy.add(restarts);
                let emission = emission(world, &wish, restarts);
                plan.claims.remove(wish.database);
                plan.emissions.push(emission);
            }
        }
    }
}

/// Databases that are being changed by this repository now.
struct Busy {
    restarts: u32,
    reloads: u32,
}

impl Busy {
    fn count(world: World<'_>, plan: &Plan) -> Self {
        let mut busy = Self { restarts: 0, reloads: 0 };
        for (database, live) in world.live {
            let Live::Present(present) = live else { continue };
            let retired = plan.retired.get(database).map(|retired| &retired.request);
            let open = present.requests.iter().find(|request| {
                is_ours(request, &world.source.repository)
                    && !is_over(request)
                    && retired != Some(&request.request_name())
            });
            // One of ours that KubeDB merged into another changes the database as well.
            let merged = plan.running.get(database).and_then(|name| present.request(name));
            if let Some(request) = open.or(merged) {
                busy.add(open_may_restart(request, present.foreign));
            }
        }
        busy
    }

    fn add(&mut self, restarts: bool) {
        if restarts {
            self.restarts += 1;
        } else {
            self.reloads += 1;
        }
    }

    fn full(&self, world: World<'_>, restarts: bool) -> Option<Held> {
        let limits = &world.desired.policy.limits;
        let (running, max) = match restarts {
            true => (self.restarts, limits.restarts),
            false => (self.reloads, limits.reloads),
        };
        (running >= max).then_some(Held::Limit { running, max })
    }
}

/// Whether an open request of ours may restart servers; also when it does not say what it changes.
fn open_may_restart(request: &PostgresOpsRequest, foreign: bool) -> bool {
    let Some(asked) = request.spec.configuration.as_ref() else { return true };
    let changes = changes_of(request);
    let unknown = changes.is_empty() && asked.restart == Restart::Auto;
    unknown || may_restart(asked.restart, foreign, &changes)
}

/// Failed databases by the commit that failed there.
fn failures(plan: &Plan) -> BTreeMap<CommitId, Vec<DatabaseRef>> {
    let mut failures: BTreeMap<CommitId, Vec<DatabaseRef>> = BTreeMap::new();
    for (database, held) in &plan.held {
        if let Held::Failed { commit, .. } = held {
            failures.entry(commit.clone()).or_default().push(database.clone());
        }
    }
    failures
}

/// The first database of each wave whose document is not proven there.
fn unproven(world: World<'_>, plan: &Plan) -> BTreeMap<i32, DatabaseRef> {
    let mut unproven = BTreeMap::new();
    for (database, target) in &world.desired.targets {
        if let Target::Wanted(document) = target
            && !plan.applied.contains(database)
        {
            unproven.entry(document.wave).or_insert_with(|| database.clone());
        }
    }
    unproven
}

fn behind_a_wave(wish: &Wish<'_>, unproven: &BTreeMap<i32, DatabaseRef>) -> Option<Held> {
    if wish.cause == Cause::Drift {
        return None;
    }
    let (lower, waiting_for) = unproven.range(..wish.document.wave).next()?;
    Some(Held::Wave { lower: *lower, waiting_for: waiting_for.clone() })
}

fn outside_of_windows(world: World<'_>, restarts: bool) -> Option<Held> {
    match window::gate(&world.desired.policy.windows, restarts, world.now) {
        Gate::Open => None,
        Gate::Closed { window, opens } => Some(Held::Window { window, opens }),
    }
}

fn after_failures(
    world: World<'_>,
    wish: &Wish<'_>,
    failed: &BTreeMap<CommitId, Vec<DatabaseRef>>,
) -> Option<Held> {
    let failed = failed.get(&wish.commit).filter(|_| wish.cause == Cause::Commit)?;
    let most = world.desired.policy.limits.failures as usize;
    let by = failed.first().filter(|_| failed.len() >= most)?;
    Some(Held::RolloutStopped { by: by.clone() })
}

/// Everything that is written for a wish, in full.
fn emission(world: World<'_>, wish: &Wish<'_>, restarts: bool) -> Emission {
    let Wish { database, present, document, difference, chain, commit, cause, .. } = wish;
    let (request, secret) = build(world.source, wish);
    let claim = chain.before_request(document);
    let mut after = claim.clone();
    after.last_request = Some(next_name(database, present, chain));
    after.asked = Some(Asked {
        digest: digest(document),
        commit: commit.clone(),
        retry: present.retry.clone(),
        ended: None,
    });
    let (uid, expected) = (present.uid.clone(), present.claim_text.clone());
    let before = gates::write(present, Some(claim.clone())).unwrap_or(super::ClaimWrite {
        uid,
        expected,
        claim: Some(claim),
    });
    Emission {
        database: (*database).clone(),
        cause: *cause,
        restarts,
        changes: difference.changes.clone(),
        before,
        secret,
        request,
        after,
    }
}

fn digest(document: &Document) -> String {
    document.digest.clone()
}
