//! Thousands of small worlds, each from one seed, against the decisions of `ops`.
//!
//! A world holds the objects and Secrets of one database and a model of its servers: files, what
//! runs, write-ahead log, replay, restartpoints. `rollout::next` decides, the world carries out;
//! between any two steps the controller may be killed, an answer lost, a write refused, a node
//! slow, unreachable or crashed, a role moved. After every step the invariants are checked.
//!
//! `PGITOPS_SEED=17 cargo test --test it simulate` plays one world again and tells its story.
//! `PGITOPS_WORLDS=100000` plays more of them.

mod model;
mod random;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use random::Random;
use world::{Faults, World};

/// Worlds played when nobody says how many: some seconds of a debug build.
const WORLDS: u64 = 500;

#[test]
fn every_world_comes_to_rest_with_its_invariants_kept() {
    if let Some(seed) = number("PGITOPS_SEED") {
        let mut world = World::new(Random::new(seed), true);
        return world.play();
    }
    let worlds = number("PGITOPS_WORLDS").unwrap_or(WORLDS);
    let (mut good, mut bad, mut skipped) = (0, 0, 0);
    for seed in 0..worlds {
        let mut world = World::new(Random::new(seed), false);
        let played = catch_unwind(AssertUnwindSafe(|| world.play()));
        assert!(
            played.is_ok(),
            "world {seed} broke; replay: PGITOPS_SEED={seed} cargo test --test it simulate"
        );
        let (g, b, s) = world.outcomes();
        (good, bad, skipped) = (good + g, bad + b, skipped + s);
    }
    println!("{worlds} worlds: {good} Successful, {bad} Failed, {skipped} Skipped");
    // A simulation in which nothing succeeds, or nothing fails, proves nothing.
    assert!(good > worlds / 4 && bad > worlds / 50, "{good} {bad}");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// The words of the steps of an undisturbed world, from Accepted to the end, waits left out.
fn story(before: &str, request: &str) -> String {
    let mut world = World::quiet(3, before, Faults::none());
    world.ask(request);
    world.play();
    world.story()
}

#[test]
fn a_reload_restarts_nobody() {
    let story = story("work_mem = '4MB'", "{applyConfig: {user.conf: work_mem=8MB}}");
    assert_eq!(
        story,
        "Guarded Accepted DryRun Paused Kept SpecWritten SecretWritten Loaded(db-0,db-1,db-2) \
         Prove Proven SecretWritten Resumed Concluded(Successful) Released"
    );
}

#[test]
fn an_increase_begins_with_the_standbys() {
    let story = story("max_connections = '100'", "{applyConfig: {user.conf: max_connections=200}}");
    assert_eq!(
        story,
        "Guarded Accepted DryRun Paused Kept SpecWritten SecretWritten Loaded(db-0,db-1,db-2) \
         Restart(db-1) Restarted Restart(db-2) Restarted Restart(db-0) Restarted \
         Prove Proven SecretWritten Resumed Concluded(Successful) Released"
    );
}

#[test]
fn a_decrease_begins_with_the_primary_and_passes_restartpoints() {
    let story = story("max_connections = '200'", "{applyConfig: {user.conf: max_connections=100}}");
    assert_eq!(
        story,
        "Guarded Accepted DryRun Paused Kept SpecWritten SecretWritten Loaded(db-0,db-1,db-2) \
         Restart(db-0) Restarted Checkpoint(db-0) Restartpoint(db-1) Restart(db-1) Restarted \
         Restartpoint(db-2) Restart(db-2) Restarted \
         Prove Proven SecretWritten Resumed Concluded(Successful) Released"
    );
}

#[test]
fn a_mixed_change_restarts_the_standbys_twice() {
    let story = story(
        "max_connections = '100'\nmax_worker_processes = '12'",
        "{applyConfig: {user.conf: \"max_connections=200\\nmax_worker_processes=8\"}}",
    );
    assert_eq!(
        story,
        "Guarded Accepted DryRun Paused Kept SpecWritten SecretWritten Loaded(db-0,db-1,db-2) \
         Restart(db-1) Restarted Restart(db-2) Restarted Restart(db-0) Restarted \
         Checkpoint(db-0) Restartpoint(db-1) Restart(db-1) Restarted \
         Restartpoint(db-2) Restart(db-2) Restarted \
         Prove Proven SecretWritten Resumed Concluded(Successful) Released"
    );
}

#[test]
fn a_removal_is_a_change_to_the_built_in_value() {
    let story = story("max_connections = '200'", "{removeCustomConfig: true}");
    assert!(
        story.contains("Restart(db-0) Restarted Checkpoint(db-0) Restartpoint(db-1)"),
        "{story}"
    );
    assert!(story.ends_with("Concluded(Successful) Released"), "{story}");
}

#[test]
fn without_a_restart_the_value_stays_off_the_disks() {
    let mut world = World::quiet(3, "max_connections = '100'", Faults::none());
    world.ask("{restart: 'false', applyConfig: {user.conf: max_connections=200}}");
    world.play();
    assert!(!world.story().contains("Restart("), "{}", world.story());
    assert_eq!(world.report().pending_restart, ["max_connections"]);
    assert!(world.files().iter().all(|file| file.contains("max_connections = '100'")));
    // The next restart brings it into effect, in the order that the five need.
    world.ask_restart();
    world.play();
    assert_eq!(world.running("db-0", "max_connections"), "200");
    assert!(world.story().contains("Restart(db-1) Restarted Restart(db-2)"), "{}", world.story());
}

#[test]
fn a_refusal_changes_nothing() {
    let mut world = World::quiet(3, "work_mem = '4MB'", Faults { refuse: true, ..Faults::none() });
    world.ask("{applyConfig: {user.conf: work_mem=8MB}}");
    world.play();
    assert_eq!(world.story(), "Guarded Accepted DryRun Concluded(Failed) Released");
    assert_eq!(world.running("db-0", "work_mem"), "4096");
}

#[test]
fn a_failed_start_goes_back_in_the_order_of_a_decrease() {
    let faults = Faults { starts_badly: Some("db-0"), ..Faults::none() };
    let mut world = World::quiet(3, "max_connections = '100'", faults);
    world.ask("{applyConfig: {user.conf: max_connections=200}}");
    world.play();
    let story = world.story();
    assert!(
        story.contains(
            "Restart(db-0) Restarted RollBack SpecWritten SecretWritten Checkpoint(db-0) Restartpoint(db-1) Restart(db-1) Restarted Restartpoint(db-2) \
             Restart(db-2) Restarted Prove"
        ),
        "{story}"
    );
    assert!(story.ends_with("Resumed Concluded(Failed) Released"), "{story}");
    assert!(world.report().rolled_back);
    assert_eq!(world.running("db-1", "max_connections"), "100");
}

#[test]
fn a_request_that_is_deleted_is_undone() {
    let mut world = World::quiet(3, "work_mem = '4MB'", Faults::none());
    world.ask("{applyConfig: {user.conf: work_mem=8MB}}");
    world.delete_after("Loaded");
    world.play();
    assert!(world.story().contains("RollBack"), "{}", world.story());
    assert_eq!(world.running("db-2", "work_mem"), "4096");
}

#[test]
fn pending_requests_of_people_are_merged_and_those_of_the_chain_are_not() {
    let mut world = World::quiet(1, "work_mem = '4MB'", Faults::none());
    world.ask("{applyConfig: {user.conf: work_mem=8MB}}");
    world.ask("{applyConfig: {user.conf: work_mem=16MB}}");
    world.play();
    assert!(world.story().starts_with("Merged Explain Skipped Skipped Explain Guarded"));
    assert_eq!(world.running("db-0", "work_mem"), "16384");
    assert_eq!(world.outcomes(), (1, 0, 2));

    let mut world = World::quiet(1, "work_mem = '4MB'", Faults::none());
    world.ask_as_sync("{applyConfig: {user.conf: work_mem=8MB}}");
    world.ask("{applyConfig: {user.conf: work_mem=16MB}}");
    world.play();
    assert_eq!(world.outcomes(), (2, 0, 0));
    assert_eq!(world.running("db-0", "work_mem"), "16384");
}
