//! What people and other programs read about a database: conditions, phase, events.
//!
//! KubeDB's conditions with KubeDB's reasons, and a few of our own that are there only while
//! something is wrong. The phase is a function of the conditions alone. Conditions of others
//! (`Paused` and the like) are kept as they are. Leaves writing to `act`. Never puts a value of a
//! parameter into an event.

use k8s_openapi::jiff::Timestamp;

use crate::api::Postgres;
use crate::api::conditions::{self, Condition};
use crate::api::postgres::{Phase, PostgresStatus, condition};

use super::blueprint::Refusal;
use super::members::{Holding, Member, Role};
use super::roles::Roles;

/// The spec cannot be built; what was built before stays.
pub const SPEC_INVALID: &str = "SpecInvalid";
/// A node's image is not there.
pub const IMAGE_MISSING: &str = "ImageMissing";
/// Who leads cannot be decided without a person.
pub const ROLES_HELD: &str = "RolesHeld";
/// Fewer nodes are wanted than may be taken away now.
pub const SCALE_DOWN_HELD: &str = "ScaleDownHeld";
/// The object is to be deleted and may not be.
pub const DELETION_HELD: &str = "DeletionHeld";

/// Everything that the status says something about.
#[derive(Clone, Copy, Debug)]
pub struct Outlook<'a> {
    /// The object as it was read.
    pub postgres: &'a Postgres,
    /// What is wrong with its spec.
    pub refusals: &'a [Refusal],
    /// The nodes.
    pub members: &'a [Member],
    /// Who leads.
    pub roles: &'a Roles,
    /// Why there are more nodes than wanted.
    pub size_held: Option<&'a str>,
    /// Why the object may not be deleted.
    pub deletion_held: Option<&'a str>,
    /// Parameters that were edited in the spec and not loaded.
    pub pending: &'a [String],
    /// Fields that nothing acts on, sorted.
    pub unacted: &'a [String],
    /// What instances answered that could not do as they were told: pod, words.
    pub refused: &'a [(String, String)],
    /// The children are as this generation of the spec wants them.
    pub applied: bool,
    /// Now.
    pub now: Timestamp,
}

/// What is to be written and said.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The whole status, foreign parts included.
    pub status: PostgresStatus,
    /// Whether it differs from the one that was read.
    pub changed: bool,
    /// Whether there is nothing to wait for but time.
    pub settled: bool,
    /// What to tell people.
    pub events: Vec<Event>,
}

/// Something to tell people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Somebody should look.
    pub warning: bool,
    /// One CamelCase word.
    pub reason: String,
    /// A sentence.
    pub note: String,
}

/// What the status is to be.
pub fn of(outlook: &Outlook<'_>) -> Report {
    let before = outlook.postgres.status.clone().unwrap_or_default();
    let mut status = before.clone();
    let mut events = Vec::new();
    let generation = outlook.postgres.metadata.generation;
    let was_provisioned = conditions::is_true(&before.conditions, condition::PROVISIONED);
    for statement in statements(outlook, was_provisioned) {
        let Statement { type_, verdict, event } = statement;
        let old = conditions::find(&before.conditions, type_);
        let Some((status_word, reason, message)) = verdict else {
            conditions::remove(&mut status.conditions, type_);
            continue;
        };
        let mut new = Condition::new(type_, true, &reason, &message, outlook.now);
        new.status = status_word.to_owned();
        // Ours say the same in every generation, unless they say something else.
        let same = old.filter(|old| {
            (&old.status, &old.reason, &old.message) == (&new.status, &new.reason, &new.message)
        });
        new.observed_generation = if outlook.applied { generation } else { None };
        if let Some(old) = same.filter(|_| !outlook.applied) {
            new.observed_generation = old.observed_generation;
        }
        if same.is_none() {
            events.extend(event);
        }
        conditions::set(&mut status.conditions, new);
    }
    status.phase = Some(phase(&status.conditions));
    // While nobody leads, what led last stands.
    status.server_version = leading(outlook).and_then(|held| held.version.clone());
    status.server_version = status.server_version.or(before.server_version.clone());
    if outlook.applied {
        status.observed_generation = generation;
    }
    let settled = status.phase == Some(Phase::Ready) && outlook.roles.instructions.is_empty();
    Report { changed: status != before, settled, events, status }
}

