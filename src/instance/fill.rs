//! Changes of who a server is: initialise, join, follow, promote.
//!
//! The data folder is filled beside its place and renamed when it is whole, so an interrupted
//! `initdb` or base backup leaves an empty folder behind. What is told to whom is the
//! controller's decision. Never touches a folder that holds a database.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use secrecy::ExposeSecret;
use tokio::time::{sleep, timeout};

use super::{
    changes::{deadline, has_data, millis, running},
    files, process,
    protocol::{Credentials, Done, Follow, Initialise, Join, Promote, Refused, Role, ServerState},
    server_file,
    store::Key,
    supervisor::Supervisor,
    words,
    work::{Stop, Ticket, answered},
};

/// How long `initdb` may take; it takes a second, and much longer on a slow network disk.
const INITDB: Duration = Duration::from_secs(300);
/// How long a base backup may take: a day is a terabyte at 12 MB/s.
const BASE_BACKUP: Duration = Duration::from_secs(24 * 3600);
/// How long a new server may take until it accepts connections; a new standby replays first.
const FIRST_START: Duration = Duration::from_secs(600);

/// See [`Initialise`].
pub async fn initialise(own: &Supervisor, call: Initialise, ticket: Ticket) -> Result<Done, Stop> {
    let began = Instant::now();
    let Initialise { fence: _, credentials } = call;
    if may_fill(own, &ticket.key)? {
        // Held, so that the loop does not look at a folder that is being filled.
        let _server = own.lock().await;
        own.show(ServerState::Filling);
        let filled = initdb(own, &credentials, &ticket.key).await;
        show_filled(own, filled)?;
    }
    first_start(own, began, &ticket).await
}

/// See [`Join`].
pub async fn join(own: &Supervisor, call: Join, ticket: Ticket) -> Result<Done, Stop> {
    let began = Instant::now();
    let Join { fence: _, primary_hosts, primary_port, credentials } = call;
    check_hosts(&primary_hosts)?;
    if may_fill(own, &ticket.key)? {
        let _server = own.lock().await;
        own.show(ServerState::Filling);
        let role = Role::Standby { primary_hosts, primary_port };
        let filled = base_backup(own, &credentials, role, &ticket.key).await;
        show_filled(own, filled)?;
    }
    first_start(own, began, &ticket).await
}

/// False: this very step has filled the folder, and only the start is left.
fn may_fill(own: &Supervisor, key: &Key) -> Result<bool, Stop> {
    if !own.options.has_data() {
        return Ok(true);
    }
    if own.store.state().filled_by.as_ref() == Some(key) {
        return Ok(false);
    }
    Err(Refused::NotEmpty.into())
}

fn show_filled(own: &Supervisor, filled: Result<(), Stop>) -> Result<(), Stop> {
    own.show(if filled.is_ok() { ServerState::Stopped } else { ServerState::Empty });
    filled
}

async fn initdb(own: &Supervisor, credentials: &Credentials, key: &Key) -> Result<(), Stop> {
    let options = &own.options;
    let partial = partial(own)?;
    let password = options.state_directory.join("initdb-password");
    let secret = format!("{}\n", credentials.password.expose_secret());
    files::replace(&password, secret.as_bytes(), options.account)?;
    let arguments = [
        "--pgdata".into(),
        partial.clone().into_os_string(),
        format!("--username={}", credentials.username).into(),
        format!("--pwfile={}", password.display()).into(),
        "--auth-local=trust".into(),
        "--auth-host=scram-sha-256".into(),
        "--data-checksums".into(),
        "--encoding=UTF8".into(),
        format!("--locale={}", options.locale).into(),
    ];
    let program = options.program("initdb");
    let ran = run(own, &program, arguments, INITDB).await;
    std::fs::remove_file(&password)?;
    let ran = ran?;
    if !ran.success {
        return Err(Stop::Failed(format!("initdb: {}", words::pick(ran.err.lines()))));
    }
    fill(own, credentials, Role::Primary, key)?;
    Ok(std::fs::rename(&partial, &options.data_directory)?)
}

async fn base_backup(
    own: &Supervisor,
    credentials: &Credentials,
    role: Role,
    key: &Key,
) -> Result<(), Stop> {
    let options = &own.options;
    let partial = partial(own)?;
    write_pass_file(own, credentials)?;
    let Some(conninfo) = server_file::conninfo(options, Some(&role), &credentials.username) else {
        return Err(Stop::Failed("join without a primary".to_owned()));
    };
    let arguments = [
        "--pgdata".into(),
        partial.clone().into_os_string(),
        format!("--dbname={conninfo}").into(),
        "--wal-method=stream".into(),
        "--checkpoint=fast".into(),
        "--no-password".into(),
    ];
    let program = options.program("pg_basebackup");
    let ran = run(own, &program, arguments, BASE_BACKUP).await?;
    if !ran.success {
        return Err(Stop::Failed(format!("pg_basebackup: {}", words::pick(ran.err.lines()))));
    }
    let signal = partial.join("standby.signal");
    files::replace(&signal, b"", options.account)?;
    fill(own, credentials, role, key)?;
    Ok(std::fs::rename(&partial, &options.data_directory)?)
}

/// Runs a program that may take long; it ends with the instance.
async fn run(
    own: &Supervisor,
    program: &Path,
    arguments: impl IntoIterator<Item = OsString>,
    within: Duration,
) -> Result<process::Output, Stop> {
    tokio::select! {
        ran = process::run(&own.options, program, arguments, &[], within) => Ok(ran?),
        () = own.stopping() => Err(Stop::Failed("the instance is stopping".to_owned())),
    }
}

