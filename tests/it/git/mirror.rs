//! Following a repository, and what happens when it or its mirror is not as it should be.

use std::fs;
use std::path::Path;
use std::time::Duration;

use pgitops::git::{Error, MirrorOptions, Mirrors, Retry, SourceUrl};

use super::{World, chmod, git, mirrors};

/// Every file below a folder with its size: equal when nothing was written.
fn listed(folder: &Path) -> Vec<(String, u64)> {
    let mut all = vec![];
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => {
                    all.push((entry.path().display().to_string(), entry.metadata().unwrap().len()))
                }
            }
        }
    }
    all.sort();
    all
}

#[tokio::test]
async fn a_push_is_seen_and_an_unchanged_repository_writes_nothing() {
    let world = World::empty();
    let source = world.source();
    let error = source.head("main").await.unwrap_err();
    assert!(matches!(error, Error::Empty { .. }), "{error}");
    let first = world.commit("first", &[("a.yaml", "a: 1\n")]);
    assert_eq!(source.head("main").await.unwrap(), first);
    let before = listed(&world.mirror());
    for reference in ["main", "refs/heads/main", "HEAD"] {
        assert_eq!(source.head(reference).await.unwrap(), first, "{reference}");
    }
    assert_eq!(source.head("main").await.unwrap(), first);
    let after = listed(&world.mirror());
    // HEAD is another reference of the mirror; no object was copied for it.
    assert_eq!(after.len(), before.len() + 1, "{before:?} {after:?}");
    let second = world.commit("second", &[("a.yaml", "a: 2\n")]);
    assert_eq!(source.head("main").await.unwrap(), second);
    let listing = source.listing(&["refs/heads/main", "refs/heads/none"]).await.unwrap();
    assert_eq!(listing.into_iter().collect::<Vec<_>>(), [("refs/heads/main".into(), second)]);
}

#[tokio::test]
async fn all_users_of_an_address_share_a_mirror_and_processes_share_a_cache() {
    let world = World::new();
    let tip = world.tip();
    let same = mirrors(&world.cache());
    let other = mirrors(&world.cache());
    let sources: Vec<_> = (0..8)
        .map(|n| if n % 2 == 0 { &same } else { &other })
        .map(|mirrors| mirrors.get(&world.url()).unwrap())
        .collect();
    let heads = sources.iter().map(|source| source.head("main"));
    for head in futures::future::join_all(heads).await {
        assert_eq!(head.unwrap(), tip);
    }
    let mirrors = fs::read_dir(world.cache()).unwrap().flatten();
    assert_eq!(mirrors.filter(|e| e.path().is_dir()).count(), 1);
}

#[tokio::test]
async fn only_what_is_asked_for_is_fetched() {
    let world = World::new();
    git(&world.clone, &["checkout", "-q", "-b", "other"]);
    fs::write(world.clone.join("big.yaml"), "b: 1\n").unwrap();
    git(&world.clone, &["add", "-A"]);
    git(&world.clone, &["commit", "-q", "-m", "other"]);
    git(&world.clone, &["push", "-q", "origin", "other"]);
    let (source, other) = (world.source(), world.tip());
    source.head("main").await.unwrap();
    let error = source.files(&other, ".").await.unwrap_err();
    assert!(matches!(error, Error::UnknownCommit { .. }), "{error}");
    assert_eq!(source.head("other").await.unwrap(), other);
    assert_eq!(source.files(&other, ".").await.unwrap().entries.len(), 2);
}

#[tokio::test]
async fn tags_answer_the_commit_they_stand_for() {
    let world = World::new();
    let tip = world.tip();
    git(&world.clone, &["tag", "-a", "v1", "-m", "one"]);
    git(&world.clone, &["push", "-q", "origin", "v1"]);
    assert_eq!(world.source().head("v1").await.unwrap(), tip);
    assert_eq!(world.source().head("refs/tags/v1").await.unwrap(), tip);
}

#[tokio::test]
async fn a_work_tree_can_be_followed_too() {
    let world = World::new();
    let url = SourceUrl::parse(world.clone.to_str().unwrap()).unwrap();
    let source = mirrors(&world.cache()).get(&url).unwrap();
    assert_eq!(source.head("main").await.unwrap(), world.tip());
    let file_url = SourceUrl::parse(&format!("file://{}", world.hub.display())).unwrap();
    let source = mirrors(&world.cache()).get(&file_url).unwrap();
    assert_eq!(source.head("main").await.unwrap(), world.tip());
}

