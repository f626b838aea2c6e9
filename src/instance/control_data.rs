//! `pg_controldata`, read; pure.

use std::collections::BTreeMap;

use super::protocol::{ControlData, HotStandby};

/// What the program printed (in the C locale), or which line is missing.
pub fn parse(text: &str) -> Result<ControlData, String> {
    let lines: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect();
    let get = |name: &str| {
        lines.get(name).copied().ok_or_else(|| format!("pg_controldata shows no line {name:?}"))
    };
    let number = |name: &str| -> Result<i64, String> {
        get(name)?.parse().map_err(|_| format!("pg_controldata: {name:?} is not a number"))
    };
    let system_identifier = get("Database system identifier")?;
    Ok(ControlData {
        cluster_state: get("Database cluster state")?.to_owned(),
        system_identifier: system_identifier
            .parse()
            .map_err(|_| "pg_controldata: no system identifier".to_owned())?,
        checkpoint: get("Latest checkpoint location")?.parse()?,
        redo: get("Latest checkpoint's REDO location")?.parse()?,
        timeline: u32::try_from(number("Latest checkpoint's TimeLineID")?).unwrap_or(0),
        minimum_recovery: get("Minimum recovery ending location")?.parse()?,
        minimum_recovery_timeline: number("Min recovery ending loc's timeline")
            .ok()
            .and_then(|timeline| u32::try_from(timeline).ok())
            .unwrap_or(0),
        wal_level: get("wal_level setting")?.to_owned(),
        hot_standby: HotStandby {
            max_connections: number("max_connections setting")?,
            max_worker_processes: number("max_worker_processes setting")?,
            max_wal_senders: number("max_wal_senders setting")?,
            max_prepared_transactions: number("max_prepared_xacts setting")?,
            max_locks_per_transaction: number("max_locks_per_xact setting")?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_that_matter_are_read() {
        let text = "\
Database system identifier:           7300000000000000001
Database cluster state:               in production
Latest checkpoint location:           1/3000060
Latest checkpoint's REDO location:    1/3000028
Latest checkpoint's TimeLineID:       2
Minimum recovery ending location:     0/0
Min recovery ending loc's timeline:   0
wal_level setting:                    replica
max_connections setting:              100
max_worker_processes setting:         8
max_wal_senders setting:              10
max_prepared_xacts setting:           0
max_locks_per_xact setting:           64
";
        let read = parse(text).unwrap();
        assert_eq!(read.system_identifier, 7_300_000_000_000_000_001);
        assert_eq!(read.checkpoint.to_string(), "1/3000060");
        assert_eq!((read.timeline, read.hot_standby.max_wal_senders), (2, 10));
        assert!(parse("").unwrap_err().contains("Database"));
    }
}
