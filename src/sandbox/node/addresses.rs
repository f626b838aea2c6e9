//! An address on loopback for every pod.
//!
//! Each sandbox holds one 127.x.y.0/24 through a locked file in a folder that all users of the
//! machine share, so that two sandboxes never meet; a pod keeps its address over restarts of the
//! pod and of the sandbox where that is possible. Never opens a socket.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

/// First and last second octet that is tried: far from 127.0.0.1, 127.0.1.1 and 127.0.0.53,
/// which programs use by habit.
const SECOND_OCTETS: std::ops::RangeInclusive<u8> = 64..=127;

/// First and last host number given to pods; lower ones are free for servers of the sandbox.
const HOSTS: std::ops::RangeInclusive<u8> = 10..=250;

/// A locked network; the lock ends with the value or with the process, however that ends.
#[derive(Debug)]
pub struct Network {
    prefix: (u8, u8),
    _lock: File,
}

impl Network {
    /// Locks a network: `preferred` when it is free, else the first free one after it.
    ///
    /// # Errors
    /// The folder cannot be written, or every network is taken.
    pub fn lock(folder: &Path, preferred: (u8, u8)) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("creating {folder:?}"))?;
        // Shared by all users, like the temp folder itself; fails harmlessly if another owns it.
        let _ = std::fs::set_permissions(folder, Permissions::from_mode(0o1777));
        let count = SECOND_OCTETS.len() * 256;
        let first = (usize::from(preferred.0.saturating_sub(*SECOND_OCTETS.start()))) * 256
            + usize::from(preferred.1);
        for step in 0..count {
            let at = (first + step) % count;
            let prefix = (SECOND_OCTETS.start() + (at / 256) as u8, (at % 256) as u8);
            let path = folder.join(format!("127.{}.{}.lock", prefix.0, prefix.1));
            let opened =
                OpenOptions::new().create(true).truncate(false).write(true).mode(0o666).open(&path);
            // A file of another user that we may not write is as good as locked.
            let Ok(file) = opened else { continue };
            if file.try_lock().is_ok() {
                return Ok(Self { prefix, _lock: file });
            }
        }
        bail!("locking a loopback network: all {count} in {folder:?} are taken; remove that folder")
    }

    /// The second and third octet.
    pub fn prefix(&self) -> (u8, u8) {
        self.prefix
    }

    fn host(&self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.prefix.0, self.prefix.1, number)
    }
}

/// A network to begin the search with: derived from the sandbox's folder, so that the same folder
/// gets the same addresses again.
pub fn preferred(seed: &[u8]) -> (u8, u8) {
    let first = SECOND_OCTETS.start();
    let span = SECOND_OCTETS.len() as u8;
    let [a, b] = [seed.first().copied().unwrap_or(0), seed.get(1).copied().unwrap_or(0)];
    (first + a % span, b)
}

/// Which pod has which host number, kept in a file.
#[derive(Debug)]
pub struct AddressBook {
    network: Network,
    file: PathBuf,
    book: Book,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Book {
    prefix: Option<(u8, u8)>,
    hosts: BTreeMap<String, u8>,
    #[serde(skip)]
    in_use: BTreeSet<String>,
}

impl AddressBook {
    /// Where the book of a node lies below its folder.
    pub fn file(state: &Path) -> PathBuf {
        state.join("addresses.json")
    }

    /// Opens the book at `file` (absent: empty) and locks a network, the one of the last run if
    /// it can be had.
    ///
    /// # Errors
    /// As [`Network::lock`]. A file that cannot be read counts as empty: addresses may change.
    pub fn open(file: PathBuf, locks: &Path, seed: &[u8]) -> Result<Self> {
        let text = std::fs::read(&file).unwrap_or_default();
        let mut book: Book = serde_json::from_slice(&text).unwrap_or_default();
        let network = Network::lock(locks, book.prefix.unwrap_or_else(|| preferred(seed)))?;
        book.prefix = Some(network.prefix());
        Ok(Self { network, file, book })
    }

