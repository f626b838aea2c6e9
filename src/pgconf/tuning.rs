//! What pgtune sets for a container of this size: the layer above the provisioner's defaults and
//! below everything that the owner writes.
//!
//! The formulas are those of pgtune (le0pard/pgtune, MIT licence; after gregs1104's script of the
//! same name) as published in early 2026, for Linux and with exactly the inputs that KubeDB's API
//! has (`spec.configuration.tuning`). Memory and processors are those of the container named
//! `postgres`, by limit, else by request.
//!
//! Differs from pgtune in two places, for the sake of a running database. `desktop` there also sets
//! `wal_level = minimal` and `max_wal_senders = 0`, with which no standby and no backup works: left
//! out. The log may grow to a quarter of a known volume and no further, because a full volume stops
//! the server, and pgtune asks for neither volume nor database size.
//!
//! Leaves to `layers` what wins. Never looks at a server; the same spec gives the same settings.

use crate::api::names::CONTAINER;
use crate::api::postgres::{PostgresSpec, Tuning};

use super::catalogue::Catalogue;
use super::name::Name;
use super::provisioned;
use super::settings::Settings;

/// All parameters that tuning may set, sorted.
const TUNED: [&str; 17] = [
    "checkpoint_completion_target",
    "default_statistics_target",
    "effective_cache_size",
    "effective_io_concurrency",
    "huge_pages",
    "maintenance_work_mem",
    "max_connections",
    "max_parallel_maintenance_workers",
    "max_parallel_workers",
    "max_parallel_workers_per_gather",
    "max_wal_size",
    "max_worker_processes",
    "min_wal_size",
    "random_page_cost",
    "shared_buffers",
    "wal_buffers",
    "work_mem",
];

/// Kilobytes, the unit that pgtune calculates in.
const MB: u64 = 1024;
const GB: u64 = 1024 * MB;

/// Fewer processors than this leave parallel queries at the server's defaults.
const PARALLEL_FROM: u64 = 4;
/// The server's default of `max_worker_processes`, which `work_mem` reckons with where it stays.
const DEFAULT_WORKERS: u64 = 8;

/// Kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    Web,
    Oltp,
    Warehouse,
    Mixed,
    Desktop,
}

/// Kind of storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Storage {
    Ssd,
    Hdd,
    San,
}

/// Whether tuning may set this parameter.
pub fn is_tuned(name: &Name) -> bool {
    TUNED.binary_search(&name.lower().as_str()).is_ok()
}

/// What tuning sets; nothing where it is not asked for, or `disableAutoTune` ends it. `major` is
/// the server's major version. Without a profile it is `web`, without a storage type `ssd`, as in
/// pgtune's form.
///
/// # Errors
/// What cannot be acted on, as a sentence that names the field and what to write.
pub fn settings(
    spec: &PostgresSpec,
    tuning: Option<&Tuning>,
    major: u32,
) -> Result<Settings, String> {
    let Some(tuning) = tuning else { return Ok(Settings::new()) };
    let Tuning { profile, max_connections, storage_type, disable_auto_tune, other: _ } = tuning;
    if *disable_auto_tune == Some(true) {
        return Ok(Settings::new());
    }
    let profile = profile_of(profile.as_deref().unwrap_or("web"))?;
    let storage = storage_of(storage_type.as_deref().unwrap_or("ssd"))?;
    let connections = match max_connections {
        None => profile.connections(),
        Some(number) => {
            u64::try_from(*number).ok().filter(|number| *number > 0).ok_or_else(|| {
                format!("spec.configuration.tuning.maxConnections: {number} is not above 0")
            })?
        }
    };
    let memory = provisioned::said_memory(spec).filter(|bytes| *bytes > 0).ok_or_else(|| {
        format!(
            "spec.configuration.tuning: the memory of container {CONTAINER} is not known; set \
             resources.limits.memory of that container in the database's spec.podTemplate, or \
             tuning.disableAutoTune: true"
        )
    })?;
    let mut rows = memory_rows(profile, memory / 1024, connections, provisioned::cpus(spec));
    rows.extend(log_rows(profile, provisioned::volume_bytes(spec).map(|bytes| bytes / 1024)));
    rows.extend(cost_rows(profile, storage));
    // A name that this major does not know would keep the server from starting.
    let catalogue = Catalogue::for_major(major);
    rows.retain(|(name, _)| catalogue.is_none_or(|known| known.get(name).is_some()));
    Settings::from_pairs(rows).map_err(|problems| {
        let first = problems.first().map(ToString::to_string).unwrap_or_default();
        format!("spec.configuration.tuning: {first}")
    })
}