/// The phase that follows from the conditions: KubeDB's table, first match.
pub fn phase(all: &[Condition]) -> Phase {
    let is = |type_: &str, status: &str| {
        conditions::find(all, type_).is_some_and(|condition| condition.status == status)
    };
    let provisioned = is(condition::PROVISIONED, "True");
    if is("HealthCheckPaused", "True") {
        Phase::Unknown
    } else if is("Halted", "True") {
        Phase::Halted
    } else if is("DataRestored", "False") {
        Phase::NotReady
    } else if is("DataRestoreStarted", "True") && !is("DataRestored", "True") {
        Phase::DataRestoring
    } else if is(condition::ACCEPTING_CONNECTION, "False") && provisioned {
        Phase::NotReady
    } else if is(condition::REPLICA_READY, "False") || is(condition::READY, "False") {
        Phase::Critical
    } else if is(condition::READY, "True") && provisioned {
        Phase::Ready
    } else {
        Phase::Provisioning
    }
}

/// One condition of ours as it should be; no verdict: it should not be there.
struct Statement {
    type_: &'static str,
    verdict: Option<(&'static str, String, String)>,
    event: Option<Event>,
}

fn statements(outlook: &Outlook<'_>, was_provisioned: bool) -> Vec<Statement> {
    let mut all = health(outlook, was_provisioned);
    all.extend(troubles(outlook));
    all
}

fn primary<'a>(outlook: &Outlook<'a>) -> Option<&'a Member> {
    outlook.members.iter().find(|m| Some(&m.pod) == outlook.roles.primary.as_ref())
}

/// What the primary's node holds.
fn leading<'a>(outlook: &Outlook<'a>) -> Option<&'a Holding> {
    primary(outlook).and_then(Member::holding)
}

/// KubeDB's conditions, in the order in which they first come true.
fn health(outlook: &Outlook<'_>, was_provisioned: bool) -> Vec<Statement> {
    let Outlook { postgres, members, roles, refused, .. } = *outlook;
    let database = postgres.database();
    let missing = missing(members, postgres.spec.nodes(), refused);
    let primary = primary(outlook);
    let accepting = leading(outlook).is_some_and(|held| held.serving && held.role == Role::Primary);
    let no_primary = primary.map_or_else(
        || "there is no primary yet".to_owned(),
        |member| format!("{}: {}", member.pod, member.trouble().unwrap_or_default()),
    );
    let held = roles.held.as_ref().map(ToString::to_string);
    let well = accepting && missing.is_none() && held.is_none();
    let why = held.or_else(|| (!accepting).then(|| no_primary.clone())).or(missing.clone());
    let was = was_provisioned;
    let mut all = vec![
        Statement {
            type_: condition::PROVISIONING_STARTED,
            verdict: Some((
                "True",
                "DatabaseProvisioningStartedSuccessfully".to_owned(),
                format!("pgitops has started to provision Postgres {database}"),
            )),
            event: None,
        },
        either(
            condition::REPLICA_READY,
            was,
            ("AllReplicasReady", "all desired nodes are ready".to_owned()),
            missing.map(|why| ("SomeReplicasNotReady", why)),
        ),
        either(
            condition::ACCEPTING_CONNECTION,
            was,
            (
                "DatabaseAcceptingConnectionRequest",
                format!("Postgres {database} accepts connections"),
            ),
            (!accepting).then_some(("DatabaseNotAcceptingConnectionRequest", no_primary)),
        ),
        either(
            condition::READY,
            was,
            ("ReadinessCheckSucceeded", format!("Postgres {database} is ready")),
            why.filter(|_| !well).map(|why| ("ReadinessCheckFailed", why)),
        ),
    ];
    if well || was {
        all.push(either(
            condition::PROVISIONED,
            was,
            (
                "DatabaseSuccessfullyProvisioned",
                format!("Postgres {database} was ready once; its data is there"),
            ),
            None,
        ));
    }
    all
}

/// True with the first pair, or false with the second one. Before a database was ready for the
/// first time nothing is false yet, only unknown: it is being provisioned, not broken.
fn either(
    type_: &'static str,
    was_provisioned: bool,
    good: (&str, String),
    bad: Option<(&str, String)>,
) -> Statement {
    let (status, (reason, message)) = match bad {
        None => ("True", good),
        Some(bad) if was_provisioned => ("False", bad),
        Some(bad) => ("Unknown", bad),
    };
    let event = match status {
        "Unknown" => None,
        _ => Some(Event {
            warning: status == "False",
            reason: reason.to_owned(),
            note: message.clone(),
        }),
    };
    Statement { type_, verdict: Some((status, reason.to_owned(), message)), event }
}

/// Which wanted nodes do not do their part, and why.
fn missing(members: &[Member], wanted: i32, refused: &[(String, String)]) -> Option<String> {
    let words = members.iter().filter(|member| member.ordinal < wanted).filter_map(|member| {
        let trouble = member.trouble()?;
        let answer = refused.iter().find(|(pod, _)| *pod == member.pod);
        let answer = answer.map(|(_, words)| format!(" ({words})")).unwrap_or_default();
        Some(format!("{}: {trouble}{answer}", member.pod))
    });
    let words: Vec<String> = words.collect();
    (!words.is_empty()).then(|| words.join("; "))
}

