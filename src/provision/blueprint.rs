//! What a valid `Postgres` object asks for, resolved once.
//!
//! Everything after this uses the resolved form. What cannot be built is a [`Refusal`] with a
//! sentence that names the field; all of them are found in one go. Leaves the objects themselves
//! to `children` and the configuration's grammar and values to `pgconf`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PersistentVolumeClaimSpec, PodTemplateSpec};

use crate::api::Postgres;
use crate::api::names::CONTAINER;
use crate::api::postgres::{PostgresSpec, StorageType};
use crate::pgconf::catalogue::MAJORS;
use crate::pgconf::{Catalogue, Layers, Problem, Settings, check, provisioned, tuning};

use super::children::workload::{Workload, WorkloadKind};
use super::children::{Owner, overlay, pod};

/// More nodes than this were never tried, and every one of them costs the primary a sender.
pub const MAX_NODES: i32 = 5;

/// What the operator of pgitops decides for all databases.
#[derive(Clone, Debug)]
pub struct Options {
    /// Image of the server; `{version}` stands for `spec.version`.
    pub postgres_image: String,
    /// Image that holds `/pgitops`. Without a version in it, an upgrade changes no pod template.
    pub pgitops_image: String,
}

impl Options {
    /// The image of a server of this version.
    pub fn image(&self, version: &str) -> String {
        self.postgres_image.replace("{version}", version)
    }

    /// The version of which an image is; `None`: the image is not one of ours.
    fn version_of<'a>(&self, image: &'a str) -> Option<&'a str> {
        let (before, after) = self.postgres_image.split_once("{version}")?;
        image.strip_prefix(before)?.strip_suffix(after)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            postgres_image: "postgres:{version}".to_owned(),
            pgitops_image: "pgitops".to_owned(),
        }
    }
}

/// A database that can be built.
#[derive(Clone, Debug, PartialEq)]
pub struct Blueprint {
    /// Whose children these are.
    pub owner: Owner,
    /// Number of nodes.
    pub nodes: i32,
    /// Volume claim of each node; `None`: the data goes with the pod.
    pub storage: Option<PersistentVolumeClaimSpec>,
    /// The pods.
    pub template: PodTemplateSpec,
    /// What kind of object runs them.
    pub kind: WorkloadKind,
    /// The policy that places them, where that kind takes one.
    pub placement: Option<String>,
    /// `spec.podTemplate` names a ServiceAccount of its own.
    pub own_account: bool,
    /// Somebody else makes the auth Secret.
    pub auth_is_foreign: bool,
}

/// The first configuration of a database.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    /// What nodes start with.
    pub rendered: Settings,
    /// `spec.configuration.inline`, as it was written.
    pub inline: String,
}

/// What cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// A sentence that names the field: for the status.
    pub words: String,
    /// The same without any value of a parameter: for events.
    pub event: String,
}

impl Refusal {
    /// A sentence that holds no value of a parameter.
    pub fn new(words: impl Into<String>) -> Self {
        let words = words.into();
        Self { event: words.clone(), words }
    }

    fn problem(field: &str, problem: &Problem) -> Self {
        let parameter = problem.parameter.as_deref().unwrap_or("the text");
        Self {
            words: format!("{field}: {problem}"),
            event: format!("{field}: {parameter} is refused; the status says why"),
        }
    }
}

impl Blueprint {
    /// Resolves the spec of a database that runs as `live`, whose nodes are of this kind.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn of(
        postgres: &Postgres,
        options: &Options,
        live: Option<&Workload>,
        kind: WorkloadKind,
    ) -> Result<Self, Vec<Refusal>> {
        let spec = &postgres.spec;
        let owner = Owner::of(postgres);
        let mut refusals = Vec::new();
        match major(spec) {
            Ok(major) => refusals.extend(other_major(major, options, live)),
            Err(refusal) => refusals.push(refusal),
        }
        if spec.nodes() > MAX_NODES {
            refusals.push(Refusal::new(format!(
                "spec.replicas: {} nodes are more than the {MAX_NODES} that are supported",
                spec.nodes()
            )));
        }
        let storage = storage(spec).map_err(|refusal| refusals.push(refusal)).ok().flatten();
        let empty = std::collections::BTreeMap::new();
        let over = spec.pod_template.as_ref().and_then(|template| template.spec.as_ref());
        refusals.extend(overlay::refusals(over.unwrap_or(&empty)).into_iter().map(Refusal::new));
        let template = pod::template(&owner, spec, options)
            .map_err(|error| refusals.push(Refusal::new(format!("spec.podTemplate: {error}"))));
        match template {
            Ok(template) if refusals.is_empty() => Ok(Self {
                nodes: spec.nodes(),
                storage,
                template,
                kind,
                placement: over.and_then(|over| overlay::placement(over, kind)).map(str::to_owned),
                own_account: over.is_some_and(|over| over.contains_key("serviceAccountName")),
                auth_is_foreign: is_foreign(spec),
                owner,
            }),
            Ok(_) | Err(()) => Err(refusals),
        }
    }
}

