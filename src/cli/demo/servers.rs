//! The demonstration's database, asked directly over SQL: what every node says of itself.
//!
//! Knows the servers as any application would: address of the pod, password from the Secret.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Pod, Secret};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio_postgres::NoTls;

use crate::api::Postgres;
use crate::api::names::{POSTGRES_PORT, labels};
use crate::api::postgres::Phase;
use crate::cluster::{Cluster, Created};
use crate::sandbox::cluster::NAMESPACE;

/// Name of the database.
const NAME: &str = "ha-postgres";
/// Pause between two looks at something that takes seconds.
const LOOK: Duration = Duration::from_millis(50);
/// A connection to a server of this machine takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// The nodes of the database, by pod.
pub struct Servers {
    addresses: BTreeMap<String, IpAddr>,
    primary: IpAddr,
    password: SecretString,
}

/// When every node's server was started, as the server prints it.
#[derive(Debug, PartialEq)]
pub struct Started(BTreeMap<String, String>);

impl Started {
    /// Nodes whose server was started at another time in `before`.
    pub fn differing(&self, before: &Self) -> Vec<String> {
        let changed = |(pod, at): &(&String, &String)| before.0.get(*pod) != Some(*at);
        self.0.iter().filter(changed).map(|(pod, _)| pod.clone()).collect()
    }
}

impl Servers {
    /// Creates the database of [`three_nodes`] unless it is there, and waits until it is Ready.
    ///
    /// # Errors
    /// When it is not Ready in time; says what its conditions are.
    pub async fn create(
        cluster: &Cluster,
        database: &Postgres,
        within: Duration,
    ) -> anyhow::Result<Self> {
        match cluster.create(database).await? {
            Created::New(_) | Created::Exists => {}
        }
        let begun = Instant::now();
        loop {
            let seen = cluster.get::<Postgres>(NAMESPACE, NAME).await?.context("it is gone")?;
            if seen.phase() == Some(Phase::Ready) {
                break;
            }
            anyhow::ensure!(
                begun.elapsed() < within,
                "{NAMESPACE}/{NAME} is not Ready after {within:?}: {:#?}",
                seen.conditions()
            );
            tokio::time::sleep(LOOK).await;
        }
        Self::of(cluster).await
    }

    async fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        let secret = cluster.get::<Secret>(NAMESPACE, &format!("{NAME}-auth")).await?;
        let password = secret.and_then(|secret| secret.data?.remove("password"));
        let password = password.context("Secret ha-postgres-auth has no password")?;
        let password = SecretString::from(String::from_utf8(password.0).context("password")?);
        let selector = format!("{}={NAME}", labels::INSTANCE);
        let mut addresses = BTreeMap::new();
        for pod in cluster.list::<Pod>(Some(NAMESPACE), &selector).await? {
            let address = pod.status.and_then(|status| status.pod_ip).context("pod has no IP")?;
            addresses.insert(pod.metadata.name.unwrap_or_default(), address.parse()?);
        }
        let mut primary = None;
        for address in addresses.values() {
            let standby = ask(*address, &password, "SELECT pg_is_in_recovery()::text").await?;
            if standby == "false" {
                primary = Some(*address);
            }
        }
        let primary = primary.context("no node is the primary")?;
        Ok(Self { addresses, primary, password })
    }

    /// Address of the primary.
    pub fn primary(&self) -> IpAddr {
        self.primary
    }

    /// Password of user postgres.
    pub fn password(&self) -> SecretString {
        self.password.clone()
    }

    /// One line about the servers.
    ///
    /// # Errors
    /// When a server does not answer.
    pub async fn describe(&self) -> anyhow::Result<String> {
        let version = ask(self.primary, &self.password, "SHOW server_version").await?;
        let nodes: Vec<String> =
            self.addresses.iter().map(|(pod, address)| format!("{pod} {address}")).collect();
        Ok(format!("PostgreSQL {version}: {}", nodes.join(", ")))
    }

    /// When every node's server was started.
    ///
    /// # Errors
    /// When a server does not answer.
    pub async fn started(&self) -> anyhow::Result<Started> {
        let question = "SELECT pg_postmaster_start_time()::text";
        Ok(Started(self.ask_all(question).await?))
    }

    /// The value of each parameter on every node, a line each.
    ///
    /// # Errors
    /// When a server does not answer.
    pub async fn show(&self, parameters: &[&str]) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        for parameter in parameters {
            let values = self.ask_all(&format!("SHOW {parameter}")).await?;
            let shown: Vec<String> =
                values.into_iter().map(|(pod, value)| format!("{pod} {value:?}")).collect();
            lines.push(format!("{parameter}: {}", shown.join(", ")));
        }
        Ok(lines)
    }

    /// One question to the primary, whose answer is a text.
    ///
    /// # Errors
    /// When it does not answer, or with something else.
    pub async fn ask_primary(&self, question: &str) -> anyhow::Result<String> {
        ask(self.primary, &self.password, question).await
    }

    /// The answer of every node, by pod; the question's answer is a text.
    ///
    /// # Errors
    /// When a server does not answer, or with something else.
    pub async fn ask_all(&self, question: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let mut answers = BTreeMap::new();
        for (pod, address) in &self.addresses {
            let answer = ask(*address, &self.password, question).await;
            answers.insert(pod.clone(), answer.with_context(|| pod.clone())?);
        }
        Ok(answers)
    }
}

/// The database of the demonstration: three nodes of this major version, or of the newest installed
/// one.
///
/// # Errors
/// When no PostgreSQL is installed.
pub fn three_nodes(major: Option<u32>) -> anyhow::Result<Postgres> {
    let version = major.map_or_else(newest_installed, |major| Ok(major.to_string()))?;
    Ok(serde_json::from_value(json!({
        "apiVersion": "kubedb.com/v1", "kind": "Postgres",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "version": version, "replicas": 3,
            "storage": {"resources": {"requests": {"storage": "1Gi"}}}
        }
    }))?)
}

/// One question on a fresh connection: an open session keeps old values of some parameters.
async fn ask(address: IpAddr, password: &SecretString, question: &str) -> anyhow::Result<String> {
    let mut config = tokio_postgres::Config::new();
    config.hostaddr(address).host(address.to_string()).port(POSTGRES_PORT).user("postgres");
    config.dbname("postgres").password(password.expose_secret()).connect_timeout(PATIENCE);
    let (client, connection) =
        tokio::time::timeout(PATIENCE, config.connect(NoTls)).await.context("no answer")??;
    let connection = tokio::spawn(connection);
    let row = tokio::time::timeout(PATIENCE, client.query_one(question, &[])).await;
    drop(client);
    drop(connection.await);
    Ok(row.context("no answer")??.try_get(0)?)
}

/// The newest major version below /usr/lib/postgresql, where Debian and Ubuntu install it.
fn newest_installed() -> anyhow::Result<String> {
    let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let majors = folders.filter(|folder| folder.path().join("bin/postgres").exists());
    let majors = majors.filter_map(|folder| folder.file_name().to_str()?.parse::<u32>().ok());
    let newest = majors.max().context("no PostgreSQL is installed; apt-get install postgresql")?;
    Ok(newest.to_string())
}
