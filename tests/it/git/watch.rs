//! Hints: a push wakes us up, our own notes do not, and a vanished repository is watched again.

use std::fs;
use std::time::Duration;

use pgitops::git::{Hint, Hints, SourceUrl};

use super::{World, git, instance, publishing, text};

/// Longer than any machine needs for a file event; only a failing test waits for it.
const LONG: Duration = Duration::from_secs(20);
/// Long enough to see that nothing comes.
const SHORT: Duration = Duration::from_millis(100);

/// Takes the hints of what went before.
async fn drain(hints: &mut Hints) {
    while hints.next(SHORT).await == Hint::Changed {}
}

#[tokio::test]
async fn a_push_is_a_hint() {
    let world = World::empty();
    let mut hints = Hints::new(&world.url());
    assert!(hints.is_watching());
    for n in 0..3 {
        drain(&mut hints).await;
        world.commit(&format!("commit {n}"), &[]);
        assert_eq!(hints.next(LONG).await, Hint::Changed, "push {n}");
    }
    drain(&mut hints).await;
    git(&world.clone, &["push", "-q", "origin", "HEAD:refs/heads/team/a/branch"]);
    assert_eq!(hints.next(LONG).await, Hint::Changed, "a new nested branch");
    drain(&mut hints).await;
    world.commit("on it", &[]);
    git(&world.clone, &["push", "-q", "origin", "HEAD:refs/heads/team/a/branch"]);
    assert_eq!(hints.next(LONG).await, Hint::Changed, "the nested branch again");
    world.git(&["pack-refs", "--all"]);
    drain(&mut hints).await;
    world.commit("after packing", &[]);
    assert_eq!(hints.next(LONG).await, Hint::Changed, "after packing");
}

#[tokio::test]
async fn our_own_notes_and_looks_are_none() {
    let world = World::new();
    let source = world.source();
    let head = source.head("main").await.unwrap();
    source.publish(&instance("default"), &[text(&head, "first")], &publishing()).await.unwrap();
    let mut hints = Hints::new(&world.url());
    drain(&mut hints).await;
    source.publish(&instance("default"), &[text(&head, "again")], &publishing()).await.unwrap();
    source.head("main").await.unwrap();
    assert_eq!(hints.next(SHORT).await, Hint::Interval);
}

#[tokio::test]
async fn a_repository_that_comes_and_goes_is_watched_again() {
    let world = World::new();
    let aside = world.folder.path().join("aside");
    let mut hints = Hints::new(&world.url());
    fs::rename(&world.hub, &aside).unwrap();
    drain(&mut hints).await;
    assert_eq!(hints.next(SHORT).await, Hint::Interval);
    assert!(!hints.is_watching());
    fs::rename(&aside, &world.hub).unwrap();
    drain(&mut hints).await;
    assert!(hints.is_watching());
    world.commit("back", &[]);
    assert_eq!(hints.next(LONG).await, Hint::Changed);

    // Replaced by another repository at the same place.
    fs::remove_dir_all(&world.hub).unwrap();
    git(world.folder.path(), &["init", "-q", "--bare", "-b", "main", "config.git"]);
    drain(&mut hints).await;
    world.commit("to the new one", &[]);
    assert_eq!(hints.next(LONG).await, Hint::Changed);
}

#[tokio::test]
async fn what_cannot_be_watched_has_its_interval() {
    let url = SourceUrl::parse("https://example.com/config.git").unwrap();
    let mut hints = Hints::new(&url);
    assert!(!hints.is_watching());
    assert_eq!(hints.next(Duration::from_millis(10)).await, Hint::Interval);
}
