//! The lease: which controller works.
//!
//! client-go's rules: every write is guarded by the resourceVersion that was read, and whether a
//! holder is gone is judged by the changes that *we* observed, never by comparing clocks of two
//! machines. The number of transitions is a fencing token: it travels with every call that
//! changes an instance, and an instance refuses a lower one. Leaves the loops to the caller.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::Cluster;
use crate::api::names::managers;

/// How the lease is held. client-go's defaults are 15 s, 10 s and 2 s; ours are the same.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Namespace of the Lease object.
    pub namespace: String,
    /// Name of the Lease object.
    pub name: String,
    /// Who we are; unique for each process.
    pub identity: String,
    /// How long others wait after the last change that they observed.
    pub duration: Duration,
    /// How long we go on without a successful renewal; must be less than `duration`.
    pub renew_deadline: Duration,
    /// Pause between two tries.
    pub retry: Duration,
}

impl Terms {
    /// client-go's terms.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// Whether we lead, and since which transition.
#[derive(Clone, Debug)]
pub struct Leadership {
    current: watch::Receiver<Option<u64>>,
    holder: watch::Receiver<Option<String>>,
}

impl Leadership {
    /// The lease's transitions while we lead, `None` while we do not. Grows with every change of
    /// leader; a transition counted as 0 by Kubernetes is 1 here, so that 0 fences nothing.
    pub fn transitions(&self) -> Option<u64> {
        *self.current.borrow()
    }

    /// Who holds the lease, as it was last read or written; `None` when nobody does, or before
    /// the first answer.
    pub fn holder(&self) -> Option<String> {
        self.holder.borrow().clone()
    }

