//! Keeps the server running: starts it, sees it end, starts it again.
//!
//! One loop ([`Supervisor::keep`]) brings the server back whenever it should run and does not:
//! on the set that is in force, and when that does not start twice, on the set of the last good
//! start. Commanded changes take the lock, so the loop never works against them. A former primary
//! is started only when no peer is on a higher timeline.
//! Leaves what to start with to the store, and orders from outside to `changes` and `fill`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tokio::{
    sync::{Mutex, MutexGuard, Notify, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    control_file::ControlFile,
    dry_run::LastTried,
    files, left_over,
    options::Options,
    peers,
    process::{LockFile, Postmaster, Tail},
    protocol::{Fallback, Role, ServerState, SetId},
    server_file,
    sql::{Local, Verdict},
    store::Store,
};

/// First pause after a failed start; doubled each time. Backends of a killed postmaster need
/// some 10 ms to notice, and until then a new one refuses to start.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between two tries: a person who repairs something should not wait longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Pause between two looks at a starting server; also bounds what polling adds to an outage.
const POLL: Duration = Duration::from_millis(1);
/// Sessions that must fail before a server counts as one that nobody can use: one may fail for
/// a reason of its own.
const MAX_BROKEN: u32 = 4;
/// How often a fenced instance asks its peers again.
const FENCED_PAUSE: Duration = Duration::from_secs(10);
/// How long an immediate shutdown may take before the process is killed.
const IMMEDIATE: Duration = Duration::from_secs(5);

/// The server and what is known of it.
pub struct Supervisor {
    /// Everything the instance was told.
    pub options: Options,
    /// What it remembers.
    pub store: Store,
    /// The control file as it was last read.
    pub control: ControlFile,
    /// What was last tried out on this server's file.
    pub tried: LastTried,
    /// The server's log.
    pub log: Tail,
    /// What is seen of the server; changes can be waited for.
    pub state: watch::Sender<ServerState>,
    server: Mutex<Server>,
    kick: Notify,
    stopping: CancellationToken,
}

/// What only one may touch at a time.
#[derive(Default)]
pub struct Server {
    process: Option<Arc<Postmaster>>,
    /// The set it was started with.
    set: Option<SetId>,
    /// Starts that failed since the last good one.
    failures: u32,
}

impl Supervisor {
    /// With a server that is not started yet.
    #[must_use]
    pub fn new(options: Options, store: Store, stopping: CancellationToken) -> Self {
        let state = match options.has_data() {
            true => ServerState::Stopped,
            false => ServerState::Empty,
        };
        let (log, server, kick) = (Tail::default(), Mutex::default(), Notify::new());
        let (control, tried) = (ControlFile::default(), LastTried::default());
        Self {
            options,
            store,
            control,
            tried,
            log,
            state: watch::Sender::new(state),
            server,
            kick,
            stopping,
        }
    }

    /// What is seen now.
    #[must_use]
    pub fn state(&self) -> ServerState {
        self.state.borrow().clone()
    }

    /// Where SQL goes.
    #[must_use]
    pub fn local(&self) -> Local {
        let user = self.store.state().superuser;
        Local::new(&self.options, user.as_deref().unwrap_or("postgres"))
    }