/// Conditions that are there only while something is wrong or is left undone.
fn troubles(outlook: &Outlook<'_>) -> Vec<Statement> {
    let Outlook { refusals, members, roles, size_held, deletion_held, pending, unacted, .. } =
        *outlook;
    let sentences = |each: fn(&Refusal) -> &str| {
        (!refusals.is_empty()).then(|| refusals.iter().map(each).collect::<Vec<_>>().join("; "))
    };
    let image = members.iter().find_map(|member| {
        let waiting = member.waiting.as_ref().filter(|waiting| waiting.is_image())?;
        Some((waiting.reason.clone(), format!("{}: {}", member.pod, waiting.message)))
    });
    let pending = (!pending.is_empty()).then(|| {
        format!(
            "spec.configuration was edited and is not loaded ({}); a PostgresOpsRequest of type \
             Reconfigure loads it",
            pending.join(", ")
        )
    });
    let unacted = (!unacted.is_empty())
        .then(|| format!("nothing acts on these fields: {}", unacted.join(", ")));
    let mut invalid = trouble(SPEC_INVALID, "Refused", sentences(|refusal| &refusal.words));
    // The status may show values, an event may not.
    invalid.event = sentences(|refusal| &refusal.event).map(|note| warning(SPEC_INVALID, note));
    let (reason, words) = image.map_or((String::new(), None), |(r, words)| (r, Some(words)));
    let held = roles.held.as_ref();
    vec![
        invalid,
        trouble(IMAGE_MISSING, &reason, words),
        trouble(
            ROLES_HELD,
            held.map_or("", super::roles::Held::reason),
            held.map(ToString::to_string),
        ),
        trouble(SCALE_DOWN_HELD, "PrimaryInTheWay", size_held.map(str::to_owned)),
        trouble(DELETION_HELD, "DoNotTerminate", deletion_held.map(str::to_owned)),
        // A pass that comes this far is kept by nothing.
        quiet(trouble(conditions::STALLED, "", None)),
        quiet(trouble(condition::CONFIGURATION_PENDING, "Edited", pending)),
        quiet(trouble(condition::FIELDS_NOT_ACTED_ON, "NotSupported", unacted)),
    ]
}

fn trouble(type_: &'static str, reason: &str, words: Option<String>) -> Statement {
    let event = words.clone().map(|note| warning(type_, note));
    Statement { type_, verdict: words.map(|words| ("True", reason.to_owned(), words)), event }
}

fn quiet(statement: Statement) -> Statement {
    Statement { event: None, ..statement }
}

fn warning(reason: &str, note: String) -> Event {
    Event { warning: true, reason: reason.to_owned(), note }
}

#[cfg(test)]
mod tests {
    use super::super::members::{Holding, Node, Waiting};
    use super::super::sample::{MINIMAL, postgres};
    use super::*;

    fn well(ordinal: i32) -> Member {
        let mut member = Member::absent(format!("orders-{ordinal}"), ordinal);
        let standby = Role::Standby { follows: vec!["orders-0".to_owned()] };
        member.ready = true;
        member.node = Node::Holds(Holding {
            role: if ordinal == 0 { Role::Primary } else { standby },
            timeline: 1,
            system: 7,
            version: Some("15.18".to_owned()),
            serving: true,
            streaming: ordinal != 0,
            fenced: false,
            trouble: None,
        });
        member
    }

    fn report(postgres: &Postgres, members: &[Member]) -> Report {
        let roles = Roles { primary: Some("orders-0".to_owned()), ..Roles::default() };
        of(&Outlook {
            postgres,
            refusals: &[],
            members,
            roles: &roles,
            size_held: None,
            deletion_held: None,
            pending: &[],
            unacted: &[],
            refused: &[],
            applied: true,
            now: Timestamp::UNIX_EPOCH,
        })
    }

    fn words(status: &PostgresStatus) -> Vec<String> {
        status.conditions.iter().map(|c| format!("{} {} {}", c.type_, c.status, c.reason)).collect()
    }

