//! The files of a commit: good ones are read, hostile ones named, and neither disturbs the other.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use pgitops::api::names::CommitId;
use pgitops::git::{Error, Files, Refusal, Source, read_folder};

use super::{World, git, git_with_input};

/// Writes a tree object byte by byte, as no git program would: (mode, name, id).
fn raw_tree(world: &World, entries: &[(&str, &[u8], &str)]) -> String {
    let mut bytes = vec![];
    for (mode, name, id) in entries {
        bytes.extend_from_slice(mode.as_bytes());
        bytes.push(b' ');
        bytes.extend_from_slice(name);
        bytes.push(0);
        let id = id.trim();
        bytes.extend((0..20).map(|n| u8::from_str_radix(&id[2 * n..2 * n + 2], 16).unwrap()));
    }
    let arguments = ["hash-object", "-w", "-t", "tree", "--literally", "--stdin"];
    git_with_input(&world.hub, &arguments, &bytes).trim().to_owned()
}

fn blob(world: &World, bytes: &[u8]) -> String {
    git_with_input(&world.hub, &["hash-object", "-w", "--stdin"], bytes).trim().to_owned()
}

/// Commits a tree to the branch `odd` and reads it.
async fn read_tree(world: &World, tree: &str) -> (Source, CommitId, Files) {
    let commit = world.git(&["commit-tree", "-m", "odd", tree]);
    world.git(&["update-ref", "refs/heads/odd", commit.trim()]);
    let source = world.source();
    let head = source.head("odd").await.unwrap();
    let files = source.files(&head, ".").await.unwrap();
    (source, head, files)
}

fn names(files: &Files) -> Vec<&str> {
    files.entries.keys().map(String::as_str).collect()
}

#[tokio::test]
async fn documents_and_fragments_are_read_and_all_else_is_left_alone() {
    let world = World::new();
    world.commit(
        "more",
        &[
            ("prod/orders.yaml", "a: 1\n"),
            ("prod/deep/b.YML", "b: 1\n"),
            ("prod/orders.conf", "work_mem = 1MB\n"),
            ("prod/README.md", "# no\n"),
            ("prod/tool.sh", "rm -rf /\n"),
            ("other/x.yaml", "x: 1\n"),
        ],
    );
    let source = world.source();
    let head = source.head("main").await.unwrap();
    for path in ["prod", "prod/", "./prod", "prod/."] {
        let files = source.files(&head, path).await.unwrap();
        assert_eq!(names(&files), ["deep/b.YML", "orders.conf", "orders.yaml"], "{path}");
        assert!(files.problems.is_empty() && files.complete);
        assert_eq!(files.commit.as_ref(), Some(&head));
        assert_eq!(files.entries["orders.yaml"].text().unwrap(), "a: 1\n");
        let oracle = world.git(&["rev-parse", "main:prod/orders.yaml"]);
        assert_eq!(files.entries["orders.yaml"].blob.to_string(), oracle.trim());
        assert_eq!(files.tree.to_string(), world.git(&["rev-parse", "main:prod"]).trim());
    }
    for path in [".", "", "./"] {
        assert_eq!(source.files(&head, path).await.unwrap().entries.len(), 5, "{path}");
    }
    for bad in ["/prod", "../x", "prod/../..", "a\nb", ".git"] {
        let error = source.files(&head, bad).await.unwrap_err();
        assert!(matches!(error, Error::BadPath { .. }), "{bad:?} {error}");
    }
    let error = source.files(&head, "none").await.unwrap_err();
    assert!(error.to_string().contains("\"none\" of commit"), "{error}");
    let error = source.files(&head, "prod/orders.yaml").await.unwrap_err();
    assert!(error.to_string().contains("is not a folder"), "{error}");
}

#[tokio::test]
async fn an_unchanged_folder_is_not_read_again() {
    let world = World::new();
    let first = world.commit("a", &[("prod/a.yaml", "a: 1\n"), ("prod/b.yaml", "b: 1\n")]);
    let second = world.commit("elsewhere", &[("README.md", "hello\n")]);
    let third = world.commit("b", &[("prod/b.yaml", "b: 2\n")]);
    let source = world.source();
    source.head("main").await.unwrap();
    let a = source.files(&first, "prod").await.unwrap();
    let b = source.files(&second, "prod").await.unwrap();
    assert!(Arc::ptr_eq(&a.entries, &b.entries) && a.tree == b.tree);
    assert_eq!((a.commit, b.commit), (Some(first), Some(second)));
    let c = source.files(&third, "prod").await.unwrap();
    assert_ne!(b.tree, c.tree);
    assert!(Arc::ptr_eq(&b.entries["a.yaml"].bytes, &c.entries["a.yaml"].bytes));
    assert_eq!(c.entries["b.yaml"].text().unwrap(), "b: 2\n");
}

