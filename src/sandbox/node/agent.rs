//! The node's loop: which pods there are, and who works on them.
//!
//! Watches pods, Secrets and ConfigMaps. A pod without a node is bound, unless a scheduler does
//! that; a pod on this node has one worker; a new pod of an old name waits until the worker of the
//! old one is through, because the two share a volume and an address. Leaves everything about one
//! pod to its worker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::addresses::AddressBook;
use super::bind::bind;
use super::events::Events;
use super::folders::Folders;
use super::image::{Images, installed_majors, repository};
use super::user::RunAs;
use super::volumes::{References, references};
use super::worker::{self, End, Input};
use super::{Options, Shared, key, log_server, process, register};

/// Where all sandboxes of this machine lock their networks.
const NETWORKS: &str = "/tmp/pgitops-networks";

/// How long processes of an earlier run have to end by themselves.
const EARLIER_RUN: Duration = Duration::from_secs(15);

/// All pods stop side by side; beyond this the sandbox gives up waiting.
const SHUTDOWN: Duration = Duration::from_secs(60);

/// Messages waiting for the agent.
const QUEUE: usize = 256;

/// A running node.
pub struct Agent {
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

enum Message {
    Pod(Box<watcher::Event<Pod>>),
    Changed { secret: bool, namespace: String, name: String },
    ClaimDeleted { namespace: String, name: String, uid: String },
    Ended { key: String, end: End },
}

impl Agent {
    /// Registers the node and begins to work.
    ///
    /// # Errors
    /// A folder, the user, a network, the Node object: whatever a node needs and cannot have.
    pub async fn start(client: Client, options: Options) -> Result<Self> {
        let user = RunAs::choose(options.user.as_deref())?;
        let folders =
            Folders::create(&options.directory, &options.logs, &options.executable, &user)?;
        process::end_recorded(&folders.records, EARLIER_RUN).await;
        folders.forget_pods()?;
        let book = AddressBook::file(&folders.state);
        let addresses = AddressBook::open(book, NETWORKS.as_ref(), &folders.seed)?;
        let images = Images {
            postgres: repository(&options.postgres_image),
            pgitops: repository(&options.pgitops_image),
            majors: installed_majors(&options.postgres_roots),
            own_folder: folders.programs.clone(),
        };
        let name = options.name.clone();
        tracing::info!(node = name, user = user.name, majors = ?images.majors.keys(), "node");
        let shared = Arc::new(Shared {
            events: Events::start(client.clone(), "kubelet", &name),
            client: client.clone(),
            options,
            folders,
            images,
            user,
            addresses: Mutex::new(addresses),
            worked_on: Mutex::default(),
            numbers: AtomicU64::new(Timestamp::now().as_microsecond().unsigned_abs()),
        });
        let cancel = CancellationToken::new();
        let served = match shared.options.log_authority.clone() {
            Some(authority) => {
                Some(log_server::start(shared.clone(), &authority, cancel.clone()).await?)
            }
            None => None,
        };
        let registered = register::register(&client, &name, served).await;
        if let Err(error) = registered {
            cancel.cancel();
            return Err(error.context("registering the node"));
        }
        tokio::spawn(register::heartbeat(client, name, cancel.clone()));
        let task = tokio::spawn(run(shared, cancel.clone()));
        Ok(Self { cancel, task })
    }

