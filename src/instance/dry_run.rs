//! Would this server start with this file? Found out beside the live server, which it never
//! touches.
//!
//! A scratch folder with the version, a copy of `pg_control` and the files is enough for
//! `postgres -C` to read everything with the strictness of a start (reference, 2.7). What that
//! does not see is looked at here: session preload libraries, replication slots, the memory
//! limit. On demand the shared memory is really allocated, or a scratch server really booted.
//! Leaves to the caller when those are worth their time.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    changes::{deadline, has_data, millis},
    files,
    options::Options,
    process,
    protocol::{DryRan, DryRun, Refused, SetId},
    server_file,
    store::sha256,
    supervisor::Supervisor,
    words,
    work::Stop,
};

mod boot;
mod libraries;

/// Folders below the state folder in which dry runs work; each run has one of its own.
const PREFIX: &str = "scratch-";

/// Dry runs at a time; each is a process that wants a whole processor, beside the live server.
static TURNS: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(2);

/// See [`DryRun`]. `version` is `server_version_num` of the program.
pub async fn dry_run(own: &Supervisor, version: u32, call: &DryRun) -> Result<DryRan, Stop> {
    has_data(own)?;
    let began = Instant::now();
    let DryRun { text, allocate, boot, deadline_ms } = call;
    let within = deadline(*deadline_ms);
    let text = match text {
        Some(text) => {
            let id = SetId { sequence: 0, digest: "dry-run".to_owned() };
            let set = super::protocol::ConfigurationSet { id, text: text.clone() };
            server_file::check_set(&set).map_err(|words| Refused::Invalid { words })?;
            let state = own.store.state();
            let user = state.superuser.as_deref().unwrap_or("postgres");
            let conninfo = server_file::conninfo(&own.options, state.role.as_ref(), user);
            server_file::compose(text, &set.id, conninfo.as_deref())
        }
        None => fs::read_to_string(own.options.live_file())?,
    };
    let tried = server_file::without_revision(&text);
    let _turn = TURNS.acquire().await.map_err(|e| e.to_string())?;
    let scratch = Scratch::make(&own.options, &text)?;
    let run = Run { options: &own.options, scratch: &scratch, text: &text, version, within };
    let ran = tokio::time::timeout(within, run.all(*allocate, *boot)).await;
    let refused = match ran {
        Ok(refused) => refused,
        Err(_) => Err(format!("dry run: no result within {within:?}")),
    };
    let words = match &refused {
        Ok(refused) => refused.clone().unwrap_or_default(),
        Err(words) => return Err(Stop::Failed(words.clone())),
    };
    let accepted = words.is_empty();
    let digest = digest(&tried, &scratch.auto_conf, slots(&own.options));
    own.tried.keep(digest, accepted);
    Ok(DryRan { accepted, words: scratch.hide(&words), took_ms: millis(began) })
}

/// Would this server start with what is on its disk? Where a dry run has just accepted the same
/// bytes, that answer holds: it is what the proof after a change asks for.
pub async fn of_file(own: &Supervisor, version: u32, call: &DryRun) -> Result<DryRan, Stop> {
    let began = Instant::now();
    let text = fs::read_to_string(own.options.live_file())?;
    let tried = server_file::without_revision(&text);
    if own.tried.holds(&digest(&tried, &auto_conf(&own.options), slots(&own.options))) {
        return Ok(DryRan { accepted: true, words: String::new(), took_ms: millis(began) });
    }
    dry_run(own, version, call).await
}

/// How long an accepted dry run stands for the same bytes: from before a change to its proof. What
/// else a start depends on (libraries, memory) may be another one later.
const STANDS: Duration = Duration::from_secs(60);

/// Dry runs remembered: a rollout has two files for a node, on its way and at its end.
const REMEMBERED: usize = 4;

/// The last dry runs that were accepted: a digest of what each was about, and when.
#[derive(Default)]
pub struct LastTried(Mutex<VecDeque<(String, Instant)>>);

impl LastTried {
    fn keep(&self, digest: String, accepted: bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(of, _)| *of != digest);
        if accepted {
            all.push_back((digest, Instant::now()));
        }
        if all.len() > REMEMBERED {
            all.pop_front();
        }
    }

    fn holds(&self, digest: &str) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().any(|(of, at)| of == digest && at.elapsed() < STANDS)
    }
}

