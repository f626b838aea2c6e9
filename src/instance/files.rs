//! Files on the data volume: written whole or not at all, owned by the server's user.
//!
//! Leaves what they contain to others. Never leaves a half-written file under its name.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use super::options::Account;

/// Replaces a file: temporary file, fsync, rename, fsync of the folder. Readable by its owner only.
pub fn replace(path: &Path, bytes: &[u8], owner: Option<Account>) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.new"));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    give(&temporary, owner)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Makes a folder that only its owner can enter, with its parents; one that exists stays.
pub fn folder(path: &Path, owner: Option<Account>) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o700))?;
    give(path, owner)
}

/// Hands a file or folder to the server's user, where this process is root.
pub fn give(path: &Path, owner: Option<Account>) -> io::Result<()> {
    owner.map_or(Ok(()), |account| {
        std::os::unix::fs::chown(path, Some(account.uid.as_raw()), Some(account.gid.as_raw()))
    })
}

/// Removes a folder with all that is in it; one that is not there is no error.
pub fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
