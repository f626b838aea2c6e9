//! The whole sandbox: API server, workload controllers, a node, and what is in it at first.
//!
//! Order of the start: server, definitions, controllers, node, and only then the namespace with
//! its repository, so that whoever sees them finds a cluster that works. Stops in the reverse
//! order. Leaves the controller of pgitops itself to the command line.

use std::collections::BTreeSet;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::api_server::{Access, Counts, Running};
use super::endpoint;
use super::node::Options as NodeOptions;
use super::node::agent::Agent;
use super::scratch_repository;
use super::workload::{Workload, pet_set};
use crate::api::config_repository::ConfigRepository;

/// Namespace that exists unless the sandbox is to be empty.
pub const NAMESPACE: &str = "demo";

/// Name of its ConfigRepository.
pub const REPOSITORY: &str = "config";

/// Name of the node.
const NODE: &str = "sandbox";

/// Field owner of what is applied at the start.
const OWNER: &str = "pgitops-sandbox";

/// Deadline of one call at the start.
const CALL: Duration = Duration::from_secs(20);

/// How long definitions may take to be served.
const ESTABLISHED: Duration = Duration::from_secs(20);

/// How to run a sandbox.
#[derive(Debug, Clone)]
pub struct Options {
    /// Everything that lasts is below this folder.
    pub directory: PathBuf,
    /// Leave out the namespace and the repository.
    pub empty: bool,
    /// Image that means PostgreSQL.
    pub postgres_image: String,
    /// Image that means this program.
    pub pgitops_image: String,
    /// More folders with PostgreSQL servers.
    pub postgres_roots: Vec<PathBuf>,
    /// User of the pods, when we are root.
    pub user: Option<String>,
    /// This program: runs as every container's first process, and as the image of that name.
    pub executable: PathBuf,
    /// How long a changed Secret or ConfigMap takes to reach a volume.
    pub volume_delay: Duration,
    /// Serve KubeDB's PetSets and run their pods. A folder whose sandbox once did goes on doing so.
    pub pet_sets: bool,
}

impl Options {
    /// The usual sandbox in `directory`.
    ///
    /// # Errors
    /// The path of the running program cannot be found.
    pub fn new(directory: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self {
            directory: directory.into(),
            empty: false,
            postgres_image: "postgres:{version}".to_owned(),
            pgitops_image: "pgitops".to_owned(),
            postgres_roots: Vec::new(),
            user: None,
            executable: std::env::current_exe().context("finding our own executable")?,
            volume_delay: Duration::ZERO,
            pet_sets: false,
        })
    }
}

/// A running sandbox.
pub struct Sandbox {
    /// An administrator's client.
    pub client: Client,
    /// The same for kubectl.
    pub kubeconfig: PathBuf,
    /// The repository to push to, unless the sandbox is empty.
    pub config_git: Option<PathBuf>,
    server: Running,
    workload: Workload,
    agent: Agent,
    _lock: File,
}

impl Sandbox {
    /// Starts everything and returns when it can be used.
    ///
    /// # Errors
    /// The folder is in use, or a part cannot be started; nothing is left running then.
    pub async fn start(options: Options) -> Result<Self> {
        let lock = claim(&options.directory).await?;
        let directory = options.directory.canonicalize().context("finding the sandbox's folder")?;
        let logs = directory.join("logs");
        closed_folder(&logs)?;
        let server = endpoint::serve(&directory, &logs).await?;
        let client = server.client()?;
        let mut definitions = crate::api::crds();
        if options.pet_sets {
            definitions.push(pet_set::definition()?);
        }
        define(&client, &definitions).await?;
        let workload = Workload::start(client.clone()).await?;
        let agent =
            match Agent::start(client.clone(), node_options(&options, &directory, &logs)).await {
                Ok(agent) => agent,
                Err(error) => {
                    workload.shutdown().await;
                    stop_server(server).await;
                    return Err(error.context("starting the node"));
                }
            };
        let mut sandbox = Self {
            kubeconfig: directory.join("kubeconfig"),
            config_git: None,
            client,
            server,
            workload,
            agent,
            _lock: lock,
        };
        if !options.empty {
            match sandbox.furnish(&directory).await {
                Ok(repository) => sandbox.config_git = Some(repository),
                Err(error) => {
                    sandbox.shutdown().await;
                    return Err(error);
                }
            }
        }
        Ok(sandbox)
    }