    /// The address of a pod in the book at `file`, whoever has it open.
    pub fn look_up(file: &Path, pod: &str) -> Option<Ipv4Addr> {
        let book: Book = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
        let (second, third) = book.prefix?;
        Some(Ipv4Addr::new(127, second, third, *book.hosts.get(pod)?))
    }

    /// The address of a pod (`namespace/name`), which is in use until [`Self::release`].
    ///
    /// # Errors
    /// All addresses are in use, or the book cannot be written.
    pub fn take(&mut self, pod: &str) -> Result<Ipv4Addr> {
        let before = self.book.hosts.clone();
        let Some(number) = self.book.take(pod) else {
            bail!("giving pod {pod} an address: all {} of the sandbox are in use", HOSTS.len())
        };
        if self.book.hosts != before {
            let text = serde_json::to_vec_pretty(&self.book)?;
            std::fs::write(&self.file, text).with_context(|| format!("writing {:?}", self.file))?;
        }
        Ok(self.network.host(number))
    }

    /// Says that a pod has ended; its address is given to another one only when no fresh is left.
    pub fn release(&mut self, pod: &str) {
        self.book.in_use.remove(pod);
    }
}

impl Book {
    fn take(&mut self, pod: &str) -> Option<u8> {
        let number = match self.hosts.get(pod) {
            Some(number) => *number,
            None => {
                let taken: BTreeSet<u8> = self.hosts.values().copied().collect();
                match HOSTS.into_iter().find(|n| !taken.contains(n)) {
                    Some(fresh) => fresh,
                    None => {
                        let idle = self.hosts.keys().find(|p| !self.in_use.contains(*p))?.clone();
                        self.hosts.remove(&idle)?
                    }
                }
            }
        };
        self.hosts.insert(pod.to_owned(), number);
        self.in_use.insert(pod.to_owned());
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_keeps_its_number_and_idle_ones_are_reused_last() {
        let mut book = Book::default();
        assert_eq!(book.take("demo/a-0"), Some(10));
        assert_eq!(book.take("demo/a-1"), Some(11));
        assert_eq!(book.take("demo/a-0"), Some(10));
        book.in_use.remove("demo/a-0");
        assert_eq!(book.take("demo/b-0"), Some(12), "a fresh one before that of a pod that left");
        assert_eq!(book.take("demo/a-0"), Some(10));
        for n in 0..238 {
            assert!(book.take(&format!("demo/c-{n}")).is_some(), "{n}");
        }
        assert_eq!(book.take("demo/d-0"), None, "all are in use");
        book.in_use.remove("demo/a-1");
        assert_eq!(book.take("demo/d-0"), Some(11));
        assert_eq!(book.take("demo/a-1"), None);
    }

    #[test]
    fn two_sandboxes_never_share_a_network() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = preferred(b"same");
        let first = Network::lock(folder.path(), wanted).unwrap();
        let second = Network::lock(folder.path(), wanted).unwrap();
        assert_eq!(first.prefix(), wanted);
        assert_ne!(first.prefix(), second.prefix());
        drop(first);
        let third = Network::lock(folder.path(), wanted).unwrap();
        assert_eq!(third.prefix(), wanted, "a dropped lock is free again");
    }

    #[test]
    fn the_last_network_wraps_round() {
        let folder = tempfile::tempdir().unwrap();
        let _last = Network::lock(folder.path(), (127, 255)).unwrap();
        assert_eq!(Network::lock(folder.path(), (127, 255)).unwrap().prefix(), (64, 0));
    }

    #[test]
    fn a_kept_book_gives_the_same_addresses() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("addresses.json");
        let mut book = AddressBook::open(file.clone(), folder.path(), b"x").unwrap();
        book.take("demo/z").unwrap();
        let address = book.take("demo/a").unwrap();
        drop(book);
        let mut again = AddressBook::open(file, folder.path(), b"other").unwrap();
        assert_eq!(again.take("demo/a").unwrap(), address);
        let file = folder.path().join("addresses.json");
        assert_eq!(AddressBook::look_up(&file, "demo/a"), Some(address));
        assert_eq!(AddressBook::look_up(&file, "demo/b"), None);
    }
}
