//! The whole line as a person has it: the controller as a process of its own beside a sandbox, a
//! real clone that is pushed from, real servers, notes read with git.
//!
//! What is broken on purpose here is the controller (killed) and the repository (taken away,
//! closed for notes). Leaves faults of servers and requests to `ops.rs` and `simulate.rs`.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use pgitops::api::names::annotations;
use pgitops::api::ops_request::OpsPhase;
use pgitops::api::postgres::Phase;
use pgitops::api::{ConfigRepository, Postgres, PostgresOpsRequest, conditions};
use pgitops::ops::status::{self, Pause};
use serde_json::json;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::fixture::{EXECUTABLE, Folder, MAJOR, Process, World, until};
use crate::git::{chmod, git};
use crate::simulate::Random;

/// How often the controller is killed.
const KILLS: u64 = 10;
/// Kills come within this time after a push: a rollout with restarts of idle servers, as a debug
/// build on a busy machine does it.
const ROLLOUT: Duration = Duration::from_millis(3500);

/// A sandbox, a controller beside it, the database `orders` and a clone to push from.
struct Line {
    world: World,
    controller: Option<Process>,
    clone: PathBuf,
    folder: Folder,
}

impl Line {
    async fn start(replicas: u32) -> Self {
        let world = World::start().await;
        let folder = Folder::new();
        let bare = world.sandbox.config_git.clone().unwrap();
        git(folder.path(), &["clone", "-q", bare.to_str().unwrap(), "clone"]);
        let clone = folder.path().join("clone");
        git(&clone, &["checkout", "-q", "-b", "main"]);
        let mut line = Self { world, controller: None, clone, folder };
        line.begin();
        line.world.apply(&json!({
            "apiVersion": "kubedb.com/v1", "kind": "Postgres",
            "metadata": {"name": "orders", "namespace": "demo"},
            "spec": {
                "version": *MAJOR, "replicas": replicas,
                "storage": {"resources": {"requests": {"storage": "1Gi"}}},
                // 16 MB of shared buffers: three servers share this machine with other tests.
                "podTemplate": {"spec": {"containers": [
                    {"name": "postgres", "resources": {"limits": {"memory": "64Mi"}}}
                ]}},
            },
        }));
        let ready = || async {
            let postgres = line.database().await;
            let ready = postgres.phase() == Some(Phase::Ready);
            if ready { Ok(()) } else { Err(format!("{:#}", json!(postgres.status))) }
        };
        until("orders is Ready", ready).await;
        line
    }

