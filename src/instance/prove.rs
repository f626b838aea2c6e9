//! The proof: what is in force on this node, found out on new connections.
//!
//! Reports by the checklist of the reference, 5.2; whether that is good enough is decided by the
//! caller. Changes nothing but the one write that was asked for.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    changes::{deadline, millis, rejected, running},
    dry_run, facts,
    protocol::{DryRun, ParameterProof, Proof, Prove, RoleSetting, Written},
    sql::{self, Session},
    supervisor::Supervisor,
    words,
    work::Stop,
};

/// For statements on system views.
const LOOKUP: Duration = Duration::from_secs(5);

/// See [`Prove`].
pub async fn prove(own: &Supervisor, version: u32, call: &Prove) -> Result<Proof, Stop> {
    running(own)?;
    let Prove { expected, write, deadline_ms } = call;
    let now = DryRun { text: None, allocate: false, boot: false, deadline_ms: *deadline_ms };
    let (seen, control, next_start) = tokio::join!(
        look(own, expected, *write, deadline(*deadline_ms)),
        own.control.read(&own.options),
        dry_run::of_file(own, version, &now),
    );
    let Seen { main, settings, file_errors, auto_conf, role_overrides, connection_error, write } =
        seen?;
    let parameters = expected.iter().map(|(name, value)| {
        let setting = settings.settings.get(&name.to_ascii_lowercase()).cloned();
        let equal = setting.as_ref().and_then(|s| s.reset_val.as_ref()) == Some(value);
        (name.clone(), ParameterProof { expected: value.clone(), setting, equal })
    });
    Ok(Proof {
        revision: main.get::<_, Option<String>>(0),
        file: own.options.live_file().to_string_lossy().into_owned(),
        loaded_at: facts::moment(main.get(1)),
        started_at: facts::moment(main.get(2)),
        parameters: parameters.collect(),
        file_errors,
        auto_conf,
        role_overrides,
        in_recovery: main.get(3),
        connection_error,
        write,
        receiver: facts::receiver(&main, 4),
        replay_paused: main.get(8),
        replay: facts::lsn(&main, 9),
        next_start: next_start?,
        control: control?.hot_standby,
        hot_standby: facts::hot_standby(&main, 10),
    })
}

/// What the sessions have shown.
struct Seen {
    main: tokio_postgres::Row,
    settings: super::protocol::Settings,
    file_errors: Vec<super::protocol::FileError>,
    auto_conf: BTreeMap<String, String>,
    role_overrides: Vec<RoleSetting>,
    connection_error: Option<String>,
    write: Option<Written>,
}

const MAIN: &str = "\
select current_setting('pgitops.revision', true),
 (extract(epoch from pg_conf_load_time()) * 1000000)::bigint,
 (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint,
 pg_is_in_recovery(),
 r.status, r.sender_host, r.sender_port, r.received_tli,
 case when pg_is_in_recovery() then pg_is_wal_replay_paused() else false end,
 case when pg_is_in_recovery() then pg_last_wal_replay_lsn()::text end,
 current_setting('max_connections')::bigint,
 current_setting('max_worker_processes')::bigint,
 current_setting('max_wal_senders')::bigint,
 current_setting('max_prepared_transactions')::bigint,
 current_setting('max_locks_per_transaction')::bigint
from (select 1) one left join pg_stat_wal_receiver r on true";

async fn look(
    own: &Supervisor,
    expected: &BTreeMap<String, String>,
    write: bool,
    within: Duration,
) -> Result<Seen, sql::Error> {
    let session = own.local().connect().await?;
    let names: Vec<String> = expected.keys().map(|name| name.to_ascii_lowercase()).collect();
    // The settings first: nothing may have been set in this session before.
    let mut settings = facts::read_settings(&session, &names).await?;
    let main = session.row(MAIN, &[], LOOKUP).await?;
    let file_errors = rejected(&session).await?;
    let auto_conf = auto_conf(&session, &names).await?;
    let role_overrides = std::mem::take(&mut settings.role_settings);
    let in_recovery: bool = main.get(3);
    let (connection_error, write) = match own.local().connect().await {
        Ok(second) if write && !in_recovery => (None, Some(commit(&second, within).await)),
        Ok(_) => (None, None),
        Err(error) => (Some(error.to_string()), None),
    };
    Ok(Seen { main, settings, file_errors, auto_conf, role_overrides, connection_error, write })
}

/// The smallest write that reaches the WAL and waits for its commit as every other one does; an
/// empty transaction with an id would not. It leaves no table behind.
async fn commit(session: &Session, within: Duration) -> Written {
    const WRITE: &str = "begin read write; \
        select pg_logical_emit_message(true, 'pgitops', 'proof'); commit";
    let began = Instant::now();
    match session.run(WRITE, within).await {
        Ok(()) => Written::Committed { took_ms: millis(began) },
        Err(error) => Written::Failed { words: words::clean(&error.to_string()) },
    }
}

async fn auto_conf(
    session: &Session,
    names: &[String],
) -> Result<BTreeMap<String, String>, sql::Error> {
    const ASK: &str = "select name, setting from pg_file_settings \
        where sourcefile like '%/postgresql.auto.conf' and lower(name) = any($1) order by seqno";
    let rows = session.rows(ASK, &[&names], LOOKUP).await?;
    let entries = rows
        .iter()
        .map(|row| (row.get::<_, String>(0), row.get::<_, Option<String>>(1).unwrap_or_default()));
    Ok(entries.collect())
}
