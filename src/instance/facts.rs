//! Reads what an instance can say about itself and its server.
//!
//! State from memory, `pg_controldata` from the disk, everything else from statements on one new
//! session. A part that cannot be read is missing, with the reason beside it; the others are
//! there all the same.

use std::time::Duration;

use tokio_postgres::Row;

use crate::pgconf::tiers;

use super::{
    control_file,
    options::Options,
    process,
    protocol::{
        Archiver, AskFacts, AskSettings, Facts, Gates, HotStandby, Live, Lsn, MOST_ROLE_SETTINGS,
        RoleSetting, ServerState, ServerVersion, Setting, Settings, Timeline, VERSION, WalReceiver,
        WalSender,
    },
    sql::{self, Session},
    supervisor::Supervisor,
    work::Work,
};

/// For a program that reads one file.
const PROGRAM: Duration = Duration::from_secs(10);
/// For statements on system views.
const LOOKUP: Duration = Duration::from_secs(5);

/// All facts, and what of the settings is asked for.
pub async fn facts(
    own: &Supervisor,
    work: &Work,
    version: Option<&ServerVersion>,
    ask: &AskFacts,
) -> Facts {
    let state = own.state();
    let running = state == ServerState::Running;
    let (control, live) = tokio::join!(own.control.read(&own.options), async {
        if running { Some(live(own, ask.settings.as_ref()).await) } else { None }
    });
    let (live, live_error) = match live {
        Some(Ok(live)) => (Some(live), None),
        Some(Err(error)) => (None, Some(error.to_string())),
        None => (None, None),
    };
    let (live, settings) = live.map_or((None, None), |(live, settings)| (Some(live), settings));
    let kept = own.store.state();
    let has_data = own.options.has_data();
    Facts {
        protocol: VERSION,
        pod: own.options.pod.clone(),
        version: version.cloned(),
        state,
        role: kept.role.filter(|_| has_data),
        fence_seen: kept.lease_transitions,
        working_on: work.on(),
        sets: kept.sets,
        last_fallback: kept.last_fallback,
        control: control.ok(),
        live,
        live_error,
        settings,
        memory_limit: own.options.memory_limit,
    }
}

/// The history of the data folder.
pub async fn timeline(options: &Options) -> Timeline {
    let control = control_file::read(options).await.ok();
    Timeline {
        pod: options.pod.clone(),
        system_identifier: control.as_ref().map(|c| c.system_identifier),
        // A promotion is written as the end of recovery at once, its checkpoint comes later.
        timeline: control.map_or(0, |c| c.timeline.max(c.minimum_recovery_timeline)),
    }
}

