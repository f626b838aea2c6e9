//! What the provisioner sets for every database: the weakest layer above the built-in values.
//!
//! One table, each row with its reason, after KubeDB's (postgres-init-docker) and the measurements
//! of the project's Postgres reference. Here and not in `provision`, because everyone who renders a
//! database's file must get the same. What no file may override (`hot_standby`, paths, addresses)
//! is not here: the instance gives it on the server's command line. Never looks at a server.

use serde_json::Value as Json;

use crate::api::names::CONTAINER;
use crate::api::postgres::{PostgresSpec, StreamingMode};

use super::catalogue::Catalogue;
use super::settings::Settings;

/// The container's memory when the owner does not say (KubeDB's default limit).
pub const DEFAULT_MEMORY: &str = "1Gi";

/// The settings that hold where nothing else sets them. `major` is the server's major version.
///
/// The same spec gives the same settings, whoever asks.
pub fn defaults(spec: &PostgresSpec, major: u32) -> Settings {
    let mut rows: Vec<(&str, String)> = vec![
        // Standbys need it. The built-in value is the same; here it is told from one that a user
        // set and took away again.
        ("wal_level", "replica".to_owned()),
        // Four standbys, each with the two connections of a base backup while it is copied anew
        // (12), and four for backups and logical subscribers.
        ("max_wal_senders", "16".to_owned()),
        // One for each sender.
        ("max_replication_slots", "16".to_owned()),
        // Lets a former primary be taken back by pg_rewind without data checksums.
        ("wal_log_hints", "on".to_owned()),
        // What a standby that was away can still fetch; without an archive it is copied anew
        // after that.
        ("wal_keep_size", wal_keep_size(spec)),
        // A standby tries to reach its primary again after 0.2 s instead of 5 s: with synchronous
        // replication that is what a restart of the primary costs its writers (5.03 s against
        // 0.23 s measured).
        ("wal_retrieve_retry_interval", "200ms".to_owned()),
        // md5 is what KubeDB takes before 18; every supported server and driver knows scram.
        ("password_encryption", "scram-sha-256".to_owned()),
        // A quarter of the container's memory (KubeDB's rule, and that of the server's manual).
        ("shared_buffers", shared_buffers(memory_bytes(spec))),
    ];
    if spec.streaming_mode == Some(StreamingMode::Synchronous) && spec.nodes() > 1 {
        // Any one standby: names would have to change with every change of roles or size.
        rows.push(("synchronous_standby_names", "ANY 1 (*)".to_owned()));
        // KubeDB's default level: a commit waits until a standby has it, not until it is on disk.
        rows.push(("synchronous_commit", "remote_write".to_owned()));
    }
    // A name that this major does not know would keep the server from starting.
    let catalogue = Catalogue::for_major(major);
    rows.retain(|(name, _)| catalogue.is_none_or(|known| known.get(name).is_some()));
    Settings::from_pairs(rows).unwrap_or_default()
}

/// Memory of the server's container in bytes: its limit, else its request, else
/// [`DEFAULT_MEMORY`].
pub fn memory_bytes(spec: &PostgresSpec) -> u64 {
    said_memory(spec).unwrap_or_else(|| quantity(DEFAULT_MEMORY).unwrap_or_default())
}

/// The same where it is known: `None` when the owner's resources, which replace the defaults as a
/// whole, name no memory. Such a container may take all of its node's.
pub fn said_memory(spec: &PostgresSpec) -> Option<u64> {
    match resources(spec) {
        None => quantity(DEFAULT_MEMORY),
        Some(resources) => amount(resources, "memory"),
    }
}

/// Whole processors of the server's container: its limit, else its request; 0 where there is less
/// than one, or nothing is said.
pub fn cpus(spec: &PostgresSpec) -> u64 {
    resources(spec).and_then(|resources| amount(resources, "cpu")).unwrap_or_default()
}

/// Size of each node's volume in bytes; `None` where none is asked for.
pub fn volume_bytes(spec: &PostgresSpec) -> Option<u64> {
    let requests = spec.storage.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    quantity(&requests.get("storage")?.0)
}

/// What the owner says about the resources of the server's container.
fn resources(spec: &PostgresSpec) -> Option<&Json> {
    let containers = spec
        .pod_template
        .as_ref()
        .and_then(|template| template.spec.as_ref())
        .and_then(|spec| spec.get("containers"))
        .and_then(Json::as_array);
    containers
        .and_then(|all| all.iter().find(|container| container["name"] == CONTAINER))
        .and_then(|container| container.get("resources"))
}

/// The limit of a resource, else the request.
fn amount(resources: &Json, name: &str) -> Option<u64> {
    let amount = |kind: &str| match &resources[kind][name] {
        Json::String(text) => quantity(text),
        Json::Number(number) => quantity(&number.to_string()),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    };
    amount("limits").or_else(|| amount("requests"))
}