    /// The namespace, the repository and the object that points to it.
    async fn furnish(&self, directory: &Path) -> Result<PathBuf> {
        let repository = scratch_repository::create(&directory.join("config.git"))?;
        let url = repository.to_str().context("the sandbox's folder is not UTF-8")?;
        let parameters = PatchParams::apply(OWNER).force();
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE},
        });
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let patch = Patch::Apply(&namespace);
        let call = namespaces.patch(NAMESPACE, &parameters, &patch);
        within("creating the namespace", call).await?;
        let repositories: Api<ConfigRepository> = Api::namespaced(self.client.clone(), NAMESPACE);
        let call = repositories.get_opt(REPOSITORY);
        let found = within("looking for the repository", call).await?;
        match found {
            // What a person changed in it stays; only a folder that was moved is followed.
            Some(found) if found.spec.url == url => {}
            Some(_) => {
                let change = json!({"spec": {"url": url}});
                let parameters = PatchParams::default();
                let patch = Patch::Merge(&change);
                let call = repositories.patch(REPOSITORY, &parameters, &patch);
                within("pointing to the repository", call).await?;
            }
            None => {
                let object: ConfigRepository = serde_json::from_value(json!({
                    "apiVersion": "pgitops.dev/v1alpha1", "kind": "ConfigRepository",
                    "metadata": {"name": REPOSITORY, "namespace": NAMESPACE},
                    "spec": {"url": url, "path": ".", "interval": "10s"},
                }))?;
                let parameters = PostParams::default();
                let call = repositories.create(&parameters, &object);
                within("creating the repository", call).await?;
            }
        }
        Ok(repository)
    }

    /// How often the API was asked for what, by verb and resource; watches, leases and the node's
    /// heartbeat left out.
    pub fn asked(&self) -> Counts {
        self.server.asked()
    }

    /// Who asked the API for what in which scope, each once.
    pub fn accesses(&self) -> BTreeSet<Access> {
        self.server.accesses()
    }

    /// Stops all pods, then the controllers, then the server. Everything that lasts stays in the
    /// folder.
    pub async fn shutdown(self) {
        self.agent.shutdown().await;
        self.workload.shutdown().await;
        stop_server(self.server).await;
    }
}

async fn stop_server(server: Running) {
    if let Err(error) = server.shutdown().await {
        tracing::error!("stopping the API server: {error:#}");
    }
}

async fn within<T>(
    what: &'static str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T> {
    match tokio::time::timeout(CALL, call).await {
        Ok(result) => result.context(what),
        Err(_) => bail!("{what}: no answer within {CALL:?}"),
    }
}

/// Creates the sandbox's folder if it is not there; one that is stays as it is.
///
/// # Errors
/// The file system's refusal.
pub fn create_folder(directory: &Path) -> Result<()> {
    if !directory.is_dir() {
        std::fs::create_dir_all(directory).with_context(|| format!("creating {directory:?}"))?;
        // The pods' user passes through to its volumes; nobody can list what is here.
        std::fs::set_permissions(directory, Permissions::from_mode(0o711))?;
    }
    Ok(())
}

/// How long a lock may outlast whoever held it: a process that is being started has all of its
/// parent's files open until it has become another program.
const LET_GO: Duration = Duration::from_secs(1);

/// Makes the folder ours alone for as long as the sandbox runs.
async fn claim(directory: &Path) -> Result<File> {
    create_folder(directory)?;
    let path = directory.join("lock");
    let file = File::create(&path).with_context(|| format!("creating {path:?}"))?;
    let deadline = tokio::time::Instant::now() + LET_GO;
    while file.try_lock().is_err() {
        if tokio::time::Instant::now() >= deadline {
            bail!("starting a sandbox in {directory:?}: another one runs there; stop it first");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(file)
}

/// A folder that only we can look into.
pub(super) fn closed_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("creating {path:?}"))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o700))
        .with_context(|| format!("closing {path:?}"))
}

fn node_options(options: &Options, directory: &Path, logs: &Path) -> NodeOptions {
    NodeOptions {
        name: NODE.to_owned(),
        directory: directory.to_owned(),
        logs: logs.to_owned(),
        postgres_image: options.postgres_image.clone(),
        pgitops_image: options.pgitops_image.clone(),
        postgres_roots: options.postgres_roots.clone(),
        user: options.user.clone(),
        executable: options.executable.clone(),
        refresh_delay: options.volume_delay,
        binds_pods: true,
        // The API server of the sandbox reads the folder of the logs.
        log_authority: None,
    }
}

/// Installs definitions and waits until they are served.
///
/// # Errors
/// The API server's refusal, or a definition that is not served in time.
pub async fn define(client: &Client, wanted: &[CustomResourceDefinition]) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let parameters = PostParams { field_manager: Some(OWNER.to_owned()), ..Default::default() };
    for mut definition in wanted.iter().cloned() {
        let name = definition.name_any();
        let found = within("looking for a definition", definitions.get_opt(&name)).await?;
        let result = match found {
            // Whole: a definition of an older version must not leave anything behind.
            Some(found) => {
                definition.metadata.resource_version = found.metadata.resource_version;
                let call = definitions.replace(&name, &parameters, &definition);
                within("defining a kind", call).await
            }
            None => {
                let call = definitions.create(&parameters, &definition);
                within("defining a kind", call).await
            }
        };
        result.context(name)?;
    }
    let deadline = tokio::time::Instant::now() + ESTABLISHED;
    for definition in wanted {
        let name = definition.name_any();
        loop {
            let found = within("reading a definition", definitions.get(&name)).await?;
            if is_established(&found) {
                break;
            }
            if tokio::time::Instant::now() >= deadline {
                bail!("defining {name}: it is not served after {ESTABLISHED:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

fn is_established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Established" && c.status == "True")
}