    /// Stops all containers and waits until nothing runs. The objects stay: a later run on the
    /// same folder takes them up.
    pub async fn shutdown(self) {
        self.cancel.cancel();
        if tokio::time::timeout(SHUTDOWN, self.task).await.is_err() {
            tracing::error!("stopping the pods took longer than {SHUTDOWN:?}");
        }
    }
}

/// A pod's worker.
struct Entry {
    uid: Option<String>,
    wanted: References,
    input: watch::Sender<Input>,
    /// A newer pod of the same name, which waits for this one's end.
    successor: Option<Arc<Pod>>,
}

struct State {
    shared: Arc<Shared>,
    entries: BTreeMap<String, Entry>,
    /// Names seen since a watch began anew; `None` outside of that.
    relisted: Option<BTreeSet<String>>,
    tell: mpsc::Sender<Message>,
    ending: bool,
}

async fn run(shared: Arc<Shared>, cancel: CancellationToken) {
    let (tell, mut messages) = mpsc::channel(QUEUE);
    let watches = watches(&shared.client, &tell);
    let mut state = State {
        shared: shared.clone(),
        entries: BTreeMap::new(),
        relisted: None,
        tell,
        ending: false,
    };
    loop {
        tokio::select! {
            Some(message) = messages.recv() => state.take(message),
            () = cancel.cancelled(), if !state.ending => state.end(),
        }
        if state.ending && state.entries.is_empty() {
            break;
        }
    }
    for watch in watches {
        watch.abort();
    }
    shared.folders.clean();
}

/// All watches into one queue.
fn watches(client: &Client, tell: &mpsc::Sender<Message>) -> [JoinHandle<()>; 4] {
    let pods = tell.clone();
    let stream = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default());
    let pods = tokio::spawn(async move {
        let mut stream = stream.default_backoff().boxed();
        while let Some(event) = stream.next().await {
            match event {
                Ok(event) => {
                    if pods.send(Message::Pod(Box::new(event))).await.is_err() {
                        return;
                    }
                }
                Err(error) => tracing::debug!("watching pods: {error}"),
            }
        }
    });
    let secrets = changes::<Secret>(client, tell, true);
    let maps = changes::<ConfigMap>(client, tell, false);
    [pods, secrets, maps, deleted_claims(client, tell)]
}

/// Tells of claims that were seen to go. One that went while nobody looked keeps its folder:
/// better some space lost than data.
fn deleted_claims(client: &Client, tell: &mpsc::Sender<Message>) -> JoinHandle<()> {
    let tell = tell.clone();
    let claims = Api::<PersistentVolumeClaim>::all(client.clone());
    let stream = watcher(claims, watcher::Config::default());
    tokio::spawn(async move {
        let mut stream = stream.default_backoff().boxed();
        while let Some(event) = stream.next().await {
            let Ok(watcher::Event::Delete(claim)) = event else { continue };
            let meta = claim.metadata;
            let (Some(namespace), Some(name), Some(uid)) = (meta.namespace, meta.name, meta.uid)
            else {
                continue;
            };
            if tell.send(Message::ClaimDeleted { namespace, name, uid }).await.is_err() {
                return;
            }
        }
    })
}

fn changes<K>(client: &Client, tell: &mpsc::Sender<Message>, secret: bool) -> JoinHandle<()>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
    K: serde::de::DeserializeOwned,
{
    let tell = tell.clone();
    let stream = watcher(Api::<K>::all(client.clone()), watcher::Config::default());
    tokio::spawn(async move {
        let mut stream = stream.default_backoff().touched_objects().boxed();
        loop {
            let object = match stream.try_next().await {
                Ok(Some(object)) => object,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!("watching objects that pods mount: {error}");
                    continue;
                }
            };
            let (namespace, name) = (object.meta().namespace.clone(), object.meta().name.clone());
            let (Some(namespace), Some(name)) = (namespace, name) else { continue };
            if tell.send(Message::Changed { secret, namespace, name }).await.is_err() {
                return;
            }
        }
    })
}

impl State {
    fn take(&mut self, message: Message) {
        match message {
            Message::Pod(event) => self.look(*event),
            Message::Changed { secret, namespace, name } => {
                self.changed(secret, &namespace, &name);
            }
            Message::ClaimDeleted { namespace, name, uid } => {
                let folder = self.shared.folders.claim(&namespace, &name, &uid);
                tracing::info!(namespace, claim = name, "its folder goes with the claim");
                tokio::task::spawn_blocking(move || std::fs::remove_dir_all(folder));
            }
            Message::Ended { key, end } => self.ended(&key, end),
        }
    }

