//! A private control plane on loopback: etcd, kube-apiserver, kube-controller-manager and
//! kube-scheduler as processes of this run, in a folder of its own, with the sandbox's node as its
//! only node.
//!
//! Every program runs under the first process of the sandbox's containers, which ends it when this
//! process is gone, however that ended. Leaves making the programs to `build.sh` and what is done
//! with the cluster to the cases. Never touches another cluster: every address, token and
//! certificate is made here.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use pgitops::sandbox::api_server::random_token;
use pgitops::sandbox::node::Options as NodeOptions;
use pgitops::sandbox::node::agent::Agent;
use pgitops::sandbox::workload::Workload;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::json;

use crate::conformance::Cluster;
use crate::program::{Program, Programs};

/// Our own executable.
pub const EXECUTABLE: &str = env!("CARGO_BIN_EXE_pgitops");

/// Name of the node, as in the sandbox.
const NODE: &str = "sandbox";

/// How long the API server may take to be ready: 4 s on an idle machine.
const READY: Duration = Duration::from_secs(180);

/// Ports are found free and may be taken by somebody else before they are used.
const TRIES: u32 = 3;

/// A running control plane.
pub struct ControlPlane {
    pub client: Client,
    pub kubeconfig: PathBuf,
    /// From nothing to ready to be asked; and to a node that takes pods.
    pub started_in: (Duration, Duration),
    etcd: u16,
    agent: Agent,
    claims: Workload,
    programs: Programs,
    folder: tempfile::TempDir,
}

/// What the programs need to find each other.
struct Plan {
    folder: PathBuf,
    assets: PathBuf,
    etcd: u16,
    peers: u16,
    server: u16,
}

impl ControlPlane {
    /// Starts one.
    ///
    /// # Errors
    /// A program is not there (with the command that makes it) or does not come up (with the last
    /// lines of its log). Nothing is left running then.
    pub async fn start() -> Result<Self> {
        let assets = assets()?;
        let mut tries = 0;
        loop {
            tries += 1;
            match Self::try_to_start(&assets).await {
                Err(error)
                    if tries < TRIES && format!("{error:#}").contains("address already in use") =>
                {
                    eprintln!("another try on other ports: {error:#}");
                }
                result => return result,
            }
        }
    }

    async fn try_to_start(assets: &Path) -> Result<Self> {
        let began = Instant::now();
        let folder = tempfile::Builder::new().prefix("pgk").tempdir_in("/tmp")?;
        // The pods' user passes through to its volumes.
        set_mode(folder.path(), 0o711)?;
        let plan = Plan {
            folder: folder.path().to_owned(),
            assets: assets.to_owned(),
            etcd: free_port()?,
            peers: free_port()?,
            server: free_port()?,
        };
        let kubeconfig = plan.furnish()?;
        let mut programs = Programs::default();
        programs.push(plan.etcd()?);
        programs.push(plan.api_server()?);
        let client = client(&kubeconfig).await?;
        ready(&client, &mut programs).await?;
        let answering = began.elapsed();
        programs.push(plan.controller_manager()?);
        programs.push(plan.scheduler()?);
        define(&client).await?;
        let claims = Workload::claims(client.clone());
        let agent = Agent::start(client.clone(), plan.node_options()).await?;
        node_is_open(&client, &mut programs).await?;
        let started_in = (answering, began.elapsed());
        let etcd = plan.etcd;
        Ok(Self { client, kubeconfig, started_in, etcd, agent, claims, programs, folder })
    }

    /// A namespace for a case, in which pods can be made.
    pub async fn cluster(&self, case: &str) -> Cluster {
        let cluster = Cluster::open(self.client.clone(), &self.kubeconfig, case).await;
        let accounts: Api<ServiceAccount> = cluster.api();
        crate::conformance::eventually("the namespace has an account", || async {
            let account = accounts.get_opt("default").await.unwrap();
            account.map(drop).ok_or_else(|| "none".to_owned())
        })
        .await;
        cluster
    }

    /// Makes the server forget how it got here: everything before now is compacted away.
    pub async fn forget(&self) -> Result<()> {
        let url = format!("http://127.0.0.1:{}/v3/kv", self.etcd);
        let range = json!({"key": "AA=="});
        let told = post(&format!("{url}/range"), &range).await?;
        let revision = told["header"]["revision"].as_str().context("etcd tells no revision")?;
        let compaction = json!({"revision": revision, "physical": true});
        post(&format!("{url}/compaction"), &compaction).await.map(drop)
    }

