//! Pushes that are not taken: each reason has its name, and no note is ever lost.

use std::fs;
use std::os::unix::fs::chown;
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid, geteuid, setfsgid, setfsuid};
use pgitops::api::names::CommitId;
use pgitops::git::{Error, Published, Refused, RemoteNotes, Source};

use super::{World, both, chmod, git, instance, publishing, text};

const PEOPLE: &str = "refs/notes/pgitops/default";
const MACHINES: &str = "refs/notes/pgitops-data/default";

async fn publish(source: &Source, commit: &CommitId, words: &str) -> Result<Published, Error> {
    let update = both(commit, words, &format!("{{\"words\":\"{words}\"}}"));
    source.publish(&instance("default"), &[update], &publishing()).await
}

async fn flush(source: &Source) -> Result<Published, Error> {
    source.publish(&instance("default"), &[], &publishing()).await
}

#[track_caller]
fn refused(done: Result<Published, Error>) -> Refused {
    match done.unwrap_err() {
        Error::Refused { refused, .. } => refused,
        other => panic!("{other:?}"),
    }
}

fn shown(world: &World, commit: &CommitId) -> String {
    world.git(&["notes", "--ref", PEOPLE, "show", commit.as_str()])
}

#[tokio::test]
async fn a_declining_hook_is_obeyed_and_quoted_and_the_note_waits() {
    let world = World::new();
    let second = world.commit("second", &[]);
    let (source, head) = (world.source(), second);
    let first = CommitId::parse(world.git(&["rev-parse", "main~1"]).trim()).unwrap();
    world.hook("pre-receive", "echo 'notes are not welcome here' >&2\necho 'ask ops'\nexit 1");
    let why = refused(publish(&source, &head, "APPLIED").await);
    let words = "notes are not welcome here ask ops".to_owned();
    assert_eq!(why, Refused::Hook { words });
    assert_eq!(world.git(&["for-each-ref", "refs/notes"]), "");
    let standing = source.notes(&instance("default"), std::slice::from_ref(&head)).await.unwrap();
    assert!(standing.is_empty(), "what waits in the mirror does not stand there yet");

    // A second result, from a process that was started anew, waits with the first.
    refused(publish(&world.source(), &first, "FAILED").await);
    refused(publish(&world.source(), &head, "APPLIED TWICE").await);
    fs::remove_file(world.hub.join("hooks/pre-receive")).unwrap();
    let done = flush(&world.source()).await.unwrap();
    assert!(done.pushed);
    assert_eq!(
        (shown(&world, &first), shown(&world, &head)),
        ("FAILED\n".into(), "APPLIED TWICE\n".into())
    );
    assert_eq!(world.git(&["rev-list", "--count", PEOPLE]).trim(), "1", "folded into one");
    let lines = world.git(&["notes", "--ref", MACHINES, "show", head.as_str()]);
    assert_eq!(lines, "{\"words\":\"APPLIED\"}\n{\"words\":\"APPLIED TWICE\"}\n");
    assert!(!flush(&source).await.unwrap().pushed);
    world.assert_sound();
}

