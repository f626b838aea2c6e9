//! The conformance cases and the whole line against a real control plane, with figures beside
//! those of the sandbox. One control plane for the whole run: a harness of its own can end it.
//!
//! `cargo test --test kubernetes [-- PART-OF-A-NAME]`; `tests/kubernetes/build.sh` makes what it
//! needs. Without that it fails: it never passes because something is missing.

// Cases panic as tests do: clippy only knows functions marked #[test].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admission;
#[path = "../it/conformance/mod.rs"]
mod conformance;
mod control_plane;
#[path = "../it/fixture.rs"]
#[allow(dead_code)] // one fixture for both; here only its sandbox is used
mod fixture;
#[path = "../it/kubectl.rs"]
mod kubectl;
#[path = "../it/kubedb/mod.rs"]
mod kubedb;
mod leftovers;
mod program;
mod rights;

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use conformance::line::{Figures, the_whole_line};
use conformance::{Cluster, cases, watching};
use control_plane::{ControlPlane, EXECUTABLE};
use futures::{FutureExt as _, StreamExt as _};
use tokio::signal::unix::{SignalKind, signal};

/// Cases that run side by side: most of them wait for kubectl.
const AT_ONCE: usize = 3;

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A case by name.
struct Case {
    name: &'static str,
    run: fn(Arc<Cluster>) -> Running,
}

macro_rules! on_a_control_plane {
    ($($file:ident::$case:ident,)*) => {
        [$(Case {
            name: stringify!($case),
            run: |cluster| Box::pin(async move { conformance::$file::$case(&cluster).await }),
        }),*]
    };
}

