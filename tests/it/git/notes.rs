//! Notes as `git` itself reads them, among notes that `git` and others wrote.

use std::collections::BTreeSet;

use pgitops::api::names::CommitId;
use pgitops::git::{Error, Note, NoteUpdate, RemoteNotes, Retry, bench_note_writes};

use super::{World, both, git, git_with_input, instance, publishing, text};

const PEOPLE: &str = "refs/notes/pgitops/default";
const MACHINES: &str = "refs/notes/pgitops-data/default";

/// What git shows of a note.
fn shown(world: &World, reference: &str, commit: &CommitId) -> String {
    world.git(&["notes", "--ref", reference, "show", commit.as_str()])
}

fn count(world: &World, reference: &str) -> usize {
    world.git(&["notes", "--ref", reference, "list"]).lines().count()
}

fn tip(world: &World, reference: &str) -> String {
    world.git(&["rev-parse", reference]).trim().to_owned()
}

/// Many commits without effort: ids are all that notes need, and git lists only real objects.
fn many_commits(world: &World, number: usize) -> Vec<CommitId> {
    let mut stream = String::new();
    for n in 0..number {
        stream
            .push_str(&format!("commit refs/heads/many\ncommitter A <a@b> {n} +0000\ndata 1\nx\n"));
    }
    git_with_input(&world.hub, &["fast-import", "--quiet"], stream.as_bytes());
    let ids = world.git(&["rev-list", "refs/heads/many"]);
    ids.lines().map(|id| CommitId::parse(id).unwrap()).collect()
}

#[tokio::test]
async fn git_log_shows_what_was_published() {
    let world = World::new();
    let source = world.source();
    let head = source.head("main").await.unwrap();
    let words = "APPLIED: 1 of 1 databases\n\nDatabase: demo/orders\nOutcome: applied";
    let update = both(&head, words, "{\"v\":1}");
    let done = source.publish(&instance("default"), &[update], &publishing()).await.unwrap();
    assert!(done.pushed);
    assert_eq!((done.remote, done.foreign), (RemoteNotes::New, None));
    assert_eq!(done.people.unwrap().as_str(), tip(&world, PEOPLE));
    assert_eq!(shown(&world, PEOPLE, &head), format!("{words}\n"));
    assert_eq!(shown(&world, MACHINES, &head), "{\"v\":1}\n");
    let log = world.git(&["log", "--notes=pgitops/*", "main"]);
    assert!(log.contains("Notes (pgitops/default):\n    APPLIED: 1 of 1 databases"), "{log}");
    assert!(!log.contains("{\"v\""), "machines are not shown to people: {log}");
    let format = "--format=%an|%ae|%cn|%ct|%s|%b";
    let commit = world.git(&["log", "-1", format, PEOPLE]);
    let who = "pgitops default|default@pgitops.invalid|pgitops default|1700000000|";
    let what = format!("pgitops default: note on {}|{} APPLIED: 1", head.short(), head.short());
    assert!(commit.starts_with(&format!("{who}{what}")), "{commit}");
    world.assert_sound();
}

#[tokio::test]
async fn what_is_there_already_makes_no_commit() {
    let world = World::new();
    let source = world.source();
    let head = source.head("main").await.unwrap();
    let updates = [both(&head, "IN PROGRESS", "{\"seq\":1}")];
    source.publish(&instance("default"), &updates, &publishing()).await.unwrap();
    let before = (tip(&world, PEOPLE), tip(&world, MACHINES));
    for source in [source.clone(), world.source(), world.source_with_cache("other")] {
        let done = source.publish(&instance("default"), &updates, &publishing()).await.unwrap();
        assert!(!done.pushed);
        let done = source.publish(&instance("default"), &[], &publishing()).await.unwrap();
        assert!(!done.pushed);
        assert_eq!((tip(&world, PEOPLE), tip(&world, MACHINES)), before);
    }
    let update = [text(&head, "APPLIED")];
    let done = source.publish(&instance("default"), &update, &publishing()).await.unwrap();
    assert_eq!(done.remote, RemoteNotes::Unchanged);
    assert_eq!(shown(&world, PEOPLE, &head), "APPLIED\n", "ours is replaced as a whole");
    assert_eq!(tip(&world, MACHINES), before.1, "the other reference did not move");
    let more = NoteUpdate {
        commit: head.clone(),
        text: None,
        lines: vec!["{\"seq\":1}".into(), "{\"seq\":2}".into()],
    };
    source.publish(&instance("default"), &[more], &publishing()).await.unwrap();
    assert_eq!(shown(&world, MACHINES, &head), "{\"seq\":1}\n{\"seq\":2}\n");
    world.assert_sound();
}