fn profile_of(text: &str) -> Result<Profile, String> {
    Ok(match text {
        "web" => Profile::Web,
        "oltp" => Profile::Oltp,
        "dw" => Profile::Warehouse,
        "mixed" => Profile::Mixed,
        "desktop" => Profile::Desktop,
        other => {
            return Err(format!(
                "spec.configuration.tuning.profile: {other:?} is none of the profiles; write web, \
                 oltp, dw, mixed or desktop"
            ));
        }
    })
}

fn storage_of(text: &str) -> Result<Storage, String> {
    Ok(match text {
        "ssd" => Storage::Ssd,
        "hdd" => Storage::Hdd,
        "san" => Storage::San,
        other => {
            return Err(format!(
                "spec.configuration.tuning.storageType: {other:?} is none of the types; write ssd, \
                 hdd or san"
            ));
        }
    })
}

impl Profile {
    /// Connections, where the owner does not say.
    fn connections(self) -> u64 {
        match self {
            Profile::Web => 200,
            Profile::Oltp => 300,
            Profile::Warehouse => 40,
            Profile::Mixed => 100,
            Profile::Desktop => 20,
        }
    }
}

type Rows = Vec<(&'static str, String)>;

/// What depends on memory (in kB) and processors.
fn memory_rows(profile: Profile, memory: u64, connections: u64, cpus: u64) -> Rows {
    let (shared, cache, maintenance) = match profile {
        Profile::Web | Profile::Oltp | Profile::Mixed => (memory / 4, memory * 3 / 4, memory / 16),
        Profile::Warehouse => (memory / 4, memory * 3 / 4, memory / 8),
        Profile::Desktop => (memory / 16, memory / 4, memory / 16),
    };
    let parallel = cpus >= PARALLEL_FROM;
    let workers = if parallel { cpus } else { DEFAULT_WORKERS };
    // A query may sort several times, so a connection is reckoned three times.
    let per_sort = (memory - shared) / ((connections + workers) * 3);
    let work = match profile {
        Profile::Web | Profile::Oltp => per_sort,
        Profile::Warehouse | Profile::Mixed => per_sort / 2,
        Profile::Desktop => per_sort / 6,
    };
    let huge = if memory >= 32 * GB { "try" } else { "off" };
    let mut rows = vec![
        ("max_connections", connections.to_string()),
        ("shared_buffers", size(shared.max(128))), // the server's minimum
        ("effective_cache_size", size(cache)),
        ("maintenance_work_mem", size(maintenance.clamp(MB, 2 * GB))), // the server's minimum
        ("wal_buffers", size(wal_buffers(shared))),
        ("work_mem", size(work.max(64))), // the server's minimum
        ("huge_pages", huge.to_owned()),
    ];
    if parallel {
        let half = cpus.div_ceil(2);
        let per_query = if profile == Profile::Warehouse { half } else { half.min(4) };
        rows.extend([
            ("max_worker_processes", cpus.to_string()),
            ("max_parallel_workers_per_gather", per_query.to_string()),
            ("max_parallel_workers", cpus.to_string()),
            ("max_parallel_maintenance_workers", half.min(4).to_string()),
        ]);
    }
    rows
}

/// 3 % of the shared buffers up to 16 MB, which is taken from 14 MB on (the server's own rule, and
/// pgtune's rounding).
fn wal_buffers(shared: u64) -> u64 {
    let three_percent = shared * 3 / 100;
    if three_percent > 14 * MB { 16 * MB } else { three_percent.max(32) }
}

/// How large the log may grow between checkpoints. `volume` in kB.
fn log_rows(profile: Profile, volume: Option<u64>) -> Rows {
    let (least, most) = match profile {
        Profile::Web | Profile::Mixed => (GB, 4 * GB),
        Profile::Oltp => (2 * GB, 8 * GB),
        Profile::Warehouse => (4 * GB, 16 * GB),
        Profile::Desktop => (100 * MB, 2 * GB),
    };
    // Whole MB, the parameters' unit; at least four and two segments of 16 MB.
    let quarter = volume.map_or(most, |volume| volume / 4 / MB * MB);
    let most = most.min(quarter).max(64 * MB);
    let least = least.min(most / 4 / MB * MB).max(32 * MB);
    vec![
        ("min_wal_size", size(least)),
        ("max_wal_size", size(most)),
        ("checkpoint_completion_target", "0.9".to_owned()),
    ]
}

/// What the planner reckons with.
fn cost_rows(profile: Profile, storage: Storage) -> Rows {
    let (page, requests) = match storage {
        Storage::Ssd => ("1.1", "200"),
        Storage::Hdd => ("4", "2"),
        Storage::San => ("1.1", "300"),
    };
    let statistics = if profile == Profile::Warehouse { "500" } else { "100" };
    vec![
        ("default_statistics_target", statistics.to_owned()),
        ("random_page_cost", page.to_owned()),
        ("effective_io_concurrency", requests.to_owned()),
    ]
}

/// Kilobytes in the largest unit that divides them.
fn size(kilobytes: u64) -> String {
    match kilobytes {
        0 => "0".to_owned(),
        n if n.is_multiple_of(GB) => format!("{}GB", n / GB),
        n if n.is_multiple_of(MB) => format!("{}MB", n / MB),
        n => format!("{n}kB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgconf::check as check_settings;
    use crate::pgconf::name::Value;

    fn spec(limits: &str, volume: &str) -> PostgresSpec {
        let resources = format!("{{name: postgres, resources: {{limits: {limits}}}}}");
        serde_yaml::from_str(&format!(
            "{{version: '15', podTemplate: {{spec: {{containers: [{resources}]}}}}, \
             storage: {{resources: {{requests: {{storage: {volume}}}}}}}}}"
        ))
        .unwrap()
    }

    fn tuned(limits: &str, tuning: &str) -> Result<Settings, String> {
        let tuning: Tuning = serde_yaml::from_str(tuning).unwrap();
        settings(&spec(limits, "1Ti"), Some(&tuning), 15)
    }

    fn check(limits: &str, tuning: &str, expected: &str) {
        let settings = tuned(limits, tuning).unwrap();
        let got: Vec<String> =
            settings.iter().map(|(n, v)| format!("{n}={}", v.as_str())).collect();
        assert_eq!(got.join(" "), expected.split_whitespace().collect::<Vec<_>>().join(" "));
        assert!(settings.names().all(is_tuned));
        let checked = check_settings(&settings, Catalogue::for_major(15).unwrap(), &[].into());
        assert!(checked.is_accepted(), "{:?}", checked.problems);
    }

    #[test]
    fn the_values_are_those_of_pgtune() {
        check(
            "{memory: 4Gi, cpu: 2}",
            "{profile: web}",
            "max_connections=200 shared_buffers=1GB effective_cache_size=3GB \
             maintenance_work_mem=256MB wal_buffers=16MB work_mem=5041kB huge_pages=off \
             min_wal_size=1GB max_wal_size=4GB checkpoint_completion_target=0.9 \
             default_statistics_target=100 random_page_cost=1.1 effective_io_concurrency=200",
        );
        check(
            "{memory: 16Gi, cpu: 4}",
            "{profile: oltp, storageType: san}",
            "max_connections=300 shared_buffers=4GB effective_cache_size=12GB \
             maintenance_work_mem=1GB wal_buffers=16MB work_mem=13797kB huge_pages=off \
             max_worker_processes=4 max_parallel_workers_per_gather=2 max_parallel_workers=4 \
             max_parallel_maintenance_workers=2 min_wal_size=2GB max_wal_size=8GB \
             checkpoint_completion_target=0.9 default_statistics_target=100 \
             random_page_cost=1.1 effective_io_concurrency=300",
        );
        check(
            "{memory: 64Gi, cpu: 16}",
            "{profile: dw, storageType: hdd}",
            "max_connections=40 shared_buffers=16GB effective_cache_size=48GB \
             maintenance_work_mem=2GB wal_buffers=16MB work_mem=149796kB huge_pages=try \
             max_worker_processes=16 max_parallel_workers_per_gather=8 max_parallel_workers=16 \
             max_parallel_maintenance_workers=4 min_wal_size=4GB max_wal_size=16GB \
             checkpoint_completion_target=0.9 default_statistics_target=500 random_page_cost=4 \
             effective_io_concurrency=2",
        );
        check(
            "{memory: 1Gi}",
            "{profile: mixed, maxConnections: 50}",
            "max_connections=50 shared_buffers=256MB effective_cache_size=768MB \
             maintenance_work_mem=64MB wal_buffers=7864kB work_mem=2259kB huge_pages=off \
             min_wal_size=1GB max_wal_size=4GB checkpoint_completion_target=0.9 \
             default_statistics_target=100 random_page_cost=1.1 effective_io_concurrency=200",
        );
        // No wal_level and no max_wal_senders: standbys need them.
        check(
            "{memory: 2Gi, cpu: 10}",
            "{profile: desktop}",
            "max_connections=20 shared_buffers=128MB effective_cache_size=512MB \
             maintenance_work_mem=128MB wal_buffers=3932kB work_mem=3640kB huge_pages=off \
             max_worker_processes=10 max_parallel_workers_per_gather=4 max_parallel_workers=10 \
             max_parallel_maintenance_workers=4 min_wal_size=100MB max_wal_size=2GB \
             checkpoint_completion_target=0.9 default_statistics_target=100 \
             random_page_cost=1.1 effective_io_concurrency=200",
        );
        // 480 MB of shared buffers: 3 % are 14.4 MB, which become 16.
        let near = tuned("{memory: 1920Mi}", "{}").unwrap();
        assert_eq!(near.value_of("wal_buffers"), Some("16MB"));
    }

    #[test]
    fn the_smallest_container_gets_what_a_server_takes() {
        let small = tuned("{memory: 1Mi}", "{profile: desktop}").unwrap();
        let checked = check_settings(&small, Catalogue::for_major(15).unwrap(), &[].into());
        assert!(checked.is_accepted(), "{:?}", checked.problems);
        assert_eq!(small.value_of("work_mem"), Some("64kB"));
    }

    #[test]
    fn the_log_fits_the_volume() {
        let check = |volume: &str, expected: [&str; 2]| {
            let tuning = Tuning::default();
            let got = settings(&spec("{memory: 4Gi}", volume), Some(&tuning), 15).unwrap();
            let value = |name| got.value_of(name).unwrap();
            assert_eq!([value("min_wal_size"), value("max_wal_size")], expected, "{volume}");
        };
        check("1Gi", ["64MB", "256MB"]);
        check("10Gi", ["640MB", "2560MB"]);
        check("16Gi", ["1GB", "4GB"]);
        check("100Mi", ["32MB", "64MB"]);
        let anywhere = serde_yaml::from_str("{version: '15', storageType: Ephemeral}").unwrap();
        let got = settings(&anywhere, Some(&Tuning::default()), 15).unwrap();
        assert_eq!(got.value_of("max_wal_size"), Some("4GB"));
    }

    #[test]
    fn what_cannot_be_acted_on_is_refused_with_what_to_write() {
        let check = |limits: &str, tuning: &str, expected: &str| {
            let why = tuned(limits, tuning).unwrap_err();
            assert!(why.contains(expected), "{tuning}: {why}");
        };
        let memory = "{memory: 1Gi}";
        check(memory, "{profile: OLTP}", "write web, oltp, dw, mixed or desktop");
        check(memory, "{storageType: nvme}", "write ssd, hdd or san");
        check(memory, "{maxConnections: 0}", "maxConnections: 0 is not above 0");
        check(memory, "{maxConnections: -1}", "maxConnections: -1");
        check("{cpu: 4}", "{profile: web}", "set resources.limits.memory");
        check("{memory: much}", "{profile: web}", "set resources.limits.memory");
        assert!(tuned("{cpu: 4}", "{profile: x, disableAutoTune: true}").unwrap().is_empty());
        assert!(settings(&spec("{cpu: 4}", "1Gi"), None, 15).unwrap().is_empty());
    }

    #[test]
    fn every_major_version_knows_what_is_set() {
        assert!(TUNED.is_sorted());
        let all = spec("{memory: 4Gi, cpu: 8}", "1Ti");
        for major in crate::pgconf::catalogue::MAJORS {
            let got = settings(&all, Some(&Tuning::default()), major).unwrap();
            assert_eq!(got.len(), TUNED.len(), "{major}");
            let catalogue = Catalogue::for_major(major).unwrap();
            let known = |name: &Name, value: &Value| catalogue.normalise(name, value).is_ok();
            assert!(got.iter().all(|(name, value)| known(name, value)), "{major}");
        }
    }
}
