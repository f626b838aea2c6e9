//! Creates objects: at most once, and whole where it matters.
//!
//! Leaves everything else that is called to `client.rs`. Never overwrites.

use kube::api::PostParams;
use kube::core::Request;
use kube::{Client, ResourceExt};

use super::{Cluster, Error, Kind, naming};

/// What became of a creation.
#[derive(Clone, Debug, PartialEq)]
pub enum Created<K> {
    /// It is there now, as stored.
    New(K),
    /// An object of this name was there before; nothing was written.
    Exists,
}

/// What becomes of fields that the server does not know (`fieldValidation` of the Kubernetes API).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unknown {
    /// They are dropped, as by default.
    Dropped,
    /// Nothing is created.
    Refused,
}

impl Cluster {
    /// Creates an object in its own namespace, unless one of its name is there.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn create<K: Kind>(&self, object: &K) -> Result<Created<K>, Error> {
        self.post(object, Unknown::Dropped).await
    }

    /// As [`Cluster::create`], but nothing is created when the server would not keep all of it: an
    /// old definition drops what it does not know, and an order without one of its fields may be
    /// another order.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the fields that are not known.
    pub async fn create_whole<K: Kind>(&self, object: &K) -> Result<Created<K>, Error> {
        self.post(object, Unknown::Refused).await
    }

    async fn post<K: Kind>(&self, object: &K, unknown: Unknown) -> Result<Created<K>, Error> {
        let namespace = object.namespace().unwrap_or_default();
        let creation = async {
            match posted(&self.client, &self.creating(), &namespace, object, unknown).await {
                Ok(stored) => Ok(Created::New(stored)),
                Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(Created::Exists),
                Err(error) => Err(error),
            }
        };
        self.bounded("create", naming::<K>(&namespace, &object.name_any()), creation).await
    }
}

/// kube 5 has no parameter of a creation for `fieldValidation`.
async fn posted<K: Kind>(
    client: &Client,
    parameters: &PostParams,
    namespace: &str,
    object: &K,
    unknown: Unknown,
) -> Result<K, kube::Error> {
    let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
    let path = Request::new(K::url_path(&(), Some(namespace)));
    let mut request = path.create(parameters, body).map_err(kube::Error::BuildRequest)?;
    if unknown == Unknown::Refused {
        // The field manager is always there, so that there is a query to add to.
        let strict = format!("{}&fieldValidation=Strict", request.uri());
        *request.uri_mut() =
            strict.parse().map_err(|error| kube::Error::Service(Box::new(error)))?;
    }
    client.request(request).await
}
