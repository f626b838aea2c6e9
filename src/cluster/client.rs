//! Calls to the API server, each with a deadline.
//!
//! kube 5 has no read timeout by default and retries 429, 503 and 504 for minutes, POST included:
//! every call goes through [`Cluster`], which bounds it in total. Leaves trying again to the
//! caller's next pass, creating to `client/create.rs`. Never logs or returns the content of an
//! object in an error.

mod create;

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource, ResourceExt};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::Error;
use super::unreadable::Read;
use crate::api::names::managers;

pub use create::Created;

/// Deadline of one call. An API server answers in milliseconds; one that needs longer than this is
/// treated as away, and the pass is made again later.
const DEADLINE: Duration = Duration::from_secs(10);

/// The API server.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    recorder: Recorder,
    manager: &'static str,
    calls: Calls,
}

/// A kind of call, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Call {
    /// What was to be done, as `get` or `patch status of`.
    pub verb: &'static str,
    /// `done`, or the class of the error.
    pub result: &'static str,
}

/// Calls by kind, watches and the lease left out.
pub type Calls = Family<Call, Counter>;

/// How grave an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// For the record.
    Normal,
    /// Somebody should look.
    Warning,
}

/// A namespaced kind that the client can read and write.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
        + Send
        + Sync
        + 'static
{
}