    /// Takes the server; the loop does nothing until the guard is gone.
    pub async fn lock(&self) -> MutexGuard<'_, Server> {
        self.server.lock().await
    }

    /// Waits until the instance is told to stop.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// Makes the loop look now.
    pub fn kick(&self) {
        self.kick.notify_one();
    }

    /// Sets what is seen.
    pub fn show(&self, state: ServerState) {
        self.state.send_replace(state);
    }

    /// Keeps the server running until the instance stops.
    pub async fn keep(&self) {
        while !self.stopping.is_cancelled() {
            let pause = match self.look().await {
                Look::Watch(process, set) => self.watch(&process, &set).await,
                Look::Pause(pause) => pause,
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.kick.notified() => {}
                () = self.stopping.cancelled() => {}
            }
        }
    }

    /// Starts the server if it should run and does not.
    async fn look(&self) -> Look {
        let mut server = self.lock().await;
        if self.stopping.is_cancelled() {
            return Look::Pause(Duration::ZERO);
        }
        if !self.options.has_data() {
            self.show(ServerState::Empty);
            return Look::Pause(LONGEST_PAUSE);
        }
        if let (Some(process), Some(set)) = (server.running(), &server.set) {
            return Look::Watch(process, set.clone());
        }
        if server.process.take().is_some() {
            tracing::warn!("the server has ended by itself; starting it again");
        }
        if let Some(state) = self.fenced().await {
            if self.state() != state {
                tracing::error!(%state, "not starting as primary");
            }
            self.show(state);
            return Look::Pause(FENCED_PAUSE);
        }
        let spawned = match self.choose(server.failures) {
            Ok(set) => self.spawn(&mut server, &set).await.map(|process| (process, set)),
            Err(words) => Err(words),
        };
        match spawned {
            Ok((process, set)) => Look::Watch(process, set),
            Err(words) => Look::Pause(self.failed(&mut server, words)),
        }
    }

    /// The set in force; after two failures in turn with that of the last good start. The first
    /// failure may come from the backends of a killed server, which are not gone yet.
    fn choose(&self, failures: u32) -> Result<SetId, String> {
        let next = self.store.next().map_err(|e| format!("read the configuration set: {e}"))?;
        let last = self.store.state().sets.last_started;
        Ok(last.filter(|_| failures >= 2 && failures.is_multiple_of(2)).unwrap_or(next))
    }

    /// Follows a process to its end; says how long to pause then.
    async fn watch(&self, process: &Arc<Postmaster>, set: &SetId) -> Duration {
        if self.state() != ServerState::Running {
            let accepted = self.accepting(process, None).await;
            let mut server = self.lock().await;
            // Whoever changed it meanwhile has also seen how it went.
            if !server.is(process) {
                return Duration::ZERO;
            }
            match accepted {
                Ok(_) if self.state() == ServerState::Running => {}
                Ok(_) => self.started(&mut server, set),
                Err(words) if left_over::held(&words) => {
                    self.stop(&mut server, IMMEDIATE).await;
                    self.show(ServerState::Failed { words });
                    return FIRST_PAUSE;
                }
                Err(words) => {
                    self.stop(&mut server, IMMEDIATE).await;
                    self.note_fallback(set, None, &words);
                    return self.failed(&mut server, words);
                }
            }
        }
        tokio::select! {
            () = process.exited() => {}
            () = self.stopping.cancelled() => {}
        }
        Duration::ZERO
    }

    /// Counts a failure; says how long to pause before the next try.
    pub fn failed(&self, server: &mut Server, words: String) -> Duration {
        let pause = FIRST_PAUSE * 2_u32.saturating_pow(server.failures.min(16));
        server.failures = server.failures.saturating_add(1);
        tracing::error!(%words, failures = server.failures, "the server does not start");
        self.show(ServerState::Failed { words });
        pause.min(LONGEST_PAUSE)
    }

    /// Remembers that the server runs on this set.
    pub fn started(&self, server: &mut Server, set: &SetId) {
        let set = set.clone();
        // Whatever else was staged has just failed twice; otherwise it waits for the next start.
        let spent = std::mem::take(&mut server.failures) >= 2;
        let role = (!self.options.is_standby()).then_some(Role::Primary);
        self.update(|state| {
            if state.sets.staged.as_ref().or(state.sets.running.as_ref()).is_some_and(|s| *s != set)
                && let Some(fallback) = &mut state.last_fallback
            {
                fallback.now = Some(set.clone());
            }
            if spent || state.sets.staged.as_ref() == Some(&set) {
                state.sets.staged = None;
            }
            state.sets.running = Some(set.clone());
            state.sets.last_started = Some(set);
            state.role = role.or(state.role.take());
        });
        self.show(ServerState::Running);
    }

    /// Remembers a start that did not go as wanted.
    pub fn note_fallback(&self, failed: &SetId, now: Option<&SetId>, words: &str) {
        let (failed, now, words) = (failed.clone(), now.cloned(), words.to_owned());
        let at = jiff::Timestamp::now();
        self.update(|state| state.last_fallback = Some(Fallback { at, failed, now, words }));
    }

    /// Changes the state where a failed write can only be logged: the server's own course does
    /// not depend on it, and the next change writes all of it again.
    fn update(&self, change: impl FnOnce(&mut super::store::State)) {
        if let Err(error) = self.store.update(change) {
            tracing::error!(%error, "could not write the state file");
        }
    }

    /// Writes the file that the server reads.
    pub fn write_file(&self, set: &SetId) -> Result<(), String> {
        let write = || -> std::io::Result<()> {
            let text = self.store.text(set)?;
            let state = self.store.state();
            let user = state.superuser.as_deref().unwrap_or("postgres");
            let conninfo = server_file::conninfo(&self.options, state.role.as_ref(), user);
            let file = server_file::compose(&text, set, conninfo.as_deref());
            files::replace(&self.options.live_file(), file.as_bytes(), self.options.account)
        };
        write().map_err(|e| format!("write the configuration file: {e}"))
    }

    /// Starts the server with a set. The caller waits for it to accept connections.
    pub async fn spawn(&self, server: &mut Server, set: &SetId) -> Result<Arc<Postmaster>, String> {
        let left = left_over::stop(&self.options).await;
        left.map_err(|e| format!("take over the data folder: {e}"))?;
        self.write_file(set)?;
        let process = Postmaster::spawn(&self.options, &self.log).map_err(|e| e.to_string())?;
        let process = Arc::new(process);
        server.process = Some(process.clone());
        server.set = Some(set.clone());
        self.show(ServerState::Starting);
        Ok(process)
    }

    /// Waits until a process accepts connections (its start), ends, or its time is over; in the
    /// latter cases the server's own words say why.
    pub async fn accepting(
        &self,
        process: &Postmaster,
        within: Option<Duration>,
    ) -> Result<jiff::Timestamp, String> {
        let until = within.map(|within| Instant::now() + within);
        let mut broken = 0;
        loop {
            if process.has_exited() {
                return Err(process.words());
            }
            let lock = LockFile::read(&self.options.data_directory);
            if lock.is_some_and(|l| l.pid == process.pid().as_raw() && l.status == "ready") {
                match self.connects().await {
                    Ok(Some(started_at)) => return Ok(started_at),
                    Ok(None) => {}
                    Err(words) if broken >= MAX_BROKEN => return Err(words),
                    Err(_) => broken += 1,
                }
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Err(format!("no connection within {within:?}\n{}", process.words()));
            }
            tokio::select! {
                () = sleep(POLL) => {}
                () = process.exited() => {}
            }
        }
    }

    /// Whether a new session works; `None`: not yet.
    async fn connects(&self) -> Result<Option<jiff::Timestamp>, String> {
        const STARTED: &str =
            "select (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint";
        let ask = async {
            let session = self.local().connect().await?;
            let row = session.row(STARTED, &[], Duration::from_secs(5)).await?;
            Ok::<i64, super::sql::Error>(row.get(0))
        };
        let micros = match ask.await {
            Ok(micros) => Some(micros),
            Err(error) => match error.verdict() {
                Verdict::NotYet => return Ok(None),
                Verdict::Accepts => None,
                Verdict::Broken => return Err(error.to_string()),
            },
        };
        let started_at = micros.and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok());
        Ok(Some(started_at.unwrap_or_else(jiff::Timestamp::now)))
    }

    /// Stops the server: fast, then immediate, then by force. True: it had to be enforced.
    pub async fn stop(&self, server: &mut Server, within: Duration) -> bool {
        let Some(process) = server.process.take() else { return false };
        process.signal(Signal::SIGINT);
        if timeout(within, process.exited()).await.is_ok() {
            return false;
        }
        tracing::warn!(?within, "the fast shutdown takes too long; enforcing it");
        process.signal(Signal::SIGQUIT);
        if timeout(IMMEDIATE, process.exited()).await.is_err() {
            process.signal(Signal::SIGKILL);
            process.exited().await;
        }
        true
    }

    /// Whether this is a former primary, by the timelines of its peers.
    pub async fn fenced(&self) -> Option<ServerState> {
        let state = self.store.state();
        // A database that has never run has no history which anybody could be ahead of.
        if self.options.is_standby()
            || (state.filled_by.is_some() && state.sets.last_started.is_none())
        {
            return None;
        }
        peers::ahead(&self.options, &state)
            .await
            .map(|ahead| ServerState::Fenced { peer: ahead.pod, timeline: ahead.timeline })
    }
}

impl Server {
    /// The process, if it runs.
    #[must_use]
    pub fn running(&self) -> Option<Arc<Postmaster>> {
        self.process.clone().filter(|process| !process.has_exited())
    }

    /// What failed before says nothing about the set that is stored now.
    pub fn forget_failures(&mut self) {
        self.failures = 0;
    }

    fn is(&self, process: &Arc<Postmaster>) -> bool {
        self.process.as_ref().is_some_and(|own| Arc::ptr_eq(own, process))
    }
}

/// What a look at the server has led to.
enum Look {
    /// Follow this process, which was started with this set.
    Watch(Arc<Postmaster>, SetId),
    /// Look again after this time.
    Pause(Duration),
}