    /// Starts the controller. Three seconds of lease: whoever comes after a kill waits for them.
    fn begin(&mut self) {
        let child = Command::new(EXECUTABLE)
            .args(["controller", "--allow-local-repositories", "--lease-duration", "3"])
            .arg("--kubeconfig")
            .arg(&self.world.sandbox.kubeconfig)
            .arg("--cache-directory")
            .arg(self.folder.path().join("mirrors"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.controller = Some(Process(child));
    }

    /// Ends the controller as `kill -9` does.
    fn kill(&mut self) {
        self.controller = None;
    }

    async fn database(&self) -> Postgres {
        Api::namespaced(self.world.client(), "demo").get("orders").await.unwrap()
    }

    async fn requests(&self) -> Vec<PostgresOpsRequest> {
        let requests = Api::<PostgresOpsRequest>::namespaced(self.world.client(), "demo");
        requests.list(&Default::default()).await.unwrap().items
    }

    /// The requests that a commit asked for.
    async fn asked_by(&self, commit: &str) -> Vec<PostgresOpsRequest> {
        let name = annotations::COMMIT;
        let all = self.requests().await.into_iter();
        all.filter(|request| request.annotation(name) == Some(commit)).collect()
    }

    /// Commits the document with these parameters and pushes it; the commit's id.
    fn push(&self, parameters: &str) -> String {
        let text = format!(
            "apiVersion: pgitops.dev/v1alpha1\nkind: PostgresConfig\nmetadata: {{name: orders}}\n\
             spec:\n  databaseRef: {{name: orders}}\n  parameters: {{{parameters}}}\n"
        );
        std::fs::write(self.clone.join("orders.yaml"), text).unwrap();
        git(&self.clone, &["add", "."]);
        git(&self.clone, &["commit", "-q", "-m", parameters]);
        git(&self.clone, &["push", "-q", "origin", "main"]);
        git(&self.clone, &["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Waits until the note of a commit begins as expected; gives it.
    async fn note(&self, commit: &str, begins: &str) -> String {
        self.world.note(commit, begins).await
    }

    /// A session on a node.
    async fn node(&self, ordinal: i32) -> tokio_postgres::Client {
        let secrets = Api::<Secret>::namespaced(self.world.client(), "demo");
        let password =
            secrets.get("orders-auth").await.unwrap().data.unwrap()["password"].0.clone();
        let pod = self.world.pods().get(&format!("orders-{ordinal}")).await.unwrap();
        let mut config = tokio_postgres::Config::new();
        config.host(pod.status.unwrap().pod_ip.unwrap()).user("postgres").dbname("postgres");
        let (client, connection) = config.password(&password).connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Asks every node the same; the first field of each answer.
    async fn ask(&self, query: &str) -> Vec<String> {
        let mut all = Vec::new();
        for ordinal in 0..self.database().await.spec.nodes() {
            let client = self.node(ordinal).await;
            let rows = client.simple_query(query).await.unwrap();
            all.extend(rows.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            }));
        }
        all
    }

    /// Runs statements on the primary, which is the first node until somebody switches it.
    async fn ask_primary(&self, statements: &str) {
        self.node(0).await.batch_execute(statements).await.unwrap();
    }

    /// What a parameter is on every node.
    async fn show(&self, name: &str) -> Vec<String> {
        self.ask(&format!("show {name}")).await
    }

    /// Runs a command of ours against the cluster; its exit code and what it prints.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let output = Command::new(EXECUTABLE)
            .args(arguments)
            .args(["-n", "demo", "--kubeconfig"])
            .arg(&self.world.sandbox.kubeconfig)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout) + &text(&output.stderr);
        (output.status.code().unwrap_or(-1), said)
    }

    /// Asks the controller to look now; what that look held.
    async fn look(&self) -> Vec<String> {
        let (code, said) = self.run(&["reconcile", "config"]);
        assert_eq!(code, 0, "{said}");
        let repositories = Api::<ConfigRepository>::namespaced(self.world.client(), "demo");
        until("the look", || async {
            let repository = repositories.get("config").await.unwrap();
            let requested = repository.annotation(annotations::REQUESTED_AT);
            let status = repository.status.clone().unwrap_or_default();
            match status.last_handled_request.as_deref() == requested {
                true => Ok(status.held),
                false => Err(format!("{:?}", status.last_handled_request)),
            }
        })
        .await
    }

    /// Waits until a condition of the ConfigRepository has this status and reason.
    async fn told(&self, type_: &str, status: &str, reason: &str) -> String {
        let repositories = Api::<ConfigRepository>::namespaced(self.world.client(), "demo");
        until(&format!("{type_}={status} {reason}"), || async {
            let said = repositories.get("config").await.unwrap().status.unwrap_or_default();
            match conditions::find(&said.conditions, type_) {
                Some(found) if found.status == status && found.reason == reason => {
                    Ok(found.message.clone())
                }
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    async fn stop(mut self) {
        self.kill();
        self.world.stop().await;
    }
}

/// What a note says beside names and figures, which differ from one rollout to the next.
fn gist(note: &str) -> Vec<String> {
    let keep = |line: &&str| {
        !["Ops-Request:", "Impact:", "Undo:"].iter().any(|begin| line.starts_with(begin))
    };
    note.lines().filter(keep).map(str::to_owned).collect()
}

/// The two documents that follow each other: up needs standbys first, down the primary first, and
/// both carry a value that a reload is enough for.
const TURNS: [&str; 2] =
    ["max_connections: 120, work_mem: 6MB", "max_connections: 90, work_mem: 5MB"];

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_killed_at_any_moment_ends_as_one_that_was_not() {
    let seed = std::env::var("PGITOPS_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("replay: PGITOPS_SEED={seed} cargo test --test it controller_killed");
    let mut random = Random::new(seed);
    let mut line = Line::start(3).await;

    // What it looks like when nobody is killed; both ways, so that the value before is the same.
    let first = line.push(TURNS[1]);
    line.note(&first, "APPLIED").await;
    let mut undisturbed = Vec::new();
    for turn in TURNS {
        let commit = line.push(turn);
        undisturbed.push(gist(&line.note(&commit, "APPLIED").await));
    }

    for kill in 0..KILLS {
        let turn = usize::from(kill % 2 == 1);
        let commit = line.push(TURNS[turn]);
        // The moment is the fault: nothing is waited for here.
        let moment = Duration::from_millis(random.below(ROLLOUT.as_millis() as u64));
        tokio::time::sleep(moment).await;
        line.kill();
        let was = line.asked_by(&commit).await;
        let was: Vec<OpsPhase> = was.iter().map(PostgresOpsRequest::phase).collect();
        println!("kill {kill}: {moment:?} after the push; requests {was:?}");
        line.begin();
        let note = line.note(&commit, "APPLIED").await;
        assert_eq!(gist(&note), undisturbed[turn], "kill {kill}, {moment:?} after the push");
        // Once: one request, and each node restarted once by it.
        let asked = line.asked_by(&commit).await;
        let names: Vec<String> = asked.iter().map(|r| r.request_name().to_string()).collect();
        assert_eq!(asked.len(), 1, "kill {kill}: {names:?}");
        assert_eq!(asked[0].phase(), OpsPhase::Successful);
        let (connections, memory) = if turn == 0 { ("120", "6MB") } else { ("90", "5MB") };
        assert_eq!(line.show("max_connections").await, [connections; 3], "kill {kill}");
        assert_eq!(line.show("work_mem").await, [memory; 3], "kill {kill}");
        assert_eq!(status::paused(&line.database().await), Pause::Not, "kill {kill}");
    }
    let open = line.requests().await.into_iter().filter(|r| !r.phase().is_terminal()).count();
    assert_eq!(open, 0);
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_goes_or_refuses_holds_no_rollout_up() {
    let line = Line::start(1).await;
    let bare = line.world.sandbox.config_git.clone().unwrap();
    let first = line.push("work_mem: 5MB");
    line.note(&first, "APPLIED").await;

    // It goes once the request is there: the rollout ends, the note comes when it is back.
    let second = line.push("max_connections: 77");
    until("a request", || async {
        let asked = line.asked_by(&second).await;
        if asked.len() == 1 { Ok(()) } else { Err(format!("{} requests", asked.len())) }
    })
    .await;
    let away = bare.with_extension("away");
    std::fs::rename(&bare, &away).unwrap();
    until("the rollout ends without its repository", || async {
        match line.asked_by(&second).await.first().map(PostgresOpsRequest::phase) {
            Some(OpsPhase::Successful) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let message = line.told("Stalled", "True", "Vanished").await;
    assert!(message.contains("put it back or correct the address"), "{message}");
    assert_eq!(line.show("max_connections").await, ["77"]);
    std::fs::rename(&away, &bare).unwrap();
    let note = line.note(&second, "APPLIED").await;
    assert!(note.contains("Outcome: applied, proven on 1 of 1 nodes"), "{note}");

    // Notes are refused: the rollout ends, the status says what to do, the note follows.
    let hook = bare.join("hooks/update");
    std::fs::create_dir_all(bare.join("hooks")).unwrap();
    let script = "#!/bin/sh\ncase $1 in refs/notes/*) echo no notes here; exit 1;; esac\n";
    std::fs::write(&hook, script).unwrap();
    chmod(&hook, 0o755);
    let third = line.push("work_mem: 7MB");
    let message = line.told("NotesPublished", "False", "Refused").await;
    assert!(message.contains("no notes here"), "{message}");
    until("the value is in force", || async {
        let shown = line.show("work_mem").await;
        if shown == ["7MB"] { Ok(()) } else { Err(format!("{shown:?}")) }
    })
    .await;
    std::fs::remove_file(&hook).unwrap();
    let note = line.note(&third, "APPLIED").await;
    assert!(note.contains("Changed: work_mem 4MB -> 7MB"), "{note}");
    line.told("NotesPublished", "True", "Published").await;
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_lays_git_spec_and_servers_side_by_side() {
    let line = Line::start(2).await;
    let (code, said) = line.run(&["status"]);
    assert_eq!(code, 2, "an empty repository is not Ready\n{said}");
    let commit = line.push("max_connections: 110, work_mem: 1024kB");
    line.note(&commit, "APPLIED").await;
    line.told("Ready", "True", "Applied").await;

    let quiet = || async {
        let (code, said) = line.run(&["status", "orders"]);
        if code == 0 { Ok(said) } else { Err(said) }
    };
    let said = until("all is as desired", quiet).await;
    let row = said.lines().find(|line| line.contains("work_mem")).unwrap();
    let expected = ["work_mem", "1MB", "(orders.yaml:6)", "1MB", "(inline.conf)", "1MB", "1MB"];
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), expected, "{said}");
    assert!(said.contains("next start: safe"), "{said}");
    assert!(said.contains(&format!("applied {}", &commit[..7])), "{said}");
    let (code, said) = line.run(&["status", "-o", "json"]);
    let overview: serde_json::Value = serde_json::from_str(&said).expect(&said);
    assert_eq!((code, &overview["databases"][0]["verdict"]), (0, &json!("equal")), "{said}");

    // What a role sets for itself is told, and is neither drift nor a hold.
    line.ask_primary("create role app; alter role app set work_mem = '42MB'").await;
    let told = || async {
        let (code, said) = line.run(&["status", "orders"]);
        let seen = said.contains("  work_mem is 42MB for role app (ALTER ROLE)\n");
        if code == 0 && seen { Ok(()) } else { Err(format!("{code}\n{said}")) }
    };
    until("what a role sets is shown", told).await;
    let (code, said) = line.run(&["plan"]);
    let warning = "  warning: work_mem is 42MB for role app (ALTER ROLE); \
        its sessions do not see what the document says\n";
    assert!(code == 0 && said.contains(warning), "{code}\n{said}");

    // Behind everybody's back, on every node.
    line.ask("alter system set work_mem = '99MB'").await;
    line.ask("select pg_reload_conf()").await;
    let overridden = || async {
        let (code, said) = line.run(&["status", "orders"]);
        let seen = said.matches("99MB (ALTER SYSTEM)").count() == 2;
        if code == 2 && seen { Ok(()) } else { Err(format!("{code}\n{said}")) }
    };
    until("what overrides it is shown", overridden).await;
    let (code, said) = line.run(&["plan"]);
    let because = "work_mem is overridden by postgresql.auto.conf on orders-0, orders-1\n";
    assert!(code == 2 && said.contains(because), "{code}\n{said}");
    let held = line.look().await;
    assert!(held.len() == 1 && held[0].contains(because.trim_end()), "{held:?}");
    // Resolved: the next look that somebody asks for already knows.
    line.ask("alter system reset work_mem").await;
    line.ask("select pg_reload_conf()").await;
    until("the servers have read it", || async {
        let shown = line.show("work_mem").await;
        if shown == ["1MB"; 2] { Ok(()) } else { Err(format!("{shown:?}")) }
    })
    .await;
    assert_eq!(line.look().await, [""; 0]);

    // What waits for a restart on some server comes with a restart that somebody else needs.
    line.ask_primary("alter system set max_connections = 120").await;
    line.ask("select pg_reload_conf()").await;
    std::fs::write(
        line.clone.join("orders.yaml"),
        "apiVersion: pgitops.dev/v1alpha1\nkind: PostgresConfig\nmetadata: {name: orders}\n\
         spec:\n  databaseRef: {name: orders}\n  parameters: {max_connections: 110, \
         work_mem: 1024kB, max_worker_processes: 9}\n",
    )
    .unwrap();
    let folder = line.clone.to_str().unwrap();
    let also = "a restart also brings into effect: max_connections on orders-0 (pending)\n";
    until("what a restart also brings", || async {
        let (code, said) = line.run(&["plan", "--folder", folder]);
        if code == 2 && said.contains(also) { Ok(()) } else { Err(format!("{code}\n{said}")) }
    })
    .await;
    line.ask_primary("alter system reset max_connections").await;
    line.ask("select pg_reload_conf()").await;

    // Nothing shows yet on the servers that run, but none of them would start again.
    line.ask("alter system set shared_preload_libraries = 'nosuchlib'").await;
    line.ask("select pg_reload_conf()").await;
    let (code, said) = line.run(&["status", "orders"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("next start: unsafe"), "{said}");
    let words = "would not start: FATAL: could not access file \"nosuchlib\"";
    assert_eq!(said.matches(words).count(), 2, "{said}");

    let (code, said) = line.run(&["status", "invoices"]);
    assert_eq!(code, 1);
    assert!(said.contains("Postgres demo/invoices is not there"), "{said}");
    line.stop().await;
}