/// An empty place beside the data folder.
fn partial(own: &Supervisor) -> Result<PathBuf, Stop> {
    let mut name = own.options.data_directory.clone().into_os_string();
    name.push(".filling");
    let partial = PathBuf::from(name);
    files::remove_folder(&partial)?;
    files::folder(&partial, own.options.account)?;
    Ok(partial)
}

/// Everything that a start needs besides the data. Written before the data is in its place, so
/// that a database which is seen is also known.
fn fill(own: &Supervisor, credentials: &Credentials, role: Role, key: &Key) -> Result<(), Stop> {
    write_pass_file(own, credentials)?;
    let seed = own.store.seed()?;
    own.store.keep(&seed)?;
    own.store.update(|state| {
        state.role = Some(role);
        state.superuser = Some(credentials.username.clone());
        state.filled_by = Some(key.clone());
        state.sets = super::protocol::Sets { staged: Some(seed.id), ..Default::default() };
        state.last_fallback = None;
        state.restart = None;
    })?;
    Ok(())
}

fn write_pass_file(own: &Supervisor, credentials: &Credentials) -> Result<(), Stop> {
    let line = server_file::pass_line(&credentials.username, credentials.password.expose_secret());
    files::replace(&own.options.pass_file(), line.as_bytes(), own.options.account)?;
    Ok(())
}

/// The loop starts what was filled; this waits for it.
async fn first_start(own: &Supervisor, began: Instant, ticket: &Ticket) -> Result<Done, Stop> {
    own.kick();
    let mut state = own.state.subscribe();
    let ended = |state: &ServerState| {
        matches!(
            state,
            ServerState::Running | ServerState::Failed { .. } | ServerState::Fenced { .. }
        )
    };
    let ended = timeout(FIRST_START, state.wait_for(ended)).await;
    let seen = match ended {
        Ok(Ok(seen)) => seen.clone(),
        Ok(Err(_)) | Err(_) => own.state(),
    };
    if seen != ServerState::Running {
        return Err(Stop::Failed(format!("first start of the new server: {seen}")));
    }
    let done = Done { took_ms: millis(began) };
    own.store.update(|state| answered(state, ticket, &done))?;
    Ok(done)
}

/// See [`Follow`].
pub async fn follow(own: &Supervisor, call: Follow, _: Ticket) -> Result<Done, Stop> {
    let began = Instant::now();
    let Follow { fence: _, primary_hosts, primary_port, credentials } = call;
    check_hosts(&primary_hosts)?;
    has_data(own)?;
    if !own.options.is_standby() {
        return Err(Refused::Role { role: "primary".to_owned() }.into());
    }
    let server = own.lock().await;
    if let Some(credentials) = &credentials {
        write_pass_file(own, credentials)?;
    }
    own.store.update(|state| {
        state.role = Some(Role::Standby { primary_hosts, primary_port });
        if let Some(Credentials { username, password: _ }) = credentials {
            state.superuser = Some(username);
        }
    })?;
    own.write_file(&own.store.next()?)?;
    if let Some(process) = server.running() {
        process.signal(nix::sys::signal::Signal::SIGHUP);
        let state = own.store.state();
        let user = state.superuser.as_deref().unwrap_or("postgres");
        let wanted = server_file::conninfo(&own.options, state.role.as_ref(), user);
        if own.state() == ServerState::Running {
            in_force(own, wanted.as_deref().unwrap_or_default()).await?;
        }
    }
    // No answer is kept: doing it again changes nothing, and a caller that goes from one primary
    // to another and back says the same words twice and means it.
    Ok(Done { took_ms: millis(began) })
}

/// Waits until a new session has this `primary_conninfo`.
async fn in_force(own: &Supervisor, wanted: &str) -> Result<(), Stop> {
    // A reload takes 2 ms; a second is for a machine that is very busy.
    let until = Instant::now() + Duration::from_secs(10);
    let session = own.local().connect().await?;
    loop {
        let ask = "select current_setting('primary_conninfo')";
        let row = session.row(ask, &[], Duration::from_secs(5)).await?;
        if row.get::<_, &str>(0) == wanted {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(Stop::Failed("the server did not read its new primary".to_owned()));
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// See [`Promote`].
pub async fn promote(own: &Supervisor, call: Promote, ticket: Ticket) -> Result<Done, Stop> {
    let began = Instant::now();
    running(own)?;
    if own.options.is_standby() {
        let within = deadline(call.deadline_ms);
        let session = own.local().connect().await?;
        let seconds = i32::try_from(within.as_secs().max(1)).unwrap_or(i32::MAX);
        let ask = "select pg_promote(true, $1)";
        let row = session.row(ask, &[&seconds], within + Duration::from_secs(1)).await?;
        if !row.get::<_, bool>(0) {
            return Err(Stop::Failed(format!("the server was not promoted within {within:?}")));
        }
    }
    let done = Done { took_ms: millis(began) };
    own.store.update(|state| {
        state.role = Some(Role::Primary);
        answered(state, &ticket, &done);
    })?;
    Ok(done)
}

fn check_hosts(hosts: &[String]) -> Result<(), Stop> {
    server_file::check_hosts(hosts).map_err(|words| Refused::Invalid { words }.into())
}
