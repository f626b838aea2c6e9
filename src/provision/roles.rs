//! Who leads, who follows, who waits.
//!
//! Roles are read from the servers, never from ordinals or labels. A node that is not known may
//! hold the data: nothing is initialised before every wanted node was seen to be empty, and a
//! database that once had data is never begun anew by itself. There is no failover: when the
//! primary is down, it is waited for. Leaves telling the instances to `act`.

use std::collections::BTreeMap;
use std::fmt;

use super::members::{Member, Node, Role};

/// What the decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// Number of nodes that the database is to have.
    pub wanted: i32,
    /// Every wanted node, and every other that still has a pod; by ordinal.
    pub members: &'a [Member],
    /// The pod that the primary's Service selects now: the last primary known.
    pub selected: Option<&'a str>,
    /// Data claims of ordinals that are not wanted. `None`: not looked.
    pub unclaimed: Option<&'a [String]>,
    /// The data was there once (condition `Provisioned`) and lives on volumes, so that it cannot
    /// have gone by itself.
    pub had_data: bool,
}

/// What is decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Roles {
    /// The pod that the primary's Service is to select; `None`: there was never one.
    pub primary: Option<String>,
    /// The role label of each pod, `None`: none.
    pub labels: BTreeMap<String, Option<&'static str>>,
    /// What instances are told, at most one instruction a pod.
    pub instructions: BTreeMap<String, Instruction>,
    /// Why a database that should have a primary gets none by itself, or should not be trusted.
    pub held: Option<Held>,
}

/// What an instance is told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// Make a new, empty database and lead it.
    Initialise,
    /// Copy the database of this primary and follow it.
    Join {
        /// Names and addresses of the primary, best first.
        hosts: Vec<String>,
    },
    /// Follow the primary where it is now.
    Follow {
        /// Names and addresses of the primary, best first.
        hosts: Vec<String>,
    },
}

/// What only a person can resolve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Several primaries on the highest timeline.
    SeveralPrimaries(Vec<String>),
    /// There are standbys, and nobody to follow.
    NoPrimary(Vec<String>),
    /// A node holds data of another database.
    OtherData(Vec<String>),
    /// Every node is empty, but there was data.
    DataLost,
    /// Every node is empty, but there are volumes that no wanted node mounts.
    DataElsewhere(Vec<String>),
}

impl Held {
    /// One CamelCase word for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::SeveralPrimaries(_) => "SeveralPrimaries",
            Self::NoPrimary(_) => "NoPrimary",
            Self::OtherData(_) => "OtherData",
            Self::DataLost => "DataLost",
            Self::DataElsewhere(_) => "DataElsewhere",
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SeveralPrimaries(pods) => write!(
                f,
                "{} are primaries on the same timeline; keep the one whose data counts, and \
                 delete claim and pod of the others",
                pods.join(", ")
            ),
            Self::NoPrimary(pods) => write!(
                f,
                "{} are standbys and no node is a primary; nothing is promoted by itself: bring \
                 the primary's volume back, or promote a standby with pg_promote()",
                pods.join(", ")
            ),
            Self::OtherData(pods) => write!(
                f,
                "the data of {} belongs to another database; delete its claim and pod to have it \
                 copied from the primary",
                pods.join(", ")
            ),
            Self::DataLost => f.write_str(
                "every node is empty although the database had data; bring a volume back, or \
                 delete the Postgres object and create it again to begin anew",
            ),
            Self::DataElsewhere(claims) => write!(
                f,
                "every wanted node is empty, but there are volumes of more nodes ({}); raise \
                 spec.replicas to use them, or delete them to begin anew",
                claims.join(", ")
            ),
        }
    }
}

/// Decides who leads, who follows and who waits.
pub fn assign(situation: &Situation<'_>) -> Roles {
    let Situation { members, selected, .. } = situation;
    let mut roles = match leader(members, *selected) {
        Leader::One(primary) => followers(members, primary),
        Leader::Several(pods) => {
            let kept = selected.filter(|pod| pods.iter().any(|other| other == pod));
            let held = Some(Held::SeveralPrimaries(pods));
            Roles { primary: kept.map(str::to_owned), held, ..Roles::default() }
        }
        Leader::Nobody => begin(situation),
    };
    roles.labels = labels(members, roles.primary.as_deref());
    roles
}

