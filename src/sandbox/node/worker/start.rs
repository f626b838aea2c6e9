//! Starting containers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::super::environment::{self, Sources};
use super::super::image::Image;
use super::super::lifecycle::{Ended, Phase};
use super::super::logs::{self, Log};
use super::super::observe;
use super::super::paths::PathMap;
use super::super::process::{Launch, Process};
use super::watcher::Watcher;
use super::{News, Prepared, Running, TRY_AGAIN, Worker};

/// Exit code of a container that could not be started, as runtimes report it.
const START_ERROR: i32 = 128;

impl Worker {
    /// Starts containers one after the other (a start takes a few milliseconds).
    pub(super) async fn start_all(&mut self, indices: &[usize]) {
        for index in indices {
            if let Err(refusal) = self.start(*index).await {
                self.refused(*index, refusal);
            }
        }
    }

    async fn start(&mut self, index: usize) -> Result<(), Refusal> {
        let Some(container) = self.specs.get(index).cloned() else { return Ok(()) };
        let Some(address) = self.prepared.as_ref().map(|p| p.address) else { return Ok(()) };
        let (launch, command) = self.plan(&container).await?;
        let name = container.name.as_str();
        if self.states.get(index).is_some_and(|s| s.id.is_empty()) {
            let image = container.image.as_deref().unwrap_or_default();
            let said = format!("Container image \"{image}\" already present on machine");
            self.shared.events.normal(&self.pod, Some(name), "Pulled", &said);
        }
        let (namespace, pod_name) = super::super::names(&self.pod);
        let log = Log::begin(logs::path(&self.shared.folders.logs, namespace, pod_name, name));
        let run = self.shared.number();
        let id = format!("{run:016x}");
        let started = Process::start(&launch, &id, &command, log.map_err(Refusal::config)?).await;
        let (process, told) = started.map_err(Refusal::Start)?;
        for reason in ["Created", "Started"] {
            let said = format!("{reason} container {name}");
            self.shared.events.normal(&self.pod, Some(name), reason, &said);
        }
        tracing::info!(pod = self.key(), container = name, pid = process.pid, "started");
        let tell = self.tell.clone();
        tokio::spawn(async move {
            let exit = told.await.unwrap_or(super::Exit::Lost);
            let _ = tell.send(News::Ended { index, run, exit }).await;
        });
        let watcher = Watcher {
            index,
            run,
            container,
            address,
            launch: launch.clone(),
            tell: self.tell.clone(),
            events: self.shared.events.clone(),
            pod: self.pod.clone(),
        };
        let running = Running {
            run,
            process,
            launch,
            since: Instant::now(),
            started: Timestamp::now(),
            _probes: AbortOnDropHandle::new(tokio::spawn(watcher.watch())),
            stopping: false,
            kill_at: None,
        };
        self.runs_now(index, running);
        Ok(())
    }

    /// Everything that a container is started with.
    async fn plan(&self, container: &Container) -> Result<(Launch, Vec<String>), Refusal> {
        let name = container.image.as_deref().unwrap_or_default();
        let image = self.shared.images.resolve(name).map_err(Refusal::Image)?;
        let work = async {
            let Some(prepared) = &self.prepared else { bail!("the pod's volumes are not ready") };
            let sources = observe::sources(&self.shared.client, &self.pod, &self.wanted).await?;
            let pod = self.with_address(prepared.address);
            let paths = paths(container, prepared, &image)?;
            let launch = self.launch(&pod, container, &image, &sources, &paths)?;
            let command = command(container, &launch.env, &paths)?;
            Ok((launch, command))
        };
        work.await.map_err(Refusal::config)
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

impl Refusal {
    fn config(error: anyhow::Error) -> Self {
        Self::Config(format!("{error:#}"))
    }
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
