//! The way of the files: from what the servers run with to what they are to run with.
//!
//! The same for going forward and for going back, and it begins anew at every look: which nodes
//! need another file on disk, whose turn it is to be restarted, or what is waited for. Everything
//! is decided by what each server runs with now. Leaves proving to the caller.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::names::Sequence;
use crate::instance::protocol::{Live, ServerState};
use crate::ops::hot_standby::{self, Goal, Member, Turn};
use crate::ops::journal::{Journal, Restarts};
use crate::ops::node_file::{self, Extra, Files, Target};
use crate::ops::proof::Expected;
use crate::ops::seen::{Seen, Server};
use crate::ops::step::{RestartStep, Step};

use super::Current;

/// A standby that is this many bytes behind does not count as well: one segment.
pub const CATCH_UP: u64 = 16 * 1024 * 1024;
/// A standby that has not answered for this long would hold up the primary's stop: it answers at
/// least every 10 s (`wal_receiver_status_interval`).
const STUCK_MS: u64 = 15_000;
/// Segments that wait for the archive: the server tries to archive them before it stops.
const BACKLOG: u32 = 10;
/// Restarts of one node in one rollout.
const MOST_RESTARTS: usize = 4;
/// How long the next holder of a connection to a stopped primary waits at most.
const QUICK_RETRY_MS: i64 = 200;

/// Where a rollout stands.
pub enum Course {
    /// This has to be done.
    Act(Box<Step>),
    /// This has to come by itself.
    Await(String),
    /// This cannot be reached.
    Failed(String),
    /// Every node has what it is to have; what is to be proven, and what waits for a restart that
    /// is not made.
    Arrived {
        /// By pod.
        expected: BTreeMap<String, Expected>,
        /// Names of involved parameters.
        pending_restart: Vec<String>,
    },
}

/// One node and the files it may have.
struct Stand<'a> {
    name: &'a str,
    server: &'a Server,
    files: Files,
    member: Member,
}

/// Where a rollout stands and what comes next.
pub fn course(seen: &Seen, current: &Current<'_>, journal: &Journal) -> Course {
    let unknown = seen.unknown().find(|(node, _)| journal.nodes.contains(*node));
    if let Some((node, why)) = unknown {
        return Course::Await(format!("{node}: {why}"));
    }
    if let Some(waiting) = seen.servers().find_map(|(name, server)| busy(name, server)) {
        return Course::Await(waiting);
    }
    if let Some(words) = seen.servers().find_map(|(name, s)| did_not_start(name, s, journal)) {
        return Course::Failed(words);
    }
    if let Some(words) = too_often(current) {
        return Course::Failed(words);
    }
    let Some((primary, leader)) = seen.primary() else {
        return Course::Await("there is no node, or more than one, that takes writes".to_owned());
    };
    let target = Target::of(journal, seen.catalogue());
    let goal = Goal { target: target.five(leader), lowered: journal.lowered };
    let stands = stands(seen, journal, &target, &goal, leader);
    let warranted = is_warranted(journal, &stands);
    if let Some(stuck) = stands.iter().find_map(|stand| not_in_force(stand, &target)) {
        return Course::Failed(stuck);
    }
    let next = seen.highest().max(target.base).next();
    if let Some(step) = load(&stands, next, current) {
        return Course::Act(Box::new(step));
    }
    if warranted {
        let members: Vec<Member> = stands.iter().map(|stand| stand.member.clone()).collect();
        match hot_standby::turn(&members, &goal) {
            Turn::Done => {}
            turn => return take(turn, &stands, journal, next, current),
        }
    } else if let Some(stand) = stands.iter().find(|s| s.member.unsettled.is_some()) {
        let why = stand.member.unsettled.clone().unwrap_or_default();
        return Course::Await(format!("{}: {why}", stand.name));
    }
    arrived(&stands, journal, primary)
}

/// A node on which something goes on that has to end first.
fn busy(name: &str, server: &Server) -> Option<String> {
    if let Some(work) = &server.facts.working_on {
        return Some(format!("{name} is still busy with {}", work.call));
    }
    match &server.facts.state {
        ServerState::Empty | ServerState::Filling | ServerState::Fenced { .. } => {
            Some(format!("{name}: {}", server.facts.state))
        }
        ServerState::Stopped
        | ServerState::Starting
        | ServerState::Running
        | ServerState::Failed { .. } => None,
    }
}

/// A set of this phase with which a server did not start.
fn did_not_start(name: &str, server: &Server, journal: &Journal) -> Option<String> {
    let fallback = server.facts.last_fallback.as_ref()?;
    let ours = fallback.failed.sequence > journal.phase_base().0;
    ours.then(|| format!("{name} did not start with it: {}", fallback.words))
}