    /// Waits until we lead.
    pub async fn led(&mut self) {
        // The sender lives as long as the election; without it we never lead.
        if self.current.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until we no longer lead.
    pub async fn lost(&mut self) {
        drop(self.current.wait_for(Option::is_none).await);
    }

    /// Waits until the election is over for us: after its `shutdown`, when the lease is given back
    /// or could not be in time. A process that ends before makes the others wait for the lease to
    /// expire.
    pub async fn over(&mut self) {
        // The election holds the sender until its last step.
        while self.current.changed().await.is_ok() {}
    }

    /// Leads for ever at this transition: for tests and one-shot commands.
    pub fn fixed(transitions: u64) -> Self {
        // A watch whose sender is gone keeps its last value.
        let (_, current) = watch::channel(Some(transitions));
        let (_, holder) = watch::channel(None);
        Self { current, holder }
    }
}

/// Takes part in the election until `shutdown`, then gives the lease back.
pub fn start(cluster: &Cluster, terms: Terms, shutdown: CancellationToken) -> Leadership {
    let (sender, current) = watch::channel(None);
    let (known, holder) = watch::channel(None);
    let api = Api::<Lease>::namespaced(cluster.client(), &terms.namespace);
    let mut election = Election { api, terms, seen: None, holder: known };
    tokio::spawn(async move {
        let mut renewed = Instant::now();
        loop {
            let deadline = election.terms.renew_deadline;
            let attempt = tokio::select! {
                attempt = tokio::time::timeout(deadline, election.attempt()) => attempt,
                // Whether the last try still got through, giving back finds out.
                () = shutdown.cancelled() => break,
            };
            match attempt {
                Ok(Ok(held)) => {
                    renewed = Instant::now();
                    tell(&sender, held);
                }
                Ok(Err(error)) => tracing::warn!(%error, "lease could not be renewed"),
                Err(_) => tracing::warn!(?deadline, "lease: no answer in time"),
            }
            if renewed.elapsed() >= deadline {
                tell(&sender, None);
            }
            tokio::select! {
                () = tokio::time::sleep(election.terms.retry) => {}
                () = shutdown.cancelled() => break,
            }
        }
        let held = sender.borrow().is_some();
        tell(&sender, None);
        // Given back only after nobody here works under it any more.
        if held && tokio::time::timeout(deadline_of_release(), election.release()).await.is_err() {
            tracing::warn!("lease was not given back; others wait for it to expire");
        }
    });
    Leadership { current, holder }
}

/// Giving back is a courtesy: shutdown does not wait longer than this for it.
const fn deadline_of_release() -> Duration {
    Duration::from_secs(2)
}

/// Whether it was something else before.
fn tell<T: PartialEq>(sender: &watch::Sender<Option<T>>, held: Option<T>) -> bool {
    sender.send_if_modified(|current| {
        let changed = *current != held;
        *current = held;
        changed
    })
}

fn writing() -> PostParams {
    PostParams { field_manager: Some(managers::CLIENT.to_owned()), ..PostParams::default() }
}

struct Election {
    api: Api<Lease>,
    terms: Terms,
    /// The record as we last saw it change, and when that was by our own clock.
    seen: Option<(LeaseSpec, Instant)>,
    /// Who holds the lease, for people.
    holder: watch::Sender<Option<String>>,
}

impl Election {
    /// One try; the transitions when we hold the lease now.
    async fn attempt(&mut self) -> kube::Result<Option<u64>> {
        let now = MicroTime(Timestamp::now());
        let Some(mut lease) = self.api.get_opt(&self.terms.name).await? else {
            return self.found(now).await;
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != spec) {
            self.seen = Some((spec.clone(), Instant::now()));
        }
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        let mine = holder.as_deref() == Some(self.terms.identity.as_str());
        if tell(&self.holder, holder.clone()) && !mine && holder.is_some() {
            tracing::info!(holder, "another controller leads; this one waits");
        }
        if !mine && !self.is_free(&spec) {
            return Ok(None);
        }
        let transitions = spec.lease_transitions.unwrap_or(0) + i32::from(!mine);
        let acquired = if mine { spec.acquire_time.clone() } else { None };
        lease.spec = Some(self.record(transitions, acquired.unwrap_or(now.clone()), now));
        // resourceVersion rides along in the object: a race is a 409.
        match self.api.replace(&self.terms.name, &writing(), &lease).await {
            Ok(_) => Ok(Some(self.won(transitions))),
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn found(&self, now: MicroTime) -> kube::Result<Option<u64>> {
        let lease = Lease {
            metadata: ObjectMeta { name: Some(self.terms.name.clone()), ..Default::default() },
            spec: Some(self.record(0, now.clone(), now)),
        };
        match self.api.create(&writing(), &lease).await {
            Ok(_) => Ok(Some(self.won(0))),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The token of a lease that is ours now.
    fn won(&self, transitions: i32) -> u64 {
        tell(&self.holder, Some(self.terms.identity.clone()));
        u64::from(transitions.max(0).unsigned_abs()) + 1
    }

    fn is_free(&self, spec: &LeaseSpec) -> bool {
        let given_back = spec.holder_identity.as_deref().is_none_or(str::is_empty);
        let seconds = spec.lease_duration_seconds.unwrap_or(0).max(0).unsigned_abs();
        let expired = self
            .seen
            .as_ref()
            .is_some_and(|(_, at)| at.elapsed() >= Duration::from_secs(seconds.into()));
        given_back || expired
    }

    fn record(&self, transitions: i32, acquired: MicroTime, renewed: MicroTime) -> LeaseSpec {
        let seconds = i32::try_from(self.terms.duration.as_secs().max(1)).unwrap_or(i32::MAX);
        LeaseSpec {
            holder_identity: Some(self.terms.identity.clone()),
            lease_duration_seconds: Some(seconds),
            acquire_time: Some(acquired),
            renew_time: Some(renewed),
            lease_transitions: Some(transitions),
            ..Default::default()
        }
    }

    async fn release(&mut self) {
        let Ok(Some(mut lease)) = self.api.get_opt(&self.terms.name).await else { return };
        let Some(spec) = lease.spec.as_mut() else { return };
        if spec.holder_identity.as_deref() != Some(self.terms.identity.as_str()) {
            return;
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        match self.api.replace(&self.terms.name, &writing(), &lease).await {
            Ok(_) => {
                tell(&self.holder, None);
            }
            Err(error) => {
                tracing::warn!(%error, "lease was not given back; others wait for it to expire");
            }
        }
    }
}
