//! Changes of a server that has data: load, checkpoint, restart.
//!
//! Each validates first, then acts in an order in which a crash at any place leaves either the
//! old or the new set in force, whole. Leaves fencing and repeats to `work`, the process to
//! `supervisor`. Never decides which set is right.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{
    left_over,
    process::Postmaster,
    protocol::{
        Checkpoint, ConfigurationSet, Done, FileError, Load, Loaded, Refused, Restart, Restarted,
        ServerState, SetId,
    },
    server_file,
    sql::{self, Session},
    store::{PendingRestart, State},
    supervisor::{Server, Supervisor},
    words,
    work::{Stop, Ticket, answered},
};

/// Longest time that a caller may give: nothing here takes longer in earnest, and a change under
/// way keeps others out.
const MAX_DEADLINE: Duration = Duration::from_secs(3600);
/// Pause between two looks whether a session has read the new file; it takes 2 ms.
const POLL: Duration = Duration::from_millis(1);
/// How long a server that did not come up may take to go again.
const STOP: Duration = Duration::from_secs(5);
/// Pause before another look at a data folder that is held; processes go within some 10 ms.
const HELD: Duration = Duration::from_millis(20);
/// For statements that only look something up.
const LOOKUP: Duration = Duration::from_secs(5);

/// See [`Load`].
pub async fn load(own: &Supervisor, call: Load, ticket: Ticket) -> Result<Loaded, Stop> {
    let Load { fence: _, set, deadline_ms } = call;
    check(&set)?;
    has_data(own)?;
    let mut server = own.lock().await;
    own.store.keep(&set)?;
    let loaded = match server.running() {
        Some(process) if own.state() == ServerState::Running => {
            load_running(own, &process, &set.id, deadline(deadline_ms)).await?
        }
        Some(_) | None => Loaded::Stored,
    };
    own.store.update(|state| {
        match &loaded {
            Loaded::Loaded { .. } => {
                state.sets.running = Some(set.id.clone());
                state.sets.staged = None;
            }
            Loaded::Stored => state.sets.staged = Some(set.id.clone()),
            Loaded::PutBack { .. } => {}
        }
        answered(state, &ticket, &loaded);
    })?;
    if loaded == Loaded::Stored {
        server.forget_failures();
        own.kick();
    }
    drop(server);
    own.store.prune();
    Ok(loaded)
}

/// The file is in place before the server is asked what it thinks of it, but the server only
/// reads it when told: an entry it would not take is found before it could do harm.
async fn load_running(
    own: &Supervisor,
    process: &Postmaster,
    set: &SetId,
    within: Duration,
) -> Result<Loaded, Stop> {
    let before = own.store.state().sets.running.map_or_else(|| own.store.next(), Ok)?;
    let session = own.local().connect().await?;
    own.write_file(set)?;
    let rejected = match rejected(&session).await {
        Ok(rejected) => rejected,
        Err(error) => {
            own.write_file(&before)?;
            return Err(error.into());
        }
    };
    if !rejected.is_empty() {
        own.write_file(&before)?;
        return Ok(put_back(rejected));
    }
    let began = Instant::now();
    match read_by_server(&session, process, &set.revision(), within).await {
        Ok(()) => {
            let took_ms = millis(began);
            let pending_restart = pending_restart(&session).await.unwrap_or_default();
            Ok(Loaded::Loaded { took_ms, pending_restart })
        }
        Err(error) => {
            own.write_file(&before)?;
            process.signal(nix::sys::signal::Signal::SIGHUP);
            let words = format!("the server did not read the new file: {error}");
            Ok(Loaded::PutBack { rejected: Vec::new(), words })
        }
    }
}

fn put_back(rejected: Vec<FileError>) -> Loaded {
    let lines = rejected.iter().map(|entry| {
        let at = entry.line.map(|line| format!("line {line}: ")).unwrap_or_default();
        let name = entry.name.as_deref().map(|name| format!("{name}: ")).unwrap_or_default();
        format!("{at}{name}{}", entry.error)
    });
    let words = words::clean(&lines.collect::<Vec<_>>().join("\n"));
    Loaded::PutBack { rejected, words }
}