#[tokio::test]
async fn hooks_get_what_git_gives_them() {
    let world = World::new();
    let (source, head) = (world.source(), world.tip());
    let log = world.folder.path().join("log");
    let log = log.display();
    world.hook("pre-receive", &format!("while read l; do echo pre $l >>{log}; done"));
    world.hook("update", &format!("echo update $1 $2 $3 >>{log}; test $1 != {MACHINES}"));
    world.hook("post-receive", &format!("while read l; do echo post $l >>{log}; done; exit 1"));
    world.hook("post-update", &format!("echo $1 $PWD $GIT_DIR $HOME >>{log}"));
    world.hook("reference-transaction", &format!("echo never >>{log}"));
    let why = refused(publish(&source, &head, "APPLIED").await);
    let words = "update declined without a word".to_owned();
    assert_eq!(why, Refused::Hook { words });
    // The reference that was allowed has its note all the same.
    assert_eq!(shown(&world, &head), "APPLIED\n");
    let tip = world.git(&["rev-parse", PEOPLE]).trim().to_owned();
    let told = fs::read_to_string(world.folder.path().join("log")).unwrap();
    let told: Vec<&str> = told.lines().filter(|line| !line.contains(MACHINES)).collect();
    let (zero, hub) = ("0".repeat(40), world.hub.display());
    let expected = [
        format!("pre {zero} {tip} {PEOPLE}"),
        format!("update {PEOPLE} {zero} {tip}"),
        format!("post {zero} {tip} {PEOPLE}"),
        format!("{PEOPLE} {hub} {hub}/"),
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_hook_that_others_could_have_written_is_not_run() {
    let world = World::new();
    let (source, head) = (world.source(), world.tip());
    let ran = world.folder.path().join("ran");
    world.hook("pre-receive", &format!("touch {}", ran.display()));
    chmod(&world.hub.join("hooks/pre-receive"), 0o777);
    let why = refused(publish(&source, &head, "APPLIED").await);
    let Refused::Hook { words } = why else { panic!("{why:?}") };
    assert!(words.starts_with("pre-receive was not run because everybody may write"), "{words}");
    assert!(!ran.exists());
    chmod(&world.hub.join("hooks/pre-receive"), 0o755);
    if geteuid().is_root() {
        chown(&world.hub, Some(65534), None).unwrap();
        let why = refused(flush(&source).await);
        assert!(why.to_string().contains("belongs to user 65534"), "{why}");
        chown(&world.hub, Some(0), None).unwrap();
    }
    flush(&source).await.unwrap();
    assert!(ran.exists());
}

#[tokio::test]
async fn a_hook_that_never_ends_is_ended() {
    let world = World::new();
    let (source, head) = (world.source(), world.tip());
    let pid = world.folder.path().join("pid");
    world.hook("pre-receive", &format!("sleep 600 & echo $! >{}; wait", pid.display()));
    let started = Instant::now();
    let short = source.with_timeout(Duration::from_millis(500));
    let error = publish(&short, &head, "APPLIED").await.unwrap_err();
    let in_time = matches!(error, Error::Timeout { .. } | Error::Refused { .. });
    assert!(in_time && started.elapsed() < Duration::from_secs(30), "{error:?}");
    fs::remove_file(world.hub.join("hooks/pre-receive")).unwrap();
    // The next one waits for the thread that is being ended, then finds the note.
    assert!(flush(&source).await.unwrap().pushed);
    assert_eq!(shown(&world, &head), "APPLIED\n");
    let child = fs::read_to_string(pid).unwrap();
    let status = std::path::Path::new("/proc").join(child.trim()).join("status");
    let state = fs::read_to_string(status).unwrap_or_default();
    assert!(state.is_empty() || state.contains("State:\tZ"), "it left a child behind: {state}");
}

/// Publishes on threads that the kernel gives no more rights than to an ordinary user.
fn as_ordinary_user(source: Source, commit: CommitId) -> Result<Published, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .on_thread_start(|| {
            if geteuid().is_root() {
                setfsgid(Gid::from_raw(65534));
                setfsuid(Uid::from_raw(65534));
            }
        })
        .build()
        .unwrap();
    std::thread::spawn(move || {
        runtime.block_on(async { publish(&source, &commit, "APPLIED").await })
    })
    .join()
    .unwrap()
}

#[test]
fn a_repository_that_may_not_be_written_is_named_so() {
    let world = World::new();
    let (source, head) = (world.source(), world.tip());
    let before: Vec<_> = walk(&world.hub);
    // The cache belongs to the ordinary user, the repository is only readable.
    fs::create_dir_all(world.cache()).unwrap();
    chmod(world.folder.path(), 0o777);
    if geteuid().is_root() {
        chown(world.cache(), Some(65534), Some(65534)).unwrap();
    }
    for path in &before {
        let mode = if path.is_dir() { 0o555 } else { 0o444 };
        chmod(path, mode);
    }
    let why = refused(as_ordinary_user(source.clone(), head.clone()));
    assert_eq!(why, Refused::Permission);
    for path in &before {
        chmod(path, if path.is_dir() { 0o777 } else { 0o666 });
    }
    as_ordinary_user(source, head.clone()).unwrap();
    assert_eq!(
        walk(&world.hub).iter().filter(|p| p.to_string_lossy().contains("probe")).count(),
        0
    );
    let found = git(&world.hub, &["-c", "safe.directory=*", "for-each-ref", PEOPLE]);
    assert!(!found.is_empty());
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut all = vec![folder.to_owned()];
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.path().is_dir() {
            true => all.extend(walk(&entry.path())),
            false => all.push(entry.path()),
        }
    }
    all
}