#[tokio::test]
async fn notes_of_many_commits_are_one_commit() {
    let world = World::new();
    let commits = many_commits(&world, 400);
    let source = world.source();
    let updates: Vec<_> =
        commits.iter().map(|id| both(id, &format!("NOTE {id}"), "{\"v\":1}")).collect();
    source.publish(&instance("default"), &updates, &publishing()).await.unwrap();
    assert_eq!(count(&world, PEOPLE), 400);
    assert_eq!(world.git(&["rev-list", "--count", PEOPLE]).trim(), "1");
    for id in &commits[..5] {
        assert_eq!(shown(&world, PEOPLE, id), format!("NOTE {id}\n"));
    }
    let top = world.git(&["ls-tree", PEOPLE]);
    assert!(top.lines().all(|line| line.starts_with("040000")), "2/38: {top}");
    world.assert_sound();
}

#[tokio::test]
async fn any_fan_out_of_git_is_read_and_kept_readable() {
    for (folders, reading) in [(0, "flat"), (1, "2/38"), (2, "2/2/36"), (3, "2/2/2/34")] {
        let world = World::new();
        let commits = many_commits(&world, 60);
        let mut stream = format!("commit {PEOPLE}\ncommitter A <a@b> 1 +0000\ndata 1\nx\n");
        for id in &commits {
            let mut path = String::new();
            for level in 0..folders {
                path.push_str(&id.as_str()[2 * level..2 * level + 2]);
                path.push('/');
            }
            path.push_str(&id.as_str()[2 * folders..]);
            let body = format!("by git {id}\n");
            stream.push_str(&format!("M 100644 inline {path}\ndata {}\n{body}", body.len()));
        }
        stream.push_str("M 100644 inline README\ndata 6\nhello\n");
        git_with_input(&world.hub, &["fast-import", "--quiet"], stream.as_bytes());
        let source = world.source();
        let instance = instance("default");
        let many = source.head("many").await.unwrap();
        let read = source.log(None, &many).await.unwrap();
        for commit in &read {
            let text = commit.notes[&instance].text.as_deref();
            assert_eq!(text, Some(&*format!("by git {}\n", commit.commit.id)), "{reading}");
        }
        assert_eq!(read.len(), 60, "{reading}");
        let ours = source.notes(&instance, &commits).await.unwrap();
        assert!(ours.is_empty(), "none of them is ours");
        let updates = [text(&commits[3], "ours"), text(&world.tip(), "new")];
        let done = source.publish(&instance, &updates, &publishing()).await.unwrap();
        assert_eq!(done.foreign.as_deref(), Some("A"), "{reading}");
        assert_eq!(count(&world, PEOPLE), 61, "{reading}");
        let top = world.git(&["ls-tree", PEOPLE]);
        let flat = top.lines().filter(|line| line.contains("blob") && !line.contains("README"));
        assert_eq!(flat.count(), 0, "a flat tree is what makes writing slow: {top}");
        for id in &commits {
            let note = shown(&world, PEOPLE, id);
            assert!(note.contains(&format!("by git {id}")), "{reading} {note}");
        }
        assert!(shown(&world, PEOPLE, &commits[3]).starts_with("ours\n"), "{reading}");
        assert_eq!(shown(&world, PEOPLE, &world.tip()), "new\n");
        assert_eq!(world.git(&["show", &format!("{PEOPLE}:README")]), "hello\n", "no note, kept");
        world.assert_sound();
    }
}

#[tokio::test]
async fn git_may_write_between_us() {
    let world = World::new();
    let source = world.source();
    let commits = many_commits(&world, 300);
    let name = instance("default");
    for (round, pair) in commits.chunks(100).enumerate() {
        let updates: Vec<_> = pair[..50].iter().map(|id| text(id, "ours")).collect();
        let done = source.publish(&name, &updates, &publishing()).await.unwrap();
        assert_eq!(done.foreign.is_some(), round > 0);
        // git rebalances the whole tree when it writes.
        world.git(&["notes", "--ref", PEOPLE, "add", "-m", "theirs", pair[50].as_str()]);
    }
    source.publish(&name, &[text(&world.tip(), "last")], &publishing()).await.unwrap();
    assert_eq!(count(&world, PEOPLE), 154);
    for id in [&commits[50], &commits[150], &commits[250]] {
        assert_eq!(shown(&world, PEOPLE, id), "theirs\n");
    }
    world.assert_sound();
}