/// Signals the server and waits until a session has the revision.
async fn read_by_server(
    session: &Session,
    process: &Postmaster,
    revision: &str,
    within: Duration,
) -> Result<(), sql::Error> {
    const ASK: &str = "select current_setting('pgitops.revision', true)";
    let until = Instant::now() + within;
    process.signal(nix::sys::signal::Signal::SIGHUP);
    loop {
        let row = session.row(ASK, &[], LOOKUP).await?;
        if row.get::<_, Option<&str>>(0) == Some(revision) {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(sql::Error::Late(within));
        }
        sleep(POLL).await;
    }
}

/// What the server would not take from its files. A postmaster parameter that differs from what
/// runs, or has gone from the file, is listed by the server as well; that is no error but a
/// restart to come.
pub async fn rejected(session: &Session) -> Result<Vec<FileError>, sql::Error> {
    const ASK: &str = "\
        select f.sourcefile, f.sourceline, f.name, f.error \
        from pg_file_settings f left join pg_settings s on lower(s.name) = lower(f.name) \
        where f.error is not null and not coalesce(f.applied, false) \
        and f.error not like 'parameter \"%\" cannot be changed without restarting the server' \
        and not (f.error = 'setting could not be applied' \
                 and coalesce(s.context = 'postmaster', false)) \
        order by f.seqno limit 100";
    let rows = session.rows(ASK, &[], LOOKUP).await?;
    let entries = rows.iter().map(|row| FileError {
        file: row.get::<_, Option<String>>(0).unwrap_or_default(),
        line: row.get(1),
        name: row.get(2),
        error: words::clean(&row.get::<_, Option<String>>(3).unwrap_or_default()),
    });
    Ok(entries.collect())
}

