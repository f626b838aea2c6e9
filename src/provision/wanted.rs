//! What a pass is to write: decided from the object and what was seen, before anything is written.
//!
//! Leaves who leads to `roles`, the objects to `children`, and the writing to `act`. While the
//! database is paused nothing that derives from the spec is written; the primary's Service, the
//! labels and the certificates go on, because they do not.

use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::jiff::Timestamp;

use crate::api::Postgres;
use crate::api::conditions;
use crate::api::postgres::{PostgresSpec, StorageType, condition};
use crate::pgconf::{Settings, provisioned, tuning};

use super::blueprint::{self, Blueprint, Configuration, Options, Refusal};
use super::children::certificates::{self, Due};
use super::children::workload::{self, Workload, WorkloadKind};
use super::children::{Children, Owner, auth_secret, operator_config, overlay, services};
use super::deletion::DataClaim;
use super::members::{Member, Node, ordinal_of};
use super::roles::{self, Roles, Situation, Size};

/// The Secrets of a database as they are.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// The superuser's credentials.
    pub auth: Option<Secret>,
    /// The operator's config Secret.
    pub operator_config: Option<Secret>,
    /// The instances' certificate.
    pub instance: Option<Secret>,
    /// The controller's certificate.
    pub client: Option<Secret>,
    /// The owner's config Secret, where the spec names one.
    pub user: Option<Secret>,
}

impl Secrets {
    /// Whether everything is there that the provisioner makes.
    pub fn are_whole(&self) -> bool {
        let Self { auth, operator_config, instance, client, user: _ } = self;
        [auth, operator_config, instance, client].iter().all(|secret| secret.is_some())
    }
}

/// What the decisions rest on, besides the object itself.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    /// The Secrets.
    pub secrets: &'a Secrets,
    /// The workload.
    pub workload: Option<&'a Workload>,
    /// The kind that the workload is of, or is to be.
    pub kind: WorkloadKind,
    /// The primary's Service.
    pub primary: Option<&'a Service>,
    /// The nodes.
    pub members: &'a [Member],
    /// The data claims; `None`: not looked, because nothing depends on them.
    pub claims: Option<&'a [DataClaim]>,
    /// Now.
    pub now: Timestamp,
}

/// What is to be written.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What is wrong with the spec.
    pub refusals: Vec<Refusal>,
    /// The auth Secret has to be made.
    pub make_auth: bool,
    /// The operator's Secret has to be made, of this.
    pub make_configuration: Option<Configuration>,
    /// The certificates have to be made or renewed.
    pub certificates: Due,
    /// The primary's Service.
    pub primary: Service,
    /// Everything else; `None`: left as it is.
    pub children: Option<Children>,
    /// A Service for standbys is there no more use for.
    pub no_standbys: bool,
    /// How many nodes there may be.
    pub size: Size,
    /// Parameters that were edited in the spec and not loaded.
    pub pending: Vec<String>,
    /// Fields that nothing acts on.
    pub unacted: Vec<String>,
    /// After this the children are as this generation wants them.
    pub applied: bool,
}

/// Who leads, who follows, who waits.
pub fn roles(postgres: &Postgres, ground: &Ground<'_>) -> Roles {
    let wanted = postgres.spec.nodes();
    let database = postgres.database().name;
    let unclaimed: Option<Vec<String>> = ground.claims.map(|claims| {
        let unwanted = |name: &&String| {
            let pod = name.strip_prefix("data-").unwrap_or(name);
            ordinal_of(&database, pod).is_some_and(|ordinal| ordinal >= wanted)
        };
        claims.iter().map(|claim| &claim.name).filter(unwanted).cloned().collect()
    });
    roles::assign(&Situation {
        wanted,
        members: ground.members,
        selected: ground.primary.and_then(services::selected),
        unclaimed: unclaimed.as_deref(),
        had_data: was_provisioned(postgres) && is_durable(&postgres.spec),
    })
}

/// What is to be written.
pub fn wanted(
    postgres: &Postgres,
    ground: &Ground<'_>,
    roles: &Roles,
    options: &Options,
) -> Wanted {
    let Ground { secrets, members, now, kind, .. } = *ground;
    let live = ground.workload;
    let owner = Owner::of(postgres);
    let paused = conditions::is_true(postgres.conditions(), condition::PAUSED);
    let size = roles::size(postgres.spec.nodes(), live.map(workload::nodes), members, roles);
    let mut refusals = Vec::new();
    let blueprint =
        Blueprint::of(postgres, options, live, kind).map_err(|wrong| refusals.extend(wrong)).ok();
    let make_auth = auth(postgres, ground, blueprint.as_ref(), &mut refusals);
    let make_configuration = match (&secrets.operator_config, &blueprint) {
        (None, Some(_)) => configuration(postgres, secrets, &mut refusals),
        (Some(_), _) | (None, None) => None,
    };
    let unacted = unacted(postgres, blueprint.as_ref(), ground);
    let blueprint = blueprint.filter(|_| refusals.is_empty() && !paused);
    let children = blueprint.map(|blueprint| Children::of(&blueprint, size.nodes, live));
    Wanted {
        make_auth: make_auth && children.is_some(),
        make_configuration: make_configuration.filter(|_| children.is_some()),
        certificates: certificates::due(secrets.instance.as_ref(), secrets.client.as_ref(), now),
        primary: services::primary(&owner, roles.primary.as_deref()),
        no_standbys: children.as_ref().is_some_and(|children| children.standbys.is_none()),
        pending: pending(&postgres.spec, secrets),
        applied: !paused,
        children,
        refusals,
        size,
        unacted,
    }
}

