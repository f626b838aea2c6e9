//! Calls to instances.
//!
//! Nodes that do not depend on each other are called at the same time. A call that fails in a way
//! that the next look explains (busy, late, not reachable) is no error: looking is what comes next
//! anyway. One that was fenced off is: somebody newer works here.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;

use crate::instance::client::{Client, Error as CallError};
use crate::instance::protocol::{
    Checkpoint, ConfigurationSet, DryRan, DryRun, Load, Loaded, Prove, Refused, Restart, Restarted,
};
use crate::ops::journal::Journal;
use crate::ops::proof::Expected;
use crate::ops::seen::{Answers, Measured};
use crate::ops::step::{RestartStep, Touched, Trial};

use super::{Actor, Error, Outcome, secrets};

/// A caller waits this much longer than the instance works, for the way there and back.
const MARGIN: Duration = Duration::from_secs(2);
/// CHECKPOINT only shortens the stop that follows: where it takes longer than this the stop is
/// made without it.
const CHECKPOINT_MS: u64 = 60_000;
/// Pause after a call that came to nothing, so that looking again does not run hot.
const BREATH: Duration = Duration::from_millis(20);

impl Actor<'_> {
    fn client(&self, node: &str) -> Option<Client> {
        self.cx.instances.of(&self.id, node)
    }
}

/// Longest wait for an answer to a call with this deadline.
fn within(deadline_ms: u64) -> Duration {
    Duration::from_millis(deadline_ms).saturating_add(MARGIN)
}

/// Names a step: the set's number and the beginning of its digest, so that the same set is the
/// same step, whoever asks.
fn step(verb: &str, set: &ConfigurationSet) -> String {
    let digest: String = set.id.digest.chars().take(12).collect();
    format!("{verb}-{}-{digest}", set.id.sequence)
}

/// What an answer that is no answer means for the step.
enum Came {
    /// Look again.
    ToNothing,
    /// It was refused for good, in these words.
    Refused(String),
}

async fn came(node: &str, error: CallError) -> Result<Came, Error> {
    match error.refused() {
        Some(Refused::Fenced { .. }) => {
            Err(Error::Instance { node: node.to_owned(), source: error })
        }
        Some(Refused::Invalid { words }) => Ok(Came::Refused(words.clone())),
        Some(
            Refused::Busy { .. }
            | Refused::OtherContent
            | Refused::NotEmpty
            | Refused::Empty
            | Refused::Role { .. }
            | Refused::NotRunning { .. },
        )
        | None => {
            tracing::debug!(node, %error, "call came to nothing");
            tokio::time::sleep(BREATH).await;
            Ok(Came::ToNothing)
        }
    }
}

/// Tries files out on every node.
pub async fn dry_run(
    nodes: &BTreeMap<String, Vec<Trial>>,
    deadline_ms: u64,
    actor: &Actor<'_>,
) -> Result<Outcome, Error> {
    let runs = nodes.iter().map(|(node, trials)| async move {
        let Some(client) = actor.client(node) else {
            return (node.clone(), Err("was not looked at".to_owned()));
        };
        let calls = trials.iter().map(|trial| {
            let Trial { text, allocate, boot } = trial.clone();
            let call = DryRun { text: Some(text), allocate, boot, deadline_ms };
            let client = client.clone();
            async move { client.call(&call, within(deadline_ms)).await }
        });
        let mut answer: Result<DryRan, String> = Err("nothing was tried".to_owned());
        for ran in join_all(calls).await {
            answer = ran.map_err(|error| error.to_string());
            if !matches!(&answer, Ok(ran) if ran.accepted) {
                break;
            }
        }
        (node.clone(), answer)
    });
    let dry_run = Some(join_all(runs).await.into_iter().collect());
    Ok(Outcome::answered(Touched::Nothing, Answers { dry_run, ..Answers::default() }))
}

/// Stores files and makes servers read them.
pub async fn load(
    nodes: &BTreeMap<String, ConfigurationSet>,
    deadline_ms: u64,
    actor: &Actor<'_>,
) -> Result<Outcome, Error> {
    let loads = nodes.iter().map(|(node, set)| async move {
        let fence = actor.fence(step("load", set));
        let call = Load { fence, set: set.clone(), deadline_ms };
        match actor.client(node) {
            Some(client) => Some((node, client.call(&call, within(deadline_ms)).await)),
            None => None,
        }
    });
    let mut answers = Answers::default();
    for (node, loaded) in join_all(loads).await.into_iter().flatten() {
        let words = match loaded {
            Ok(Loaded::Loaded { .. } | Loaded::Stored) => continue,
            Ok(Loaded::PutBack { words, .. }) => words,
            Err(error) => match came(node, error).await? {
                Came::ToNothing => continue,
                Came::Refused(words) => words,
            },
        };
        answers.put_back = Some((node.clone(), words));
    }
    Ok(Outcome::answered(Touched::Servers, answers))
}