#[tokio::test]
async fn each_way_to_be_unusable_has_its_own_error() {
    let world = World::new();
    let source = world.source();
    source.head("main").await.unwrap();

    let error = source.head("nope").await.unwrap_err();
    assert!(matches!(error, Error::NoSuchReference { .. }), "{error}");
    assert!(error.to_string().ends_with("has no branch or tag nope; it has main"), "{error}");
    for bad in ["", "-x", "a..b", "a b", "refs/heads/../x", "a\nb"] {
        let error = source.head(bad).await.unwrap_err();
        assert!(matches!(error, Error::BadReference { .. }), "{bad:?} {error}");
        assert_eq!(error.retry(), Retry::AfterChange);
    }

    let aside = world.folder.path().join("aside");
    fs::rename(&world.hub, &aside).unwrap();
    let error = source.head("main").await.unwrap_err();
    assert!(matches!(error, Error::Vanished { .. }), "{error}");
    assert_eq!(error.retry(), Retry::AtInterval);
    fs::create_dir(&world.hub).unwrap();
    let error = source.head("main").await.unwrap_err();
    assert!(matches!(error, Error::NotARepository { .. }), "{error}");
    fs::remove_dir(&world.hub).unwrap();
    fs::write(&world.hub, "a file").unwrap();
    let error = source.head("main").await.unwrap_err();
    assert!(matches!(error, Error::NotARepository { .. }), "{error}");
    fs::remove_file(&world.hub).unwrap();

    fs::rename(&aside, &world.hub).unwrap();
    assert_eq!(source.head("main").await.unwrap(), world.tip(), "it is back by itself");
}