enum Leader<'a> {
    One(&'a Member),
    Several(Vec<String>),
    Nobody,
}

/// The primary with the highest timeline: a promotion always raises it, so a lower one is a former
/// primary, whose own instance keeps it down.
fn leader<'a>(members: &'a [Member], selected: Option<&str>) -> Leader<'a> {
    let timeline = |member: &Member| member.holding().map_or(0, |held| held.timeline);
    let highest = members.iter().filter(|m| m.is_primary()).map(timeline).max();
    let leaders: Vec<&Member> = members
        .iter()
        .filter(|member| member.is_primary() && Some(timeline(member)) == highest)
        .collect();
    match leaders.as_slice() {
        [] => Leader::Nobody,
        [only] => {
            let replaces = selected.is_some_and(|pod| pod != only.pod);
            let was = members.iter().find(|member| Some(member.pod.as_str()) == selected);
            // The last primary is not seen, and this one does not serve: who leads is not known.
            let unseen = was.is_some_and(|member| matches!(member.node, Node::Unknown(_)));
            let serves = only.holding().is_some_and(|held| held.serving);
            if replaces && unseen && !serves { Leader::Nobody } else { Leader::One(only) }
        }
        several => Leader::Several(several.iter().map(|member| member.pod.clone()).collect()),
    }
}

/// Everybody else follows the primary.
fn followers(members: &[Member], primary: &Member) -> Roles {
    let mut roles = Roles { primary: Some(primary.pod.clone()), ..Roles::default() };
    let Some(leading) = primary.holding() else { return roles };
    let mut strangers = Vec::new();
    for member in members.iter().filter(|member| member.pod != primary.pod) {
        let hosts = || primary.hosts.clone();
        match &member.node {
            // Only a primary that answers can be copied.
            Node::Empty if leading.serving => {
                let join = Instruction::Join { hosts: hosts() };
                roles.instructions.insert(member.pod.clone(), join);
            }
            Node::Holds(held) if held.system != leading.system => {
                strangers.push(member.pod.clone());
            }
            Node::Holds(held) => {
                if let Role::Standby { follows } = &held.role
                    && *follows != primary.hosts
                    && !primary.hosts.is_empty()
                {
                    let follow = Instruction::Follow { hosts: hosts() };
                    roles.instructions.insert(member.pod.clone(), follow);
                }
            }
            Node::Empty | Node::Filling | Node::Unknown(_) => {}
        }
    }
    roles.held = (!strangers.is_empty()).then_some(Held::OtherData(strangers));
    roles
}

/// Nobody leads: begin, or wait.
fn begin(situation: &Situation<'_>) -> Roles {
    let Situation { wanted, members, selected, unclaimed, had_data } = situation;
    let mut roles = Roles { primary: selected.map(str::to_owned), ..Roles::default() };
    let unknown = members.iter().any(|member| matches!(member.node, Node::Unknown(_)));
    let filling = members.iter().any(|member| member.node == Node::Filling);
    let standbys: Vec<String> = members
        .iter()
        .filter(|member| member.holding().is_some())
        .map(|member| member.pod.clone())
        .collect();
    let seen = members.iter().filter(|member| member.ordinal < *wanted).count();
    // Unknown is not empty: whoever is not seen may hold the data.
    if unknown || filling || seen < usize::try_from(*wanted).unwrap_or(usize::MAX) {
        return roles;
    }
    if !standbys.is_empty() {
        roles.held = Some(Held::NoPrimary(standbys));
        return roles;
    }
    match unclaimed {
        None => {}
        Some(_) if *had_data => roles.held = Some(Held::DataLost),
        Some([]) => {
            if let Some(first) = members.iter().min_by_key(|member| member.ordinal) {
                roles.instructions.insert(first.pod.clone(), Instruction::Initialise);
            }
        }
        Some(claims) => roles.held = Some(Held::DataElsewhere(claims.to_vec())),
    }
    roles
}

