//! Whose turn it is to be restarted, and how low a standby may go.
//!
//! A standby must have each of five parameters at least as high as the primary had it in the log
//! that the standby still has to read, or it does not start. So: what rises, rises on the standbys
//! first; what falls, falls on the primary first, and a standby follows only when it has replayed
//! *and* passed a restartpoint beyond the primary's new value, so that not even a crash makes it
//! read the old one again (`postgres.md` §3.1 and §3.2). A parameter that is removed changes to
//! its built-in value.
//!
//! Knows no history: it looks at what each server runs with now and says what comes next, and so
//! goes on correctly after a crash, in a rollback, or when somebody else restarted a server.
//! Leaves files to `node_file`. Never reads a server.

use std::collections::BTreeMap;

use crate::instance::protocol::Lsn;

/// The five by name.
pub type Five = BTreeMap<&'static str, i64>;

/// One node, as the order sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Member {
    /// Its pod.
    pub name: String,
    /// Whether it takes the writes.
    pub primary: bool,
    /// What its server runs with; `None` while it does not run.
    pub running: Option<Five>,
    /// What its `pg_controldata` has: on a standby, what it last replayed.
    pub control: Option<Five>,
    /// How far a standby has replayed.
    pub replayed: Option<Lsn>,
    /// Its last checkpoint; on a standby, the last restartpoint.
    pub checkpoint: Option<Lsn>,
    /// Why nobody else may be stopped now, or this one cannot be: not serving, not streaming, far
    /// behind, or a gate that is closed. `None` when all is well.
    pub unsettled: Option<String>,
    /// Whether a restart now, with the file that it may have now, would change anything or was
    /// asked for.
    pub owed: bool,
}

/// Where the five are to end, and where the primary's new values begin in the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Goal {
    /// The value of each at the end.
    pub target: Five,
    /// A checkpoint of the primary made since it runs with its new values; beyond it no log has
    /// the old ones.
    pub lowered: Option<Lsn>,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq)]
pub enum Turn {
    /// Stop and start this node with the file that it may have now.
    Restart(String),
    /// CHECKPOINT on the primary and note its place: standbys may go down once beyond it.
    Lower(String),
    /// CHECKPOINT on this standby, so that a crash no longer takes it back.
    Restartpoint(String),
    /// Nobody, before this node is well, for the reason given.
    Await(String, String),
    /// Everybody had a turn.
    Done,
}

/// The lowest values that a node may start with now.
///
/// The primary gets the goal. A standby gets the goal, but not less than what the primary runs
/// with, what its own control file says, and, until it is released, what it runs with itself.
pub fn floor(member: &Member, primary: Option<&Member>, goal: &Goal) -> Five {
    let mut floor = goal.target.clone();
    if member.primary {
        return floor;
    }
    raise(&mut floor, member.control.as_ref());
    // While the primary is down its control file tells what it ran with.
    raise(
        &mut floor,
        primary.and_then(|primary| primary.running.as_ref().or(primary.control.as_ref())),
    );
    if !released(member, goal) {
        raise(&mut floor, member.running.as_ref());
    }
    floor
}

fn raise(floor: &mut Five, least: Option<&Five>) {
    for (name, value) in least.into_iter().flatten() {
        floor.entry(name).and_modify(|at| *at = (*at).max(*value));
    }
}

/// Whether nothing that a standby may still have to read has values above the goal.
fn released(member: &Member, goal: &Goal) -> bool {
    let replayed = !above(member.control.as_ref(), &goal.target);
    let passed = match (goal.lowered, member.checkpoint) {
        (Some(lowered), Some(checkpoint)) => checkpoint >= lowered,
        (Some(_), None) | (None, _) => false,
    };
    replayed && passed
}

fn above(values: Option<&Five>, limit: &Five) -> bool {
    values.into_iter().flatten().any(|(name, value)| limit.get(name).is_some_and(|l| value > l))
}

fn below(values: Option<&Five>, limit: &Five) -> bool {
    values.into_iter().flatten().any(|(name, value)| limit.get(name).is_some_and(|l| value < l))
}