/// The version of the program, which also shows that it can be run here.
pub async fn version(options: &Options) -> Result<ServerVersion, String> {
    let program = options.program("postgres");
    let ran = process::run(options, &program, ["--version"], &[], PROGRAM).await;
    let ran = ran.map_err(|e| e.to_string())?;
    let read = parse_version(&ran.out).filter(|_| ran.success);
    read.ok_or_else(|| {
        let said = format!("{} {}", ran.out.trim(), ran.err.trim());
        format!("run {} --version: {}", program.display(), said.trim())
    })
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`
fn parse_version(text: &str) -> Option<ServerVersion> {
    let text = text.split_whitespace().nth(2)?.to_owned();
    let mut parts = text.split('.').map(|part| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    });
    let major = parts.next()??;
    let minor = parts.next().flatten().unwrap_or(0);
    Some(ServerVersion { number: major * 10_000 + minor, text })
}

const MAIN: &str = "\
select current_setting('server_version_num')::int,
 pg_is_in_recovery(),
 (select system_identifier from pg_control_system()),
 (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint,
 (extract(epoch from pg_conf_load_time()) * 1000000)::bigint,
 current_setting('pgitops.revision', true),
 case when not pg_is_in_recovery() then pg_current_wal_lsn()::text end,
 case when not pg_is_in_recovery() then pg_current_wal_flush_lsn()::text end,
 case when pg_is_in_recovery() then pg_last_wal_receive_lsn()::text end,
 case when pg_is_in_recovery() then pg_last_wal_replay_lsn()::text end,
 case when pg_is_in_recovery() then pg_is_wal_replay_paused() else false end,
 case when pg_is_in_recovery()
  then greatest((select received_tli from pg_stat_wal_receiver),
                (select min_recovery_end_timeline from pg_control_recovery()),
                (select timeline_id from pg_control_checkpoint()))
  else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int end,
 r.status, r.sender_host, r.sender_port, r.received_tli,
 current_setting('archive_mode') <> 'off',
 coalesce(a.last_failed_time > coalesce(a.last_archived_time, '-infinity'), false),
 case when current_setting('archive_mode') <> 'off' then
  (select count(*) from (select 1 from pg_ls_archive_statusdir()
    where name like '%.ready' limit 1000) ready)::int else 0 end,
 (select count(*) from pg_stat_activity
   where backend_type = 'client backend' and pid <> pg_backend_pid())::int,
 (select coalesce(max(extract(epoch from clock_timestamp() - xact_start) * 1000), 0)::bigint
   from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()),
 (select count(*) from pg_prepared_xacts)::int,
 (select count(*) from pg_stat_progress_basebackup)::int,
 (select count(*) from pg_replication_slots)::int,
 current_setting('max_connections')::bigint,
 current_setting('max_worker_processes')::bigint,
 current_setting('max_wal_senders')::bigint,
 current_setting('max_prepared_transactions')::bigint,
 current_setting('max_locks_per_transaction')::bigint
from pg_stat_archiver a left join pg_stat_wal_receiver r on true";

const SENDERS: &str = "\
with here as (select case when pg_is_in_recovery() then pg_last_wal_replay_lsn()
 else pg_current_wal_lsn() end as lsn)
select coalesce(application_name, ''), coalesce(state, ''), coalesce(sync_state, ''),
 (extract(epoch from clock_timestamp() - reply_time) * 1000)::bigint,
 pg_wal_lsn_diff(here.lsn, flush_lsn)::bigint,
 pg_wal_lsn_diff(here.lsn, replay_lsn)::bigint
from pg_stat_replication, here order by application_name, pid limit 64";

/// One new session for all of it; the settings first, nothing may have been set in it before.
async fn live(
    own: &Supervisor,
    ask: Option<&AskSettings>,
) -> Result<(Live, Option<Settings>), sql::Error> {
    let session = own.local().connect().await?;
    let settings = match ask {
        Some(ask) => Some(read_settings(&session, &ask.names).await?),
        None => None,
    };
    let (main, senders) =
        tokio::try_join!(session.row(MAIN, &[], LOOKUP), session.rows(SENDERS, &[], LOOKUP))?;
    Ok((read_live(&main, &senders), settings))
}

fn read_live(main: &Row, senders: &[Row]) -> Live {
    Live {
        version_number: natural(main, 0),
        in_recovery: main.get(1),
        // The server shows its unsigned number as a signed one.
        system_identifier: main.get::<_, i64>(2).cast_unsigned(),
        started_at: moment(main.get(3)),
        loaded_at: moment(main.get(4)),
        revision: main.get::<_, Option<String>>(5).filter(|revision| !revision.is_empty()),
        current: lsn(main, 6),
        flush: lsn(main, 7),
        receive: lsn(main, 8),
        replay: lsn(main, 9),
        replay_paused: main.get(10),
        timeline: natural(main, 11),
        receiver: receiver(main, 12),
        senders: senders.iter().map(sender).collect(),
        archiver: Archiver { on: main.get(16), failing: main.get(17), ready: natural(main, 18) },
        gates: Gates {
            sessions: natural(main, 19),
            longest_transaction_ms: u64::try_from(main.get::<_, i64>(20)).unwrap_or(0),
            prepared_transactions: natural(main, 21),
            base_backups: natural(main, 22),
        },
        replication_slots: natural(main, 23),
        hot_standby: hot_standby(main, 24),
    }
}

fn sender(row: &Row) -> WalSender {
    let distance = |column| {
        let distance: Option<i64> = row.get(column);
        distance.map(|distance| u64::try_from(distance).unwrap_or(0))
    };
    WalSender {
        application_name: row.get(0),
        state: row.get(1),
        sync_state: row.get(2),
        reply_age_ms: distance(3),
        flush_lag_bytes: distance(4),
        replay_lag_bytes: distance(5),
    }
}

/// Four columns: status, host, port, timeline.
pub fn receiver(row: &Row, at: usize) -> Option<WalReceiver> {
    Some(WalReceiver {
        status: row.get::<_, Option<String>>(at)?,
        host: row.get::<_, Option<String>>(at + 1).unwrap_or_default(),
        port: row.get::<_, Option<i32>>(at + 2).and_then(|p| u16::try_from(p).ok()).unwrap_or(0),
        timeline: row.get::<_, Option<i32>>(at + 3).map_or(0, |t| u32::try_from(t).unwrap_or(0)),
    })
}

/// Five columns in the order of the fields.
pub fn hot_standby(row: &Row, at: usize) -> HotStandby {
    HotStandby {
        max_connections: row.get(at),
        max_worker_processes: row.get(at + 1),
        max_wal_senders: row.get(at + 2),
        max_prepared_transactions: row.get(at + 3),
        max_locks_per_transaction: row.get(at + 4),
    }
}

/// A place in the log that the server gave as text.
pub fn lsn(row: &Row, column: usize) -> Option<Lsn> {
    row.get::<_, Option<&str>>(column)?.parse().ok()
}

/// Microseconds since 1970.
#[must_use]
pub fn moment(micros: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(micros).unwrap_or_default()
}

fn natural(row: &Row, column: usize) -> u32 {
    row.get::<_, Option<i32>>(column).and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
}

/// See [`AskSettings`].
pub async fn settings(own: &Supervisor, ask: &AskSettings) -> Result<Settings, sql::Error> {
    read_settings(&own.local().connect().await?, &ask.names).await
}

/// `pg_settings` of a session, all or some.
pub async fn read_settings(session: &Session, names: &[String]) -> Result<Settings, sql::Error> {
    const ASK: &str = "\
        select name, reset_val, boot_val, unit, context, vartype, source, sourcefile, \
        sourceline, pending_restart from pg_settings \
        where cardinality($1::text[]) = 0 or lower(name) = any($1)";
    let names: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    let rows = session.rows(ASK, &[&names], LOOKUP).await?;
    let settings = rows.iter().map(|row| {
        let name: String = row.get(0);
        let setting = Setting {
            reset_val: row.get(1),
            boot_val: row.get(2),
            unit: row.get(3),
            context: row.get(4),
            vartype: row.get(5),
            source: row.get(6),
            sourcefile: row.get(7),
            sourceline: row.get(8),
            pending_restart: row.get(9),
            name,
        };
        (setting.name.to_ascii_lowercase(), setting)
    });
    let settings = settings.collect();
    let (role_settings, more_role_settings) = role_settings(session, &names).await?;
    Ok(Settings { settings, role_settings, more_role_settings })
}

/// What ALTER ROLE and ALTER DATABASE set, all names or some, and whether there is more of it than
/// an answer holds. Shared by all databases, and replicated.
async fn role_settings(
    session: &Session,
    names: &[String],
) -> Result<(Vec<RoleSetting>, bool), sql::Error> {
    const ASK: &str = "\
        select split_part(one, '=', 1), substr(one, strpos(one, '=') + 1), \
        r.rolname::text, d.datname::text \
        from pg_db_role_setting s cross join unnest(s.setconfig) one \
        left join pg_roles r on r.oid = s.setrole \
        left join pg_database d on d.oid = s.setdatabase \
        where cardinality($1::text[]) = 0 or lower(split_part(one, '=', 1)) = any($1) \
        order by 1, 3, 4 limit $2";
    let most = i64::try_from(MOST_ROLE_SETTINGS).unwrap_or(i64::MAX);
    let rows = session.rows(ASK, &[&names, &(most + 1)], LOOKUP).await?;
    let all = rows.iter().take(MOST_ROLE_SETTINGS).map(|row| {
        let name: String = row.get(0);
        let value = (!tiers::is_sensitive(&name)).then(|| row.get(1));
        RoleSetting { name, role: row.get(2), database: row.get(3), value }
    });
    Ok((all.collect(), rows.len() > MOST_ROLE_SETTINGS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_server_numbers_them() {
        let check = |text: &str, number| {
            assert_eq!(parse_version(text).map(|version| version.number), number);
        };
        check("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some(150_018));
        check("postgres (PostgreSQL) 18.4", Some(180_004));
        check("postgres (PostgreSQL) 19beta1", Some(190_000));
        check("", None);
    }
}