/// Whether the auth Secret has to be made. A database that has data has a password already: a new
/// one in the Secret would be a lie.
fn auth(
    postgres: &Postgres,
    ground: &Ground<'_>,
    blueprint: Option<&Blueprint>,
    refusals: &mut Vec<Refusal>,
) -> bool {
    let name = postgres.children().auth;
    let foreign = blueprint.is_some_and(|blueprint| blueprint.auth_is_foreign);
    let keys = "with the keys username and password";
    match &ground.secrets.auth {
        Some(secret) => {
            refusals.extend(auth_secret::credentials(secret).err().map(Refusal::new));
            false
        }
        None if foreign => {
            refusals.push(Refusal::new(format!(
                "spec.authSecret: it is externally managed and Secret {name} is not there; \
                 create it {keys}"
            )));
            false
        }
        None if has_data(postgres, ground) => {
            refusals.push(Refusal::new(format!(
                "spec.authSecret: Secret {name} is gone, and the database has a password already; \
                 create it again {keys}"
            )));
            false
        }
        None => true,
    }
}

fn has_data(postgres: &Postgres, ground: &Ground<'_>) -> bool {
    let claimed = ground.claims.is_some_and(|claims| !claims.is_empty());
    let filled = |member: &Member| matches!(member.node, Node::Filling | Node::Holds(_));
    was_provisioned(postgres) || claimed || ground.members.iter().any(filled)
}

fn configuration(
    postgres: &Postgres,
    secrets: &Secrets,
    refusals: &mut Vec<Refusal>,
) -> Option<Configuration> {
    if let (Some(name), None) = (postgres.spec.secret_name(), &secrets.user) {
        refusals.push(Refusal::new(format!(
            "spec.configuration.secretName: Secret {name} is not there; create it with the key \
             user.conf"
        )));
        return None;
    }
    blueprint::configuration(&postgres.spec, secrets.user.as_ref().and_then(user_conf))
        .map_err(|wrong| refusals.extend(wrong))
        .ok()
}

fn user_conf(secret: &Secret) -> Option<&[u8]> {
    let bytes = secret.data.as_ref()?.get(crate::api::names::USER_CONF)?;
    Some(&bytes.0)
}

/// Names of parameters that were edited in the spec and not loaded. A text that cannot be read is
/// no edit that anybody could load; the request that tries says so.
fn pending(spec: &PostgresSpec, secrets: &Secrets) -> Vec<String> {
    let Some(operator) = &secrets.operator_config else { return Vec::new() };
    let Ok(major) = blueprint::major(spec) else { return Vec::new() };
    let user = secrets.user.as_ref().and_then(user_conf).unwrap_or_default();
    let (Ok(user), Ok(inline)) = (Settings::parse_bytes(user), Settings::parse(spec.inline()))
    else {
        return Vec::new();
    };
    // Tuning that cannot be worked out is named among the fields that nothing acts on.
    let Ok(tuning) = tuning::settings(spec, spec.tuning(), major) else { return Vec::new() };
    let defaults = provisioned::defaults(spec, major);
    operator_config::pending(operator, &defaults, &tuning.merged(&user), &inline)
}

/// Fields that nothing acts on, sorted.
fn unacted(postgres: &Postgres, blueprint: Option<&Blueprint>, ground: &Ground<'_>) -> Vec<String> {
    let spec = &postgres.spec;
    // Of the health checker the period is acted on.
    let mut fields: Vec<String> =
        spec.unacted().into_iter().filter(|field| field != "healthChecker").collect();
    let checker = spec.other.get("healthChecker").and_then(serde_json::Value::as_object);
    let others = checker.into_iter().flat_map(|checker| checker.keys());
    let others = others.filter(|key| *key != "periodSeconds");
    fields.extend(others.map(|key| format!("healthChecker.{key}")));
    let over = spec.pod_template.as_ref().and_then(|template| template.spec.as_ref());
    fields.extend(over.map(|over| overlay::unused(over, ground.kind)).unwrap_or_default());
    let tuned = blueprint::major(spec).map(|major| tuning::settings(spec, spec.tuning(), major));
    if let Ok(Err(words)) = tuned {
        fields.push(format!("configuration.tuning ({words})"));
    }
    if let (Some(blueprint), Some(live)) = (blueprint, ground.workload)
        && workload::other_storage(blueprint, live)
    {
        fields.push("storage (volumes stay as they were made)".to_owned());
    }
    fields.sort();
    fields
}

fn was_provisioned(postgres: &Postgres) -> bool {
    conditions::is_true(postgres.conditions(), condition::PROVISIONED)
}