#[tokio::test]
async fn a_repository_that_is_gone_keeps_nobody_from_writing_it_down() {
    let world = World::new();
    let (source, head) = (world.source(), world.tip());
    source.head("main").await.unwrap();
    let aside = world.folder.path().join("aside");
    fs::rename(&world.hub, &aside).unwrap();
    assert_eq!(refused(publish(&source, &head, "APPLIED").await), Refused::Gone);
    fs::rename(&aside, &world.hub).unwrap();
    assert!(flush(&source).await.unwrap().pushed);
    assert_eq!(shown(&world, &head), "APPLIED\n");
}

#[tokio::test]
async fn a_reference_in_the_way_is_named() {
    let world = World::new();
    let (source, head) = (world.source(), world.tip());
    world.git(&["update-ref", "refs/notes/pgitops", head.as_str()]);
    let why = refused(publish(&source, &head, "APPLIED").await);
    assert!(why.to_string().contains("refs/notes/pgitops"), "{why}");
    assert!(why.to_string().contains("delete"), "{why}");
    world.git(&["update-ref", "-d", "refs/notes/pgitops"]);
    flush(&source).await.unwrap();
    assert_eq!(shown(&world, &head), "APPLIED\n");
}

#[tokio::test]
async fn a_lock_that_stays_is_contention_not_a_loss() {
    let world = World::new();
    let (source, head) = (world.source(), world.tip());
    let lock = world.hub.join(format!("{MACHINES}.lock"));
    fs::create_dir_all(lock.parent().unwrap()).unwrap();
    fs::write(&lock, "").unwrap();
    let why = refused(publish(&source, &head, "APPLIED").await);
    assert_eq!(why, Refused::NotFastForward { reference: MACHINES.to_owned() });
    fs::remove_file(lock).unwrap();
    assert!(flush(&source).await.unwrap().pushed);
}

#[tokio::test]
async fn deleted_notes_are_reported_and_begun_anew() {
    let world = World::new();
    let (source, first) = (world.source(), world.tip());
    publish(&source, &first, "APPLIED").await.unwrap();
    world.git(&["update-ref", "-d", PEOPLE]);
    world.git(&["update-ref", "-d", MACHINES]);
    let done = flush(&source).await.unwrap();
    assert_eq!((done.pushed, done.remote, done.people), (false, RemoteNotes::Missing, None));
    let second = world.commit("second", &[]);
    let done = publish(&source, &second, "APPLIED").await.unwrap();
    assert_eq!((done.pushed, done.remote), (true, RemoteNotes::New));
    assert_eq!(world.git(&["notes", "--ref", PEOPLE, "list"]).lines().count(), 1);
    // Deleted while something waits: only what waits is written.
    world.hook("pre-receive", "exit 1");
    refused(publish(&source, &first, "FAILED").await);
    world.git(&["update-ref", "-d", PEOPLE]);
    fs::remove_file(world.hub.join("hooks/pre-receive")).unwrap();
    let done = flush(&source).await.unwrap();
    assert_eq!((done.pushed, done.remote), (true, RemoteNotes::Missing));
    assert_eq!(shown(&world, &first), "FAILED\n");
    assert_eq!(world.git(&["notes", "--ref", PEOPLE, "list"]).lines().count(), 1);
    world.assert_sound();
}

