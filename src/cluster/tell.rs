//! Tells people of objects that cannot be read: an event on each, and the condition `Stalled` where
//! the object's status is ours to write.
//!
//! Says so once for each object and field, and takes it back when the object can be read again.
//! Never repairs an object, and never says what its fields hold.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;
use serde_json::{Value, json};

use super::client::{Cluster, EventKind, Kind};
use super::error::{Error, Retry};
use super::unreadable::{Read, Unread, Unreadable};
use super::watched::Watched;
use crate::api::conditions::{self, Condition, Conditioned};

/// Reason of the event and of the condition.
const UNREADABLE: &str = "Unreadable";
/// What could not be said is said again after this long.
const AGAIN: Duration = Duration::from_secs(10);

/// Whose the status of a kind is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusOf {
    /// Ours: conditions are written.
    Ours,
    /// Somebody else's: events have to do.
    Theirs,
}

/// Tells of what cannot be read of one kind, for as long as it is watched.
pub async fn unreadable<K>(cluster: Cluster, watched: Arc<Watched<K>>, status: StatusOf)
where
    K: Kind + Conditioned,
{
    watched.ready().await;
    let (mut changes, mut told) = (watched.unread(), Unread::default());
    loop {
        let now = changes.borrow_and_update().clone();
        told.retain(|id, before| now.get(id).is_some_and(|now| now.field == before.field));
        let mut all_told = true;
        for (id, one) in &now {
            if told.contains_key(id) {
                continue;
            }
            match say::<K>(&cluster, one, status).await {
                Ok(()) => drop(told.insert(id.clone(), one.clone())),
                Err(error) if error.retry() == Retry::Never => {
                    not_told(&error);
                    told.insert(id.clone(), one.clone());
                }
                Err(error) => all_told = not_told(&error),
            }
        }
        if status == StatusOf::Ours {
            for object in watched.all().iter().filter(|object| is_stalled(object.conditions())) {
                if let Err(error) = take_back(&cluster, object.as_ref()).await {
                    all_told = not_told(&error);
                }
            }
        }
        let again = async {
            match all_told {
                true => std::future::pending().await,
                false => tokio::time::sleep(AGAIN).await,
            }
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = again => {}
        }
    }
}

fn not_told(error: &Error) -> bool {
    let error = error.without_values();
    tracing::warn!(error, "an object that cannot be read was not told of");
    false
}

async fn say<K: Kind>(cluster: &Cluster, one: &Unreadable, status: StatusOf) -> Result<(), Error> {
    let note = one.words();
    if status == StatusOf::Ours {
        let now = Timestamp::now();
        let condition = Condition::new(conditions::STALLED, true, UNREADABLE, &note, now);
        let condition = condition.observed(one.metadata.generation);
        let is_other = |said: &&Value| said.get("type") != Some(&json!(conditions::STALLED));
        let others = one.conditions.iter().filter(is_other).cloned();
        let all: Vec<Value> = others.chain([json!(condition)]).collect();
        write::<K>(cluster, &one.metadata, &json!(all)).await?;
    }
    // Last, so that it is told once.
    let about = one.reference::<K>();
    cluster.event_about(&about, None, EventKind::Warning, UNREADABLE, &note).await;
    Ok(())
}

fn is_stalled(all: &[Condition]) -> bool {
    conditions::find(all, conditions::STALLED).is_some_and(|said| said.reason == UNREADABLE)
}

async fn take_back<K: Kind + Conditioned>(cluster: &Cluster, object: &K) -> Result<(), Error> {
    let mut all = object.conditions().to_vec();
    conditions::remove(&mut all, conditions::STALLED);
    write::<K>(cluster, object.meta(), &json!(all)).await
}

/// A compare-and-swap: others write conditions of the object too. The answer is not read, because
/// it may be unreadable.
async fn write<K: Kind>(
    cluster: &Cluster,
    metadata: &ObjectMeta,
    all: &Value,
) -> Result<(), Error> {
    let patch = json!({
        "metadata": { "resourceVersion": metadata.resource_version },
        "status": { "conditions": all },
    });
    let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
    let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
    match cluster.merge_status::<Read<K>>(namespace, name, &patch).await {
        Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
