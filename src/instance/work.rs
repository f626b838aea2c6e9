//! One change at a time, fenced, and each only once.
//!
//! Every call that changes something passes here: a lower lease is refused, an exact repeat gets
//! the answer that was kept, a repeat of what is under way waits with the first. The work goes on
//! in a task of its own, so a caller that goes away ends nothing.
//! Leaves the changes themselves to `changes` and `fill`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{sync::watch, time::timeout};

use super::{
    protocol::{Call, Fence, Refused, Reply, WorkingOn},
    store::{Answered, Key, sha256},
    supervisor::Supervisor,
};

/// How long a call is held before it is answered "still working": long enough to spare a caller
/// many looks, short enough to notice soon that a caller has gone.
const HOLD: Duration = Duration::from_secs(1);

/// Why a change came to no answer.
#[derive(Clone, Debug)]
pub enum Stop {
    /// Nothing was done.
    Refused(Refused),
    /// It was tried; the same call tries again.
    Failed(String),
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<String> for Stop {
    fn from(words: String) -> Self {
        Self::Failed(words)
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(format!("write to the data volume: {error}"))
    }
}

impl From<super::sql::Error> for Stop {
    fn from(error: super::sql::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<super::process::Error> for Stop {
    fn from(error: super::process::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The identity of a change and of its content.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// Which step.
    pub key: Key,
    /// Digest of the call without lease and secrets.
    pub content: String,
}

/// The change under way.
#[derive(Default)]
pub struct Work {
    current: Mutex<Option<Current>>,
}

#[derive(Clone)]
struct Current {
    ticket: Ticket,
    result: watch::Receiver<Option<Result<Value, Stop>>>,
}

impl Work {
    /// What is under way.
    #[must_use]
    pub fn on(&self) -> Option<WorkingOn> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().map(|current| {
            let Key { call, request, step } = current.ticket.key.clone();
            WorkingOn { call, request, step }
        })
    }

    /// Carries out a change, or finds out how it went or goes.
    pub async fn change<C, F>(
        self: &Arc<Self>,
        supervisor: &Supervisor,
        call: C,
        fence: &Fence,
        carry_out: impl FnOnce(C, Ticket) -> F,
    ) -> Reply<C::Answer>
    where
        C: Call,
        F: Future<Output = Result<C::Answer, Stop>> + Send + 'static,
    {
        let key = Key::of(C::PATH, fence);
        let ticket = match content(&call) {
            Ok(content) => Ticket { key, content },
            Err(error) => return Reply::Failed { words: error.to_string() },
        };
        let admitted = self.admit(supervisor, fence, &ticket, || carry_out(call, ticket.clone()));
        match admitted {
            Ok(Admitted::Answered(answer)) => reply(Ok(answer)),
            Ok(Admitted::Wait(mut result)) => {
                let ended = timeout(HOLD, result.wait_for(Option::is_some)).await;
                match ended {
                    Ok(Ok(result)) => result.clone().map_or(Reply::Working, reply),
                    Ok(Err(_)) => Reply::Failed { words: "the work was broken off".to_owned() },
                    Err(_) => Reply::Working,
                }
            }
            Err(stop) => reply(Err(stop)),
        }
    }

    /// Everything that decides about a call, in one critical section.
    fn admit<A, F>(
        self: &Arc<Self>,
        supervisor: &Supervisor,
        fence: &Fence,
        ticket: &Ticket,
        begin: impl FnOnce() -> F,
    ) -> Result<Admitted, Stop>
    where
        A: Serialize + Send + 'static,
        F: Future<Output = Result<A, Stop>> + Send + 'static,
    {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let state = supervisor.store.state();
        let seen = state.lease_transitions;
        if fence.lease_transitions < seen {
            return Err(Refused::Fenced { seen }.into());
        }
        if fence.lease_transitions > seen {
            supervisor.store.update(|state| state.lease_transitions = fence.lease_transitions)?;
        }
        if let Some(before) = state.answers.iter().find(|before| before.key == ticket.key) {
            return match before.content == ticket.content {
                true => Ok(Admitted::Answered(before.answer.clone())),
                false => Err(Refused::OtherContent.into()),
            };
        }
        if let Some(running) = current.as_ref() {
            let Key { call: _, request, step } = running.ticket.key.clone();
            return match running.ticket.key == ticket.key {
                true if running.ticket.content == ticket.content => {
                    Ok(Admitted::Wait(running.result.clone()))
                }
                true => Err(Refused::OtherContent.into()),
                false => Err(Refused::Busy { request, step }.into()),
            };
        }
        let (sender, result) = watch::channel(None);
        *current = Some(Current { ticket: ticket.clone(), result: result.clone() });
        let (own, carried_out) = (self.clone(), begin());
        tokio::spawn(async move {
            // The place is given up also when the work panics: a stuck instance helps nobody.
            let place = Place(own);
            let ended = carried_out.await;
            let ended = ended.and_then(|answer| {
                serde_json::to_value(answer).map_err(|error| Stop::Failed(error.to_string()))
            });
            drop(place);
            sender.send_replace(Some(ended));
        });
        Ok(Admitted::Wait(result))
    }
}

enum Admitted {
    Answered(Value),
    Wait(watch::Receiver<Option<Result<Value, Stop>>>),
}

/// Frees the place of the change under way.
struct Place(Arc<Work>);

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Keeps an answer for repeats. Done by the change itself, together with its last state, so that
/// both are on disk or neither.
pub fn answered(state: &mut super::store::State, ticket: &Ticket, answer: &impl Serialize) {
    if let Ok(answer) = serde_json::to_value(answer) {
        let Ticket { key, content } = ticket.clone();
        state.answers.retain(|before| before.key != key);
        state.answers.push_back(Answered { key, content, answer });
    }
}

fn reply<A: DeserializeOwned>(ended: Result<Value, Stop>) -> Reply<A> {
    match ended {
        Ok(answer) => match serde_json::from_value(answer) {
            Ok(answer) => Reply::Done { answer },
            Err(error) => Reply::Failed { words: format!("read a kept answer: {error}") },
        },
        Err(Stop::Refused(refused)) => Reply::Refused { refused },
        Err(Stop::Failed(words)) => Reply::Failed { words },
    }
}

/// Digest of what a call asks for: another holder of the lease may repeat it, and a digest of a
/// password has no place on a disk.
fn content(call: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut value = serde_json::to_value(call)?;
    if let Some(object) = value.as_object_mut() {
        object.remove("fence");
        object.remove("credentials");
    }
    Ok(sha256(value.to_string().as_bytes()))
}