#[tokio::test]
async fn repositories_that_cannot_be_read_say_why() {
    let world = World::new();
    let folder = world.folder.path();
    let shallow = format!("file://{}", world.hub.display());
    world.commit("second", &[]);
    git(folder, &["clone", "-q", "--bare", "--depth=1", &shallow, "shallow.git"]);
    git(folder, &["init", "-q", "--bare", "--object-format=sha256", "sha256.git"]);
    git(folder, &["init", "-q", "--bare", "future.git"]);
    git(&folder.join("future.git"), &["config", "core.repositoryformatversion", "1"]);
    git(&folder.join("future.git"), &["config", "extensions.refStorage", "reftable"]);
    for (name, words) in
        [("shallow.git", "--unshallow"), ("sha256.git", "sha256"), ("future.git", "refstorage")]
    {
        let url = SourceUrl::parse(folder.join(name).to_str().unwrap()).unwrap();
        let error = mirrors(&world.cache()).get(&url).unwrap().head("main").await.unwrap_err();
        assert!(matches!(error, Error::UnsupportedFormat { .. }), "{name} {error:?}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_damaged_repository_is_told_from_a_damaged_mirror() {
    let world = World::new();
    let tree = world.git(&["rev-parse", "main^{tree}"]);
    let (pair, rest) = tree.trim().split_at(2);
    fs::remove_file(world.hub.join("objects").join(pair).join(rest)).unwrap();
    let error = world.source().head("main").await.unwrap_err();
    assert!(matches!(error, Error::SourceDamaged { .. }), "{error:?}");
    assert!(error.to_string().contains("git fsck"));
}

#[tokio::test]
async fn another_broken_branch_does_no_harm() {
    let world = World::new();
    fs::write(world.hub.join("refs/heads/broken"), format!("{}\n", "1".repeat(40))).unwrap();
    fs::write(world.hub.join("refs/heads/garbage"), "not an id\n").unwrap();
    assert_eq!(world.source().head("main").await.unwrap(), world.tip());
    let error = world.source().head("broken").await.unwrap_err();
    assert!(matches!(error, Error::SourceDamaged { .. }), "{error:?}");
}

#[tokio::test]
async fn a_local_repository_needs_leave() {
    let world = World::new();
    let options = MirrorOptions { allow_local: false, timeout: Duration::from_secs(5) };
    let strict = Mirrors::open(world.cache(), options).unwrap();
    assert!(matches!(strict.get(&world.url()), Err(Error::LocalForbidden)));
    let url = SourceUrl::parse("https://example.com/config.git").unwrap();
    assert!(matches!(strict.get(&url), Err(Error::UnsupportedTransport { .. })));
}

/// Damages the mirror in one way, and everything works again without a word.
async fn check_recovery(what: &str, damage: impl Fn(&Path)) {
    let world = World::new();
    world.commit("second", &[("b.yaml", "b: 1\n")]);
    let source = world.source();
    let head = source.head("main").await.unwrap();
    damage(&world.mirror());
    // A running process notices by what it reads, a new one by opening it.
    for source in [source, world.source()] {
        assert_eq!(source.head("main").await.unwrap(), head, "{what}");
        let files = source.files(&head, ".").await.unwrap();
        assert_eq!(files.entries.len(), 2, "{what}");
        let history = source.history(None, &head).await.unwrap();
        assert_eq!(history.commits.len(), 2, "{what}");
    }
    git(&world.mirror(), &["fsck", "--strict", "--no-dangling"]);
}

/// Every loose object, overwritten by `bytes`, or removed.
fn each_object(mirror: &Path, bytes: Option<&[u8]>) {
    for (path, _) in listed(&mirror.join("objects")) {
        let path = Path::new(&path);
        chmod(path, 0o644);
        match bytes {
            Some(bytes) => fs::write(path, bytes).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
    }
}

#[tokio::test]
async fn a_damaged_mirror_is_made_anew() {
    check_recovery("objects gone", |mirror| each_object(mirror, None)).await;
    check_recovery("objects empty", |mirror| each_object(mirror, Some(b""))).await;
    check_recovery("objects garbage", |mirror| each_object(mirror, Some(b"garbage"))).await;
    check_recovery("no HEAD", |mirror| fs::remove_file(mirror.join("HEAD")).unwrap()).await;
    check_recovery("config", |mirror| fs::write(mirror.join("config"), "[[[").unwrap()).await;
    check_recovery("gone", |mirror| fs::remove_dir_all(mirror).unwrap()).await;
    check_recovery("reference", |mirror| {
        fs::write(mirror.join("refs/seen/heads/main"), "garbage").unwrap();
    })
    .await;
    check_recovery("a file", |mirror| {
        fs::remove_dir_all(mirror).unwrap();
        fs::write(mirror, "a file").unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_large_first_fetch_comes_as_a_pack_and_an_overgrown_mirror_is_folded() {
    let world = World::empty();
    let mut stream = String::new();
    for n in 0..1_200 {
        stream.push_str(&format!(
            "commit refs/heads/main\ncommitter A <a@b> {n} +0000\ndata 1\nx\n\
             M 100644 inline f{n}.yaml\ndata {}\nn: {n}\n",
            4 + n.to_string().len(),
        ));
    }
    super::git_with_input(&world.hub, &["fast-import", "--quiet"], stream.as_bytes());
    let source = world.source();
    let head = source.head("main").await.unwrap();
    assert_eq!(source.files(&head, ".").await.unwrap().entries.len(), 1_200);
    let packs = |world: &World| fs::read_dir(world.mirror().join("objects/pack")).unwrap().count();
    assert_eq!(packs(&world), 2, "one pack and its index");

    for n in 0..90 {
        let name = format!("objects/17/{n:038}");
        let path = world.mirror().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "left over").unwrap();
    }
    git(&world.clone, &["pull", "-q", "origin", "main"]);
    let head = world.commit("more", &[("more.yaml", "a: 1\n")]);
    assert_eq!(source.head("main").await.unwrap(), head);
    assert!(!world.mirror().join("objects/17").exists() || packs(&world) == 2);
    assert_eq!(source.files(&head, ".").await.unwrap().entries.len(), 1_201);
    git(&world.mirror(), &["fsck", "--strict", "--no-dangling"]);
}

#[tokio::test]
async fn a_repacked_repository_is_followed_on() {
    let world = World::new();
    let source = world.source();
    source.head("main").await.unwrap();
    world.git(&["gc", "-q", "--prune=now"]);
    world.git(&["pack-refs", "--all"]);
    let tip = world.commit("second", &[("b.yaml", "b: 1\n")]);
    world.git(&["gc", "-q", "--prune=now"]);
    assert_eq!(source.head("main").await.unwrap(), tip);
    assert_eq!(source.files(&tip, ".").await.unwrap().entries.len(), 2);
}

#[tokio::test]
async fn a_deadline_is_kept_and_a_dropped_question_harms_nobody() {
    let world = World::new();
    let source = world.source();
    let error = source.with_timeout(Duration::ZERO).head("main").await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    assert_eq!(error.retry(), Retry::Soon);
    for _ in 0..20 {
        // Polled once, then dropped, at whatever point its thread is.
        let question = source.head("main");
        let _ = tokio::time::timeout(Duration::ZERO, question).await;
    }
    assert_eq!(source.head("main").await.unwrap(), world.tip());
}