#[tokio::test]
async fn rewritten_notes_count_and_ours_go_on_top() {
    let world = World::new();
    let first = world.tip();
    let second = world.commit("second", &[]);
    let third = world.commit("third", &[]);
    let source = world.source();
    publish(&source, &first, "APPLIED").await.unwrap();
    world.hook("pre-receive", "exit 1");
    refused(publish(&source, &second, "waits").await);
    fs::remove_file(world.hub.join("hooks/pre-receive")).unwrap();
    // Somebody puts another history there, without our first note.
    world.git(&["notes", "--ref", "other", "add", "-m", "theirs", third.as_str()]);
    world.git(&["update-ref", PEOPLE, "refs/notes/other"]);
    let done = flush(&source).await.unwrap();
    assert_eq!((done.remote, done.foreign.as_deref()), (RemoteNotes::Rewritten, Some("Ann")));
    assert_eq!(
        (shown(&world, &second), shown(&world, &third)),
        ("waits\n".into(), "theirs\n".into())
    );
    assert_eq!(world.git(&["notes", "--ref", PEOPLE, "list"]).lines().count(), 2, "theirs counts");
    world.assert_sound();
}

#[tokio::test]
async fn a_waiting_note_survives_a_fetch_of_others_notes() {
    let world = World::new();
    let first = world.tip();
    let second = world.commit("second", &[]);
    let source = world.source();
    world.hook("pre-receive", "exit 1");
    refused(publish(&source, &first, "waits").await);
    fs::remove_file(world.hub.join("hooks/pre-receive")).unwrap();
    let elsewhere = world.source_with_cache("elsewhere");
    elsewhere
        .publish(&instance("default"), &[text(&second, "faster")], &publishing())
        .await
        .unwrap();
    let notes = source.notes(&instance("default"), &[first.clone(), second.clone()]).await;
    assert_eq!(notes.unwrap().into_keys().collect::<Vec<_>>(), std::slice::from_ref(&second));
    let done = flush(&source).await.unwrap();
    // The first look of this cache at the reference, so nothing is known of before.
    assert_eq!((done.pushed, done.remote, done.foreign), (true, RemoteNotes::New, None));
    assert_eq!(
        (shown(&world, &first), shown(&world, &second)),
        ("waits\n".into(), "faster\n".into())
    );
}

#[tokio::test]
async fn waiting_notes_are_rescued_from_a_damaged_mirror() {
    let world = World::new();
    let (source, head) = (world.source(), world.tip());
    source.head("main").await.unwrap();
    world.hook("pre-receive", "exit 1");
    refused(publish(&source, &head, "waits").await);
    fs::remove_file(world.hub.join("hooks/pre-receive")).unwrap();
    let (pair, rest) = head.as_str().split_at(2);
    let object = world.mirror().join("objects").join(pair).join(rest);
    chmod(&object, 0o644);
    fs::write(&object, "garbage").unwrap();
    let source = world.source();
    source.head("main").await.unwrap();
    source.files(&head, ".").await.unwrap();
    assert!(flush(&source).await.unwrap().pushed);
    assert_eq!(shown(&world, &head), "waits\n");
}

#[tokio::test]
async fn packed_and_collected_references_are_swapped_just_as_well() {
    let world = World::new();
    let (source, head) = (world.source(), world.tip());
    for round in 0..3 {
        publish(&source, &head, &format!("ROUND {round}")).await.unwrap();
        world.git(&["gc", "-q", "--prune=now"]);
    }
    assert_eq!(shown(&world, &head), "ROUND 2\n");
    assert_eq!(world.git(&["rev-list", "--count", PEOPLE]).trim(), "3");
    world.assert_sound();
}
