//! Two writers, other people, hooks, restarts and collections in any order: nothing is ever lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use pgitops::api::names::CommitId;
use pgitops::git::{Error, NoteUpdate};

use super::{World, git_with_input, instance, publishing};

const PEOPLE: &str = "refs/notes/pgitops/default";
const MACHINES: &str = "refs/notes/pgitops-data/default";
/// Steps of one run; each is a few git processes.
const STEPS: usize = 40;

/// xorshift64*: the same numbers everywhere for one seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(mixed).unwrap() % sides
    }
}

#[derive(Default)]
struct Expected {
    texts: BTreeMap<usize, Vec<String>>,
    lines: BTreeMap<usize, BTreeSet<String>>,
    foreign: BTreeMap<usize, Vec<String>>,
}

async fn run(seed: u64) {
    println!("replay with: PGITOPS_SEED={seed} cargo test --test it git::notes_random");
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let world = World::new();
    let mut stream = String::new();
    for n in 0..8 {
        stream
            .push_str(&format!("commit refs/heads/many\ncommitter A <a@b> {n} +0000\ndata 1\nx\n"));
    }
    git_with_input(&world.hub, &["fast-import", "--quiet"], stream.as_bytes());
    let commits = world.git(&["rev-list", "refs/heads/many"]);
    let commits: Vec<_> = commits.lines().map(|id| CommitId::parse(id).unwrap()).collect();
    let mut expected = Expected::default();
    for step in 0..STEPS {
        let at = dice.below(commits.len());
        match dice.below(10) {
            0..=5 => publish(&world, &mut expected, &mut dice, step, at, &commits[at]).await,
            6 => world.hook("pre-receive", "exit 1"),
            7 => drop(fs::remove_file(world.hub.join("hooks/pre-receive"))),
            8 => {
                let words = format!("foreign words {step}");
                let append = ["notes", "--ref", PEOPLE, "append", "-m", &words];
                world.git(&[&append[..], &[commits[at].as_str()]].concat());
                expected.foreign.entry(at).or_default().push(words);
            }
            _ => drop(world.git(&["gc", "-q", "--prune=now"])),
        }
    }
    drop(fs::remove_file(world.hub.join("hooks/pre-receive")));
    for cache in ["a", "b", "a"] {
        let source = world.source_with_cache(cache);
        source.publish(&instance("default"), &[], &publishing()).await.unwrap();
    }
    expected.check(&world, &commits);
}

async fn publish(
    world: &World,
    expected: &mut Expected,
    dice: &mut Dice,
    step: usize,
    at: usize,
    commit: &CommitId,
) {
    let (words, line) = (format!("VERDICT {step}"), format!("{{\"step\":{step}}}"));
    let update =
        NoteUpdate { commit: commit.clone(), text: Some(words.clone()), lines: vec![line.clone()] };
    // Always a new process.
    let source = world.source_with_cache(["a", "b"][dice.below(2)]);
    match source.publish(&instance("default"), &[update], &publishing()).await {
        Ok(_) | Err(Error::Refused { .. }) => {}
        Err(error) => panic!("{error:?}"),
    }
    expected.texts.entry(at).or_default().push(words);
    expected.lines.entry(at).or_default().insert(line);
}

impl Expected {
    fn check(&self, world: &World, commits: &[CommitId]) {
        for (at, lines) in &self.lines {
            let id = commits[*at].as_str();
            let shown = world.git(&["notes", "--ref", MACHINES, "show", id]);
            let shown: BTreeSet<String> = shown.lines().map(str::to_owned).collect();
            assert_eq!(&shown, lines);
        }
        for (at, texts) in &self.texts {
            let shown = world.git(&["notes", "--ref", PEOPLE, "show", commits[*at].as_str()]);
            let first = shown.lines().next().unwrap().to_owned();
            assert!(texts.contains(&first), "{first:?} is none of {texts:?}");
        }
        for (at, words) in &self.foreign {
            let shown = world.git(&["notes", "--ref", PEOPLE, "show", commits[*at].as_str()]);
            for words in words {
                assert!(shown.lines().any(|line| line == words), "{words:?} not in {shown}");
            }
        }
        world.assert_sound();
    }
}

#[tokio::test]
async fn nothing_is_lost_in_any_order() {
    let seeds = match std::env::var("PGITOPS_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => vec![1, 2, 3],
    };
    for seed in seeds {
        run(seed).await;
    }
}
