//! Where the node keeps what.
//!
//! What must last lies below the sandbox's folder. What only runs (short-lived volumes, sockets,
//! our executable) lies in a short folder of the temp folder: a Unix socket's path has 107 bytes,
//! and a pod's user must be able to reach it even when the sandbox's folder is closed to others.
//! Never removes anything that lasts; the agent does so for claims that were deleted.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use super::user::RunAs;

/// A temp folder with a longer path than this is not short: then `/tmp` is taken.
const SHORT: usize = 24;

/// Folders of one node.
#[derive(Debug, Clone)]
pub struct Folders {
    /// Hash of the sandbox's folder: names what lies outside of it, and seeds the addresses.
    pub seed: Vec<u8>,
    /// Lasting: the address book and the records of what runs.
    pub state: PathBuf,
    /// Records of running containers, inside `state`.
    pub records: PathBuf,
    /// Lasting: the folders of claims.
    pub claims: PathBuf,
    /// Logs of the pods.
    pub logs: PathBuf,
    /// Short: one folder for each pod.
    pub pods: PathBuf,
    /// Folder of our executable, under the name `pgitops`.
    pub programs: PathBuf,
    /// The short folder itself.
    pub runtime: PathBuf,
}

impl Folders {
    /// Creates all of them for the sandbox in `directory`.
    ///
    /// # Errors
    /// The file system's refusal, or a runtime folder that is not ours.
    pub fn create(directory: &Path, logs: &Path, executable: &Path, user: &RunAs) -> Result<Self> {
        let directory = directory
            .canonicalize()
            .with_context(|| format!("finding the sandbox's folder {directory:?}"))?;
        let seed = Sha256::digest(directory.as_os_str().as_encoded_bytes()).to_vec();
        let id: String = seed.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let temp = std::env::temp_dir();
        let short = temp.as_os_str().len() <= SHORT && user.can_reach(&temp);
        let base = if short { temp } else { PathBuf::from("/tmp") };
        let runtime = base.join(format!("pgs-{id}"));
        own_folder(&runtime)?;
        let state = directory.join("node");
        let folders = Self {
            records: state.join("records"),
            claims: state.join("claims"),
            logs: logs.to_owned(),
            pods: runtime.join("p"),
            programs: runtime.join("bin"),
            state,
            seed,
            runtime,
        };
        for folder in [&folders.state, &folders.records, &folders.pods, &folders.programs] {
            std::fs::create_dir_all(folder).with_context(|| format!("creating {folder:?}"))?;
        }
        for folder in [&folders.pods, &folders.programs, &folders.state] {
            std::fs::set_permissions(folder, Permissions::from_mode(0o711))?;
        }
        folders.place_claims(user)?;
        folders.place_executable(executable)?;
        Ok(folders)
    }

    /// The folder of the claims must be one that the pods' user can reach.
    fn place_claims(&self, user: &RunAs) -> Result<()> {
        let elsewhere = self.runtime.join("v");
        if self.claims.symlink_metadata().is_ok_and(|m| m.is_symlink()) {
            return open_folder(&elsewhere);
        }
        if self.claims.is_dir() || user.can_reach(&self.state) {
            open_folder(&self.claims)?;
            ensure!(
                user.can_reach(&self.claims),
                "running pods as {}: that user cannot reach {:?}; allow it to pass (chmod o+x) \
                 or take another folder",
                user.name,
                self.claims
            );
            return Ok(());
        }
        tracing::warn!(
            user = user.name,
            folder = %elsewhere.display(),
            "the sandbox's folder is closed to the pods' user: volumes go to the temp folder, \
             which may not last over a reboot",
        );
        open_folder(&elsewhere)?;
        symlink(&elsewhere, &self.claims).with_context(|| format!("linking {:?}", self.claims))
    }

    /// Our executable where the pods' user can run it: a link when that is enough, else a copy.
    fn place_executable(&self, executable: &Path) -> Result<()> {
        let (place, fresh) = (self.programs.join("pgitops"), self.programs.join(".new"));
        let _ = std::fs::remove_file(&fresh);
        let mode = executable.metadata().with_context(|| format!("finding {executable:?}"))?.mode();
        if mode & 0o5 != 0o5 || std::fs::hard_link(executable, &fresh).is_err() {
            std::fs::copy(executable, &fresh)
                .with_context(|| format!("copying {executable:?} to {fresh:?}"))?;
            std::fs::set_permissions(&fresh, Permissions::from_mode(0o755))?;
        }
        std::fs::rename(&fresh, &place).with_context(|| format!("placing {place:?}"))
    }

    /// The folder of a claim. Its uid is in the name: a new claim of an old name begins empty.
    pub fn claim(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        let uid = uid.get(..8).unwrap_or(uid);
        // Where it really is: the pods' user may not pass through the folder with the link.
        let place = self.claims.read_link().unwrap_or_else(|_| self.claims.clone());
        place.join(format!("{namespace}_{name}_{uid}"))
    }

    /// Our executable where pods can run it.
    pub fn executable(&self) -> PathBuf {
        self.programs.join("pgitops")
    }

    /// Removes the folders of pods of an earlier run that was killed.
    ///
    /// # Errors
    /// The file system's refusal.
    pub fn forget_pods(&self) -> Result<()> {
        for entry in std::fs::read_dir(&self.pods)?.flatten() {
            std::fs::remove_dir_all(entry.path())
                .with_context(|| format!("removing {:?}", entry.path()))?;
        }
        Ok(())
    }

    /// Removes what only lived with the run: all of the runtime folder but lasting volumes.
    pub fn clean(&self) {
        let _ = std::fs::remove_dir_all(&self.pods);
        let _ = std::fs::remove_dir_all(&self.programs);
        // Fails, as it should, when volumes are in it.
        let _ = std::fs::remove_dir(&self.runtime);
    }
}

/// Creates `path` with mode 0711, or takes it when it is a folder of ours and no link.
fn own_folder(path: &Path) -> Result<()> {
    let mut builder = DirBuilder::new();
    if let Err(error) = builder.mode(0o711).create(path) {
        let Ok(found) = path.symlink_metadata() else {
            bail!("creating {path:?}: {error}");
        };
        let ours = found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw();
        ensure!(ours, "using {path:?}: it is not a folder of this user; remove it");
    }
    std::fs::set_permissions(path, Permissions::from_mode(0o711))
        .with_context(|| format!("opening {path:?}"))
}

fn open_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("creating {path:?}"))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o711))
        .with_context(|| format!("opening {path:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_folder_gets_the_same_places() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        let me = nix::unistd::geteuid().as_raw();
        let user = RunAs { name: "me".into(), uid: me, gid: 0, switch: false };
        let logs = folder.path().join("logs");
        let first = Folders::create(folder.path(), &logs, &program, &user).unwrap();
        let again = Folders::create(folder.path(), &logs, &program, &user).unwrap();
        assert_eq!(first.runtime, again.runtime);
        assert!(again.executable().is_file());
        assert!(again.runtime.as_os_str().len() < 40, "{:?}", again.runtime);
        again.clean();
        assert!(!again.runtime.exists());
        assert!(again.claims.is_dir());
    }
}
