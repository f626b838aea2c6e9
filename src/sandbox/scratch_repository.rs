//! A bare repository to push to.
//!
//! Written file by file in git's documented layout (gitrepository-layout), so that neither a
//! template nor a hook of this machine gets into it and no program is needed. Leaves everything
//! else about git to `crate::git`. Never touches a repository that is there.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Files of an empty bare repository on branch `main`.
const FILES: [(&str, &str); 3] = [
    ("HEAD", "ref: refs/heads/main\n"),
    ("config", "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"),
    ("description", "the sandbox's configuration repository\n"),
];

/// Folders of it.
const FOLDERS: [&str; 4] = ["objects/info", "objects/pack", "refs/heads", "refs/tags"];

/// Makes `path` an empty bare repository, or leaves the one that is there as it is.
///
/// # Errors
/// The file system's refusal.
pub fn create(path: &Path) -> Result<PathBuf> {
    if !path.join("HEAD").exists() {
        for folder in FOLDERS {
            let folder = path.join(folder);
            std::fs::create_dir_all(&folder).with_context(|| format!("creating {folder:?}"))?;
        }
        // HEAD last: with it the repository is one.
        for (name, text) in FILES.into_iter().rev() {
            let file = path.join(name);
            std::fs::write(&file, text).with_context(|| format!("writing {file:?}"))?;
        }
    }
    path.canonicalize().with_context(|| format!("finding {path:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn git(folder: &Path, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .current_dir(folder)
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
            .args(arguments)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .expect("run git: install it");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn git_itself_can_push_to_it_and_fetch_notes() {
        let folder = tempfile::tempdir().unwrap();
        let bare = create(&folder.path().join("config.git")).unwrap();
        let work = folder.path().join("work");
        git(folder.path(), &["clone", "-q", bare.to_str().unwrap(), "work"]);
        git(&work, &["commit", "-q", "--allow-empty", "-m", "first"]);
        git(&work, &["push", "-q", "origin", "HEAD:main"]);
        git(&work, &["notes", "--ref=pgitops/default", "add", "-m", "a note"]);
        git(&work, &["push", "-q", "origin", "refs/notes/pgitops/default"]);
        let again = create(&bare).unwrap();
        assert_eq!(again, bare);
        let refs = git(&bare, &["for-each-ref", "--format=%(refname)"]);
        assert_eq!(refs, "refs/heads/main\nrefs/notes/pgitops/default\n");
        git(&bare, &["fsck", "--strict"]);
    }
}
