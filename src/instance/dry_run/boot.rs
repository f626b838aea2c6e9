//! The two dear parts of a dry run: allocate the memory, boot a scratch server.
//!
//! Both need a whole (empty) cluster, made once per version and kept beside the sets. Only one
//! runs at a time, so a scratch server never competes with another for memory.

use std::{fs, path::PathBuf, time::Duration};

use super::{
    super::{
        files,
        options::Options,
        process,
        sql::{Local, Verdict},
        words,
    },
    Run, Tried,
};

/// Only one at a time: they share the cluster.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
/// How long `initdb` may take; it takes 0.6 s.
const INITDB: Duration = Duration::from_secs(60);

/// `postgres --check`: really allocates the shared memory.
pub async fn allocate(run: &Run<'_>) -> Tried {
    let _turn = TURN.lock().await;
    let cluster = cluster(run.options).await?;
    let program = run.options.program("postgres");
    let mut arguments = vec!["--check".to_owned()];
    arguments.extend(arguments_on(run, &cluster));
    let ran = process::run(run.options, &program, arguments, &[], run.within).await;
    let ran = ran.map_err(|e| e.to_string())?;
    Ok((!ran.success).then(|| words::pick(ran.err.lines())))
}

/// Starts a server on the scratch cluster, opens one session, stops it.
pub async fn boot(run: &Run<'_>) -> Tried {
    let _turn = TURN.lock().await;
    let cluster = cluster(run.options).await?;
    // No TCP, and a socket number of its own, on which the live server does not listen.
    let port = run.options.postgres_port.checked_add(1).unwrap_or(run.options.postgres_port - 1);
    let mut arguments = arguments_on(run, &cluster);
    for owned in ["listen_addresses=", &format!("port={port}"), "archive_mode=off"] {
        arguments.extend(["-c".to_owned(), owned.to_owned()]);
    }
    let log = process::Tail::default();
    let quiet = Options { echo_log: false, ..run.options.clone() };
    let server = process::Postmaster::spawn_with(&quiet, &log, arguments);
    let server = server.map_err(|e| e.to_string())?;
    // Whatever happens to this future, the server must not stay.
    let guard = Ended(&server);
    let refusal = first_session(run, &cluster, &server, port).await;
    drop(guard);
    server.exited().await;
    Ok(refusal)
}

struct Ended<'a>(&'a process::Postmaster);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        // Nothing on a scratch cluster is worth a shutdown checkpoint.
        self.0.signal(nix::sys::signal::Signal::SIGQUIT);
    }
}

async fn first_session(
    run: &Run<'_>,
    cluster: &std::path::Path,
    server: &process::Postmaster,
    port: u16,
) -> Option<String> {
    let local = Local::new(run.options, SUPERUSER).with_port(port);
    loop {
        if server.has_exited() {
            let log = server.log();
            return Some(words::pick(log.iter().map(String::as_str)));
        }
        let lock = process::LockFile::read(cluster);
        let ready =
            lock.is_some_and(|lock| lock.pid == server.pid().as_raw() && lock.status == "ready");
        if ready {
            match local.connect().await {
                Ok(_) => return None,
                Err(error) if error.verdict() == Verdict::Broken => return Some(error.to_string()),
                Err(_) => {}
            }
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(2)) => {}
            () = server.exited() => {}
        }
    }
}

/// Superuser of the scratch cluster.
const SUPERUSER: &str = "postgres";

/// The file under trial, on the scratch cluster.
fn arguments_on(run: &Run<'_>, cluster: &std::path::Path) -> Vec<String> {
    let own = Options { data_directory: run.scratch.folder.clone(), ..run.options.clone() };
    let before = own.data_directory.to_string_lossy().into_owned();
    let after = cluster.to_string_lossy().into_owned();
    let arguments = run.scratch.arguments(&own).into_iter();
    arguments.map(|a| if a == before { after.clone() } else { a }).collect()
}

/// The scratch cluster, made now if there is none of this version.
async fn cluster(options: &Options) -> Result<PathBuf, String> {
    let cluster = options.state_directory.join("scratch");
    let version = |folder: &std::path::Path| fs::read_to_string(folder.join("PG_VERSION")).ok();
    let wanted = version(&options.data_directory);
    if version(&cluster) == wanted && wanted.is_some() {
        return Ok(cluster);
    }
    let failed = |e: std::io::Error| format!("make the scratch cluster: {e}");
    let partial = options.state_directory.join("scratch.filling");
    files::remove_folder(&cluster).and_then(|()| files::remove_folder(&partial)).map_err(failed)?;
    let arguments = [
        "--pgdata".into(),
        partial.clone().into_os_string(),
        format!("--username={SUPERUSER}").into(),
        "--auth=trust".into(),
        "--no-sync".into(),
        "--encoding=UTF8".into(),
        "--locale=C".into(),
    ];
    let ran = process::run(options, &options.program("initdb"), arguments, &[], INITDB).await;
    let ran = ran.map_err(|e| e.to_string())?;
    if !ran.success {
        return Err(format!("make the scratch cluster: {}", words::pick(ran.err.lines())));
    }
    fs::rename(&partial, &cluster).map_err(failed)?;
    Ok(cluster)
}