impl Cluster {
    /// Calls through this client; events are reported by `pgitops`.
    pub fn new(client: Client) -> Self {
        let reporter = Reporter { controller: "pgitops".to_owned(), instance: None };
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client, recorder, manager: managers::CLIENT, calls: Calls::default() }
    }

    /// The same for a person at the command line: what that person writes is not the loops'.
    #[must_use]
    pub fn of_a_person(self) -> Self {
        Self { manager: managers::PERSON, ..self }
    }

    /// The client itself, for watches.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// What counts the calls.
    pub fn counted(&self) -> Calls {
        self.calls.clone()
    }

    /// Whether the API server serves this kind now.
    ///
    /// # Errors
    /// See [`Error`]; an API server that does not know the kind's group is none.
    pub async fn serves<K: Kind>(&self) -> Result<bool, Error> {
        let group_version = K::api_version(&());
        let look = async {
            match self.client.list_api_group_resources(&group_version).await {
                Ok(list) => Ok(list.resources.iter().any(|served| served.name == K::plural(&()))),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
                Err(error) => Err(error),
            }
        };
        self.bounded("discover", format!("{} in {group_version}", K::kind(&())), look).await
    }

    /// Reads one object; `None` when it is not there.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get<K: Kind>(&self, namespace: &str, name: &str) -> Result<Option<K>, Error> {
        let api = Api::<Read<K>>::namespaced(self.client.clone(), namespace);
        let naming = naming::<K>(namespace, name);
        match self.bounded("get", naming.clone(), api.get_opt(name)).await? {
            None => Ok(None),
            Some(Read::Whole(object)) => Ok(Some(object)),
            Some(Read::Not(unreadable)) => {
                Err(Error::Unreadable { what: format!("get {naming}"), words: unreadable.words() })
            }
        }
    }

    /// Reads one object of a kind that has no namespace; `None` when it is not there.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get_cluster_scoped<K>(&self, name: &str) -> Result<Option<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let api = Api::<K>::all(self.client.clone());
        let naming = format!("{} {name}", K::kind(&()));
        self.bounded("get", naming, api.get_opt(name)).await
    }

    /// Lists objects by a label selector (empty: all of them).
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list<K: Kind>(
        &self,
        namespace: Option<&str>,
        labels: &str,
    ) -> Result<Vec<K>, Error> {
        let api = match namespace {
            Some(namespace) => Api::<K>::namespaced(self.client.clone(), namespace),
            None => Api::<K>::all(self.client.clone()),
        };
        let parameters = ListParams::default().labels(labels);
        let naming = naming::<K>(namespace.unwrap_or("*"), "*");
        Ok(self.bounded("list", naming, api.list(&parameters)).await?.items)
    }

    /// Server-side apply of a whole object.
    ///
    /// # Errors
    /// [`Error::FieldConflict`] when another manager owns a field and `force` is false.
    pub async fn apply<K: Kind>(&self, manager: &str, object: &K, force: bool) -> Result<K, Error> {
        let namespace = object.namespace().unwrap_or_default();
        // A typed object may lack apiVersion and kind, which the API server insists on.
        let what = naming::<K>(&namespace, &object.name_any());
        let mut whole = serde_json::to_value(object).map_err(|source| Error::Unavailable {
            what: format!("write {what}"),
            source: Box::new(kube::Error::SerdeError(source)),
        })?;
        whole["apiVersion"] = K::api_version(&()).into();
        whole["kind"] = K::kind(&()).into();
        self.apply_json(manager, &namespace, &object.name_any(), &whole, force).await
    }

    /// Server-side apply of just the fields in `object`.
    ///
    /// # Errors
    /// As [`Cluster::apply`].
    pub async fn apply_json<K: Kind>(
        &self,
        manager: &str,
        namespace: &str,
        name: &str,
        object: &Value,
        force: bool,
    ) -> Result<K, Error> {
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        let mut parameters = PatchParams::apply(manager);
        parameters.force = force;
        let patch = Patch::Apply(object);
        let call = api.patch(name, &parameters, &patch);
        self.bounded("apply", naming::<K>(namespace, name), call).await
    }

    /// JSON merge patch. With `metadata.resourceVersion` in it, a compare-and-swap.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the object is no longer of that version.
    pub async fn merge<K: Kind>(
        &self,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<K, Error> {
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        let patch = Patch::Merge(patch);
        let parameters = self.patching();
        let call = api.patch(name, &parameters, &patch);
        self.bounded("patch", naming::<K>(namespace, name), call).await
    }

    /// As [`Cluster::merge`], on the status.
    ///
    /// # Errors
    /// As [`Cluster::merge`].
    pub async fn merge_status<K: Kind>(
        &self,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<K, Error> {
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        let patch = Patch::Merge(patch);
        let parameters = self.patching();
        let call = api.patch_status(name, &parameters, &patch);
        self.bounded("patch status of", naming::<K>(namespace, name), call).await
    }

    /// Deletes an object, of this UID only when one is given. Gone already is success.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the object of this name has another UID.
    pub async fn delete<K: Kind>(
        &self,
        namespace: &str,
        name: &str,
        uid: Option<&str>,
    ) -> Result<(), Error> {
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        let preconditions =
            uid.map(|uid| Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::background() };
        let deletion = async {
            match api.delete(name, &parameters).await {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                Err(error) => Err(error),
            }
        };
        self.bounded("delete", naming::<K>(namespace, name), deletion).await
    }

    /// Tells people what happened to an object. Best effort: an event that cannot be written is
    /// logged, and stops nothing. `note` must hold no value of a parameter.
    pub async fn event<K: Kind>(&self, about: &K, kind: EventKind, reason: &str, note: &str) {
        self.event_about(&about.object_ref(&()), None, kind, reason, note).await;
    }

    /// As [`Cluster::event`], about an object of which only this is known. The same event once more
    /// is counted, not repeated; one with another `related` object is another one.
    pub async fn event_about(
        &self,
        about: &ObjectReference,
        related: Option<&ObjectReference>,
        kind: EventKind,
        reason: &str,
        note: &str,
    ) {
        let event = Event {
            type_: match kind {
                EventKind::Normal => EventType::Normal,
                EventKind::Warning => EventType::Warning,
            },
            reason: reason.to_owned(),
            // The API refuses notes of more than 1 kB.
            note: Some(note.chars().take(1000).collect()),
            action: "Reconcile".to_owned(),
            secondary: related.cloned(),
        };
        let call = self.recorder.publish(&event, about);
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        let (kind, namespace) = (part(&about.kind), part(&about.namespace));
        let naming = format!("{kind} {namespace}/{}", part(&about.name));
        if let Err(error) = self.bounded("write event about", naming, call).await {
            tracing::warn!(%error, reason, "event was not written");
        }
    }

    /// Says whose creation it is: without it `managedFields` would say `unknown`.
    fn creating(&self) -> PostParams {
        PostParams { field_manager: Some(self.manager.to_owned()), ..PostParams::default() }
    }

    /// Says whose patch it is.
    fn patching(&self) -> PatchParams {
        PatchParams { field_manager: Some(self.manager.to_owned()), ..PatchParams::default() }
    }

    async fn bounded<T>(
        &self,
        verb: &'static str,
        naming: String,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Error> {
        let what = format!("{verb} {naming}");
        let answer = match tokio::time::timeout(DEADLINE, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(Error::of(what, error)),
            Err(_) => Err(Error::Timeout { what, deadline: DEADLINE }),
        };
        let result = answer.as_ref().map_or_else(Error::class, |_| "done");
        self.calls.get_or_create(&Call { verb, result }).inc();
        answer
    }
}

/// `Secret demo/orders-auth`.
fn naming<K: Resource<DynamicType = ()>>(namespace: &str, name: &str) -> String {
    format!("{} {namespace}/{name}", K::kind(&()))
}
