//! The pod's address and its volumes, before its containers and while they run.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Pod, Volume};
use tokio::time::Instant;

use super::super::environment::Sources;
use super::super::status::NODE_ADDRESS;
use super::super::{observe, volumes};
use super::{Prepared, TRY_AGAIN, Worker};

impl Worker {
    /// Gives the pod its address and its volumes.
    pub(super) async fn prepare(&mut self) -> Result<()> {
        let client = &self.shared.client;
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or("default");
        self.claims = observe::claims(client, namespace, &self.wanted).await?;
        let sources = observe::sources(client, &self.pod, &self.wanted).await?;
        let address = self.shared.take_address(&self.key())?;
        let mut folders = BTreeMap::new();
        self.own_pod_folder()?;
        let pod = self.with_address(address);
        for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
            let folder = self.volume(&pod, volume, &sources)?;
            folders.insert(volume.name.clone(), folder);
        }
        self.prepared = Some(Prepared { address, folders });
        Ok(())
    }

    /// The pod as its containers will see it: with its address already in its status.
    pub(super) fn with_address(&self, address: Ipv4Addr) -> Pod {
        let mut pod = Pod::clone(&self.pod);
        let status = pod.status.get_or_insert_default();
        status.pod_ip = Some(address.to_string());
        status.host_ip = Some(NODE_ADDRESS.to_owned());
        pod
    }

    /// Ours to write and the pod's group's to pass through: nobody else looks into it.
    fn own_pod_folder(&self) -> Result<()> {
        let folder = self.folder();
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {folder:?}"))?;
        if self.shared.user.switch {
            let group = nix::unistd::Gid::from_raw(self.shared.user.gid);
            nix::unistd::chown(&folder, None, Some(group))?;
        }
        std::fs::set_permissions(&folder, Permissions::from_mode(0o750))?;
        self.own_folder(&folder.join(".home"))
    }

    /// Creates a folder that belongs to the pod's user.
    fn own_folder(&self, folder: &Path) -> Result<()> {
        if !folder.is_dir() {
            std::fs::create_dir_all(folder).with_context(|| format!("creating {folder:?}"))?;
            std::fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        }
        self.shared.user.own(folder)
    }

    fn volume(&self, pod: &Pod, volume: &Volume, sources: &Sources) -> Result<PathBuf> {
        let folder = self.folder().join(&volume.name);
        match volumes::kind(pod, volume, sources)? {
            volumes::Kind::Empty => self.own_folder(&folder)?,
            volumes::Kind::Host(path) => return Ok(path),
            volumes::Kind::Claim(name) => {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
                let uid = self.claims.get(&name).map_or("", String::as_str);
                let folder = self.shared.folders.claim(namespace, &name, uid);
                self.own_folder(&folder)?;
                return Ok(folder);
            }
            volumes::Kind::Files(content) => {
                let own = |path: &Path| self.shared.user.own(path);
                volumes::publish(&folder, &content, self.shared.number(), &own)?;
            }
        }
        Ok(folder)
    }

    /// Brings volumes made of objects up to date; returns when to try again after a failure.
    pub(super) async fn refresh(&mut self, changes: u64) -> Option<Instant> {
        let now = Instant::now();
        let due = *self.refresh_at.get_or_insert(now + self.shared.options.refresh_delay);
        if due > now {
            return Some(due);
        }
        let address = self.prepared.as_ref()?.address;
        let work = async {
            let sources = observe::sources(&self.shared.client, &self.pod, &self.wanted).await?;
            let pod = self.with_address(address);
            for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
                self.volume(&pod, volume, &sources)?;
            }
            Ok::<(), anyhow::Error>(())
        };
        if let Err(error) = work.await {
            let words = format!("updating volumes: {error:#}");
            self.shared.events.warning(&self.pod, None, "FailedMount", &words);
            self.refresh_at = Some(Instant::now() + TRY_AGAIN);
            return self.refresh_at;
        }
        self.refresh_at = None;
        self.changes = changes;
        None
    }
}