#[tokio::test]
async fn links_and_submodules_are_refused_beside_good_files() {
    let world = World::new();
    symlink("/etc/passwd", world.clone.join("secret.yaml")).unwrap();
    symlink("..", world.clone.join("folder")).unwrap();
    symlink("orders.yaml", world.clone.join("image.png")).unwrap();
    let tip = world.tip().to_string();
    git(&world.clone, &["update-index", "--add", "--cacheinfo", &format!("160000,{tip},module")]);
    git(&world.clone, &["add", "secret.yaml", "folder", "image.png"]);
    git(&world.clone, &["commit", "-q", "-m", "links"]);
    git(&world.clone, &["push", "-q", "origin", "main"]);
    let source = world.source();
    let head = source.head("main").await.unwrap();
    let files = source.files(&head, ".").await.unwrap();
    assert_eq!(names(&files), ["orders.yaml"]);
    let problems: Vec<_> = files.problems.iter().map(|p| (p.path.as_str(), &p.reason)).collect();
    let expected = [
        ("folder", &Refusal::Link),
        ("module", &Refusal::Submodule),
        ("secret.yaml", &Refusal::Link),
    ];
    assert_eq!(problems, expected);
    assert!(files.complete, "nothing but these is missing");
}

#[tokio::test]
async fn names_that_no_git_program_would_write_are_refused() {
    let world = World::new();
    let (good, inner) = (blob(&world, b"a: 1\n"), world.git(&["rev-parse", "main^{tree}"]));
    let long = [b"n".repeat(4096), b".yaml".to_vec()].concat();
    let tree = raw_tree(
        &world,
        &[
            ("100644", b"..", &good),
            ("40000", b"..", &inner),
            ("40000", b".", &inner),
            ("40000", b".git", &inner),
            ("40000", b".GIT", &inner),
            ("100644", b"../up.yaml", &good),
            ("100644", b"/abs.yaml", &good),
            ("100644", b"bad\xff.yaml", &good),
            ("100644", b"bell\x07.yaml", &good),
            ("100644", b"bad\xff.png", &good),
            ("100644", &long, &good),
            ("100644", b"good.yaml", &good),
            ("100755", b"run.yaml", &good),
            ("100644", "gr\u{fc}n.yaml".as_bytes(), &good),
            ("100644", b"space and 'quotes'.yaml", &good),
        ],
    );
    let (_, _, files) = read_tree(&world, &tree).await;
    let expected = ["good.yaml", "gr\u{fc}n.yaml", "run.yaml", "space and 'quotes'.yaml"];
    assert_eq!(names(&files), expected);
    assert_eq!(files.problems.len(), 9, "{:?}", files.problems);
    for problem in files.problems.iter() {
        assert!(matches!(problem.reason, Refusal::Name(_)), "{problem:?}");
        assert!(problem.path.chars().count() <= 256 && !problem.path.contains('\x07'));
    }
}

#[tokio::test]
async fn sizes_are_bounded_and_a_huge_file_is_not_even_copied() {
    let world = World::new();
    let limit = 1024 * 1024;
    let exact = blob(&world, &vec![b'#'; limit]);
    let above = blob(&world, &vec![b'#'; limit + 1]);
    let tree = raw_tree(
        &world,
        &[
            ("100644", b"above.yaml", &above),
            ("100644", b"exact.yaml", &exact),
            ("100644", b"image.png", &above),
        ],
    );
    let (source, head, files) = read_tree(&world, &tree).await;
    assert_eq!(names(&files), ["exact.yaml"]);
    assert_eq!(files.problems.len(), 1);
    assert_eq!(files.problems[0].reason, Refusal::TooLarge { size: 1_048_577 });
    assert!(files.problems[0].reason.to_string().contains("1048577 bytes"));
    let (pair, rest) = above.split_at(2);
    assert!(!world.mirror().join("objects").join(pair).join(rest).exists());
    // Known to be large after a restart as well, and the mirror does not count as damaged.
    let again = world.source().files(&head, ".").await.unwrap();
    assert_eq!(again.problems, source.files(&head, ".").await.unwrap().problems);
}

