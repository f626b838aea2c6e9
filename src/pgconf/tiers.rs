//! Which parameters are ours alone, which need a promise, an order or care, and which are secret.
//!
//! The tables follow what the operators in the field refuse, and what was seen to hurt. Leaves the
//! verdict on a document to `check` and the order of nodes to the rollout. Never
//! depends on a server's version: a name that a version lacks does no harm here.

use std::borrow::Cow;

use super::catalogue::Catalogue;
use super::name::{Name, Value};
use super::value;

/// How a parameter has to be treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Belongs to the operator: identity, paths, sockets, replication wiring, recovery, archive,
    /// TLS files. Refused in documents and requests.
    Owned,
    /// Puts data at risk at most values: needs `allowUnsafe` with a reason.
    Unsafe,
    /// One of the five that a standby needs at least as high as the primary had them: rolled out in
    /// a certain order of nodes.
    Ordered,
    /// A wrong value lets nobody connect any more: proven with a new connection.
    SessionRisk,
    /// Everything else.
    Free,
}

/// What stands in place of a sensitive value.
pub const HIDDEN: &str = "(hidden)";

/// Owned names; a trailing `*` stands for any ending.
const OWNED: [&str; 39] = [
    // identity and paths
    "cluster_name",
    "config_file",
    "data_directory",
    "external_pid_file",
    "hba_file",
    "ident_file",
    "stats_temp_directory",
    // where the server's words go: the instance reads them to say why a start failed
    "log_directory",
    "logging_collector",
    // sockets
    "bonjour",
    "bonjour_name",
    "listen_addresses",
    "port",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
    // replication wiring
    "hot_standby",
    "primary_*",
    "promote_trigger_file",
    "synchronized_standby_slots",
    "synchronous_standby_names",
    // recovery and archive
    "archive_cleanup_command",
    "archive_command",
    "archive_library",
    "archive_mode",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "recovery_target*",
    "restore_command",
    // TLS
    "krb_server_keyfile",
    "ssl",
    "ssl_ca_file",
    "ssl_cert_file",
    "ssl_crl_dir",
    "ssl_crl_file",
    "ssl_dh_params_file",
    "ssl_key_file",
    "ssl_passphrase_*",
    // marks which set a server runs
    "pgitops.*",
];

/// Names that need `allowUnsafe`, with the value that is safe: the one at which nothing is at risk.
/// `wal_level` is safe unless it goes down, see [`lowers_wal_level`].
const UNSAFE: [(&str, &str); 11] = [
    ("allow_system_table_mods", "off"),
    ("autovacuum", "on"),
    ("data_sync_retry", "off"),
    ("default_transaction_read_only", "off"),
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("ignore_checksum_failure", "off"),
    ("ignore_invalid_pages", "off"),
    ("ignore_system_indexes", "off"),
    ("session_replication_role", "origin"),
    ("zero_damaged_pages", "off"),
];

/// The five hot-standby parameters.
pub const ORDERED: [&str; 5] = [
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
];

const SESSION_RISK: [&str; 2] = ["local_preload_libraries", "session_preload_libraries"];

/// Parameters that carry a password or a command line with one, by name.
const SENSITIVE: [&str; 6] = [
    "archive_cleanup_command",
    "archive_command",
    "primary_conninfo",
    "recovery_end_command",
    "restore_command",
    "ssl_passphrase_command",
];

/// Parts of a name that give away what its value is.
const SENSITIVE_PARTS: [&str; 11] = [
    "access_key",
    "api_key",
    "apikey",
    "conninfo",
    "credential",
    "encryption_key",
    "passphrase",
    "passwd",
    "password",
    "secret",
    "token",
];

/// Names that only sound like it.
const NOT_SENSITIVE: [&str; 3] =
    ["md5_password_warnings", "password_encryption", "ssl_passphrase_command_supports_reload"];