/// Everything that a dry run looks at and that a change of configuration can change.
fn digest(text: &str, auto_conf: &str, slots: usize) -> String {
    sha256(format!("{}\n{text}\n{}\n{auto_conf}\n{slots}", text.len(), auto_conf.len()).as_bytes())
}

/// Replication slots that exist.
fn slots(options: &Options) -> usize {
    let entries = fs::read_dir(options.data_directory.join("pg_replslot"));
    entries.map_or(0, |entries| entries.flatten().filter(|entry| entry.path().is_dir()).count())
}

fn auto_conf(options: &Options) -> String {
    let file = options.data_directory.join("postgresql.auto.conf");
    fs::read_to_string(file).unwrap_or_default()
}

/// Removes what an earlier process has left.
pub fn tidy(options: &Options) {
    let Ok(entries) = fs::read_dir(&options.state_directory) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX)
            && let Err(error) = files::remove_folder(&entry.path())
        {
            tracing::warn!(%error, "could not remove a scratch folder");
        }
    }
}

/// One run: what it works on.
struct Run<'a> {
    options: &'a Options,
    scratch: &'a Scratch,
    text: &'a str,
    version: u32,
    within: Duration,
}

/// The server's refusal, if there is one, or why it could not be found out.
type Tried = Result<Option<String>, String>;

impl Run<'_> {
    /// Cheap looks first; the first refusal ends it.
    async fn all(&self, allocate: bool, boot: bool) -> Tried {
        // Runtime-computed parameters, and so the whole check, exist from 15 on; older servers
        // are booted instead.
        let old = self.version < 150_000;
        let asked = if old { "max_connections" } else { "shared_memory_size" };
        let shared = match self.value(asked).await? {
            Ok(value) => value,
            Err(refusal) => return Ok(Some(refusal)),
        };
        if !old && let Some(refusal) = self.memory(&shared) {
            return Ok(Some(refusal));
        }
        if let Some(refusal) = self.slots().await? {
            return Ok(Some(refusal));
        }
        if let Some(refusal) = self.libraries().await? {
            return Ok(Some(refusal));
        }
        if allocate
            && !old
            && let Some(refusal) = boot::allocate(self).await?
        {
            return Ok(Some(refusal));
        }
        if boot || old { boot::boot(self).await } else { Ok(None) }
    }

    /// `postgres -C`: the value, or the server's refusal.
    async fn value(&self, name: &str) -> Result<Result<String, String>, String> {
        let program = self.options.program("postgres");
        let mut arguments = vec!["-C".to_owned(), name.to_owned()];
        arguments.extend(self.scratch.arguments(self.options));
        let ran = process::run(self.options, &program, arguments, &[], self.within).await;
        let ran = ran.map_err(|e| e.to_string())?;
        if ran.success {
            return Ok(Ok(ran.out.trim_end_matches('\n').to_owned()));
        }
        let refusal = words::pick(ran.err.lines());
        Ok(Err(if refusal.is_empty() { "refused without a word".to_owned() } else { refusal }))
    }

    /// Shared memory is allocated lazily, so a server that is too large starts and is killed later.
    fn memory(&self, shared: &str) -> Option<String> {
        let limit = self.options.memory_limit?;
        let needed = shared.parse::<u64>().ok()?.saturating_mul(1024 * 1024);
        (needed > limit).then(|| {
            format!("shared memory of {shared} MB is more than the container's {} MB", limit >> 20)
        })
    }

    /// A start with fewer slots than exist is refused, and no scratch folder knows how many do.
    async fn slots(&self) -> Tried {
        let exist = slots(self.options);
        if exist == 0 || !self.mentions("max_replication_slots") {
            return Ok(None);
        }
        match self.value("max_replication_slots").await? {
            Ok(value) if value.parse::<usize>().is_ok_and(|slots| slots < exist) => Ok(Some(
                format!("max_replication_slots = {value} is below the {exist} slots that exist"),
            )),
            Ok(_) => Ok(None),
            Err(refusal) => Ok(Some(refusal)),
        }
    }

    /// A missing library here is found by no start; it ends every new session instead.
    async fn libraries(&self) -> Tried {
        for name in ["session_preload_libraries", "local_preload_libraries"] {
            if !self.mentions(name) {
                continue;
            }
            let (listed, path) = match (self.value(name).await?, self.library_path().await?) {
                (Ok(listed), Ok(path)) => (listed, path),
                (Err(refusal), _) | (_, Err(refusal)) => return Ok(Some(refusal)),
            };
            let missing = libraries::missing(self.options, name, &listed, &path).await?;
            if let Some(missing) = missing {
                return Ok(Some(format!("{name}: could not access file \"{missing}\"")));
            }
        }
        Ok(None)
    }

    async fn library_path(&self) -> Result<Result<String, String>, String> {
        match self.mentions("dynamic_library_path") {
            true => self.value("dynamic_library_path").await,
            false => Ok(Ok("$libdir".to_owned())),
        }
    }

    /// Whether a file names it; spares a process of 12 ms for each that none does.
    fn mentions(&self, name: &str) -> bool {
        self.text.to_ascii_lowercase().contains(name)
            || self.scratch.auto_conf.to_ascii_lowercase().contains(name)
    }
}

