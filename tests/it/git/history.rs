//! Ancestry as the history guard needs it, with `git` as the oracle.

use pgitops::api::names::CommitId;
use pgitops::git::Relation;

use super::{World, git};

/// The history from `accepted` to the head, which `git` sees the same way.
async fn check(world: &World, accepted: &CommitId, expected: Relation) -> Vec<String> {
    let source = world.source();
    let head = source.head("main").await.unwrap();
    let history = source.history(Some(accepted), &head).await.unwrap();
    assert_eq!(history.relation, expected);
    let ours: Vec<String> = history.commits.iter().map(|c| c.id.to_string()).collect();
    if expected == Relation::Descends {
        let range = format!("{accepted}..main");
        let theirs = world.git(&["log", "--first-parent", "--reverse", "--format=%H", &range]);
        assert_eq!(ours, theirs.lines().collect::<Vec<_>>());
    }
    history.commits.into_iter().map(|c| c.subject).collect()
}

#[tokio::test]
async fn a_straight_history_is_listed_oldest_first() {
    let world = World::new();
    let first = world.tip();
    assert!(check(&world, &first, Relation::Same).await.is_empty());
    world.commit("second\n\nbody", &[]);
    world.commit("third", &[]);
    assert_eq!(check(&world, &first, Relation::Descends).await, ["second", "third"]);
    let source = world.source();
    let all = source.history(None, &world.tip()).await.unwrap();
    assert_eq!(all.commits.len(), 3);
    let last = &all.commits[2];
    assert_eq!((last.author.as_str(), last.parents.len()), ("Ann", 1));
    let seconds: i64 = world.git(&["log", "-1", "--format=%ct", "main"]).trim().parse().unwrap();
    assert_eq!(last.time.as_second(), seconds);
}

#[tokio::test]
async fn merges_are_followed_along_first_parents() {
    let world = World::new();
    let base = world.tip();
    git(&world.clone, &["checkout", "-q", "-b", "feature"]);
    git(&world.clone, &["commit", "-q", "--allow-empty", "-m", "feature 1"]);
    let feature = world.tip();
    git(&world.clone, &["checkout", "-q", "main"]);
    world.commit("main 1", &[]);
    git(&world.clone, &["merge", "-q", "--no-ff", "-m", "merge", "feature"]);
    let merge = world.commit("after", &[]);
    assert_eq!(check(&world, &base, Relation::Descends).await, ["main 1", "merge", "after"]);
    // Accepted on the side branch: the main line's commits are new to us.
    assert_eq!(check(&world, &feature, Relation::Descends).await, ["main 1", "merge", "after"]);
    assert!(check(&world, &merge, Relation::Same).await.is_empty());

    // main is merged into the branch, which then becomes main: the old main is a second parent.
    git(&world.clone, &["checkout", "-q", "feature"]);
    git(&world.clone, &["commit", "-q", "--allow-empty", "-m", "feature 2"]);
    git(&world.clone, &["merge", "-q", "--no-ff", "-m", "back", "main"]);
    git(&world.clone, &["push", "-q", "origin", "feature:main"]);
    assert_eq!(check(&world, &merge, Relation::Descends).await, ["feature 2", "back"]);
}

#[tokio::test]
async fn a_rewritten_history_is_noticed_also_by_a_fresh_mirror() {
    let world = World::new();
    let first = world.tip();
    let second = world.commit("second", &[]);
    let source = world.source();
    source.head("main").await.unwrap();
    git(&world.clone, &["commit", "-q", "--amend", "--allow-empty", "-m", "rewritten"]);
    git(&world.clone, &["push", "-q", "--force", "origin", "HEAD:main"]);
    check(&world, &second, Relation::Rewritten).await;
    assert_eq!(check(&world, &first, Relation::Descends).await, ["rewritten"]);
    // An older commit again is not a continuation either.
    git(&world.clone, &["push", "-q", "--force", "origin", &format!("{first}:main")]);
    check(&world, &second, Relation::Rewritten).await;
    // A cache that never saw the accepted commit.
    let fresh = world.source_with_cache("fresh");
    let head = fresh.head("main").await.unwrap();
    let history = fresh.history(Some(&second), &head).await.unwrap();
    assert_eq!(history.relation, Relation::Rewritten);
    let forged = CommitId::parse(&"0123456789".repeat(4)).unwrap();
    let history = fresh.history(Some(&forged), &head).await.unwrap();
    assert_eq!(history.relation, Relation::Rewritten);
}

#[tokio::test]
async fn odd_commits_are_shown_not_trusted() {
    let world = World::new();
    let tree = world.git(&["rev-parse", "main^{tree}"]);
    let commit = format!(
        "tree {}\nauthor \x1b[31mEve <> 1 +0000\ncommitter x <> 99999999999999 +0000\n\n\x07bell\u{202e}\n",
        tree.trim()
    );
    let arguments = ["hash-object", "-w", "-t", "commit", "--literally", "--stdin"];
    let odd = super::git_with_input(&world.hub, &arguments, commit.as_bytes());
    world.git(&["update-ref", "refs/heads/odd", odd.trim()]);
    let source = world.source();
    let head = source.head("odd").await.unwrap();
    let history = source.history(None, &head).await.unwrap();
    let commit = &history.commits[0];
    assert!(!commit.subject.contains('\x07') && !commit.author.contains('\x1b'), "{commit:?}");
}

#[tokio::test]
async fn a_very_long_range_is_cut() {
    let world = World::new();
    let mut stream = String::new();
    for n in 0..1_100 {
        let from = if n == 0 { "from refs/heads/main^0\n" } else { "" };
        stream.push_str(&format!(
            "commit refs/heads/main\ncommitter A <a@b> {n} +0000\ndata 1\nx\n{from}"
        ));
    }
    super::git_with_input(&world.hub, &["fast-import", "--quiet"], stream.as_bytes());
    let source = world.source();
    let head = source.head("main").await.unwrap();
    let history = source.history(Some(&world.tip()), &head).await.unwrap();
    assert!(history.truncated);
    assert_eq!(history.commits.len(), 1_000);
    assert_eq!(history.commits.last().unwrap().id, head);
}