/// The server's major version.
///
/// # Errors
/// It is not one that we know.
pub fn major(spec: &PostgresSpec) -> Result<u32, Refusal> {
    let known = |major: &u32| MAJORS.contains(major);
    provisioned::major(&spec.version).filter(known).ok_or_else(|| {
        let (first, last) = (MAJORS.first(), MAJORS.last());
        Refusal::new(format!(
            "spec.version: {:?} does not begin with a major version from {} to {}",
            spec.version,
            first.copied().unwrap_or_default(),
            last.copied().unwrap_or_default()
        ))
    })
}

/// A data folder can be read by servers of one major version only: with another one's image the
/// next pod to be replaced would not start.
fn other_major(major: u32, options: &Options, live: Option<&Workload>) -> Option<Refusal> {
    let pod = live?.spec()?.template.spec.as_ref()?;
    let server = pod.containers.iter().find(|container| container.name == CONTAINER)?;
    let now = provisioned::major(options.version_of(server.image.as_deref()?)?)?;
    (now != major).then(|| {
        Refusal::new(format!(
            "spec.version: the data is of PostgreSQL {now}, and nothing here upgrades it to \
             {major}; set the version back"
        ))
    })
}

/// What the nodes of a database that has no configuration yet are to start with. `user_conf` is
/// the content of the owner's Secret.
///
/// # Errors
/// Everything that a server of this version would refuse, with its place.
pub fn configuration(
    spec: &PostgresSpec,
    user_conf: Option<&[u8]>,
) -> Result<Configuration, Vec<Refusal>> {
    let major = major(spec).map_err(|refusal| vec![refusal])?;
    let mut refusals = Vec::new();
    let mut read = |field: &str, text: &[u8]| {
        let settings = Settings::parse_bytes(text).unwrap_or_else(|problems| {
            refusals.extend(problems.iter().map(|problem| Refusal::problem(field, problem)));
            Settings::new()
        });
        let catalogue = Catalogue::for_major(major);
        let checked = catalogue.map(|known| check(&settings, known, &BTreeSet::new()));
        let problems = checked.map(|checked| checked.problems).unwrap_or_default();
        let wrong = problems.iter().filter(|problem| problem.is_refusal());
        refusals.extend(wrong.map(|problem| Refusal::problem(field, problem)));
        settings
    };
    let secret = spec.secret_name().unwrap_or_default();
    let user = read(&format!("Secret {secret}, key user.conf"), user_conf.unwrap_or_default());
    let inline = read("spec.configuration.inline", spec.inline().as_bytes());
    let tuning = tuning::settings(spec, spec.tuning(), major).unwrap_or_else(|words| {
        refusals.push(Refusal::new(words));
        Settings::new()
    });
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let provisioner = provisioned::defaults(spec, major);
    let layers = Layers { provisioner, tuning, user, inline, owned: Settings::new() };
    Ok(Configuration { rendered: layers.file(), inline: spec.inline().to_owned() })
}

fn storage(spec: &PostgresSpec) -> Result<Option<PersistentVolumeClaimSpec>, Refusal> {
    if spec.storage_type == Some(StorageType::Ephemeral) {
        return Ok(None);
    }
    let Some(mut claim) = spec.storage.clone() else {
        return Err(Refusal::new(
            "spec.storage: storageType Durable (the default) needs a volume claim; write \
             storage: {resources: {requests: {storage: 10Gi}}}, or storageType: Ephemeral",
        ));
    };
    let requests = claim.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let size = requests.and_then(|requests| requests.get("storage"));
    if size.and_then(|size| provisioned::quantity(&size.0)).is_none_or(|bytes| bytes == 0) {
        return Err(Refusal::new(
            "spec.storage.resources.requests.storage: a size is needed, such as 10Gi",
        ));
    }
    // The API demands modes; one writer at a time is what a data folder can bear.
    let modes = claim.access_modes.get_or_insert_default();
    if modes.is_empty() {
        modes.push("ReadWriteOnce".to_owned());
    }
    Ok(Some(claim))
}

