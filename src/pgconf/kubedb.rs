//! What KubeDB's init scripts give every server below its custom configuration.
//!
//! Only for comparing and telling: what is in effect before a change, and what a parameter falls
//! to, where KubeDB runs the servers. After postgres-init-docker's scripts, which write these lines
//! after `pgtune.conf` and before `user.conf` and `inline.conf`. Lines whose value depends on what
//! the object does not say (certificates, addresses, the archive's command) are left out. Our own
//! defaults are in `provisioned.rs`. Never looks at a server.

use crate::api::postgres::PostgresSpec;

use super::catalogue::Catalogue;
use super::provisioned::{memory_bytes, shared_buffers};
use super::settings::Settings;

/// The lines, as far as they are known and the server's version knows the parameter.
pub fn lines(spec: &PostgresSpec, catalogue: &Catalogue) -> Settings {
    let mut rows: Vec<(&str, String)> = vec![
        ("wal_level", "replica".to_owned()),
        ("shared_buffers", shared_buffers(memory_bytes(spec))),
        ("max_wal_senders", "90".to_owned()),
        ("max_replication_slots", "90".to_owned()),
        ("wal_log_hints", "on".to_owned()),
        ("archive_mode", "always".to_owned()),
        ("shared_preload_libraries", "pg_stat_statements".to_owned()),
    ];
    rows.extend(wal_keep_size(spec).map(|megabytes| ("wal_keep_size", format!("{megabytes}MB"))));
    rows.retain(|(name, _)| catalogue.get(name).is_some());
    Settings::from_pairs(rows).unwrap_or_default()
}

/// `spec.replication` says how the log is kept; by size, and 1536 MB of it, when it says nothing.
fn wal_keep_size(spec: &PostgresSpec) -> Option<i64> {
    let replication = spec.other.get("replication");
    let said = |field: &str| replication.and_then(|replication| replication.get(field));
    match said("walLimitPolicy").and_then(|policy| policy.as_str()) {
        None | Some("WALKeepSize") => {
            Some(said("walKeepSize").and_then(|size| size.as_i64()).unwrap_or(1536))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str, name: &str, expected: Option<&str>) {
        let spec: PostgresSpec = serde_yaml::from_str(yaml).unwrap();
        let lines = lines(&spec, Catalogue::for_version(&spec.version).unwrap());
        assert_eq!(lines.value_of(name), expected, "{yaml}");
    }

    #[test]
    fn the_lines_are_those_of_the_scripts() {
        let limits = "podTemplate: {spec: {containers: [{name: postgres, resources: \
                      {limits: {memory: 2Gi}}}]}}";
        check("{version: '16.4'}", "shared_buffers", Some("256MB"));
        check(&format!("{{version: '16.4', {limits}}}"), "shared_buffers", Some("512MB"));
        check("{version: '13.13'}", "max_wal_senders", Some("90"));
        check("{version: '16.4'}", "wal_keep_size", Some("1536MB"));
        let by = |policy: &str| format!("{{version: '16.4', replication: {{{policy}}}}}");
        check(&by("walLimitPolicy: WALKeepSize, walKeepSize: 64"), "wal_keep_size", Some("64MB"));
        check(&by("walLimitPolicy: ReplicationSlot"), "wal_keep_size", None);
        check("{version: '16.4'}", "work_mem", None);
    }
}