/// What each pod's label is to say. A pod that is not known keeps its label: it says what it last
/// was, and the primary's Service does not depend on it.
fn labels(members: &[Member], primary: Option<&str>) -> BTreeMap<String, Option<&'static str>> {
    let mut labels = BTreeMap::new();
    for member in members {
        let label = match &member.node {
            Node::Unknown(_) => continue,
            Node::Holds(_) if Some(member.pod.as_str()) == primary => Some("primary"),
            Node::Holds(held) => match held.role {
                Role::Standby { .. } => Some("standby"),
                Role::Primary => None,
            },
            Node::Empty | Node::Filling => None,
        };
        labels.insert(member.pod.clone(), label);
    }
    labels
}

/// How many nodes the workload may have now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    /// The number.
    pub nodes: i32,
    /// Why that is more than is wanted.
    pub held: Option<String>,
}

/// Fewer nodes take the highest ordinals away; never the primary, and never while it is not known
/// which one that is.
pub fn size(wanted: i32, current: Option<i32>, members: &[Member], roles: &Roles) -> Size {
    let current = current.unwrap_or(wanted);
    if wanted >= current {
        return Size { nodes: wanted, held: None };
    }
    let leading = members.iter().find(|m| m.is_primary() && Some(&m.pod) == roles.primary.as_ref());
    let Some(primary) = leading else {
        let held = format!(
            "spec.replicas is {wanted}; {current} nodes stay until it is known which one is the \
             primary"
        );
        return Size { nodes: current, held: Some(held) };
    };
    if primary.ordinal < wanted {
        return Size { nodes: wanted, held: None };
    }
    let nodes = primary.ordinal + 1;
    let held = format!(
        "spec.replicas is {wanted}, but {} is the primary and the highest ordinals go first; \
         {nodes} nodes stay",
        primary.pod
    );
    Size { nodes, held: Some(held) }
}

#[cfg(test)]
mod tests {
    use super::super::members::Holding;
    use super::*;

    /// `?` not known, `_` empty, `~` filling, `P2` primary on timeline 2, `p2` the same but not
    /// serving, `F1` a fenced one, `S` follows the right hosts, `s` follows others, `X` a standby
    /// of another database.
    fn members(text: &str) -> Vec<Member> {
        let leader = text.split(' ').position(|node| node.starts_with(['P', 'p'])).unwrap_or(9);
        let parse = |(at, word): (usize, &str)| {
            let pod = format!("db-{at}");
            let mut member = Member::absent(pod, i32::try_from(at).unwrap());
            member.hosts = vec![format!("host-{at}")];
            let standby = |host: String| Role::Standby { follows: vec![host] };
            let holds = |role: Role, system: u64| Holding {
                role,
                timeline: word.get(1..).and_then(|n| n.parse().ok()).unwrap_or(1),
                system,
                version: None,
                serving: !word.starts_with(['p', 'F']),
                streaming: true,
                fenced: word.starts_with('F'),
                trouble: None,
            };
            member.node = match &word[..1] {
                "?" => Node::Unknown("no answer".to_owned()),
                "_" => Node::Empty,
                "~" => Node::Filling,
                "P" | "p" | "F" => Node::Holds(holds(Role::Primary, 7)),
                "S" => Node::Holds(holds(standby(format!("host-{leader}")), 7)),
                "s" => Node::Holds(holds(standby("elsewhere".to_owned()), 7)),
                "X" => Node::Holds(holds(standby(format!("host-{leader}")), 8)),
                other => panic!("{other}"),
            };
            member
        };
        text.split(' ').enumerate().map(parse).collect()
    }

    fn told(roles: &Roles) -> String {
        let mut words: Vec<String> =
            roles.primary.iter().map(|pod| format!("lead {pod}")).collect();
        words.extend(roles.instructions.iter().map(|(pod, instruction)| match instruction {
            Instruction::Initialise => format!("initialise {pod}"),
            Instruction::Join { hosts } => format!("join {pod} {}", hosts.join(",")),
            Instruction::Follow { hosts } => format!("follow {pod} {}", hosts.join(",")),
        }));
        words.extend(roles.held.iter().map(|held| format!("held {}", held.reason())));
        words.join("; ")
    }