/// CHECKPOINT; whether it was made. Its step is unique: to repeat one does no harm.
pub async fn checkpoint(node: &str, deadline_ms: u64, actor: &Actor<'_>) -> Result<bool, Error> {
    let Some(client) = actor.client(node) else { return Ok(false) };
    let now = (actor.cx.clock)().as_microsecond();
    let call = Checkpoint { fence: actor.fence(format!("checkpoint-{now}")), deadline_ms };
    match client.call(&call, within(deadline_ms)).await {
        Ok(_) => Ok(true),
        Err(error) => came(node, error).await.map(|_| false),
    }
}

/// CHECKPOINT on the primary, then its place into the journal.
pub async fn lower(
    node: &str,
    journal: &Journal,
    deadline_ms: u64,
    actor: &Actor<'_>,
) -> Result<Touched, Error> {
    let done = Touched::Everything;
    let made = checkpoint(node, deadline_ms, actor).await?;
    let Some(client) = actor.client(node).filter(|_| made) else { return Ok(done) };
    let facts = match client.facts(MARGIN).await {
        Ok(facts) => facts,
        Err(error) => return came(node, error).await.map(|_| done),
    };
    // A primary that has become a standby meanwhile has no place to note.
    let leads = facts.live.as_ref().is_some_and(|live| !live.in_recovery);
    if let Some(control) = facts.control.filter(|_| leads) {
        let lowered = Some(control.checkpoint);
        secrets::amend(&Journal { lowered, ..journal.clone() }, actor).await?;
    }
    Ok(done)
}

/// CHECKPOINT, so that the stop has little to write, then stop and start.
pub async fn restart(restart: &RestartStep, actor: &Actor<'_>) -> Result<Outcome, Error> {
    let RestartStep { node, primary, candidate, fallback, connections, running, deadline_ms } =
        restart;
    let done = Outcome::done(Touched::Everything);
    let Some(client) = actor.client(node) else { return Ok(done) };
    if *running {
        checkpoint(node, (*deadline_ms).min(CHECKPOINT_MS), actor).await?;
    }
    let call = Restart {
        fence: actor.fence(step("restart", candidate)),
        candidate: candidate.clone(),
        fallback: fallback.clone(),
        stop_deadline_ms: *deadline_ms,
        start_deadline_ms: *deadline_ms,
    };
    // The instance bounds stop, start and a second start, each.
    let longest = within(deadline_ms.saturating_mul(3));
    let restarted = match client.call(&call, longest).await {
        Ok(restarted) => restarted,
        Err(error) => match came(node, error).await? {
            Came::ToNothing => return Ok(done),
            Came::Refused(words) => {
                let put_back = Some((node.clone(), words));
                let answers = Answers { put_back, ..Answers::default() };
                return Ok(Outcome::answered(Touched::Everything, answers));
            }
        },
    };
    if let Restarted::Restarted { forced: true, .. } = &restarted {
        tracing::warn!(node, "the server had to be stopped by force");
    }
    let restarted =
        Measured { node: node.clone(), primary: *primary, connections: *connections, restarted };
    let answers = Answers { restarted: Some(restarted), ..Answers::default() };
    Ok(Outcome::answered(Touched::Everything, answers))
}

/// Asks every node what is in force.
pub async fn prove(
    nodes: &BTreeMap<String, Expected>,
    deadline_ms: u64,
    actor: &Actor<'_>,
) -> Result<Outcome, Error> {
    let catalogue = actor.seen.catalogue();
    let proofs = nodes.iter().map(|(node, expected)| async move {
        let Some(client) = actor.client(node) else {
            return (node.clone(), Err("was not looked at".to_owned()));
        };
        let call =
            Prove { expected: expected.values(catalogue), write: expected.primary, deadline_ms };
        let proof = client.call(&call, within(deadline_ms)).await;
        (node.clone(), proof.map_err(|error| error.to_string()))
    });
    let proofs = Some(join_all(proofs).await.into_iter().collect());
    Ok(Outcome::answered(Touched::Nothing, Answers { proofs, ..Answers::default() }))
}