/// No rollout restarts a node more than twice on its way and twice back; more would be a loop.
fn too_often(current: &Current<'_>) -> Option<String> {
    let status = current.request?.status.as_ref()?;
    let restarted = &status.proof.as_ref()?.restarted;
    let times = |entry: &String| restarted.iter().filter(|other| *other == entry).count();
    let entry = restarted.iter().find(|entry| times(entry) > MOST_RESTARTS)?;
    Some(format!("{entry} was restarted {MOST_RESTARTS} times and does not come to rest"))
}

fn stands<'a>(
    seen: &'a Seen,
    journal: &Journal,
    target: &Target,
    goal: &Goal,
    leader: &Server,
) -> Vec<Stand<'a>> {
    let lead = member(leader, "", leader, journal);
    let mut stands: Vec<Stand<'a>> = seen
        .servers()
        .map(|(name, server)| {
            let member = member(server, name, leader, journal);
            let floor = hot_standby::floor(&member, Some(&lead), goal);
            let files = match server.is_running() {
                true => target.files(server, &floor, &[]),
                false => target.files_of_stopped(&floor),
            };
            Stand { name, server, files, member }
        })
        .collect();
    let warranted = is_warranted(journal, &stands);
    for stand in &mut stands {
        let forced = journal.restart == Restarts::All
            && journal.rollback.is_none()
            && !stand.server.started_after(target.base);
        let down = stand.member.running.is_none();
        stand.member.owed = warranted && (forced || down || !stand.files.owed.is_empty());
    }
    let stop_ahead = stands.iter().any(|stand| stand.member.primary && stand.member.owed);
    for stand in stands.iter_mut().filter(|stand| stand.server.is_running()) {
        let extras = extras(stand, target, stop_ahead);
        let floor = hot_standby::floor(&stand.member, Some(&lead), goal);
        stand.files = target.files(stand.server, &floor, &extras);
    }
    stands
}

/// A node as the order sees it.
fn member(server: &Server, name: &str, leader: &Server, journal: &Journal) -> Member {
    let live = server.facts.live.as_ref().filter(|_| server.is_running());
    let control = server.facts.control.as_ref();
    Member {
        name: name.to_owned(),
        primary: server.is_primary(),
        running: live.map(|live| node_file::five(&live.hot_standby)),
        control: control.map(|control| node_file::five(&control.hot_standby)),
        replayed: live.and_then(|live| live.replay),
        checkpoint: control.map(|control| control.checkpoint),
        unsettled: unsettled(server, live, leader),
        owed: journal.restart == Restarts::All,
    }
}

/// Why a node is not well.
fn unsettled(server: &Server, live: Option<&Live>, leader: &Server) -> Option<String> {
    let Some(live) = live else {
        let error = server.facts.live_error.clone();
        return Some(error.unwrap_or_else(|| server.facts.state.to_string()));
    };
    if !live.in_recovery {
        return None;
    }
    if live.replay_paused {
        return Some("its replay is paused".to_owned());
    }
    let Some(leading) = leader.facts.live.as_ref() else {
        return Some("its primary does not answer".to_owned());
    };
    let receiver = live.receiver.as_ref().filter(|receiver| receiver.status == "streaming");
    let Some(receiver) = receiver else { return Some("it does not stream yet".to_owned()) };
    if receiver.timeline != leading.timeline {
        return Some(format!("it is on timeline {}, not {}", receiver.timeline, leading.timeline));
    }
    let behind =
        leading.flush.unwrap_or_default().0.saturating_sub(live.replay.unwrap_or_default().0);
    (behind > CATCH_UP).then(|| format!("it is {behind} bytes behind"))
}