#[tokio::test]
async fn depth_and_number_are_bounded() {
    let world = World::new();
    let good = blob(&world, b"a: 1\n");
    let mut deep = raw_tree(&world, &[("100644", b"bottom.yaml", &good)]);
    for level in 0..40 {
        let own = format!("l{level:02}.yaml");
        deep = raw_tree(&world, &[("40000", b"d", &deep), ("100644", own.as_bytes(), &good)]);
    }
    let (_, _, files) = read_tree(&world, &deep).await;
    assert_eq!(files.entries.len(), 33, "the top and 32 folders");
    assert_eq!(files.problems[0].reason, Refusal::TooDeep);

    // Twelve levels of ten equal folders: a few objects that unfold to 10^12 files.
    let mut bomb = raw_tree(&world, &[("100644", b"a.yaml", &good)]);
    for _ in 0..12 {
        let names: Vec<String> = (0..10).map(|n| format!("d{n}")).collect();
        let entries: Vec<_> =
            names.iter().map(|name| ("40000", name.as_bytes(), bomb.as_str())).collect();
        bomb = raw_tree(&world, &entries);
    }
    let (_, _, files) = read_tree(&world, &bomb).await;
    assert!(!files.complete);
    assert_eq!(files.problems[0].reason, Refusal::TooMany);
}

#[tokio::test]
async fn a_source_deeper_than_any_real_one_is_refused_whole() {
    let world = World::new();
    let mut deep = raw_tree(&world, &[("100644", b"a.yaml", &blob(&world, b"a: 1\n"))]);
    let mut stream = vec![];
    for _ in 0..600 {
        stream.push(deep.clone());
        deep = raw_tree(&world, &[("40000", b"d", &deep)]);
    }
    let commit = world.git(&["commit-tree", "-m", "odd", &deep]);
    world.git(&["update-ref", "refs/heads/odd", commit.trim()]);
    let error = world.source().head("odd").await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
}

#[tokio::test]
async fn an_entry_that_lies_about_its_object_is_a_problem_of_its_own() {
    let world = World::new();
    let good = blob(&world, b"a: 1\n");
    let inner = world.git(&["rev-parse", "main^{tree}"]);
    let tree = raw_tree(
        &world,
        &[
            ("100644", b"a.yaml", &good),
            ("100644", b"liar.yaml", &inner),
            ("0", b"zero.yaml", &good),
        ],
    );
    let (_, _, files) = read_tree(&world, &tree).await;
    assert_eq!(names(&files), ["a.yaml", "zero.yaml"]);
    assert!(matches!(files.problems[0].reason, Refusal::Unreadable(_)), "{:?}", files.problems);
}

#[tokio::test]
async fn contents_are_passed_on_as_they_are() {
    let world = World::new();
    fs::write(world.clone.join("crlf.yaml"), b"a: 1\r\n\0\xff").unwrap();
    fs::write(world.clone.join(".gitattributes"), "*.yaml text eol=lf ident\n").unwrap();
    git(&world.clone, &["-c", "core.autocrlf=false", "add", "-A"]);
    let tip = world.commit("odd", &[]);
    let source = world.source();
    source.head("main").await.unwrap();
    let files = source.files(&tip, ".").await.unwrap();
    let file = &files.entries["crlf.yaml"];
    assert!(file.text().is_err() && file.bytes.contains(&0));
    let size = world.git(&["cat-file", "-s", "main:crlf.yaml"]);
    assert_eq!(file.bytes.len().to_string(), size.trim());
}

#[tokio::test]
async fn a_plain_folder_reads_like_the_commit_of_it() {
    let world = World::new();
    symlink("/etc/passwd", world.clone.join("link.yaml")).unwrap();
    let large = "#".repeat(1024 * 1024 + 1);
    let tip = world.commit(
        "all",
        &[
            ("a/b/c.yaml", "c: 1\n"),
            ("a/x.conf", "x = 1\n"),
            ("a/no.txt", "-"),
            ("big.yml", &large),
        ],
    );
    let source = world.source();
    source.head("main").await.unwrap();
    let committed = source.files(&tip, ".").await.unwrap();
    let plain = read_folder(&world.clone).unwrap();
    assert_eq!(committed.entries, plain.entries);
    assert_eq!(committed.problems, plain.problems);
    assert_eq!(plain.commit, None);
    assert!(read_folder(&world.clone.join("none")).is_err());
}