#[tokio::test]
async fn words_of_others_on_our_commit_are_kept() {
    let world = World::new();
    let source = world.source();
    let head = source.head("main").await.unwrap();
    let name = instance("default");
    let publish = async |words: &str| {
        // A new machine each time: nothing may depend on what the cache remembers.
        let source = world.source_with_cache(&format!("cache {words}"));
        source.publish(&name, &[text(&head, words)], &publishing()).await.unwrap()
    };
    publish("IN PROGRESS").await;
    publish("STILL IN PROGRESS").await;
    assert_eq!(shown(&world, PEOPLE, &head), "STILL IN PROGRESS\n", "ours leaves no trace");
    world.git(&["notes", "--ref", PEOPLE, "append", "-m", "Ann saw it", head.as_str()]);
    let done = publish("APPLIED").await;
    assert_eq!(done.foreign.as_deref(), Some("Ann"));
    publish("APPLIED AGAIN").await;
    // A note of ours on another commit in between must not make their words look like ours.
    let other = [text(&CommitId::parse(&"ab".repeat(20)).unwrap(), "OTHER")];
    world.git(&["notes", "--ref", PEOPLE, "append", "-m", "and again", head.as_str()]);
    world.source().publish(&name, &other, &publishing()).await.unwrap();
    publish("APPLIED AT LAST").await;
    let expected = "APPLIED AT LAST\n\nKept: the lines below were added by somebody else\n\
                    Ann saw it\nand again\n";
    assert_eq!(shown(&world, PEOPLE, &head).replace("\n\nand", "\nand"), expected);
    // Whoever composes the next text sees only ours.
    let ours = source.notes(&name, std::slice::from_ref(&head)).await.unwrap();
    assert_eq!(ours[&head].text.as_deref(), Some("APPLIED AT LAST\n"));
    let log = source.log(None, &head).await.unwrap();
    assert!(log[0].notes[&name].text.as_ref().unwrap().ends_with("and again\n"));
}

#[tokio::test]
async fn two_instances_do_not_meet() {
    let world = World::new();
    let (source, head) = (world.source(), world.tip());
    for name in ["eu", "us"] {
        let update = both(&head, &format!("APPLIED in {name}"), "{\"v\":1}");
        source.publish(&instance(name), &[update], &publishing()).await.unwrap();
    }
    let log = world.git(&["log", "-1", "--notes=pgitops/*", "main"]);
    assert!(log.contains("APPLIED in eu") && log.contains("APPLIED in us"), "{log}");
    world.git(&[
        "update-ref",
        "refs/notes/pgitops/Odd_Name",
        PEOPLE.replace("default", "eu").as_str(),
    ]);
    source.head("main").await.unwrap();
    let log = source.log(None, &head).await.unwrap();
    assert_eq!(log.len(), 1);
    let names: Vec<_> = log[0].notes.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["eu", "us"]);
    let expected = Note { text: Some("APPLIED in us\n".into()), lines: vec!["{\"v\":1}".into()] };
    assert_eq!(log[0].notes[&instance("us")], expected);
}

/// Writers on several machines with the same name, all at once: nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writers_lose_nothing() {
    const WRITERS: usize = 4;
    const EACH: usize = 6;
    let world = World::new();
    let commits = many_commits(&world, WRITERS * EACH);
    let shared = world.tip();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let source = world.source_with_cache(&format!("machine{writer}"));
        let (mine, shared) = (commits[writer * EACH..][..EACH].to_vec(), shared.clone());
        let mut publishing = publishing();
        publishing.backoff.jitter = writer as u64;
        publishing.backoff.attempts = 50;
        writers.spawn(async move {
            for (n, id) in mine.iter().enumerate() {
                let line = format!("{{\"writer\":{writer},\"n\":{n}}}");
                let on_shared =
                    NoteUpdate { commit: shared.clone(), text: None, lines: vec![line] };
                let updates = [text(id, &format!("NOTE {id}")), on_shared];
                source.publish(&instance("default"), &updates, &publishing).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    for id in &commits {
        assert_eq!(shown(&world, PEOPLE, id), format!("NOTE {id}\n"));
    }
    let lines: BTreeSet<String> =
        shown(&world, MACHINES, &shared).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), WRITERS * EACH);
    world.assert_sound();
}

/// The same against the `git` program, which pushes from a clone of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_push_by_git_at_the_same_time_loses_nothing() {
    let world = World::new();
    let commits = many_commits(&world, 20);
    git(&world.clone, &["fetch", "-q", "origin", "many"]);
    let (clone, theirs) = (world.clone.clone(), commits[10..].to_vec());
    let by_git = std::thread::spawn(move || {
        for id in theirs {
            let refspec = format!("+{PEOPLE}:{PEOPLE}");
            let pushed = (0..100).any(|_| {
                // Fetch, add, push; again when somebody was faster.
                let fetch = ["fetch", "-q", "origin", &refspec];
                let _ = super::command(&clone, &fetch).output().unwrap();
                git(&clone, &["notes", "--ref", PEOPLE, "add", "-f", "-m", "git", id.as_str()]);
                let push = ["push", "-q", "origin", PEOPLE];
                super::command(&clone, &push).output().unwrap().status.success()
            });
            assert!(pushed);
        }
    });
    let source = world.source();
    let mut publishing = publishing();
    publishing.backoff.attempts = 50;
    for id in &commits[..10] {
        source.publish(&instance("default"), &[text(id, "ours")], &publishing).await.unwrap();
    }
    by_git.join().unwrap();
    assert_eq!(count(&world, PEOPLE), 20);
    world.assert_sound();
}