/// A folder that looks enough like a data folder. Removed when it is dropped.
struct Scratch {
    folder: PathBuf,
    live_file: String,
    auto_conf: String,
}

impl Scratch {
    fn make(options: &Options, text: &str) -> io::Result<Self> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder =
            options.state_directory.join(format!("{PREFIX}{}-{number}", std::process::id()));
        let data = &options.data_directory;
        let auto_conf = auto_conf(options);
        let live_file = options.live_file().to_string_lossy().into_owned();
        let scratch = Self { folder, live_file, auto_conf };
        let folder = &scratch.folder;
        let owner = options.account;
        files::remove_folder(folder)?;
        files::folder(&folder.join("global"), owner)?;
        files::give(folder, owner)?;
        fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        let write = |name: &str, bytes: &[u8]| {
            fs::write(folder.join(name), bytes)?;
            files::give(&folder.join(name), owner)
        };
        write("postgresql.conf", text.as_bytes())?;
        write("postgresql.auto.conf", scratch.auto_conf.as_bytes())?;
        write("PG_VERSION", &fs::read(data.join("PG_VERSION"))?)?;
        write("global/pg_control", &fs::read(data.join("global/pg_control"))?)?;
        link_others(data, folder)?;
        Ok(scratch)
    }

    /// The arguments of a real start, on this folder.
    fn arguments(&self, options: &Options) -> Vec<String> {
        let own = Options { data_directory: self.folder.clone(), ..options.clone() };
        let live = format!("config_file={}", self.live_file);
        let scratch = format!("config_file={}", self.file().display());
        let replaced = server_file::arguments(&own).into_iter();
        replaced.map(|a| if a == live { scratch.clone() } else { a }).collect()
    }

    fn file(&self) -> PathBuf {
        self.folder.join("postgresql.conf")
    }

    /// Words about the scratch file are about the live one, for whoever reads them.
    fn hide(&self, words: &str) -> String {
        words
            .replace(&*self.file().to_string_lossy(), &self.live_file)
            .replace(&*self.folder.to_string_lossy(), "the data folder")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = files::remove_folder(&self.folder) {
            tracing::warn!(%error, "could not remove a scratch folder");
        }
    }
}

/// Files that somebody has put into the data folder (certificates) are found by relative paths.
fn link_others(data: &Path, scratch: &Path) -> io::Result<()> {
    const OWN: [&str; 7] = [
        "PG_VERSION",
        "base",
        "global",
        "postmaster.pid",
        "postmaster.opts",
        "standby.signal",
        "recovery.signal",
    ];
    for entry in fs::read_dir(data)?.flatten() {
        let name = entry.file_name();
        let text = name.to_string_lossy();
        let own =
            OWN.contains(&&*text) || text.starts_with("pg_") || text.starts_with("postgresql.");
        if !own {
            std::os::unix::fs::symlink(entry.path(), scratch.join(&name))?;
        }
    }
    Ok(())
}
