//! A node: runs the containers of pods as local processes.
//!
//! Only a client of an API server, of any: it registers a Node, binds pods that nobody has bound,
//! and gives every pod on it a worker. It may rewrite mount paths and the listen address in
//! command, args and env, and nothing else. Never reads the sandbox's store.

pub mod addresses;
pub mod agent;
mod bind;
mod environment;
mod events;
mod folders;
pub mod image;
pub mod init;
mod lifecycle;
mod log_server;
pub mod logs;
mod observe;
mod paths;
mod probe;
mod proc;
mod process;
mod register;
mod status;
mod user;
mod volumes;
mod worker;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;

use addresses::AddressBook;
use events::Events;
use folders::Folders;
use image::Images;
use user::RunAs;

/// How a node is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the Node object.
    pub name: String,
    /// Folder of the sandbox; the node keeps `node/` in it.
    pub directory: PathBuf,
    /// Folder of the pods' logs.
    pub logs: PathBuf,
    /// Image that means PostgreSQL, as `postgres:{version}`; the tag's major picks the server.
    pub postgres_image: String,
    /// Image that means our own executable.
    pub pgitops_image: String,
    /// More places to look for servers: folders with `bin/postgres`.
    pub postgres_roots: Vec<PathBuf>,
    /// User of the pods when we are root: default `postgres`, else `nobody`.
    pub user: Option<String>,
    /// Our own executable, which is also the first process of every container.
    pub executable: PathBuf,
    /// How long a changed Secret or ConfigMap takes to reach a volume: zero here, up to a minute
    /// on a real node.
    pub refresh_delay: Duration,
    /// Whether pods without a node are bound to this one; false where a scheduler runs.
    pub binds_pods: bool,
    /// Serve containers' logs, as a kubelet does, to clients with a certificate of the authority
    /// in this PEM file: for an API server that cannot read the folder of the logs.
    pub log_authority: Option<PathBuf>,
}

/// What all parts of a node share.
pub(crate) struct Shared {
    client: Client,
    options: Options,
    folders: Folders,
    images: Images,
    user: RunAs,
    events: Events,
    addresses: Mutex<AddressBook>,
    /// Pods (`namespace/name`) that have a worker.
    worked_on: Mutex<BTreeSet<String>>,
    /// Numbers of runs and of volume contents: they begin at the time of the start, so that they
    /// rise over restarts of the sandbox too.
    numbers: AtomicU64,
}

impl Shared {
    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn works_on(&self, pod: &str) -> bool {
        self.worked_on.lock().unwrap_or_else(PoisonError::into_inner).contains(pod)
    }

    fn set_worked_on(&self, pod: &str, works: bool) {
        let mut pods = self.worked_on.lock().unwrap_or_else(PoisonError::into_inner);
        if works {
            pods.insert(pod.to_owned())
        } else {
            pods.remove(pod)
        };
    }

    fn take_address(&self, pod: &str) -> Result<Ipv4Addr> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).take(pod)
    }

    fn release_address(&self, pod: &str) {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).release(pod);
    }
}

/// (namespace, name) of a pod.
fn names(pod: &Pod) -> (&str, &str) {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    (namespace, pod.metadata.name.as_deref().unwrap_or(""))
}

/// `namespace/name` of a pod.
fn key(pod: &Pod) -> String {
    let (namespace, name) = names(pod);
    format!("{namespace}/{name}")
}