#[tokio::test]
async fn a_note_stays_on_a_commit_that_is_gone() {
    let world = World::new();
    let source = world.source();
    let gone = CommitId::parse(&"ab".repeat(20)).unwrap();
    source.publish(&instance("default"), &[text(&gone, "APPLIED")], &publishing()).await.unwrap();
    let notes = source.notes(&instance("default"), std::slice::from_ref(&gone)).await.unwrap();
    assert_eq!(notes[&gone].text.as_deref(), Some("APPLIED\n"));
    world.assert_sound();
}

#[tokio::test]
async fn a_clone_without_notes_gets_them_with_one_fetch() {
    let world = World::new();
    let (source, head) = (world.source(), world.tip());
    source.publish(&instance("default"), &[text(&head, "APPLIED")], &publishing()).await.unwrap();
    let fetch = ["fetch", "-q", "origin", "refs/notes/pgitops/*:refs/notes/pgitops/*"];
    git(&world.clone, &fetch);
    let log = git(&world.clone, &["log", "-1", "--notes=pgitops/*"]);
    assert!(log.contains("APPLIED"), "{log}");
    // And `pgitops log` without any: a cache that has never seen anything.
    let fresh = world.source_with_cache("fresh");
    let head = fresh.head("main").await.unwrap();
    let log = fresh.log(None, &head).await.unwrap();
    assert_eq!(log[0].notes[&instance("default")].text.as_deref(), Some("APPLIED\n"));
}

#[tokio::test]
async fn a_bad_note_is_refused_before_anything_is_written() {
    let world = World::new();
    let (source, head) = (world.source(), world.tip());
    let line =
        |line: &str| NoteUpdate { commit: head.clone(), text: None, lines: vec![line.to_owned()] };
    let large = "x".repeat(9 * 1024 * 1024);
    for bad in [
        text(&head, ""),
        text(&head, " \n"),
        text(&head, "a\0b"),
        text(&head, &large),
        line(""),
        line("{\n}"),
        line(&large),
    ] {
        let updates = [text(&world.tip(), "good"), bad];
        let done = source.publish(&instance("default"), &updates, &publishing()).await;
        let error = done.unwrap_err();
        assert!(matches!(error, Error::BadNote { .. }), "{error}");
        assert_eq!(error.retry(), Retry::AfterChange);
    }
    assert_eq!(world.git(&["for-each-ref", "refs/notes"]), "");
}

#[test]
fn the_benchmark_writes_real_notes() {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("bench.git");
    let taken = bench_note_writes(&repository, 300, 10).unwrap();
    assert_eq!(taken.len(), 10);
    let list = git(&repository, &["ls-tree", "-r", "--name-only", "refs/notes/pgitops/bench"]);
    assert_eq!(list.lines().count(), 310);
}

#[tokio::test]
async fn large_notes_come_back_and_absurd_ones_do_no_harm() {
    let world = World::new();
    let (source, head) = (world.source(), world.tip());
    let name = instance("default");
    let large = format!("APPLIED\n{}", "Changed: some line of a large fleet\n".repeat(60_000));
    source.publish(&name, &[text(&head, &large)], &publishing()).await.unwrap();
    let fresh = world.source_with_cache("fresh");
    let notes = fresh.notes(&name, std::slice::from_ref(&head)).await.unwrap();
    assert_eq!(notes[&head].text.as_ref().map(String::len), Some(large.len()));
    fresh.publish(&name, &[text(&head, "SMALL")], &publishing()).await.unwrap();
    assert_eq!(shown(&world, PEOPLE, &head), "SMALL\n");

    // Somebody else puts 33 MiB on a commit of ours: it is theirs to remove.
    let second = world.commit("second", &[]);
    let absurd = world.folder.path().join("absurd");
    std::fs::write(&absurd, vec![b'x'; 33 << 20]).unwrap();
    let add = ["notes", "--ref", PEOPLE, "add", "-F", absurd.to_str().unwrap(), second.as_str()];
    world.git(&add);
    for source in [source, world.source_with_cache("another")] {
        source.publish(&name, &[text(&head, "AGAIN")], &publishing()).await.unwrap();
        assert_eq!(shown(&world, PEOPLE, &head), "AGAIN\n");
        let notes = source.notes(&name, &[head.clone(), second.clone()]).await.unwrap();
        assert_eq!(notes.keys().collect::<Vec<_>>(), [&head]);
        let done = source.publish(&name, &[text(&second, "APPLIED")], &publishing()).await;
        let error = done.unwrap_err().to_string();
        assert!(error.contains("larger than 32 MiB"), "{error}");
    }
}