async fn pending_restart(session: &Session) -> Result<Vec<String>, sql::Error> {
    const ASK: &str = "select name from pg_settings where pending_restart order by name";
    let rows = session.rows(ASK, &[], LOOKUP).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// See [`Checkpoint`].
pub async fn checkpoint(own: &Supervisor, call: Checkpoint, ticket: Ticket) -> Result<Done, Stop> {
    running(own)?;
    let began = Instant::now();
    let session = own.local().connect().await?;
    let limit = "set statement_timeout = 0";
    session.run(limit, LOOKUP).await?;
    session.run("checkpoint", deadline(call.deadline_ms)).await?;
    let done = Done { took_ms: millis(began) };
    own.store.update(|state| answered(state, &ticket, &done))?;
    Ok(done)
}

/// See [`Restart`].
pub async fn restart(own: &Supervisor, call: Restart, ticket: Ticket) -> Result<Restarted, Stop> {
    check(&call.candidate)?;
    check(&call.fallback)?;
    has_data(own)?;
    if let ServerState::Fenced { .. } = own.state() {
        return Err(Refused::NotRunning { state: own.state().to_string() }.into());
    }
    let mut server = own.lock().await;
    own.store.keep(&call.candidate)?;
    own.store.keep(&call.fallback)?;
    let Ticket { key, content } = ticket;
    let pending = PendingRestart::of(&call, key, content);
    own.store.update(|state| {
        state.sets.staged = Some(pending.candidate.clone());
        state.restart = Some(pending.clone());
    })?;
    let began = Instant::now();
    let forced = own.stop(&mut server, deadline(call.stop_deadline_ms)).await;
    own.show(ServerState::Stopped);
    let stop_ms = millis(began);
    finish_restart(own, &mut server, &pending, Stopped { began, stop_ms, forced }).await
}

/// Carries a restart on that an earlier process of this instance has begun.
pub async fn resume_restart(own: &Supervisor) {
    let Some(pending) = own.store.state().restart else { return };
    tracing::info!(step = pending.key.step, "carrying on with a restart that was begun");
    let mut server = own.lock().await;
    if let Some(state) = own.fenced().await {
        tracing::error!(%state, "not carrying it on");
        return;
    }
    let stopped = Stopped { began: Instant::now(), stop_ms: 0, forced: false };
    if let Err(stop) = finish_restart(own, &mut server, &pending, stopped).await {
        tracing::error!(?stop, "could not finish a restart that was begun");
    }
}

/// How the stop went.
struct Stopped {
    began: Instant,
    stop_ms: u64,
    forced: bool,
}

/// From a stopped server to an answer.
async fn finish_restart(
    own: &Supervisor,
    server: &mut Server,
    pending: &PendingRestart,
    stopped: Stopped,
) -> Result<Restarted, Stop> {
    let within = deadline(pending.start_deadline_ms);
    let began = Instant::now();
    let Stopped { began: first, stop_ms, forced } = stopped;
    let answer = match start(own, server, &pending.candidate, within).await {
        Ok(started_at) => {
            let start_ms = millis(began);
            Restarted::Restarted { started_at, stop_ms, start_ms, forced }
        }
        Err(words) => {
            tracing::error!(%words, "the candidate does not start; taking the fallback");
            match start(own, server, &pending.fallback, within).await {
                Ok(started_at) => {
                    own.note_fallback(&pending.candidate, Some(&pending.fallback), &words);
                    Restarted::FellBack { words, started_at, gap_ms: millis(first) }
                }
                Err(fallback_words) => {
                    own.note_fallback(&pending.candidate, None, &words);
                    own.failed(server, fallback_words.clone());
                    Restarted::Down { words, fallback_words }
                }
            }
        }
    };
    let ticket = Ticket { key: pending.key.clone(), content: pending.content.clone() };
    let down = matches!(answer, Restarted::Down { .. });
    own.store.update(|state: &mut State| {
        state.restart = None;
        // What keeps trying from now on tries what ran before.
        state.sets.staged = down.then(|| pending.fallback.clone());
        answered(state, &ticket, &answer);
    })?;
    own.store.prune();
    own.kick();
    Ok(answer)
}

/// One attempt; what does not start is stopped again, so that the next attempt finds no process.
async fn start(
    own: &Supervisor,
    server: &mut Server,
    set: &SetId,
    within: Duration,
) -> Result<jiff::Timestamp, String> {
    let until = Instant::now() + within;
    loop {
        let process = own.spawn(server, set).await?;
        let left = until.saturating_duration_since(Instant::now());
        match own.accepting(&process, Some(left)).await {
            Ok(started_at) => {
                own.started(server, set);
                return Ok(started_at);
            }
            // Says nothing about the set: a server that was left behind has appeared only now, or
            // its last processes are still going.
            Err(words) if left_over::held(&words) && !left.is_zero() => {
                own.stop(server, STOP).await;
                sleep(HELD).await;
            }
            Err(words) => {
                own.stop(server, STOP).await;
                return Err(words);
            }
        }
    }
}

fn check(set: &ConfigurationSet) -> Result<(), Stop> {
    server_file::check_set(set).map_err(|words| Refused::Invalid { words }.into())
}

/// Refuses while there is no database.
pub fn has_data(own: &Supervisor) -> Result<(), Stop> {
    if own.options.has_data() { Ok(()) } else { Err(Refused::Empty.into()) }
}

/// Refuses unless the server runs.
pub fn running(own: &Supervisor) -> Result<(), Stop> {
    has_data(own)?;
    match own.state() {
        ServerState::Running => Ok(()),
        other => Err(Refused::NotRunning { state: other.to_string() }.into()),
    }
}

/// A caller's deadline, limited.
#[must_use]
pub fn deadline(ms: u64) -> Duration {
    Duration::from_millis(ms).min(MAX_DEADLINE)
}

/// Milliseconds since then.
#[must_use]
pub fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