/// Whether servers are to be restarted: all of them were asked for, or a parameter that the request
/// is about needs it. Going back, whatever differs from before needs it.
fn is_warranted(journal: &Journal, stands: &[Stand<'_>]) -> bool {
    let down = || stands.iter().any(|stand| stand.member.running.is_none());
    if journal.rollback.is_some() {
        return true;
    }
    match journal.restart {
        Restarts::Never => false,
        Restarts::All => true,
        Restarts::Needed => down() || stands.iter().any(|s| !pending(s, journal).is_empty()),
    }
}

/// Parameters that the request is about and that wait for a restart here.
fn pending(stand: &Stand<'_>, journal: &Journal) -> BTreeSet<String> {
    let waiting = stand.files.waiting.iter().map(|name| name.lower());
    waiting.filter(|name| journal.involved.contains(name)).collect()
}

/// Settings that hold during the rollout only.
fn extras(stand: &Stand<'_>, target: &Target, stop_ahead: bool) -> Vec<Extra> {
    let mut extras = Vec::new();
    let Some(live) = &stand.server.facts.live else { return extras };
    if live.in_recovery {
        // A standby that waits 5 s before it tries again costs synchronous writers 5 s. Kept until
        // it streams again.
        let slow = target.milliseconds("wal_retrieve_retry_interval") > QUICK_RETRY_MS;
        let has_it = stand.server.setting("wal_retrieve_retry_interval");
        let has_it = has_it.and_then(|s| s.reset_val.as_deref()) == Some("200");
        if slow && (stop_ahead || (has_it && stand.member.unsettled.is_some())) {
            extras.push(("wal_retrieve_retry_interval", "200ms"));
        }
    } else if stop_ahead && is_held_up(live) {
        // A standby that does not answer holds up the stop for wal_sender_timeout.
        extras.push(("wal_sender_timeout", "5s"));
    }
    extras
}

fn is_held_up(live: &Live) -> bool {
    live.senders.iter().any(|sender| sender.reply_age_ms.is_some_and(|age| age > STUCK_MS))
}

/// A parameter that is not in force although the server was started with it.
fn not_in_force(stand: &Stand<'_>, target: &Target) -> Option<String> {
    let started = stand.server.facts.sets.last_started.as_ref()?;
    let with_it = stand.server.started_after(target.base)
        && node_file::is_of(&stand.files.candidate, &started.digest);
    let name = stand.files.owed.first().filter(|_| with_it)?;
    Some(format!("{}: {name} is not in force although the server started with it", stand.name))
}

/// Files for the nodes that have another one on disk than they may have now.
fn load(stands: &[Stand<'_>], sequence: Sequence, current: &Current<'_>) -> Option<Step> {
    let other = |stand: &&Stand<'_>| {
        let on_disk = stand.server.on_disk();
        // A server that is down is given its file by its restart.
        stand.server.is_running()
            && on_disk.is_none_or(|set| !node_file::is_of(&stand.files.now, &set.digest))
    };
    let nodes: BTreeMap<_, _> = stands
        .iter()
        .filter(other)
        .map(|stand| (stand.name.to_owned(), node_file::set(&stand.files.now, sequence)))
        .collect();
    let deadline_ms = super::timeout_ms(current);
    (!nodes.is_empty()).then_some(Step::Load { nodes, deadline_ms })
}

/// A turn as a step.
fn take(
    turn: Turn,
    stands: &[Stand<'_>],
    journal: &Journal,
    sequence: Sequence,
    current: &Current<'_>,
) -> Course {
    let deadline_ms = super::timeout_ms(current);
    match turn {
        Turn::Restart(name) => match stands.iter().find(|stand| stand.name == name) {
            Some(stand) => restart(stand, sequence, deadline_ms),
            None => Course::Await(format!("{name} is not there")),
        },
        Turn::Lower(node) => {
            let journal = Box::new(journal.clone());
            Course::Act(Box::new(Step::Lower { node, journal, deadline_ms }))
        }
        Turn::Restartpoint(node) => Course::Act(Box::new(Step::Restartpoint { node, deadline_ms })),
        Turn::Await(node, why) => Course::Await(format!("{node}: {why}")),
        Turn::Done => Course::Await("nothing".to_owned()),
    }
}

fn restart(stand: &Stand<'_>, sequence: Sequence, deadline_ms: u64) -> Course {
    let live = stand.server.facts.live.as_ref();
    if let Some(closed) = live.and_then(gate) {
        return Course::Await(format!("{}: {closed}", stand.name));
    }
    let mut fallback = node_file::set(&stand.files.now, sequence);
    if let Some(on_disk) = stand.server.on_disk().filter(|set| set.digest == fallback.id.digest) {
        fallback.id = on_disk.clone();
    }
    Course::Act(Box::new(Step::Restart(Box::new(RestartStep {
        node: stand.name.to_owned(),
        primary: stand.member.primary,
        candidate: node_file::set(&stand.files.candidate, sequence),
        fallback,
        connections: live.map_or(0, |live| live.gates.sessions),
        running: stand.server.is_running(),
        deadline_ms,
    }))))
}

/// Why a server should not be stopped now: it would take long, or break something that runs.
fn gate(live: &Live) -> Option<String> {
    if live.gates.base_backups > 0 {
        return Some("a base backup runs".to_owned());
    }
    if live.archiver.on && (live.archiver.failing || live.archiver.ready > BACKLOG) {
        return Some(match live.archiver.failing {
            true => "archiving fails".to_owned(),
            false => format!("{} segments wait for the archive", live.archiver.ready),
        });
    }
    if !live.in_recovery && is_held_up(live) {
        return Some("a standby does not answer and would hold up the stop".to_owned());
    }
    None
}

fn arrived(stands: &[Stand<'_>], journal: &Journal, primary: &str) -> Course {
    let mut expected = BTreeMap::new();
    for stand in stands {
        let Some(set) = stand.server.on_disk() else {
            return Course::Await(format!("{} has no configuration yet", stand.name));
        };
        let expectation = Expected {
            primary: stand.name == primary,
            set: set.clone(),
            settings: stand.files.now.clone(),
            involved: match journal.rollback {
                None => journal.involved.clone(),
                Some(_) => BTreeSet::new(),
            },
        };
        expected.insert(stand.name.to_owned(), expectation);
    }
    let pending_restart: BTreeSet<String> =
        stands.iter().flat_map(|stand| pending(stand, journal)).collect();
    Course::Arrived { expected, pending_restart: pending_restart.into_iter().collect() }
}