fn is_foreign(spec: &PostgresSpec) -> bool {
    spec.auth_secret.as_ref().and_then(|auth| auth.externally_managed).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{MINIMAL, postgres};
    use super::*;

    fn of(spec: &str, live: Option<&Workload>) -> Result<Blueprint, Vec<Refusal>> {
        let kind = WorkloadKind::StatefulSet;
        Blueprint::of(&postgres(spec), &Options::default(), live, kind)
    }

    fn check(spec: &str, expected: &[&str]) {
        let got = of(spec, None);
        let refusals = got.err().unwrap_or_default();
        assert_eq!(refusals.len(), expected.len(), "{spec}: {refusals:?}");
        for (refusal, words) in refusals.iter().zip(expected) {
            assert!(refusal.words.contains(words), "{spec}: {refusal:?}");
        }
    }

    #[test]
    fn what_cannot_be_built_is_a_sentence_with_the_field() {
        check(MINIMAL, &[]);
        check("{version: '15', storageType: Ephemeral}", &[]);
        check("{version: '15'}", &["spec.storage: storageType Durable"]);
        check("{version: '15', storage: {}}", &["spec.storage.resources.requests.storage"]);
        check("{version: 'new', storageType: Ephemeral}", &["spec.version: \"new\""]);
        check("{version: '9.6', storageType: Ephemeral}", &["from 13 to 18"]);
        check("{version: '15', storageType: Ephemeral, replicas: 6}", &["spec.replicas: 6"]);
        check("{version: '15', replicas: 9}", &["spec.replicas", "spec.storage"]);
        let mistyped = "{version: '15', storageType: Ephemeral, \
                        podTemplate: {spec: {nodeSelector: [a]}}}";
        check(mistyped, &["spec.podTemplate:"]);
    }

    #[test]
    fn the_major_version_stays() {
        let made = of(MINIMAL, None).unwrap();
        let live = super::super::children::workload::workload(&made, 3, None);
        let other = |version: &str| {
            let spec = MINIMAL.replace("'15'", version);
            of(&spec, Some(&live)).err().map(|r| r[0].words.clone())
        };
        assert_eq!(other("'15.18'"), None);
        assert!(other("'16'").unwrap().contains("the data is of PostgreSQL 15"));
    }

    fn check_configuration(inline: &str, user: Option<&str>, expected: &[&str]) {
        let mut postgres = postgres("{version: '15', configSecret: {name: mine}}");
        postgres.spec.configuration = Some(crate::api::postgres::Configuration {
            inline: Some([("user.conf".to_owned(), inline.to_owned())].into()),
            ..Default::default()
        });
        let got = configuration(&postgres.spec, user.map(str::as_bytes));
        let refusals = got.err().unwrap_or_default();
        assert_eq!(refusals.len(), expected.len(), "{refusals:?}");
        for (refusal, words) in refusals.iter().zip(expected) {
            assert!(refusal.words.contains(words), "{refusal:?}");
        }
    }

    #[test]
    fn a_configuration_that_no_server_would_take_is_refused_before_there_is_one() {
        check_configuration("work_mem = 1MB", Some("max_connections = 50"), &[]);
        check_configuration("work_mem = 1gb", None, &["spec.configuration.inline: 1:12 work_mem"]);
        check_configuration("port = 1", None, &["belongs to the operator"]);
        check_configuration("", Some("no_such = 1"), &["Secret mine, key user.conf: 1:1"]);
    }

    #[test]
    fn tuning_is_below_what_the_owner_sets_and_above_the_defaults() {
        let of = |tuning: &str| {
            let spec = format!(
                "{{version: '15', configuration: {{tuning: {tuning}, inline: {{user.conf: \
                 'max_connections = 50'}}}}}}"
            );
            configuration(&postgres(&spec).spec, None)
        };
        let got = of("{profile: desktop, storageType: hdd}").unwrap();
        let check = |name, expected| assert_eq!(got.rendered.value_of(name), Some(expected));
        check("max_connections", "50");
        check("random_page_cost", "4");
        check("shared_buffers", "64MB");
        check("wal_level", "replica");
        let refused = of("{storageType: tape}").unwrap_err();
        assert!(refused[0].words.starts_with("spec.configuration.tuning.storageType: \"tape\""));
    }

    #[test]
    fn inline_wins_over_the_secret_and_both_over_the_defaults() {
        let spec = "{version: '15', configuration: {inline: {user.conf: 'work_mem = 2MB'}}}";
        let user = "work_mem = 1MB\nshared_buffers = 64MB";
        let got = configuration(&postgres(spec).spec, Some(user.as_bytes())).unwrap();
        assert_eq!(got.rendered.value_of("work_mem"), Some("2MB"));
        assert_eq!(got.rendered.value_of("shared_buffers"), Some("64MB"));
        assert_eq!(got.rendered.value_of("wal_log_hints"), Some("on"));
    }
}