/// Whose turn it is. `members` in the order in which equals take turns.
pub fn turn(members: &[Member], goal: &Goal) -> Turn {
    let primary = members.iter().find(|member| member.primary);
    let standbys = || members.iter().filter(|member| !member.primary);
    let lags = |standby: &Member| below(standby.running.as_ref(), &floor(standby, primary, goal));
    let sinks = |standby: &Member| above(standby.running.as_ref(), &goal.target);

    // A server that is down cannot be taken down; what it is owed may be what it needs.
    if let Some(down) = members.iter().find(|member| member.running.is_none() && member.owed) {
        return Turn::Restart(down.name.clone());
    }
    // A standby below the primary has stopped replaying; only a restart heals it.
    let broken = |s: &&Member| s.unsettled.is_some() && s.owed && lags(s);
    if let Some(standby) = standbys().find(broken) {
        return Turn::Restart(standby.name.clone());
    }
    // One at a time: everybody else is well before anybody is stopped.
    if let Some(member) = members.iter().find(|member| member.unsettled.is_some()) {
        let why = member.unsettled.clone().unwrap_or_default();
        return Turn::Await(member.name.clone(), why);
    }
    // What rises, rises on the standbys first.
    if let Some(standby) = standbys().find(|s| s.owed && lags(s)) {
        return Turn::Restart(standby.name.clone());
    }
    // What neither rises nor falls is tried on a standby first; one that has to go down as well
    // waits for the primary, and restarts once.
    if let Some(standby) = standbys().find(|s| s.owed && !sinks(s)) {
        return Turn::Restart(standby.name.clone());
    }
    if let Some(primary) = primary.filter(|primary| primary.owed) {
        return Turn::Restart(primary.name.clone());
    }
    let Some(primary) = primary else {
        return Turn::Await("the primary".to_owned(), "no node is the primary".to_owned());
    };
    match standbys().find(|standby| sinks(standby)) {
        Some(standby) => descent(standby, primary, goal),
        None => Turn::Done,
    }
}