    fn check(nodes: &str, selected: Option<&str>, expected: &str) {
        let members = members(nodes);
        let wanted = i32::try_from(members.len()).unwrap();
        let situation = Situation {
            wanted,
            members: &members,
            selected,
            unclaimed: Some(&[]),
            had_data: false,
        };
        assert_eq!(told(&assign(&situation)), expected, "{nodes} {selected:?}");
    }

    #[test]
    fn the_lowest_ordinal_begins_once_all_are_seen_to_be_empty() {
        check("_", None, "initialise db-0");
        check("_ _ _", None, "initialise db-0");
        check("_ ? _", None, "");
        check("? ? ?", None, "");
        check("~ _ _", None, "");
        check("_ ~ _", None, "");
    }

    #[test]
    fn the_others_join_a_primary_that_answers() {
        check("P _ _", None, "lead db-0; join db-1 host-0; join db-2 host-0");
        check("p _ _", None, "lead db-0");
        check("P ~ ?", None, "lead db-0");
        check("_ P S", None, "lead db-1; join db-0 host-1");
        check("P S S", Some("db-0"), "lead db-0");
        check("P s S", Some("db-0"), "lead db-0; follow db-1 host-0");
    }

    #[test]
    fn roles_come_from_servers_and_the_higher_timeline_wins() {
        check("P1 P2 S", Some("db-0"), "lead db-1; follow db-2 host-1");
        check("F1 P2 S", Some("db-0"), "lead db-1");
        check("P1 P1 S", Some("db-0"), "lead db-0; held SeveralPrimaries");
        check("P1 P1 S", None, "held SeveralPrimaries");
        check("S S P3", None, "lead db-2");
    }

    #[test]
    fn a_primary_that_is_away_is_waited_for() {
        check("? S S", Some("db-0"), "lead db-0");
        check("p S S", Some("db-0"), "lead db-0");
        check("S S S", Some("db-0"), "lead db-0; held NoPrimary");
        check("? p S", Some("db-0"), "lead db-0");
        check("? P2 S", Some("db-0"), "lead db-1");
    }

    #[test]
    fn data_of_another_database_is_left_alone() {
        check("P X _", Some("db-0"), "lead db-0; join db-2 host-0; held OtherData");
    }

    #[test]
    fn a_database_that_had_data_is_not_begun_anew() {
        let members = members("_ _");
        let mut situation = Situation {
            wanted: 2,
            members: &members,
            selected: None,
            unclaimed: Some(&[]),
            had_data: true,
        };
        assert_eq!(told(&assign(&situation)), "held DataLost");
        let claims = ["data-db-2".to_owned()];
        situation.had_data = false;
        situation.unclaimed = Some(&claims);
        assert_eq!(told(&assign(&situation)), "held DataElsewhere");
        situation.unclaimed = None;
        assert_eq!(told(&assign(&situation)), "");
        situation.unclaimed = Some(&[]);
        situation.wanted = 3;
        assert_eq!(told(&assign(&situation)), "", "a wanted node was not seen");
    }

    #[test]
    fn labels_say_what_is_known() {
        let members = members("P S ? _ F1");
        let situation = Situation {
            wanted: 5,
            members: &members,
            selected: None,
            unclaimed: None,
            had_data: true,
        };
        let labels = assign(&situation).labels;
        let expected = [("db-0", Some("primary")), ("db-1", Some("standby")), ("db-3", None)];
        let mut expected = BTreeMap::from(expected.map(|(pod, label)| (pod.to_owned(), label)));
        expected.insert("db-4".to_owned(), None);
        assert_eq!(labels, expected);
    }

    #[test]
    fn the_primary_is_never_scaled_away() {
        let check = |nodes: &str, wanted: i32, current: i32, expected: i32, held: bool| {
            let members = members(nodes);
            let roles = assign(&Situation {
                wanted,
                members: &members,
                selected: None,
                unclaimed: None,
                had_data: true,
            });
            let size = size(wanted, Some(current), &members, &roles);
            assert_eq!((size.nodes, size.held.is_some()), (expected, held), "{nodes}");
        };
        check("P S S", 1, 3, 1, false);
        check("S P S", 1, 3, 2, true);
        check("S S P", 1, 3, 3, true);
        check("? S S", 1, 3, 3, true);
        check("P S S", 5, 3, 5, false);
        check("? ? ?", 3, 3, 3, false);
    }
}
