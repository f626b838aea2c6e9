//! `pgconf` against real servers: the catalogue, every parameter's values, the grammar of the
//! file.
//!
//! The servers are right and we are wrong, but for the points that the halves list. Runs on every
//! major that `postgres::bin_dirs` finds. The cases come from a seed that is printed; the time is
//! shared out between the majors, and how many cases ran is printed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod catalogue;
mod files;
mod random;
mod values;

use std::time::Duration;

/// For all majors together. Idle cores run every case of one major in about two minutes; this is
/// what a test run can afford, and each run takes other cases.
const SECONDS: u64 = 45;

/// Seconds a major, and the seed, from the environment.
const SECONDS_KEY: &str = "PGITOPS_ORACLE_SECONDS";
const SEED_KEY: &str = "PGITOPS_SEED";

/// The seed: from the environment to replay, or new. Printed, with the command that replays it.
fn seed(test: &str) -> u64 {
    let given = std::env::var(SEED_KEY).ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64 % 1_000_000)
    });
    println!("replay: {SEED_KEY}={seed} cargo test --test it {test} -- --nocapture");
    seed
}

fn budget(majors: usize) -> Duration {
    let given = std::env::var(SECONDS_KEY).ok().and_then(|seconds| seconds.parse().ok());
    let share = (SECONDS as f64 / majors as f64).max(1.0);
    given.map_or(Duration::from_secs_f64(share), Duration::from_secs)
}