    fn look(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => self.relisted = Some(BTreeSet::new()),
            watcher::Event::InitApply(pod) => {
                if let Some(seen) = &mut self.relisted {
                    seen.insert(key(&pod));
                }
                self.saw(pod);
            }
            watcher::Event::InitDone => self.relist_done(),
            watcher::Event::Apply(pod) => self.saw(pod),
            watcher::Event::Delete(pod) => {
                self.gone(&key(&pod), pod.metadata.uid.as_deref());
            }
        }
    }

    fn saw(&mut self, pod: Pod) {
        if self.ending {
            return;
        }
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("");
        if node.is_empty() {
            let scheduler = pod.spec.as_ref().and_then(|s| s.scheduler_name.as_deref());
            let ours = self.shared.options.binds_pods
                && scheduler.is_none_or(|s| s == "default-scheduler");
            if ours && pod.metadata.deletion_timestamp.is_none() {
                tokio::spawn(bind(self.shared.clone(), pod));
            }
            return;
        }
        if node != self.shared.options.name {
            return;
        }
        let key = key(&pod);
        let pod = Arc::new(pod);
        match self.entries.get_mut(&key) {
            Some(entry) if entry.uid == pod.metadata.uid => {
                entry.input.send_modify(|input| input.pod = pod);
            }
            Some(entry) => {
                entry.successor = Some(pod);
                entry.input.send_modify(|input| input.gone = true);
            }
            None => self.employ(key, pod),
        }
    }

    fn employ(&mut self, key: String, pod: Arc<Pod>) {
        self.shared.set_worked_on(&key, true);
        let input = Input { pod: pod.clone(), gone: false, shutdown: false, changes: 0 };
        let (sender, receiver) = watch::channel(input);
        let (shared, tell, name) = (self.shared.clone(), self.tell.clone(), key.clone());
        tokio::spawn(async move {
            let end = worker::run(shared, receiver).await;
            let _ = tell.send(Message::Ended { key: name, end }).await;
        });
        let entry = Entry {
            uid: pod.metadata.uid.clone(),
            wanted: references(&pod),
            input: sender,
            successor: None,
        };
        self.entries.insert(key, entry);
    }

    fn gone(&mut self, key: &str, uid: Option<&str>) {
        if let Some(entry) = self.entries.get_mut(key) {
            if entry.uid.as_deref() == uid {
                entry.input.send_modify(|input| input.gone = true);
            } else if entry.successor.as_ref().and_then(|p| p.metadata.uid.as_deref()) == uid {
                entry.successor = None;
            }
        }
    }

    /// After a watch began anew, what was not listed is gone.
    fn relist_done(&mut self) {
        let Some(seen) = self.relisted.take() else { return };
        for (key, entry) in &mut self.entries {
            if !seen.contains(key) {
                entry.successor = None;
                entry.input.send_modify(|input| input.gone = true);
            }
        }
    }

    fn changed(&mut self, secret: bool, namespace: &str, name: &str) {
        for (key, entry) in &self.entries {
            let wanted = if secret { &entry.wanted.secrets } else { &entry.wanted.config_maps };
            let same = key.split_once('/').is_some_and(|(n, _)| n == namespace);
            if same && wanted.contains(name) {
                entry.input.send_modify(|input| input.changes += 1);
            }
        }
    }

    fn ended(&mut self, key: &str, end: End) {
        let Some(entry) = self.entries.remove(key) else { return };
        self.shared.set_worked_on(key, false);
        tracing::debug!(pod = key, ?end, "a pod's worker is through");
        if let Some(pod) = entry.successor.filter(|_| !self.ending) {
            self.employ(key.to_owned(), pod);
        }
    }

    fn end(&mut self) {
        self.ending = true;
        for entry in self.entries.values_mut() {
            entry.successor = None;
            entry.input.send_modify(|input| input.shutdown = true);
        }
    }
}
