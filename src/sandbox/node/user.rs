//! Who the pods' processes are, and what that user can reach.
//!
//! As root, pods run as an ordinary user, since Postgres refuses root; otherwise as ourselves.
//! Never changes the identity of this process.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use nix::unistd::{Gid, Uid, User, geteuid};

/// Users that are tried when none is asked for.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// The user that pods run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAs {
    /// Name, for people.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group; there are no others.
    pub gid: u32,
    /// Whether a process has to become that user (we are root).
    pub switch: bool,
}

impl RunAs {
    /// Chooses the user: `wanted`, else `postgres`, else `nobody`; ourselves when not root.
    ///
    /// # Errors
    /// No such user, root itself, or another user than ourselves while not root.
    pub fn choose(wanted: Option<&str>) -> Result<Self> {
        let me = geteuid();
        if !me.is_root() {
            let user = User::from_uid(me).ok().flatten();
            let name = user.as_ref().map_or_else(|| me.to_string(), |u| u.name.clone());
            if let Some(wanted) = wanted.filter(|wanted| *wanted != name) {
                bail!("running pods as {wanted}: only root can; leave the option out or use sudo");
            }
            let gid = nix::unistd::getegid().as_raw();
            return Ok(Self { name, uid: me.as_raw(), gid, switch: false });
        }
        let names: Vec<&str> = wanted.map_or_else(|| CANDIDATES.to_vec(), |name| vec![name]);
        for name in &names {
            let user = User::from_name(name).context("reading the passwd file")?;
            if let Some(user) = user {
                if user.uid.is_root() {
                    bail!("running pods as root: Postgres refuses that; name another user");
                }
                let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
                return Ok(Self { name: user.name, uid, gid, switch: true });
            }
        }
        bail!("running pods: none of the users {names:?} exists; name one that does")
    }

    /// Gives a file or folder to this user.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn own(&self, path: &Path) -> Result<()> {
        if self.switch {
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            nix::unistd::chown(path, Some(uid), Some(gid))
                .with_context(|| format!("giving {path:?} to {}", self.name))?;
        }
        Ok(())
    }

    /// Whether this user can pass through every folder on the way to `path`, itself included.
    pub fn can_reach(&self, path: &Path) -> bool {
        if self.uid == 0 || !self.switch {
            return true;
        }
        let Ok(path) = path.canonicalize() else { return false };
        path.ancestors().all(|folder| folder.metadata().is_ok_and(|m| self.has_bit(&m, 0o1)))
    }

    fn has_bit(&self, metadata: &Metadata, bit: u32) -> bool {
        let shift = if metadata.uid() == self.uid {
            6
        } else if metadata.gid() == self.gid {
            3
        } else {
            0
        };
        metadata.mode() & (bit << shift) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_closed_folder_on_the_way_is_seen() {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let inner = folder.path().join("a");
        std::fs::create_dir(&inner).unwrap();
        let other = RunAs { name: "x".into(), uid: 4_000_000, gid: 4_000_000, switch: true };
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!other.can_reach(&inner));
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        assert!(other.can_reach(&inner));
        assert!(!other.can_reach(&folder.path().join("absent")));
    }

    #[test]
    fn pods_are_never_root() {
        let chosen = RunAs::choose(None).unwrap();
        assert_ne!(chosen.uid, 0);
        assert!(RunAs::choose(Some("no-such-user-here")).is_err());
    }
}
