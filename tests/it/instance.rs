//! Instances with real servers, spoken to as the controller does: over mutual TLS.
//!
//! Every node runs in a runtime of its own, so that it can be ended like a killed process: its
//! tasks vanish, its server stays. Servers are ended by their process id.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pgitops::{
    cli::instance::{account, bin_directory},
    instance::{
        CONTROL_PORT, POSTGRES_PORT,
        certificates::Certificates,
        client::{Client, Error, Identity},
        health::{self, Probe},
        options::Options,
        protocol::{
            AskSettings, AskTimeline, Call, Checkpoint, ConfigurationSet, Credentials, Done,
            DryRun, Facts, Fence, Follow, Initialise, Join, Load, Loaded, MOST_ROLE_SETTINGS,
            Promote, Prove, Refused, Restart, Restarted, Role, RoleSetting, ServerState, SetId,
            Written,
        },
        run,
    },
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// For every call of these tests; generous, because eight tests may share two cores.
const WITHIN: Duration = Duration::from_secs(120);
const WITHIN_MS: u64 = 120_000;
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(5);

struct Database {
    folder: TempDir,
    certificates: Certificates,
    network: (u8, u8),
}

impl Database {
    fn new() -> Self {
        // Short, because sockets live below it, and open to the server's user.
        let folder = tempfile::Builder::new().prefix("pgi").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let validity = SignedDuration::from_hours(24);
        let certificates = Certificates::generate(Timestamp::now(), validity).unwrap();
        Self { folder, certificates, network: free_network() }
    }

    fn identity(&self) -> Identity {
        identity(&self.certificates)
    }

    fn node(&self, number: u8) -> Node {
        self.node_with(number, &[])
    }

    fn node_with(&self, number: u8, peers: &[&Node]) -> Node {
        let place = self.folder.path().join(number.to_string());
        for folder in ["tls", "seed", "volume"] {
            std::fs::create_dir_all(place.join(folder)).unwrap();
        }
        for folder in [place.clone(), place.join("volume")] {
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        write_certificates(&place.join("tls"), &self.certificates);
        let seed = "shared_buffers = 16MB\nwal_retrieve_retry_interval = 200ms\n";
        std::fs::write(place.join("seed/postgresql.conf"), seed).unwrap();
        let address = Ipv4Addr::new(127, self.network.0, self.network.1, number);
        let root = nix::unistd::geteuid().is_root();
        let options = Options {
            pod: format!("db-{number}"),
            data_directory: place.join("volume/data"),
            state_directory: place.join("volume/pgitops"),
            seed_directory: place.join("seed"),
            tls_directory: place.join("tls"),
            socket_directory: place.join("run"),
            bin_directory: bin_directory().expect("install PostgreSQL (postgresql-15)"),
            listen_address: IpAddr::V4(address),
            control_port: CONTROL_PORT,
            postgres_port: POSTGRES_PORT,
            peers: peers.iter().map(|peer| peer.options.listen_address.to_string()).collect(),
            account: root.then(|| account("postgres").expect("create the user postgres")),
            memory_limit: None,
            locale: "C".to_owned(),
            stop_grace: Duration::from_secs(20),
            echo_log: false,
        };
        let client = Client::new(SocketAddr::from((address, CONTROL_PORT)), &self.identity());
        let mut node = Node { options, client, running: None };
        node.start();
        node
    }
}

fn identity(certificates: &Certificates) -> Identity {
    let Certificates { ca_cert, client_cert, client_key, .. } = certificates;
    Identity::from_pem(ca_cert, client_cert, client_key).unwrap()
}

fn write_certificates(folder: &Path, certificates: &Certificates) {
    use secrecy::ExposeSecret;
    let Certificates { ca_cert, server_cert, server_key, .. } = certificates;
    std::fs::write(folder.join("ca.crt"), ca_cert).unwrap();
    std::fs::write(folder.join("tls.crt"), server_cert).unwrap();
    std::fs::write(folder.join("tls.key"), server_key.expose_secret()).unwrap();
}

/// A loopback network whose ports nobody uses.
fn free_network() -> (u8, u8) {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let by_process = u8::try_from(std::process::id() % 100).unwrap() + 100;
    loop {
        let network = (by_process, NEXT.fetch_add(1, Ordering::Relaxed));
        let address = Ipv4Addr::new(127, network.0, network.1, 1);
        let free = [CONTROL_PORT, POSTGRES_PORT]
            .iter()
            .all(|port| TcpListener::bind((address, *port)).is_ok());
        if free {
            return network;
        }
    }
}

struct Node {
    options: Options,
    client: Client,
    running: Option<Running>,
}

struct Running {
    runtime: tokio::runtime::Runtime,
    stopping: CancellationToken,
    ended: std::sync::mpsc::Receiver<Result<(), run::Error>>,
}

impl Node {
    fn start(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let stopping = CancellationToken::new();
        let (sender, ended) = std::sync::mpsc::channel();
        let (options, told) = (self.options.clone(), stopping.clone());
        runtime.spawn(async move {
            let _ = sender.send(run::run(options, told).await);
        });
        self.running = Some(Running { runtime, stopping, ended });
    }