    #[test]
    fn a_database_comes_up_with_kubedbs_conditions() {
        let mut postgres = postgres(MINIMAL);
        let first = report(&postgres, &[Member::absent("orders-0".to_owned(), 0)]);
        assert_eq!(first.status.phase, Some(Phase::Provisioning));
        assert!(first.events.is_empty(), "{:?}", first.events);
        let first_version = first.status.server_version.clone();
        postgres.status = Some(first.status);
        let second = report(&postgres, &[well(0), well(1), well(2)]);
        let expected = [
            "ProvisioningStarted True DatabaseProvisioningStartedSuccessfully",
            "ReplicaReady True AllReplicasReady",
            "AcceptingConnection True DatabaseAcceptingConnectionRequest",
            "Ready True ReadinessCheckSucceeded",
            "Provisioned True DatabaseSuccessfullyProvisioned",
        ];
        assert_eq!(words(&second.status), expected);
        assert_eq!(second.status.phase, Some(Phase::Ready));
        assert_eq!(second.status.observed_generation, Some(1));
        assert_eq!((first_version, second.status.server_version.as_deref()), (None, Some("15.18")));
        assert!(second.settled && second.changed);
        postgres.status = Some(second.status);
        let third = report(&postgres, &[well(0), well(1), well(2)]);
        assert!(!third.changed && third.events.is_empty(), "nothing happened");
    }

    #[test]
    fn a_missing_standby_is_critical_and_a_missing_primary_not_ready() {
        let mut postgres = postgres(MINIMAL);
        postgres.status = Some(report(&postgres, &[well(0), well(1), well(2)]).status);
        let gone = Member::absent("orders-2".to_owned(), 2);
        let now = report(&postgres, &[well(0), well(1), gone]);
        assert_eq!(now.status.phase, Some(Phase::Critical));
        let replica = conditions::find(&now.status.conditions, "ReplicaReady").unwrap();
        assert_eq!(replica.message, "orders-2: there is no pod yet");
        let gone = Member::absent("orders-0".to_owned(), 0);
        let now = report(&postgres, &[gone, well(1), well(2)]);
        assert_eq!(now.status.phase, Some(Phase::NotReady));
        assert!(conditions::is_true(&now.status.conditions, "Provisioned"));
        assert!(now.events.iter().all(|event| event.warning));
    }

    #[test]
    fn conditions_of_others_stay_and_paused_moves_no_phase() {
        let mut postgres = postgres(MINIMAL);
        let mut status = report(&postgres, &[well(0), well(1), well(2)]).status;
        let paused = Condition::new("Paused", true, "Paused", "by x", Timestamp::UNIX_EPOCH);
        status.conditions.push(paused.clone());
        postgres.status = Some(status);
        let now = report(&postgres, &[well(0), well(1), well(2)]);
        assert_eq!(now.status.conditions.last(), Some(&paused));
        assert_eq!(now.status.phase, Some(Phase::Ready));
        assert!(!now.changed);
    }

    #[test]
    fn a_missing_image_is_told_in_the_nodes_words_and_goes_when_it_is_there() {
        let mut postgres = postgres(MINIMAL);
        let mut member = Member::absent("orders-0".to_owned(), 0);
        member.waiting = Some(Waiting {
            reason: "ErrImagePull".to_owned(),
            message: "PostgreSQL 12 is not installed: there is 15".to_owned(),
        });
        let now = report(&postgres, &[member]);
        let image = conditions::find(&now.status.conditions, IMAGE_MISSING).unwrap();
        assert_eq!(image.message, "orders-0: PostgreSQL 12 is not installed: there is 15");
        assert_eq!(now.events.len(), 1, "{:?}", now.events);
        postgres.status = Some(now.status);
        let now = report(&postgres, &[well(0), well(1), well(2)]);
        assert!(conditions::find(&now.status.conditions, IMAGE_MISSING).is_none());
    }

    #[test]
    fn the_phase_follows_the_table() {
        let check = |all: &[(&str, &str)], expected: Phase| {
            let make = |(type_, status): &(&str, &str)| {
                let mut made = Condition::new(type_, true, "", "", Timestamp::UNIX_EPOCH);
                made.status = (*status).to_owned();
                made
            };
            let made: Vec<Condition> = all.iter().map(make).collect();
            assert_eq!(phase(&made), expected, "{all:?}");
        };
        check(&[], Phase::Provisioning);
        check(&[("Ready", "True"), ("Provisioned", "True")], Phase::Ready);
        check(&[("Ready", "False"), ("Provisioned", "True")], Phase::Critical);
        check(&[("ReplicaReady", "False")], Phase::Critical);
        check(&[("AcceptingConnection", "False")], Phase::Provisioning);
        let down = [("AcceptingConnection", "False"), ("Provisioned", "True")];
        check(&down, Phase::NotReady);
        check(&[("Halted", "True"), ("Ready", "True")], Phase::Halted);
        check(&[("HealthCheckPaused", "True"), ("Halted", "True")], Phase::Unknown);
        check(&[("DataRestoreStarted", "True")], Phase::DataRestoring);
        check(&[("DataRestored", "False")], Phase::NotReady);
    }
}
