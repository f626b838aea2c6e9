//! Connections to instances, kept from pass to pass.
//!
//! A certificate is read once as long as its Secret is the same, and with another one all
//! connections are new. Losing them costs time and nothing else.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::Secret;
use secrecy::SecretString;

use super::text;
use crate::api::names::{CONTROL_PORT, DatabaseRef};
use crate::instance::client::{Client, Identity};

/// Databases whose connections are kept. More are simply connected to again.
const MAX_KEPT: usize = 512;

/// Connections to instances, by database.
#[derive(Default)]
pub struct Instances {
    kept: Mutex<BTreeMap<DatabaseRef, Connections>>,
}

struct Connections {
    /// resourceVersion of the Secret that the certificate was read from.
    version: Option<String>,
    identity: Identity,
    /// By pod.
    clients: BTreeMap<String, Client>,
}

impl Instances {
    /// The certificate that a Secret holds.
    pub(super) fn identity(
        &self,
        id: &DatabaseRef,
        secret: &Secret,
    ) -> Result<Identity, crate::instance::client::Error> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let version = secret.metadata.resource_version.clone();
        if let Some(known) = kept.get(id).filter(|known| known.version == version) {
            return Ok(known.identity.clone());
        }
        let part = |key| text(secret, key).unwrap_or_default();
        let key = SecretString::from(part("tls.key"));
        let identity = Identity::from_pem(&part("ca.crt"), &part("tls.crt"), &key)?;
        if kept.len() >= MAX_KEPT {
            kept.pop_first();
        }
        let connections =
            Connections { version, identity: identity.clone(), clients: BTreeMap::new() };
        kept.insert(id.clone(), connections);
        Ok(identity)
    }

    /// The client for a node, with its open connections.
    pub(super) fn client(
        &self,
        id: &DatabaseRef,
        pod: &str,
        ip: IpAddr,
        identity: &Identity,
    ) -> Client {
        let address = SocketAddr::new(ip, CONTROL_PORT);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = kept.get_mut(id) else { return Client::new(address, identity) };
        if let Some(client) = known.clients.get(pod).filter(|c| c.address() == address) {
            return client.clone();
        }
        let client = Client::new(address, identity);
        known.clients.insert(pod.to_owned(), client.clone());
        client
    }

    /// The client with which a node was last looked at.
    pub fn of(&self, id: &DatabaseRef, pod: &str) -> Option<Client> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(id)?.clients.get(pod).cloned()
    }
}