/// The next step of a standby that runs with more than it is to have, after its primary.
fn descent(standby: &Member, primary: &Member, goal: &Goal) -> Turn {
    let Some(lowered) = goal.lowered else { return Turn::Lower(primary.name.clone()) };
    let name = standby.name.clone();
    // The record of the checkpoint itself must have been read, not only all before it.
    let read = standby.replayed.is_some_and(|replayed| replayed > lowered);
    if !read || above(standby.control.as_ref(), &goal.target) {
        return Turn::Await(name, format!("replay has not passed {lowered}"));
    }
    if !released(standby, goal) {
        return Turn::Restartpoint(name);
    }
    if standby.owed {
        return Turn::Restart(name);
    }
    Turn::Done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn five(connections: i64, workers: i64) -> Five {
        BTreeMap::from([("max_connections", connections), ("max_worker_processes", workers)])
    }

    fn node(name: &str, running: Five, owed: bool) -> Member {
        Member {
            name: name.into(),
            primary: name == "p",
            control: Some(running.clone()),
            running: Some(running),
            replayed: Some(Lsn(50)),
            checkpoint: Some(Lsn(40)),
            owed,
            ..Member::default()
        }
    }

    fn goal(target: Five, lowered: Option<u64>) -> Goal {
        Goal { target, lowered: lowered.map(Lsn) }
    }

    /// The rows of §3.1 and §3.2: what runs where, and whose turn it is.
    #[test]
    fn turns_follow_the_rules_of_the_five() {
        let (low, high) = (five(100, 8), five(200, 8));
        let check = |members: &[Member], goal: &Goal, expected: Turn| {
            assert_eq!(turn(members, goal), expected, "{members:#?} {goal:?}");
        };
        let restart = |name: &str| Turn::Restart(name.into());
        let all = |running: &Five| {
            vec![
                node("a", running.clone(), true),
                node("b", running.clone(), true),
                node("p", running.clone(), true),
            ]
        };

        // Increase: standbys, then the primary.
        let up = goal(high.clone(), None);
        let mut nodes = all(&low);
        check(&nodes, &up, restart("a"));
        nodes[0] = node("a", high.clone(), false);
        check(&nodes, &up, restart("b"));
        nodes[1] = node("b", high.clone(), false);
        check(&nodes, &up, restart("p"));
        nodes[2] = node("p", high.clone(), false);
        check(&nodes, &up, Turn::Done);

        // Decrease: the primary, its checkpoint, replay, restartpoint, then each standby.
        let down = goal(low.clone(), None);
        let mut nodes = all(&high);
        nodes[0].owed = false; // its floor is what it runs with: a restart would change nothing
        nodes[1].owed = false;
        check(&nodes, &down, restart("p"));
        nodes[2] = node("p", low.clone(), false);
        check(&nodes, &down, Turn::Lower("p".into()));
        let down = goal(low.clone(), Some(60));
        let not_read = Turn::Await("a".into(), "replay has not passed 0/3C".into());
        check(&nodes, &down, not_read.clone());
        nodes[0].replayed = Some(Lsn(61));
        check(&nodes, &down, not_read); // its control file still has the higher value
        nodes[0].control = Some(low.clone());
        check(&nodes, &down, Turn::Restartpoint("a".into()));
        nodes[0].checkpoint = Some(Lsn(60));
        nodes[0].owed = true;
        check(&nodes, &down, restart("a"));

        // Mixed: the standbys rise, the primary does both, the standbys sink.
        let mixed = goal(five(200, 4), None);
        let mut nodes = all(&low);
        check(&nodes, &mixed, restart("a"));
        nodes[0] = node("a", five(200, 8), false);
        nodes[1] = node("b", five(200, 8), false);
        check(&nodes, &mixed, restart("p"));
        nodes[2] = node("p", five(200, 4), false);
        check(&nodes, &mixed, Turn::Lower("p".into()));

        // Nothing of the five: standbys first.
        check(&all(&low), &goal(low.clone(), None), restart("a"));
    }

    #[test]
    fn nobody_is_stopped_while_another_is_not_well() {
        let (low, high) = (five(100, 8), five(200, 8));
        let mut nodes = vec![node("a", high.clone(), false), node("p", low.clone(), true)];
        nodes[0].unsettled = Some("not streaming".into());
        let up = goal(high.clone(), None);
        assert_eq!(turn(&nodes, &up), Turn::Await("a".into(), "not streaming".into()));

        // Unless the turn is the cure: a standby below its primary, a server that is down.
        let mut nodes = vec![node("a", low.clone(), true), node("p", high.clone(), false)];
        nodes[0].unsettled = Some("replay is paused".into());
        assert_eq!(turn(&nodes, &up), Turn::Restart("a".into()));
        nodes[0].running = None;
        assert_eq!(turn(&nodes, &up), Turn::Restart("a".into()));
    }

    #[test]
    fn a_standby_never_starts_below_what_it_may_have_to_read() {
        let (low, high) = (five(100, 8), five(200, 8));
        let check = |standby: &Member, primary: &Five, goal: &Goal, expected: &Five| {
            let primary = node("p", primary.clone(), false);
            assert_eq!(&floor(standby, Some(&primary), goal), expected, "{standby:#?}");
        };
        let down = goal(low.clone(), Some(60));
        let mut standby = node("a", high.clone(), true);
        check(&standby, &high, &goal(low.clone(), None), &high); // the primary runs with more
        check(&standby, &low, &down, &high); // the control file has more
        standby.control = Some(low.clone());
        check(&standby, &low, &down, &high); // replayed, but a crash would read the old record
        standby.checkpoint = Some(Lsn(60));
        check(&standby, &low, &down, &low); // released
        standby.running = None;
        standby.control = Some(high.clone());
        check(&standby, &low, &down, &high); // a failed start wrote the higher value back
        // A rolled back increase is a decrease: the standby was raised, the primary was not.
        let raised = Member { control: Some(low.clone()), ..node("a", high.clone(), false) };
        check(&raised, &low, &goal(low.clone(), None), &high);
    }
}