fn is_durable(spec: &PostgresSpec) -> bool {
    spec.storage_type != Some(StorageType::Ephemeral)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{MINIMAL, postgres};
    use super::*;
    use crate::api::conditions::Condition;
    use crate::api::postgres::PostgresStatus;

    fn condition_of(type_: &str) -> PostgresStatus {
        let made = Condition::new(type_, true, "", "", Timestamp::UNIX_EPOCH);
        PostgresStatus { conditions: vec![made], ..PostgresStatus::default() }
    }

    fn decide(postgres: &Postgres, secrets: &Secrets, claims: &[&str]) -> Wanted {
        let claim = |name: &&str| DataClaim { name: (*name).to_owned(), going: false };
        let claims: Vec<DataClaim> = claims.iter().map(claim).collect();
        let ground = Ground {
            secrets,
            workload: None,
            kind: WorkloadKind::StatefulSet,
            primary: None,
            members: &[],
            claims: Some(&claims),
            now: Timestamp::UNIX_EPOCH,
        };
        let roles = roles(postgres, &ground);
        wanted(postgres, &ground, &roles, &Options::default())
    }

    #[test]
    fn everything_is_made_at_once() {
        let wanted = decide(&postgres(MINIMAL), &Secrets::default(), &[]);
        assert!(wanted.refusals.is_empty(), "{:?}", wanted.refusals);
        assert!(wanted.make_auth && wanted.make_configuration.is_some() && wanted.applied);
        assert!(matches!(wanted.certificates, Due::Make));
        let children = wanted.children.unwrap();
        assert_eq!(workload::nodes(&children.workload), 3);
        assert!(children.standbys.is_some() && children.account.is_some());
    }

    #[test]
    fn a_paused_database_is_left_as_it_is() {
        let mut postgres = postgres(MINIMAL);
        postgres.status = Some(condition_of("Paused"));
        let wanted = decide(&postgres, &Secrets::default(), &[]);
        assert!(wanted.children.is_none() && !wanted.make_auth && !wanted.applied);
        assert!(wanted.make_configuration.is_none());
    }

    fn check_refused(spec: &str, status: Option<&str>, claims: &[&str], expected: &str) {
        let mut postgres = postgres(spec);
        postgres.status = status.map(condition_of);
        let wanted = decide(&postgres, &Secrets::default(), claims);
        let words: Vec<&str> = wanted.refusals.iter().map(|r| r.words.as_str()).collect();
        assert!(words.join("; ").contains(expected), "{words:?}");
        assert!(wanted.children.is_none() && !wanted.make_auth);
    }

    #[test]
    fn a_password_is_never_made_for_data_that_has_one() {
        let gone = "Secret orders-auth is gone";
        check_refused(MINIMAL, Some("Provisioned"), &[], gone);
        check_refused(MINIMAL, None, &["data-orders-0"], gone);
        let foreign = "{version: '15', storageType: Ephemeral, \
                        authSecret: {name: mine, externallyManaged: true}}";
        check_refused(foreign, None, &[], "Secret mine is not there");
        let secret = "{version: '15', storageType: Ephemeral, configuration: {secretName: mine}}";
        check_refused(secret, None, &[], "create it with the key user.conf");
    }

    #[test]
    fn an_edit_of_tuning_is_pending_or_named_as_impossible() {
        let of = |tuning: &str| {
            let spec = format!(
                "{{version: '15', storageType: Ephemeral, configuration: {{tuning: {tuning}}}}}"
            );
            let postgres = postgres(&spec);
            let first = configuration(&postgres, &Secrets::default(), &mut Vec::new());
            (postgres, first)
        };
        let (same, first) = of("{profile: web}");
        let operator = operator_config::operator_config(&Owner::of(&same), &first.unwrap());
        let secrets = Secrets { operator_config: Some(operator), ..Secrets::default() };
        assert!(decide(&same, &secrets, &[]).pending.is_empty());
        let (edited, _) = of("{profile: web, maxConnections: 100}");
        assert_eq!(decide(&edited, &secrets, &[]).pending, ["max_connections", "work_mem"]);
        let (wrong, none) = of("{profile: big}");
        assert!(none.is_none());
        let unacted = decide(&wrong, &secrets, &[]).unacted;
        assert!(unacted[0].starts_with("configuration.tuning (spec.configuration.tuning.profile"));
        let refusals = decide(&wrong, &Secrets::default(), &[]).refusals;
        assert!(refusals[0].words.contains("web, oltp, dw, mixed or desktop"), "{refusals:?}");
    }

    #[test]
    fn what_nothing_acts_on_is_named() {
        let spec = "{version: '15', storageType: Ephemeral, monitor: {}, \
                    healthChecker: {periodSeconds: 5, failureThreshold: 3}, \
                    podTemplate: {spec: {podPlacementPolicy: {name: x}}}}";
        let wanted = decide(&postgres(spec), &Secrets::default(), &[]);
        let expected =
            ["healthChecker.failureThreshold", "monitor", "podTemplate.spec.podPlacementPolicy"];
        assert_eq!(wanted.unacted, expected);
    }
}