    /// Ends the instance as `kill -9` would: no code of its own runs, its server stays.
    fn vanish(&mut self) {
        self.running.take().unwrap().runtime.shutdown_background();
    }

    /// Ends the instance as SIGTERM would.
    fn stop(&mut self) {
        let Running { runtime, stopping, ended } = self.running.take().unwrap();
        stopping.cancel();
        let ended = ended.recv_timeout(Duration::from_secs(60));
        runtime.shutdown_background();
        ended.expect("the instance did not end").expect("the instance failed");
    }

    async fn call<C: Call>(&self, call: &C) -> C::Answer {
        match self.client.call(call, WITHIN).await {
            Ok(answer) => answer,
            Err(error) => panic!("{}: {error}", self.options.pod),
        }
    }

    async fn refused<C: Call>(&self, call: &C) -> Refused
    where
        C::Answer: std::fmt::Debug,
    {
        match self.client.call(call, WITHIN).await {
            Err(Error::Refused { refused, .. }) => refused,
            other => panic!("{}: expected a refusal, got {other:?}", self.options.pod),
        }
    }

    /// Polls the facts until they are as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&Facts) -> bool) -> Facts {
        let until = Instant::now() + WITHIN;
        let mut last = String::new();
        while Instant::now() < until {
            match self.client.facts(Duration::from_secs(5)).await {
                Ok(facts) if wanted(&facts) => return facts,
                Ok(facts) => last = format!("{facts:?}"),
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(POLL).await;
        }
        panic!("{}: not {what} within {WITHIN:?}; last seen: {last}", self.options.pod);
    }

    async fn running(&self) -> Facts {
        self.until("running", |f| f.state == ServerState::Running && f.live.is_some()).await
    }

    fn postmaster(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.options.data_directory.join("postmaster.pid"));
        Some(Pid::from_raw(text.ok()?.lines().next()?.trim().parse().ok()?))
    }

    fn host(&self) -> String {
        self.options.listen_address.to_string()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(Running { runtime, stopping, ended }) = self.running.take() {
            stopping.cancel();
            let _ = ended.recv_timeout(Duration::from_secs(60));
            runtime.shutdown_background();
        }
        let left = self.postmaster().filter(|pid| {
            std::fs::read_link(format!("/proc/{pid}/cwd"))
                .is_ok_and(|cwd| cwd == self.options.data_directory)
        });
        if let Some(pid) = left {
            let _ = kill(pid, Signal::SIGQUIT);
        }
    }
}

fn fence(step: &str) -> Fence {
    Fence { lease_transitions: 7, request: "a-request".to_owned(), step: step.to_owned() }
}

fn credentials() -> Credentials {
    Credentials { username: "postgres".to_owned(), password: "s3cr:et\\'".to_owned().into() }
}

fn set(sequence: u64, text: &str) -> ConfigurationSet {
    let digest = format!("d{sequence}");
    ConfigurationSet { id: SetId { sequence, digest }, text: text.to_owned() }
}

fn load(step: &str, set: ConfigurationSet) -> Load {
    Load { fence: fence(step), set, deadline_ms: WITHIN_MS }
}

fn restart(step: &str, candidate: ConfigurationSet, fallback: ConfigurationSet) -> Restart {
    let (stop_deadline_ms, start_deadline_ms) = (WITHIN_MS, WITHIN_MS);
    Restart { fence: fence(step), candidate, fallback, stop_deadline_ms, start_deadline_ms }
}

async fn initialise(node: &Node) {
    node.until("up", |_| true).await;
    let call = Initialise { fence: fence("initialise"), credentials: credentials() };
    node.call(&call).await;
    node.running().await;
}