macro_rules! beside_on_a_control_plane {
    ($($case:ident,)*) => {
        [$(Case {
            name: stringify!($case),
            run: |cluster| Box::pin(async move { kubedb::cases::$case(&cluster).await }),
        }),*]
    };
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = runtime.map_err(Into::into).and_then(|runtime| {
        runtime.block_on(async {
            match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                [] => lane("").await,
                [leftovers::HOLD] => leftovers::hold().await,
                [part] if !part.starts_with('-') => lane(part).await,
                other => bail!("unknown arguments {other:?}; give a part of a case's name or none"),
            }
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kubernetes: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs everything whose name contains `part`.
async fn lane(part: &str) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let plane = ControlPlane::start().await?;
    let (answering, open) = plane.started_in;
    println!("control plane: answers after {answering:.1?}, takes pods after {open:.1?}");
    let traces = plane.traces();
    let failed = tokio::select! {
        failed = all(&plane, part) => failed,
        _ = interrupt.recv() => vec!["interrupted".to_owned()],
        _ = terminate.recv() => vec!["terminated".to_owned()],
    };
    plane.stop().await?;
    leftovers::none_of(&traces)?;
    if failed.is_empty() && "a_killed_run_leaves_no_process".contains(part) {
        leftovers::a_killed_run_leaves_no_process().await?;
    }
    match failed.as_slice() {
        [] => Ok(()),
        failed => bail!("{} failed: {}", failed.len(), failed.join(", ")),
    }
}

/// Runs the cases and then, alone, what needs or disturbs the whole cluster. Names what failed.
async fn all(plane: &ControlPlane, part: &str) -> Vec<String> {
    let cases: [Case; _] = cases!(on_a_control_plane);
    let (ran, of) = (cases.iter().filter(|c| c.name.contains(part)).count(), cases.len());
    let wanted = cases.into_iter().filter(|case| case.name.contains(part));
    let each = wanted.map(|case| async move {
        let began = Instant::now();
        let cluster = Arc::new(plane.cluster(case.name).await);
        let result = tokio::spawn((case.run)(cluster.clone())).await;
        told(case.name, result.is_ok(), began);
        // Its databases are nobody's; the line comes with a controller.
        cluster.ok(&format!("delete namespace {}", cluster.namespace)).await;
        result.err().map(|_| case.name.to_owned())
    });
    let results = futures::stream::iter(each).buffer_unordered(AT_ONCE);
    let mut failed: Vec<String> = results.filter_map(std::future::ready).collect().await;
    println!("{ran} of {of} cases, {} failed", failed.len());
    if "an_old_watch_expires".contains(part) {
        let began = Instant::now();
        let cluster = plane.cluster("an_old_watch_expires").await;
        let forget = async { plane.forget().await.unwrap() };
        let case = watching::an_old_watch_expires(&cluster, forget);
        let result = AssertUnwindSafe(case).catch_unwind().await;
        told("an_old_watch_expires", result.is_ok(), began);
        failed.extend(result.err().map(|_| "an_old_watch_expires".to_owned()));
    }
    if "a_missing_right_is_named_and_others_go_on".contains(part) {
        let name = "a_missing_right_is_named_and_others_go_on";
        let began = Instant::now();
        let cluster = plane.cluster("a_missing_right").await;
        let case = rights::a_missing_right_is_named_and_others_go_on(&cluster, &plane.kubeconfig);
        let result = AssertUnwindSafe(case).catch_unwind().await;
        told(name, result.is_ok(), began);
        failed.extend(result.err().map(|_| name.to_owned()));
    }
    if "the_whole_line".contains(part) {
        failed.extend(both_lines(plane).await);
    }
    // The last of all: from here on the kinds are KubeDB's.
    failed.extend(beside_kubedb(plane, part).await);
    failed
}

/// The cases beside KubeDB (all of them as `beside_kubedb`), one after another: the controller of
/// each looks at all namespaces.
async fn beside_kubedb(plane: &ControlPlane, part: &str) -> Vec<String> {
    let cases: [Case; _] = kubedb::beside_cases!(beside_on_a_control_plane);
    let refused = Case {
        name: "a_refused_claim_is_told",
        run: |cluster| Box::pin(async move { admission::a_refused_claim_is_told(&cluster).await }),
    };
    let cases = cases.into_iter().chain([refused]);
    let mut failed = Vec::new();
    let all = "beside_kubedb".contains(part);
    for case in cases.filter(|case| all || case.name.contains(part)) {
        // Each time: one of the cases changes them.
        kubedb::define(&plane.client).await;
        let began = Instant::now();
        let cluster = Arc::new(plane.cluster(case.name).await);
        let result = tokio::spawn((case.run)(cluster)).await;
        told(case.name, result.is_ok(), began);
        failed.extend(result.err().map(|_| case.name.to_owned()));
    }
    failed
}

/// The whole line here and in a sandbox, with the figures of both.
async fn both_lines(plane: &ControlPlane) -> Option<String> {
    let began = Instant::now();
    let cluster = plane.cluster("the_whole_line").await;
    let here = run_line(cluster).await;
    told("the_whole_line", here.is_some(), began);
    let world = fixture::World::start_with(|options| options.empty = true).await;
    let cluster = Cluster::open(world.client(), &world.sandbox.kubeconfig, "line").await;
    let there = run_line(cluster).await;
    world.stop().await;
    let (Some(here), Some(there)) = (here, there) else { return Some("the_whole_line".into()) };
    println!("{:<46}{:>16}{:>12}", "three nodes, one machine", "control plane", "sandbox");
    for (what, figure) in [
        ("manifest to Ready", (|f| f.ready) as fn(&Figures) -> std::time::Duration),
        ("request to proven, reload", |f| f.reload),
        ("request to proven, restart", |f| f.restart),
        ("push to note, reload", |f| f.push),
    ] {
        let (here, there) = (figure(&here).as_millis(), figure(&there).as_millis());
        println!("{what:<46}{here:>13} ms{there:>9} ms");
    }
    None
}

async fn run_line(cluster: Cluster) -> Option<Figures> {
    tokio::spawn(async move { the_whole_line(&cluster, Path::new(EXECUTABLE)).await }).await.ok()
}

fn told(name: &str, fine: bool, began: Instant) {
    let word = if fine { "ok" } else { "FAILED" };
    println!("case {name} ... {word} ({:.1?})", began.elapsed());
}