/// The tier of a parameter; case does not count.
pub fn tier(name: &str) -> Tier {
    let name = name.to_ascii_lowercase();
    if OWNED.iter().any(|owned| matches(owned, &name)) {
        Tier::Owned
    } else if name == "wal_level" || UNSAFE.iter().any(|(unsafe_, _)| *unsafe_ == name) {
        Tier::Unsafe
    } else if ORDERED.contains(&name.as_str()) {
        Tier::Ordered
    } else if SESSION_RISK.contains(&name.as_str()) {
        Tier::SessionRisk
    } else {
        Tier::Free
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}

/// Whether this value of this parameter needs `allowUnsafe`: the parameter is of the unsafe tier
/// and the value is not the safe one. The risk of lowering `wal_level` is seen only beside the
/// value before, by [`lowers_wal_level`]; here `minimal` alone is unsafe.
pub fn is_unsafe(name: &str, value: &Value, catalogue: &Catalogue) -> bool {
    let text = catalogue.normalise(name, value).map(|normalised| normalised.text);
    let text = text.unwrap_or_else(|_| value.as_str().to_owned());
    if name.eq_ignore_ascii_case("wal_level") {
        return text == "minimal";
    }
    UNSAFE.iter().any(|(unsafe_, safe)| name.eq_ignore_ascii_case(unsafe_) && text != *safe)
}

/// Whether a change takes `wal_level` down, which ends logical replication or, at `minimal`, every
/// standby. Takes texts as the server reports them.
pub fn lowers_wal_level(before: &str, after: &str) -> bool {
    let rank = |level: &str| ["minimal", "replica", "logical"].iter().position(|l| *l == level);
    matches!((rank(before), rank(after)), (Some(before), Some(after)) if after < before)
}

/// Whether a parameter's value is kept out of plans, notes, status and messages.
pub fn is_sensitive(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !NOT_SENSITIVE.contains(&name.as_str())
        && (SENSITIVE.contains(&name.as_str())
            || SENSITIVE_PARTS.iter().any(|part| name.contains(part)))
}

/// The value as it may be shown to people: `(hidden)` if it is sensitive.
pub fn shown<'a>(name: &Name, value: &'a Value) -> Cow<'a, str> {
    if is_sensitive(name) { Cow::Borrowed(HIDDEN) } else { Cow::Borrowed(value.as_str()) }
}

/// As [`shown`], with numbers in the unit that suits them: `104448` of a `kB` parameter is `102MB`.
pub fn shown_by<'a>(name: &Name, value: &'a Value, catalogue: &Catalogue) -> Cow<'a, str> {
    match (is_sensitive(name), catalogue.get(name)) {
        (true, _) => Cow::Borrowed(HIDDEN),
        (false, None) => Cow::Borrowed(value.as_str()),
        (false, Some(parameter)) => match value::normalise(parameter, value) {
            Ok(normalised) => Cow::Owned(normalised.shown),
            Err(_) => Cow::Borrowed(value.as_str()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_has_its_tier() {
        fn check(name: &str, expected: Tier) {
            assert_eq!(tier(name), expected, "{name}");
        }
        check("PORT", Tier::Owned);
        check("primary_conninfo", Tier::Owned);
        check("recovery_target_time", Tier::Owned);
        check("pgitops.revision", Tier::Owned);
        check("ssl_passphrase_command", Tier::Owned);
        check("ssl_ciphers", Tier::Free);
        check("fsync", Tier::Unsafe);
        check("wal_level", Tier::Unsafe);
        check("max_connections", Tier::Ordered);
        check("session_preload_libraries", Tier::SessionRisk);
        check("shared_preload_libraries", Tier::Free);
        check("work_mem", Tier::Free);
    }

    #[test]
    fn every_listed_name_exists_in_some_version() {
        let known = |name: &str| {
            super::super::catalogue::MAJORS
                .into_iter()
                .filter_map(Catalogue::for_major)
                .any(|catalogue| catalogue.iter().any(|p| matches(name, &p.name().to_lowercase())))
        };
        let unsafe_names = UNSAFE.iter().map(|(name, _)| *name);
        let names = OWNED.into_iter().chain(unsafe_names).chain(ORDERED).chain(SESSION_RISK);
        for name in names.chain(SENSITIVE).filter(|name| *name != "pgitops.*") {
            assert!(known(name), "{name}");
        }
    }

    #[test]
    fn only_the_dangerous_value_is_unsafe() {
        fn check(name: &str, value: &str, expected: bool) {
            let (value, catalogue) =
                (Value::new(value).unwrap(), Catalogue::for_major(15).unwrap());
            assert_eq!(is_unsafe(name, &value, catalogue), expected, "{name}");
        }
        check("fsync", "false", true);
        check("FSYNC", "true", false);
        check("autovacuum", "off", true);
        check("zero_damaged_pages", "1", true);
        check("session_replication_role", "origin", false);
        check("session_replication_role", "replica", true);
        check("wal_level", "minimal", true);
        check("wal_level", "logical", false);
        check("work_mem", "1MB", false);
        assert!(lowers_wal_level("logical", "replica"));
        assert!(!lowers_wal_level("replica", "logical"));
    }

    #[test]
    fn values_that_may_be_secrets_are_masked() {
        for name in ["Primary_Conninfo", "archive_command", "my_ext.api_key", "x.db_password"] {
            assert!(is_sensitive(name), "{name}");
        }
        for name in ["work_mem", "password_encryption", "ssl_key_file", "search_path"] {
            assert!(!is_sensitive(name), "{name}");
        }
        let (name, value) = (Name::new("x.secret").unwrap(), Value::new("s3").unwrap());
        assert_eq!(shown(&name, &value), HIDDEN);
        let (name, value) = (Name::new("work_mem").unwrap(), Value::new("0.1GB").unwrap());
        assert_eq!(shown_by(&name, &value, Catalogue::for_major(15).unwrap()), "102MB");
    }
}