async fn join(node: &Node, primary: &Node) {
    node.until("up", |_| true).await;
    // A name that does not resolve comes first, as a pod's name does in a place without DNS.
    let primary_hosts = vec!["db-1.nowhere.invalid".to_owned(), primary.host()];
    let call = Join {
        fence: fence("join"),
        primary_hosts,
        primary_port: POSTGRES_PORT,
        credentials: credentials(),
    };
    node.call(&call).await;
    let streaming = |f: &Facts| {
        let receiver = f.live.as_ref().and_then(|live| live.receiver.as_ref());
        receiver.is_some_and(|receiver| receiver.status == "streaming")
    };
    node.until("streaming", streaming).await;
}

async fn setting(node: &Node, name: &str) -> String {
    let settings = node.call(&AskSettings { names: vec![name.to_owned()] }).await;
    settings.settings[name].reset_val.clone().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_three_is_made_changed_and_fenced() {
    let database = Database::new();
    let primary = database.node(1);
    let seen = primary.until("empty", |f| f.state == ServerState::Empty).await;
    assert!(seen.role.is_none() && seen.live.is_none() && seen.version.is_some());
    assert_eq!(primary.refused(&load("early", set(1, ""))).await, Refused::Empty);
    // A caller that goes away ends nothing; meanwhile everything else is refused.
    let call = Initialise { fence: fence("initialise"), credentials: credentials() };
    let late = primary.client.call(&call, Duration::from_millis(50)).await;
    assert!(matches!(late, Err(Error::Late { .. })), "{late:?}");
    let busy = primary.refused(&load("early", set(1, ""))).await;
    assert!(matches!(busy, Refused::Busy { .. }), "{busy:?}");
    initialise(&primary).await;
    let standbys = [database.node(2), database.node(3)];
    for standby in &standbys {
        join(standby, &primary).await;
    }
    let seen = primary
        .until("followed by two", |f| f.live.as_ref().is_some_and(|live| live.senders.len() == 2))
        .await;
    assert_eq!(seen.role, Some(Role::Primary));
    let live = seen.live.unwrap();
    let names: Vec<_> = live.senders.iter().map(|s| s.application_name.as_str()).collect();
    assert_eq!(names, ["db-2", "db-3"]);

    // A reload-class change is loaded and proven on all three.
    let text = "shared_buffers = 16MB\nwal_retrieve_retry_interval = 200ms\nwork_mem = 7MB\n";
    for node in [&primary, &standbys[0], &standbys[1]] {
        let loaded = node.call(&load("work_mem", set(2, text))).await;
        assert!(matches!(loaded, Loaded::Loaded { .. }), "{loaded:?}");
        println!("{}: {loaded:?}", node.options.pod);
        let proof = node
            .call(&Prove {
                expected: BTreeMap::from([("work_mem".to_owned(), "7168".to_owned())]),
                write: true,
                deadline_ms: WITHIN_MS,
            })
            .await;
        assert_eq!(proof.revision.as_deref(), Some("2:d2"));
        let parameter = &proof.parameters["work_mem"];
        assert!(parameter.equal, "{parameter:?}");
        let setting = parameter.setting.as_ref().unwrap();
        assert_eq!(setting.sourcefile.as_deref(), Some(proof.file.as_str()));
        assert_eq!(setting.sourceline, Some(3));
        assert!(proof.next_start.accepted, "{}", proof.next_start.words);
        assert_eq!((proof.connection_error, proof.file_errors), (None, Vec::new()));
        assert_eq!(matches!(proof.write, Some(Written::Committed { .. })), !proof.in_recovery);
        assert_eq!(proof.receiver.is_some(), proof.in_recovery);
    }

    // A standby can be told to follow somebody else, by reload.
    let follow = Follow {
        fence: fence("follow"),
        primary_hosts: vec![primary.host()],
        primary_port: POSTGRES_PORT,
        credentials: None,
    };
    let started = standbys[0].running().await.live.unwrap().started_at;
    let _: Done = standbys[0].call(&follow).await;
    let seen = standbys[0].running().await;
    assert_eq!(seen.live.unwrap().started_at, started, "follow must not restart");
    assert!(
        matches!(seen.role, Some(Role::Standby { primary_hosts, .. }) if primary_hosts.len() == 1)
    );
    assert!(matches!(primary.refused(&follow).await, Refused::Role { .. }));

    // Restarts keep roles: the primary raised last.
    let raised = format!("{text}max_connections = 120\n");
    for node in [&standbys[0], &standbys[1], &primary] {
        let restarted = node.call(&restart("raise", set(3, &raised), set(2, text))).await;
        assert!(matches!(restarted, Restarted::Restarted { forced: false, .. }), "{restarted:?}");
        println!("{}: {restarted:?}", node.options.pod);
        assert_eq!(setting(node, "max_connections").await, "120");
    }
    fence_a_former_primary(primary, standbys).await;
}

/// The primary goes away, a standby is promoted, the old one must not come back as a primary.
async fn fence_a_former_primary(mut primary: Node, standbys: [Node; 2]) {
    primary
        .until("followed by two", |f| f.live.as_ref().is_some_and(|live| live.senders.len() == 2))
        .await;
    primary.stop();
    let promote = Promote { fence: fence("promote"), deadline_ms: WITHIN_MS };
    standbys[0].call(&promote).await;
    standbys[0]
        .until("primary", |f| {
            f.role == Some(Role::Primary) && f.live.as_ref().is_some_and(|live| live.timeline == 2)
        })
        .await;
    // Nobody told it about its peers: they have introduced themselves.
    assert!(primary.options.peers.is_empty());
    primary.start();
    let fenced = ServerState::Fenced { peer: "db-2".to_owned(), timeline: 2 };
    primary.until("fenced", |f| f.state == fenced).await;
    assert!(primary.postmaster().is_none());
    let refused = primary.refused(&restart("anyway", set(4, ""), set(4, ""))).await;
    assert!(matches!(refused, Refused::NotRunning { .. }), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_start_is_put_back() {
    let database = Database::new();
    let node = database.node(1);
    initialise(&node).await;
    let good = || set(2, "shared_buffers = 16MB\nmax_connections = 50\n");
    let restarted = node.call(&restart("good", good(), set(1, ""))).await;
    assert!(matches!(restarted, Restarted::Restarted { .. }), "{restarted:?}");
    let bad = [
        ("shared_preload_libraries = 'nosuchlib'\n", "could not access file \"nosuchlib\""),
        ("max_connections = 99999999\n", "outside the valid range for parameter"),
        ("session_preload_libraries = 'nosuchlib'\n", "could not access file \"nosuchlib\""),
    ];
    for (sequence, (text, expect)) in (3..).zip(bad) {
        let call = restart(&format!("bad {sequence}"), set(sequence, text), good());
        let answer = node.call(&call).await;
        let Restarted::FellBack { words, .. } = &answer else { panic!("{text}: {answer:?}") };
        assert!(words.contains(expect), "{text}: {words}");
        println!("{answer:?}");
        let seen = node.running().await;
        assert_eq!(seen.sets.running, Some(good().id));
        assert_eq!((&seen.sets.staged, &seen.sets.last_started), (&None, &Some(good().id)));
        let fallback = seen.last_fallback.unwrap();
        assert_eq!((fallback.failed.sequence, fallback.now), (sequence, Some(good().id)));
        assert_eq!(setting(&node, "max_connections").await, "50");

        // A repeat restarts nothing and says the same.
        assert_eq!(node.call(&call).await, answer);
        let started = node.running().await.live.unwrap().started_at;
        assert_eq!(seen.live.unwrap().started_at, started);
    }
    // Neither starts: down, until a set is stored that does.
    let answer = node.call(&restart("both", set(8, bad[0].0), set(9, bad[1].0))).await;
    let Restarted::Down { words, fallback_words } = &answer else { panic!("{answer:?}") };
    assert!(words.contains(bad[0].1) && fallback_words.contains(bad[1].1), "{answer:?}");
    assert_eq!(node.call(&load("repaired", set(10, "work_mem = 3MB\n"))).await, Loaded::Stored);
    node.running().await;
    assert_eq!(setting(&node, "work_mem").await, "3072");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_the_server_would_not_take_is_put_back_before_it_sees_it() {
    let database = Database::new();
    let node = database.node(1);
    initialise(&node).await;
    let loaded = node.call(&load("good", set(2, "work_mem = 5MB\n"))).await;
    assert!(matches!(loaded, Loaded::Loaded { .. }), "{loaded:?}");
    let bad = [
        ("work_mem = 6MB\nlog_min_duration_statement = bogus\n", 2),
        ("work_mem = 6MB\nno_such_parameter = 1\n", 2),
        ("work_mem = 6MB\nthis is = no file\n", 2),
    ];
    for (sequence, (text, line)) in (3..).zip(bad) {
        let loaded = node.call(&load(&format!("bad {sequence}"), set(sequence, text))).await;
        let Loaded::PutBack { rejected, words } = loaded else { panic!("{text}: {loaded:?}") };
        assert_eq!(rejected[0].line, Some(line), "{words}");
        assert!(!words.is_empty());
        assert_eq!(setting(&node, "work_mem").await, "5120");
        assert_eq!(node.running().await.live.unwrap().revision.as_deref(), Some("2:d2"));
    }
    // A value that needs a restart is loaded, and said to wait.
    let text = "work_mem = 6MB\nmax_connections = 77\n";
    let loaded = node.call(&load("waits", set(9, text))).await;
    let Loaded::Loaded { pending_restart, .. } = loaded else { panic!("{loaded:?}") };
    // The seed's value of shared_buffers has gone from the file; that waits as well.
    assert_eq!(pending_restart, ["max_connections", "shared_buffers"]);
    assert_eq!(setting(&node, "work_mem").await, "6144");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_late_is_refused_and_a_repeat_does_nothing() {
    let database = Database::new();
    let node = database.node(1);
    initialise(&node).await;
    let first = load("a", set(2, "work_mem = 5MB\n"));
    let answer = node.call(&first).await;
    node.call(&load("b", set(3, "work_mem = 6MB\n"))).await;
    assert_eq!(node.call(&first).await, answer);
    assert_eq!(setting(&node, "work_mem").await, "6144", "a repeat must not load again");

    let mut newer = first.clone();
    newer.fence.lease_transitions = 8;
    assert_eq!(node.call(&newer).await, answer, "another holder may repeat");
    assert_eq!(node.refused(&first).await, Refused::Fenced { seen: 8 });
    let mut other = newer.clone();
    other.set.text.push_str("# another text\n");
    assert_eq!(node.refused(&other).await, Refused::OtherContent);
    let mut again = Initialise { fence: fence("again"), credentials: credentials() };
    again.fence.lease_transitions = 8;
    assert_eq!(node.refused(&again).await, Refused::NotEmpty);
    let mut smuggled = load("c", set(4, "a = 'b\0c'"));
    smuggled.fence.lease_transitions = 8;
    assert!(matches!(node.refused(&smuggled).await, Refused::Invalid { .. }));
    let checkpoint = Checkpoint { fence: newer.fence.clone(), deadline_ms: WITHIN_MS };
    let _: Done = node.call(&checkpoint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_and_a_killed_instance_come_back() {
    let database = Database::new();
    let mut node = database.node(1);
    initialise(&node).await;
    let loaded = node.call(&load("good", set(2, "work_mem = 5MB\n"))).await;
    assert!(matches!(loaded, Loaded::Loaded { .. }), "{loaded:?}");
    let before = node.running().await.live.unwrap().started_at;
    kill(node.postmaster().unwrap(), Signal::SIGKILL).unwrap();
    let other = |f: &Facts| f.live.as_ref().is_some_and(|live| live.started_at != before);
    node.until("started again", other).await;
    assert_eq!(setting(&node, "work_mem").await, "5120");
    ready(&node).await;

    // A file that reloads well and cannot start is found out by the next start, which then takes
    // the last one that could.
    let latent = load("latent", set(4, "work_mem = 9MB\nmax_connections = 99999999\n"));
    assert!(matches!(node.call(&latent).await, Loaded::Loaded { .. }));
    let before = node.running().await;
    kill(node.postmaster().unwrap(), Signal::SIGKILL).unwrap();
    let last = before.sets.last_started.clone();
    let seen = node.until("fallen back", |f| f.live.is_some() && f.sets.running == last).await;
    let fallback = seen.last_fallback.unwrap();
    assert_eq!((fallback.failed, fallback.now), (set(4, "").id, last));
    assert!(fallback.words.contains("outside the valid range"), "{}", fallback.words);
    node.call(&load("good again", set(5, "work_mem = 5MB\n"))).await;

    // The server outlives its supervisor; the next one takes the data folder over.
    node.vanish();
    let orphan = node.postmaster().unwrap();
    node.start();
    let seen = node.running().await;
    assert_ne!(node.postmaster().unwrap(), orphan);
    assert_eq!(seen.sets.running, Some(set(5, "").id));
    assert_eq!(setting(&node, "work_mem").await, "5120");

    // A restart that was begun is brought to its end by the next process, with its answer, at
    // whatever moment the first one went away.
    for (sequence, moment) in (6..).zip([1, 15, 30, 45, 60, 75, 90, 120, 150, 200]) {
        let text = format!("work_mem = 6MB\nmax_connections = {}\n", 50 + sequence);
        let before = set(sequence - 1, &node_text(&node));
        let call = restart(&format!("crash {moment}"), set(sequence, &text), before);
        let short = node.client.call(&call, Duration::from_millis(moment)).await;
        node.vanish();
        drop(short);
        node.start();
        node.running().await;
        let answer = node.call(&call).await;
        assert!(matches!(answer, Restarted::Restarted { .. }), "{moment} ms: {answer:?}");
        assert_eq!(setting(&node, "max_connections").await, (50 + sequence).to_string());
        assert_eq!(node.running().await.sets.staged, None);
    }

    // Stopped in order, nothing is left.
    let socket = node.options.health_socket();
    node.stop();
    assert!(node.postmaster().is_none());
    assert!(health::ask(&socket, Probe::Liveness).await.is_err());
}

/// The text of the set in force: the live file without the line that the instance adds.
fn node_text(node: &Node) -> String {
    let text = std::fs::read_to_string(node.options.live_file()).unwrap();
    let own = |line: &&str| !line.starts_with("pgitops.revision");
    text.lines().filter(own).map(|line| format!("{line}\n")).collect()
}

async fn ready(node: &Node) {
    let socket = node.options.health_socket();
    for probe in [Probe::Liveness, Probe::Startup, Probe::Readiness] {
        assert_eq!(health::ask(&socket, probe).await, Ok("running".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_remembered_hides_no_change() {
    let database = Database::new();
    let node = database.node(1);
    initialise(&node).await;
    let before = node.running().await.control.unwrap().checkpoint;
    let _: Done =
        node.call(&Checkpoint { fence: fence("checkpoint"), deadline_ms: WITHIN_MS }).await;
    let after = node.running().await.control.unwrap().checkpoint;
    assert!(after > before, "the control file was not read again: {after} after {before}");

    // A file that was tried out needs no second trial, as long as it is the same.
    let text = Some("work_mem = 7MB\n".to_owned());
    let tried = DryRun { text, allocate: false, boot: false, deadline_ms: WITHIN_MS };
    assert!(node.call(&tried).await.accepted);
    let _: Loaded = node.call(&load("tried", set(2, "work_mem = 7MB\n"))).await;
    let prove = Prove { deadline_ms: WITHIN_MS, ..Prove::default() };
    assert!(node.call(&prove).await.next_start.accepted);
    let sql = session(&node).await;
    sql.batch_execute("alter system set shared_preload_libraries = 'no_such_thing'").await.unwrap();
    let next_start = node.call(&prove).await.next_start;
    assert!(next_start.words.contains("no_such_thing"), "{next_start:?}");
    sql.batch_execute("alter system reset all").await.unwrap();
    assert!(node.call(&prove).await.next_start.accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_roles_and_databases_set_for_themselves_is_told() {
    let database = Database::new();
    let node = database.node(1);
    initialise(&node).await;
    node.running().await;
    let sql = session(&node).await;
    let told = async |name: &str| {
        let settings = node.call(&AskSettings { names: vec![name.to_owned()] }).await;
        assert!(!settings.more_role_settings);
        settings.role_settings.iter().map(RoleSetting::line).collect::<Vec<_>>()
    };
    assert_eq!(told("work_mem").await, [""; 0]);
    for statement in [
        "create role app",
        "create database shop",
        "alter role app set work_mem = '42MB'",
        "alter role app set search_path = 'a', 'b=c'",
        "alter role app in database shop set work_mem = '43MB'",
        "alter database shop set work_mem = '44MB'",
        "alter role all set work_mem = '45MB'",
        "alter role app set app.password = 'canary'",
    ] {
        sql.batch_execute(statement).await.unwrap();
    }
    let all = [
        "work_mem is 43MB for role app in database shop (ALTER ROLE)",
        "work_mem is 42MB for role app (ALTER ROLE)",
        "work_mem is 44MB for database shop (ALTER DATABASE)",
        "work_mem is 45MB for every role (ALTER ROLE ALL)",
    ];
    assert_eq!(told("Work_Mem").await, all);
    assert_eq!(told("search_path").await, ["search_path is a, \"b=c\" for role app (ALTER ROLE)"]);
    assert_eq!(told("maintenance_work_mem").await, [""; 0]);
    let hidden = node.call(&AskSettings { names: vec!["app.password".to_owned()] }).await;
    assert_eq!(hidden.role_settings.len(), 1);
    assert!(!serde_json::to_string(&hidden).unwrap().contains("canary"), "{hidden:?}");

    // The proof has the same ones.
    let expected = [("work_mem".to_owned(), "4096".to_owned())].into();
    let proof =
        node.call(&Prove { expected, write: false, deadline_ms: WITHIN_MS }).await.role_overrides;
    assert_eq!(proof.iter().map(RoleSetting::line).collect::<Vec<_>>(), all);

    // More than an answer holds: it says so.
    let many = "do $$ begin for i in 1..110 loop execute format('create role r%s', i); \
        execute format('alter role r%s set work_mem = 99', i); end loop; end $$";
    sql.batch_execute(many).await.unwrap();
    let settings = node.call(&AskSettings { names: vec!["work_mem".to_owned()] }).await;
    assert!(settings.more_role_settings);
    assert_eq!(settings.role_settings.len(), MOST_ROLE_SETTINGS);
}

async fn session(node: &Node) -> tokio_postgres::Client {
    let mut config = tokio_postgres::Config::new();
    config.host_path(&node.options.socket_directory).user("postgres").dbname("postgres");
    let (sql, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    sql
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_finds_what_a_start_would() {
    let database = Database::new();
    let node = database.node(1);
    initialise(&node).await;
    let check = |text: &'static str, allocate, boot, expect: Option<&'static str>| {
        let text_of = Some(text.to_owned());
        let call = DryRun { text: text_of, allocate, boot, deadline_ms: WITHIN_MS };
        let node = &node;
        async move {
            let ran = node.call(&call).await;
            assert_eq!(ran.accepted, expect.is_none(), "{text}: {}", ran.words);
            assert!(ran.words.contains(expect.unwrap_or_default()), "{text}: {}", ran.words);
            assert!(!ran.words.contains("scratch"), "{text}: {}", ran.words);
        }
    };
    let no = false;
    check("work_mem = 5MB\n", no, no, None).await;
    check("work_mem = 5MB\n", true, true, None).await;
    check("this is = no file\n", no, no, Some("syntax error")).await;
    check("no_such_parameter = 1\n", no, no, Some("unrecognized configuration parameter")).await;
    check("log_min_duration_statement = bogus\n", no, no, Some("invalid value")).await;
    check("max_connections = 99999999\n", no, no, Some("outside the valid range")).await;
    let combination = "max_connections = 2\nsuperuser_reserved_connections = 3\n";
    check(combination, no, no, Some("must be less than max_connections")).await;
    check("wal_level = minimal\n", no, no, Some("requires wal_level")).await;
    check("shared_preload_libraries = 'nosuchlib'\n", no, no, Some("nosuchlib")).await;
    check("session_preload_libraries = 'nosuchlib'\n", no, no, Some("nosuchlib")).await;
    check("local_preload_libraries = 'nosuchlib'\n", no, no, Some("nosuchlib")).await;
    check("session_preload_libraries = 'auto_explain'\n", no, true, None).await;
    check("ssl = on\n", no, no, Some("server.crt")).await;
    let two = "recovery_target = immediate\nrecovery_target_xid = '7'\n";
    check(two, no, no, Some("recovery_target")).await;
    check("shared_buffers = 100TB\n", no, no, Some("shared_buffers")).await;
    check("shared_buffers = 7TB\n", no, no, None).await;
    check("shared_buffers = 7TB\n", true, no, Some("could not map anonymous shared memory")).await;
    // There is such a file, but it is no library: only a session finds out.
    let no_library = "session_preload_libraries = '/etc/passwd'\n";
    check(no_library, no, no, None).await;
    check(no_library, no, true, Some("/etc/passwd")).await;
    // What only the live data folder knows: a start with fewer slots than exist is refused.
    let sql = session(&node).await;
    sql.batch_execute("select pg_create_physical_replication_slot('a')").await.unwrap();
    check("max_replication_slots = 1\n", no, no, None).await;
    check("max_replication_slots = 0\n", no, no, Some("1 slots that exist")).await;
    let on_disk = DryRun { text: None, allocate: no, boot: no, deadline_ms: WITHIN_MS };
    assert!(node.call(&on_disk).await.accepted);
    assert_eq!(node.running().await.live.unwrap().gates.base_backups, 0);
}

/// With `PGITOPS_POSTGRES_ROOTS` for every major version there, else for those of the system.
#[tokio::test(flavor = "multi_thread")]
async fn every_installed_version_is_supervised_alike() {
    let installed = crate::postgres::bin_dirs();
    println!("versions: {:?}", installed.keys().collect::<Vec<_>>());
    for (major, bin) in installed {
        let database = Database::new();
        let mut node = database.node(1);
        node.stop();
        node.options.bin_directory = bin;
        node.start();
        initialise(&node).await;
        let seen = node.running().await;
        assert_eq!(seen.version.unwrap().major(), major);
        assert_eq!(seen.live.unwrap().version_number / 10_000, major);
        let call = load("work_mem", set(2, "work_mem = 5MB\n"));
        assert!(matches!(node.call(&call).await, Loaded::Loaded { .. }), "{major}");
        for (name, text) in [
            ("library", "shared_preload_libraries = 'nosuchlib'\n"),
            ("value", "log_min_duration_statement = bogus\n"),
            ("rule", "wal_level = minimal\n"),
        ] {
            let dry = DryRun {
                text: Some(text.to_owned()),
                allocate: true,
                boot: false,
                deadline_ms: WITHIN_MS,
            };
            let ran = node.call(&dry).await;
            assert!(!ran.accepted, "{major}: {text}");
            let good = set(2, "work_mem = 5MB\n");
            let answer = node.call(&restart(name, set(3, text), good)).await;
            assert!(matches!(answer, Restarted::FellBack { .. }), "{major}: {text}: {answer:?}");
            let fine = DryRun { text: None, ..dry };
            let ran = node.call(&fine).await;
            assert!(ran.accepted, "{major}: {}", ran.words);
        }
        assert_eq!(setting(&node, "work_mem").await, "5120");
        // The smallest builds lack the program that a proof reads pg_control with.
        if node.options.program("pg_controldata").is_file() {
            let proof = node.call(&Prove { deadline_ms: WITHIN_MS, ..Prove::default() }).await;
            assert!(proof.next_start.accepted, "{major}: {}", proof.next_start.words);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_kept_out_and_new_certificates_are_taken_up() {
    let database = Database::new();
    let node = database.node(1);
    node.until("up", |_| true).await;
    let address = node.client.address();
    let now = Timestamp::now();
    let day = SignedDuration::from_hours(24);

    let strange = Certificates::generate(now, day).unwrap();
    let stranger = Client::new(address, &identity(&strange));
    assert!(matches!(stranger.facts(WITHIN).await, Err(Error::Unreachable { .. })));

    // Another instance may ask for the timeline and nothing else.
    let Certificates { ca_cert, ca_key, server_cert, server_key, .. } = &database.certificates;
    let peer = Client::new(address, &Identity::from_pem(ca_cert, server_cert, server_key).unwrap());
    let timeline = peer.call(&AskTimeline { from: None }, WITHIN).await.unwrap();
    assert_eq!((timeline.pod.as_str(), timeline.system_identifier), ("db-1", None));
    assert!(matches!(peer.facts(WITHIN).await, Err(Error::Refused { .. })));

    // Renewed by the same authority: both ends change at their own time.
    let renewed = Certificates::renew(ca_cert, ca_key, now, day).unwrap();
    Client::new(address, &identity(&renewed)).facts(WITHIN).await.unwrap();
    // Replaced altogether: the new one is in force for the next connection.
    write_certificates(&node.options.tls_directory, &strange);
    Client::new(address, &identity(&strange)).facts(WITHIN).await.unwrap();
    let old = Client::new(address, &database.identity());
    assert!(matches!(old.facts(WITHIN).await, Err(Error::Unreachable { .. })));
}

#[test]
fn root_is_refused_with_the_way_out() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = Database::new();
    let mut node = runtime.block_on(async { database.node(1) });
    node.stop();
    node.options.account = None;
    let error = runtime.block_on(run::run(node.options.clone(), CancellationToken::new()));
    assert!(error.unwrap_err().to_string().contains("--user"));
}
