//! Makes a damaged or overgrown mirror anew.
//!
//! Takes along the notes that wait for their push, as far as they can be read. The new mirror is
//! complete before it takes the place of the old one.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::PoisonError;

use git2::{Reference, Repository};

use super::{Mirror, Place, SEEN, cache_error, create, tips};
use crate::git::Error;
use crate::git::budget::Budget;
use crate::git::copy::Copy;
use crate::git::error::printable;

impl Mirror {
    /// Makes a damaged or overgrown mirror anew. Only for the holder of the gate alone.
    pub(crate) fn replace(&self, budget: &Budget) -> Result<(), Error> {
        let _lock = self.lock(budget)?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let fresh_folder = self.folder.with_extension("fresh");
        let damaged = self.folder.with_extension("damaged");
        remove(&fresh_folder)?;
        remove(&damaged)?;
        let fresh = create(&fresh_folder)?;
        let old = Repository::open_bare(&self.folder).ok();
        let seen = old.as_ref().map(seen_names).unwrap_or_default();
        let seen: Vec<&str> = seen.iter().map(String::as_str).collect();
        self.fetch(&fresh, Place::Seen, &seen, budget)?;
        if let Some(old) = &old {
            rescue_notes(old, &fresh, budget);
        }
        drop(fresh);
        if self.folder.exists() {
            rename(&self.folder, &damaged)?;
        }
        rename(&fresh_folder, &self.folder)?;
        tracing::info!(folder = %self.folder.display(), "a mirror was made anew");
        remove(&damaged)
    }
}

fn seen_names(old: &Repository) -> Vec<String> {
    let Ok(references) = old.references_glob(&format!("{SEEN}*")) else { return vec![] };
    let names = references.flatten().filter_map(|reference| {
        let name = reference.name().ok()?.strip_prefix(SEEN)?.to_owned();
        Some(if name == "HEAD" { name } else { format!("refs/{name}") })
    });
    names.filter(|name| Reference::is_valid_name(name)).collect()
}

/// Notes that wait for their push exist nowhere else. What cannot be read any more is written
/// again by the next look, from the status in the cluster.
fn rescue_notes(old: &Repository, fresh: &Repository, budget: &Budget) {
    let Ok(references) = old.references_glob("refs/notes/*") else { return };
    for reference in references.flatten() {
        let (Ok(name), Some(tip)) = (reference.name(), reference.target()) else { continue };
        let copy = Copy { from: old, to: fresh, budget, blob_limit: None };
        let known = tips(fresh).unwrap_or_default();
        let rescued =
            copy.commits(tip, &known).is_ok() && fresh.reference(name, tip, true, "").is_ok();
        if !rescued {
            tracing::warn!(reference = printable(name, 200), "waiting notes could not be rescued");
        }
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|error| cache_error(from, error))
}

fn remove(path: &Path) -> Result<(), Error> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cache_error(path, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
