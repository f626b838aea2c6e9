//! Preparing a pod and starting its containers.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::super::environment::{self, Sources};
use super::super::image::Image;
use super::super::lifecycle::{Ended, Phase};
use super::super::logs::{self, Log};
use super::super::observe;
use super::super::paths::PathMap;
use super::super::probe::{self, Gauge, Kind};
use super::super::process::{Launch, Process, run_to_end};
use super::super::volumes;
use super::{News, Prepared, Running, Worker};

/// Wait before an image or a configuration that could not be had is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// Exit code of a container that could not be started, as runtimes report it.
const START_ERROR: i32 = 128;

/// Longest time of a hook without one of its own.
const HOOK_LIMIT: Duration = Duration::from_secs(30);

impl Worker {
    /// Gives the pod its address and its volumes.
    pub(super) async fn prepare(&mut self) -> Result<()> {
        let client = &self.shared.client;
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or("default");
        observe::claims(client, namespace, &self.wanted).await?;
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
    pub(super) fn with_address(&self, address: std::net::Ipv4Addr) -> Pod {
        let mut pod = Pod::clone(&self.pod);
        let status = pod.status.get_or_insert_default();
        status.pod_ip = Some(address.to_string());
        status.host_ip = Some(super::super::status::NODE_ADDRESS.to_owned());
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

    fn volume(
        &self,
        pod: &Pod,
        volume: &k8s_openapi::api::core::v1::Volume,
        sources: &Sources,
    ) -> Result<PathBuf> {
        let folder = self.folder().join(&volume.name);
        match volumes::kind(pod, volume, sources)? {
            volumes::Kind::Empty => self.own_folder(&folder)?,
            volumes::Kind::Host(path) => return Ok(path),
            volumes::Kind::Claim(name) => {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
                let folder = self.shared.folders.claims.join(format!("{namespace}_{name}"));
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
    pub(super) async fn refresh(&mut self) -> Option<Instant> {
        if self.shared.options.refresh_delay > Duration::ZERO {
            tokio::time::sleep(self.shared.options.refresh_delay).await;
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
            self.changes = self.changes.wrapping_sub(1);
            return Some(Instant::now() + TRY_AGAIN);
        }
        None
    }

    /// Starts containers one after the other (a start takes a few milliseconds).
    pub(super) async fn start_all(&mut self, indices: &[usize]) {
        for index in indices {
            if let Err(refusal) = self.start(*index).await {
                self.refused(*index, refusal);
            }
        }
    }

    async fn start(&mut self, index: usize) -> Result<(), Refusal> {
        let (Some(container), Some(prepared)) =
            (self.specs.get(index).cloned(), self.prepared.as_ref())
        else {
            return Ok(());
        };
        let name = container.image.clone().unwrap_or_default();
        let image = self.shared.images.resolve(&name).map_err(Refusal::Image)?;
        let config = |e: anyhow::Error| Refusal::Config(format!("{e:#}"));
        let sources =
            observe::sources(&self.shared.client, &self.pod, &self.wanted).await.map_err(config)?;
        let pod = self.with_address(prepared.address);
        let paths = paths(&container, prepared, &image).map_err(config)?;
        let address = prepared.address;
        let launch = self.launch(&pod, &container, &image, &sources, &paths).map_err(config)?;
        let command = command(&container, &launch.env, &paths).map_err(config)?;
        let again = self.states.get(index).is_some_and(|s| !s.id.is_empty());
        let said = format!("Container image \"{name}\" already present on machine");
        if !again {
            self.shared.events.normal(&self.pod, Some(&container.name), "Pulled", &said);
        }
        let (namespace, pod_name) = super::super::names(&self.pod);
        let log = logs::path(&self.shared.folders.logs, namespace, pod_name, &container.name);
        let log = Log::begin(log).map_err(config)?;
        let run = self.shared.number();
        let id = format!("{run:016x}");
        let process = Process::start(&launch, &id, &command, log).await;
        let (process, told) = process.map_err(Refusal::Start)?;
        let events = &self.shared.events;
        let say = |reason: &str| {
            let words = format!("{reason} container {}", container.name);
            events.normal(&self.pod, Some(&container.name), reason, &words);
        };
        say("Created");
        say("Started");
        tracing::info!(pod = self.key(), container = container.name, pid = process.pid, "started");
        let tell = self.tell.clone();
        tokio::spawn(async move {
            let exit = told.await.unwrap_or(super::Exit::Lost);
            let _ = tell.send(News::Ended { index, run, exit }).await;
        });
        let watcher = Watcher {
            index,
            run,
            container: container.clone(),
            address,
            launch: launch.clone(),
            tell: self.tell.clone(),
            events: self.shared.events.clone(),
            pod: self.pod.clone(),
        };
        let probes = AbortOnDropHandle::new(tokio::spawn(watcher.watch()));
        self.runs_now(
            index,
            Running {
                run,
                process,
                launch,
                since: Instant::now(),
                started: Timestamp::now(),
                _probes: probes,
                stopping: false,
                kill_at: None,
            },
        );
        Ok(())
    }

    fn runs_now(&mut self, index: usize, running: Running) {
        let (Some(state), Some(container)) = (self.states.get_mut(index), self.specs.get(index))
        else {
            return;
        };
        if let Phase::Ended(ended) = &state.phase {
            state.last = Some(ended.clone());
        }
        if !state.id.is_empty() {
            state.restarts += 1;
        }
        state.id = format!("{:016x}", running.run);
        state.phase = Phase::Running(running.started);
        state.started = container.startup_probe.is_none();
        state.ready = state.started && container.readiness_probe.is_none();
        state.not_before = None;
        self.running.insert(index, running);
    }

    fn launch(
        &self,
        pod: &Pod,
        container: &Container,
        image: &Image,
        sources: &Sources,
        paths: &PathMap,
    ) -> Result<Launch> {
        let home = self.folder().join(".home");
        let mut base = image.env.clone();
        base.insert("HOSTNAME".to_owned(), pod.metadata.name.clone().unwrap_or_default());
        base.insert("HOME".to_owned(), home.display().to_string());
        base.insert("TMPDIR".to_owned(), home.display().to_string());
        let env = environment::build(&base, pod, container, sources, paths)?;
        let directory = container.working_dir.as_deref().map(|folder| paths.rewrite(folder));
        Ok(Launch {
            env,
            directory: directory.map_or(home, PathBuf::from),
            user: self.shared.user.clone(),
            executable: self.shared.folders.executable(),
            records: self.shared.folders.records.clone(),
            paths: paths.clone(),
        })
    }

    fn refused(&mut self, index: usize, refusal: Refusal) {
        let image = self.specs.get(index).and_then(|c| c.image.clone()).unwrap_or_default();
        let backing_off = self.states.get(index).is_some_and(|s| s.not_before.is_some());
        let (reason, message) = match refusal {
            Refusal::Image(words) => {
                let said = format!("Failed to pull image \"{image}\": {words}");
                self.warn(index, "Failed", &said);
                (if backing_off { "ImagePullBackOff" } else { "ErrImagePull" }, words)
            }
            Refusal::Config(words) => {
                self.warn(index, "Failed", &format!("Error: {words}"));
                ("CreateContainerConfigError", words)
            }
            Refusal::Start(words) => {
                self.warn(index, "Failed", &format!("Error: {words}"));
                self.start_failed(index, words);
                return;
            }
        };
        if let Some(state) = self.states.get_mut(index) {
            if let Phase::Ended(ended) = &state.phase {
                state.last = Some(ended.clone());
            }
            state.phase = Phase::Waiting(reason.to_owned(), Some(message));
            state.not_before = Some(Instant::now() + TRY_AGAIN);
        }
    }

    fn start_failed(&mut self, index: usize, words: String) {
        let id = format!("{:016x}", self.shared.number());
        let Some(state) = self.states.get_mut(index) else { return };
        if !state.id.is_empty() {
            state.restarts += 1;
        }
        if let Phase::Ended(ended) = &state.phase {
            state.last = Some(ended.clone());
        }
        state.id.clone_from(&id);
        let now = Timestamp::now();
        let ended = Ended {
            exit_code: START_ERROR,
            signal: None,
            reason: "StartError".to_owned(),
            message: Some(words),
            started: Some(now),
            finished: now,
            id,
        };
        state.end(ended, Duration::ZERO, Instant::now());
    }
}

/// Why a container was not started.
enum Refusal {
    Image(String),
    Config(String),
    Start(String),
}

/// The map of a container's paths: its mounts, and what its image has where no mount hides it.
fn paths(container: &Container, prepared: &Prepared, image: &Image) -> Result<PathMap> {
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let Some(folder) = prepared.folders.get(&mount.name) else {
            bail!("mount {:?} names a volume that the pod does not have", mount.name)
        };
        if mount.sub_path_expr.is_some() {
            bail!("mount {:?}: the sandbox has no subPathExpr; use subPath", mount.name)
        }
        let local = match mount.sub_path.as_deref().filter(|sub| !sub.is_empty()) {
            Some(sub) if sub.split('/').any(|part| part == "..") => {
                bail!("mount {:?}: subPath {sub:?} leaves its volume", mount.name)
            }
            Some(sub) => folder.join(sub.trim_start_matches('/')),
            None => folder.clone(),
        };
        mounts.push((mount.mount_path.clone(), local.display().to_string()));
    }
    let hidden = |path: &str| mounts.iter().any(|(at, _)| Path::new(path).starts_with(at));
    let of_image: Vec<_> = image.paths.iter().filter(|(at, _)| !hidden(at)).cloned().collect();
    mounts.extend(of_image);
    Ok(PathMap::new(mounts).listening_on(prepared.address))
}

/// `command` and `args` after rewriting and expansion.
fn command(
    container: &Container,
    env: &BTreeMap<String, String>,
    paths: &PathMap,
) -> Result<Vec<String>> {
    let Some(command) = container.command.as_ref().filter(|command| !command.is_empty()) else {
        bail!(
            "container {:?} has no command: the sandbox has no images, so it cannot know the \
             image's own; write it into the pod",
            container.name
        );
    };
    let words = command.iter().chain(container.args.iter().flatten());
    Ok(words.map(|word| environment::expand(&paths.rewrite(word), env)).collect())
}

/// Runs a container's hook and probes for as long as it lives.
struct Watcher {
    index: usize,
    run: u64,
    container: Container,
    address: std::net::Ipv4Addr,
    launch: Launch,
    tell: mpsc::Sender<News>,
    events: super::super::events::Events,
    pod: std::sync::Arc<Pod>,
}

impl Watcher {
    async fn watch(mut self) {
        self.rewrite_commands();
        if let Some(words) = self.post_start().await.err() {
            let (index, run) = (self.index, self.run);
            let _ = self.tell.send(News::HookFailed { index, run, words }).await;
            return;
        }
        if self.container.startup_probe.is_some() && !self.until_started().await {
            return;
        }
        tokio::join!(self.repeat(Kind::Readiness), self.repeat(Kind::Liveness));
    }

    /// Probes and hooks name mount paths too.
    fn rewrite_commands(&mut self) {
        let paths = &self.launch.paths;
        let rewrite = |command: &mut Option<Vec<String>>| {
            for word in command.iter_mut().flatten() {
                *word = environment::expand(&paths.rewrite(word), &self.launch.env);
            }
        };
        let container = &mut self.container;
        for probe in [
            &mut container.startup_probe,
            &mut container.readiness_probe,
            &mut container.liveness_probe,
        ] {
            if let Some(exec) = probe.as_mut().and_then(|p| p.exec.as_mut()) {
                rewrite(&mut exec.command);
            }
        }
        let hook = container.lifecycle.as_mut().and_then(|l| l.post_start.as_mut());
        if let Some(exec) = hook.and_then(|h| h.exec.as_mut()) {
            rewrite(&mut exec.command);
        }
    }

    async fn post_start(&self) -> Result<(), String> {
        let hook = self.container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
        let Some(exec) = hook.and_then(|h| h.exec.as_ref()) else { return Ok(()) };
        run_to_end(&self.launch, exec.command.as_deref().unwrap_or_default(), HOOK_LIMIT).await
    }

    async fn until_started(&self) -> bool {
        self.series(Kind::Startup).await == Some(true)
    }

    async fn repeat(&self, kind: Kind) {
        if kind.of(&self.container).is_some() {
            self.series(kind).await;
        }
    }

    /// Probes until the container is gone (the task is dropped) or, at startup, has started.
    /// Right after the start and until the first success the steps are short, and failures of
    /// such extra attempts count for nothing.
    async fn series(&self, kind: Kind) -> Option<bool> {
        let probe = kind.of(&self.container)?;
        let period = probe::period(probe);
        let mut gauge = Gauge::new(probe);
        let mut quick = probe::QUICK_STEP;
        let mut next_counted = Instant::now() + probe::initial_delay(probe);
        tokio::time::sleep_until(next_counted).await;
        loop {
            let counted = Instant::now() >= next_counted;
            if counted {
                next_counted += period;
            }
            let result = probe::attempt(probe, &self.container, self.address, &self.launch).await;
            if result.is_ok() {
                quick = period;
            }
            if let Err(words) = &result
                && counted
            {
                let words = format!("{} probe failed: {words}", kind.word());
                let name = Some(self.container.name.as_str());
                self.events.warning(&self.pod, name, "Unhealthy", &words);
            }
            let changed =
                if counted || result.is_ok() { gauge.observe(result.is_ok()) } else { None };
            if let Some(verdict) = changed {
                let (index, run) = (self.index, self.run);
                let _ = self.tell.send(News::Probed { index, run, kind, verdict }).await;
                if kind == Kind::Startup {
                    return Some(verdict);
                }
            }
            let now = Instant::now();
            next_counted = next_counted.max(now);
            let next = if quick < period { next_counted.min(now + quick) } else { next_counted };
            quick = (quick * 2).min(period);
            tokio::time::sleep_until(next).await;
        }
    }
}