    /// Pids of the programs and of their first processes, and the folder of everything.
    pub fn traces(&self) -> (Vec<i32>, PathBuf) {
        (self.programs.pids(), self.folder.path().to_owned())
    }

    /// Ends everything; what cannot be ended or removed is an error.
    ///
    /// # Errors
    /// A program that does not end, or a folder that cannot be removed.
    pub async fn stop(self) -> Result<()> {
        self.agent.shutdown().await;
        self.claims.shutdown().await;
        self.programs.stop()?;
        self.folder.close().context("removing the folder of the control plane")
    }
}

/// The folder of the programs.
fn assets() -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes/build.sh");
    let told = Command::new("bash").arg(&script).arg("--folder").output()?;
    ensure!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let folder = PathBuf::from(String::from_utf8(told.stdout)?.trim());
    for program in ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        ensure!(
            folder.join(program).is_file(),
            "there is no {program} in {}; make it with tests/kubernetes/build.sh (needs Go)",
            folder.display()
        );
    }
    Ok(folder)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?)
}

impl Plan {
    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {path:?}"))?;
        set_mode(&path, 0o600)
    }

    /// Certificates, keys, tokens and kubeconfigs; gives the administrator's kubeconfig.
    fn furnish(&self) -> Result<PathBuf> {
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "pgitops tests");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        self.write("ca.crt", &authority.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(authority, key);
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        for name in ["server", "kubelet-client"] {
            let key = KeyPair::generate()?;
            let certificate = CertificateParams::new(names.clone())?.signed_by(&key, &issuer)?;
            self.write(&format!("{name}.crt"), &certificate.pem())?;
            self.write(&format!("{name}.key"), &key.serialize_pem())?;
        }
        let accounts = KeyPair::generate()?;
        self.write("accounts.key", &accounts.serialize_pem())?;
        self.write("accounts.pub", &accounts.public_key_pem())?;
        let mut tokens = String::new();
        for (file, user) in [
            ("kubeconfig", "admin,admin,\"system:masters\""),
            ("manager.kubeconfig", "system:kube-controller-manager,manager"),
            ("scheduler.kubeconfig", "system:kube-scheduler,scheduler"),
        ] {
            let token = random_token()?;
            tokens += &format!("{token},{user}\n");
            let config = json!({
                "apiVersion": "v1", "kind": "Config", "current-context": "c",
                "clusters": [{"name": "c", "cluster": {
                    "server": format!("https://127.0.0.1:{}", self.server),
                    "certificate-authority": self.path("ca.crt")}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
                "users": [{"name": "c", "user": {"token": token}}],
            });
            self.write(file, &format!("{config:#}\n"))?;
        }
        self.write("tokens.csv", &tokens)?;
        Ok(self.folder.join("kubeconfig"))
    }

    fn start(&self, program: &str, arguments: &[String]) -> Result<Program> {
        Program::start(Path::new(EXECUTABLE), &self.assets.join(program), arguments, &self.folder)
    }

    fn etcd(&self) -> Result<Program> {
        let (clients, peers) =
            (format!("http://127.0.0.1:{}", self.etcd), format!("http://127.0.0.1:{}", self.peers));
        let arguments = [
            format!("--data-dir={}", self.path("etcd")),
            format!("--listen-client-urls={clients}"),
            format!("--advertise-client-urls={clients}"),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={peers}"),
            format!("--initial-cluster=default={peers}"),
            // Nothing here outlives a crash of the machine.
            "--unsafe-no-fsync".to_owned(),
        ];
        self.start("etcd", &arguments)
    }

    fn api_server(&self) -> Result<Program> {
        let arguments = [
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd),
            format!("--secure-port={}", self.server),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--tls-cert-file={}", self.path("server.crt")),
            format!("--tls-private-key-file={}", self.path("server.key")),
            format!("--cert-dir={}", self.path("certificates")),
            format!("--token-auth-file={}", self.path("tokens.csv")),
            "--authorization-mode=Node,RBAC".to_owned(),
            format!("--service-account-key-file={}", self.path("accounts.pub")),
            format!("--service-account-signing-key-file={}", self.path("accounts.key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            // The Service `kubernetes` would have a loopback address, which is refused.
            "--endpoint-reconciler-type=none".to_owned(),
            "--allow-privileged=true".to_owned(),
            // Logs come from the node.
            format!("--kubelet-client-certificate={}", self.path("kubelet-client.crt")),
            format!("--kubelet-client-key={}", self.path("kubelet-client.key")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            // Watches of Secrets go to etcd, where they can be made to expire.
            "--watch-cache-sizes=secrets#0".to_owned(),
        ];
        self.start("kube-apiserver", &arguments)
    }

    fn as_client(&self, kubeconfig: &str) -> Vec<String> {
        let kubeconfig = self.path(kubeconfig);
        vec![
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--leader-elect=false".to_owned(),
            // They serve nobody.
            "--secure-port=0".to_owned(),
        ]
    }

    fn controller_manager(&self) -> Result<Program> {
        let mut arguments = self.as_client("manager.kubeconfig");
        arguments.extend([
            format!("--service-account-private-key-file={}", self.path("accounts.key")),
            "--use-service-account-credentials=true".to_owned(),
            format!("--root-ca-file={}", self.path("ca.crt")),
        ]);
        self.start("kube-controller-manager", &arguments)
    }

    fn scheduler(&self) -> Result<Program> {
        self.start("kube-scheduler", &self.as_client("scheduler.kubeconfig"))
    }

    fn node_options(&self) -> NodeOptions {
        NodeOptions {
            name: NODE.to_owned(),
            directory: self.folder.clone(),
            logs: self.folder.join("logs"),
            postgres_image: "postgres:{version}".to_owned(),
            pgitops_image: "pgitops".to_owned(),
            postgres_roots: Vec::new(),
            user: None,
            executable: PathBuf::from(EXECUTABLE),
            refresh_delay: Duration::ZERO,
            binds_pods: false,
            log_authority: Some(self.folder.join("ca.crt")),
        }
    }
}

async fn client(kubeconfig: &Path) -> Result<Client> {
    let read = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(read, &Default::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Waits until the API server says that it is ready.
async fn ready(client: &Client, programs: &mut Programs) -> Result<()> {
    let deadline = Instant::now() + READY;
    loop {
        let request = http::Request::get("/readyz").body(Vec::new())?;
        let words = match client.request_text(request).await {
            Ok(_) => return Ok(()),
            Err(error) => error.to_string(),
        };
        programs.must_run()?;
        if Instant::now() >= deadline {
            bail!("kube-apiserver is not ready after {READY:?}: {words}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Installs our definitions, as a person does with `kubectl apply --server-side`.
async fn define(client: &Client) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in pgitops::api::crds() {
        let parameters = PatchParams::apply("tests");
        let name = definition.name_any();
        definitions.patch(&name, &parameters, &Patch::Apply(&definition)).await?;
        let established = kube::runtime::conditions::is_crd_established();
        let wait = kube::runtime::wait::await_condition(definitions.clone(), &name, established);
        tokio::time::timeout(READY, wait).await.with_context(|| format!("defining {name}"))??;
    }
    Ok(())
}

/// Waits until the node is Ready and nothing keeps pods from it.
async fn node_is_open(client: &Client, programs: &mut Programs) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let deadline = Instant::now() + READY;
    loop {
        let node = nodes.get(NODE).await?;
        let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        if taints.is_empty() {
            return Ok(());
        }
        programs.must_run()?;
        if Instant::now() >= deadline {
            bail!("the node is not open for pods after {READY:?}: {taints:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A call of etcd's JSON gateway.
async fn post(url: &str, body: &serde_json::Value) -> Result<serde_json::Value> {
    use http_body_util::{BodyExt as _, Full};
    use hyper_util::rt::TokioIo;
    let url: http::Uri = url.parse()?;
    let authority = url.authority().context("an address")?.as_str().to_owned();
    let stream = tokio::net::TcpStream::connect(&authority).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = http::Request::post(url.path())
        .header(http::header::HOST, authority)
        .body(Full::new(bytes::Bytes::from(body.to_string())))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let text = answer.into_body().collect().await?.to_bytes();
    ensure!(status.is_success(), "etcd: {status}: {}", String::from_utf8_lossy(&text));
    Ok(serde_json::from_slice(&text)?)
}