/// The major version that `spec.version` asks for: `15`, `15.18`, `16.4-bookworm`.
pub fn major(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Kubernetes' quantities (`1Gi`, `500M`, `1e9`) as whole numbers, rounded down.
pub fn quantity(text: &str) -> Option<u64> {
    // Binary suffixes before decimal ones: "Mi" also ends in a letter of the other table.
    const SUFFIXES: [(&str, f64); 13] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let suffix = SUFFIXES.iter().find_map(|(s, factor)| Some((text.strip_suffix(s)?, *factor)));
    let (number, factor) = suffix.unwrap_or((text, 1.0));
    let bytes = number.trim().parse::<f64>().ok()? * factor;
    // The bounds make the cast exact enough: no container has 2^63 bytes.
    (bytes.is_finite() && (0.0..9.2e18).contains(&bytes)).then_some(bytes as u64)
}

/// A quarter of the memory, in kB because that divides into blocks of 8 kB; at least the server's
/// minimum of 128 kB.
pub(super) fn shared_buffers(memory: u64) -> String {
    let kilobytes = (memory / 4 / 1024 / 8 * 8).max(128);
    if kilobytes.is_multiple_of(1024) {
        return format!("{}MB", kilobytes / 1024);
    }
    format!("{kilobytes}kB")
}

/// A tenth of the volume, from 128 MB (eight segments) to KubeDB's 1536 MB: with KubeDB's number
/// alone the write-ahead log would fill a volume of 1 GiB, and a full volume stops the server.
fn wal_keep_size(spec: &PostgresSpec) -> String {
    let megabytes = volume_bytes(spec).unwrap_or_default() / 10 / 1_048_576;
    format!("{}MB", megabytes.clamp(128, 1536))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(yaml: &str) -> PostgresSpec {
        serde_yaml::from_str(yaml).unwrap()
    }

    fn check(yaml: &str, name: &str, expected: Option<&str>) {
        let defaults = defaults(&spec(yaml), 15);
        assert_eq!(defaults.value_of(name), expected, "{yaml}");
    }

    fn with_resources(resources: &str) -> String {
        format!(
            "{{version: '15', podTemplate: {{spec: {{containers: [{{name: postgres, resources: \
             {resources}}}]}}}}}}"
        )
    }

    #[test]
    fn buffers_are_a_quarter_of_the_memory() {
        check("{version: '15'}", "shared_buffers", Some("256MB"));
        check(&with_resources("{limits: {memory: 4Gi}}"), "shared_buffers", Some("1024MB"));
        check(&with_resources("{requests: {memory: 512Mi}}"), "shared_buffers", Some("128MB"));
        check(
            &with_resources("{limits: {memory: 1000000000}}"),
            "shared_buffers",
            Some("244136kB"),
        );
        check(&with_resources("{limits: {cpu: 1}}"), "shared_buffers", Some("256MB"));
    }

    #[test]
    fn processors_are_counted_whole() {
        let check = |resources: &str, expected: u64| {
            assert_eq!(cpus(&spec(&with_resources(resources))), expected, "{resources}");
        };
        check("{limits: {cpu: 4}}", 4);
        check("{limits: {cpu: '3900m'}, requests: {cpu: 1}}", 3);
        check("{requests: {cpu: 2.5}}", 2);
        check("{limits: {memory: 1Gi}}", 0);
        assert_eq!(cpus(&spec("{version: '15'}")), 0);
    }

    #[test]
    fn the_log_that_is_kept_fits_the_volume() {
        let storage = |size: &str| {
            format!("{{version: '15', storage: {{resources: {{requests: {{storage: {size}}}}}}}}}")
        };
        check(&storage("1Gi"), "wal_keep_size", Some("128MB"));
        check(&storage("10Gi"), "wal_keep_size", Some("1024MB"));
        check(&storage("1Ti"), "wal_keep_size", Some("1536MB"));
    }

    #[test]
    fn commits_wait_for_a_standby_only_where_there_is_one() {
        let name = "synchronous_standby_names";
        check("{version: '15', replicas: 3}", name, None);
        check("{version: '15', streamingMode: Synchronous}", name, None);
        let synchronous = "{version: '15', replicas: 2, streamingMode: Synchronous}";
        check(synchronous, name, Some("ANY 1 (*)"));
    }

    #[test]
    fn every_major_knows_every_row() {
        let spec = spec("{version: '15', replicas: 3, streamingMode: Synchronous}");
        for major in super::super::catalogue::MAJORS {
            let catalogue = Catalogue::for_major(major).unwrap();
            for (name, value) in defaults(&spec, major).iter() {
                assert!(catalogue.normalise(name, value).is_ok(), "{major}: {name} = {value:?}");
            }
            assert!(defaults(&spec, major).len() >= 10);
        }
    }

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        let cases = [("1Gi", 1 << 30), ("500M", 500_000_000), ("1e3", 1000), ("1500m", 1)];
        for (text, bytes) in cases {
            assert_eq!(quantity(text), Some(bytes), "{text}");
        }
        assert_eq!(quantity("much"), None);
        assert_eq!(quantity("-1Gi"), None);
    }

    #[test]
    fn the_major_is_what_the_version_begins_with() {
        assert_eq!(major("15"), Some(15));
        assert_eq!(major("16.4-bookworm"), Some(16));
        assert_eq!(major("latest"), None);
    }
}
