//! What is there: children from the watches, Secrets by reading them, nodes by asking them.
//!
//! The nodes are asked in parallel, each with a deadline; who does not answer is unknown, with the
//! reason. Has no lasting effect. Leaves every decision to `roles` and `wanted`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use secrecy::SecretString;

use crate::api::Postgres;
use crate::api::names::{CONTROL_PORT, labels};
use crate::cluster;
use crate::instance::client::{Client, Identity};

use super::Context;
use super::blueprint::MAX_NODES;
use super::children::Owner;
use super::children::certificates::{CA_CERTIFICATE, CERTIFICATE, KEY, text};
use super::children::workload::{self, Workload, WorkloadKind};
use super::deletion::{DataClaim, Remains};
use super::members::{Member, Node, ordinal_of};
use super::wanted::{Ground, Secrets};

pub mod memory;
pub mod workloads;

/// How long an instance may take to say what it knows: it answers in milliseconds, and every pass
/// waits for the slowest.
const FACTS: Duration = Duration::from_secs(2);

/// Secrets that were whole are read again after this long: nobody tells us when one is changed,
/// and what is read seldom is not kept in a cache of the whole cluster.
const SECRETS_AGAIN: Duration = Duration::from_secs(60);

/// Everything that a pass looks at.
pub struct Seen {
    /// Whose children these are.
    pub owner: Owner,
    /// The pods' identity.
    pub account: Option<Arc<ServiceAccount>>,
    /// Service `<db>`.
    pub primary: Option<Arc<Service>>,
    /// Service `<db>-standby`.
    pub standbys: Option<Arc<Service>>,
    /// Service `<db>-pods`.
    pub pods: Option<Arc<Service>>,
    /// How many nodes may be drained.
    pub budget: Option<Arc<PodDisruptionBudget>>,
    /// The nodes' workload.
    pub workload: Option<Workload>,
    /// The kind that it is of, or is to be.
    pub kind: WorkloadKind,
    /// The Secrets.
    pub secrets: Arc<Secrets>,
    /// The nodes.
    pub members: Vec<Member>,
    /// The data claims, where something depends on them.
    pub claims: Option<Vec<DataClaim>>,
    /// When it was looked.
    pub now: Timestamp,
}

impl Seen {
    /// What the decisions rest on.
    pub fn ground(&self) -> Ground<'_> {
        Ground {
            secrets: &self.secrets,
            workload: self.workload.as_ref(),
            kind: self.kind,
            primary: self.primary.as_deref(),
            members: &self.members,
            claims: self.claims.as_deref(),
            now: self.now,
        }
    }

    /// What a deletion has still to do away with.
    pub fn remains<'a>(&'a self, pods: &'a [String]) -> Remains<'a> {
        let claims = self.claims.as_deref().unwrap_or_default();
        Remains { workload: self.workload.as_ref(), pods, claims }
    }

    /// Names of the pods that are there.
    pub fn pod_names(&self) -> Vec<String> {
        let there = self.members.iter().filter(|member| !member.uid.is_empty());
        there.map(|member| member.pod.clone()).collect()
    }
}

/// Looks at a database.
///
/// # Errors
/// The API server's; a node that does not answer is no error.
pub async fn children(postgres: &Postgres, cx: &Context) -> Result<Seen, cluster::Error> {
    let owner = Owner::of(postgres);
    let secrets = secrets(postgres, &owner, cx).await?;
    let namespace = &owner.database.namespace;
    let names = &owner.names;
    let workload = cx.stores.workloads.get(namespace, &names.database);
    let wanted = postgres.spec.nodes();
    let present = workload.as_ref().map_or(0, workload::nodes);
    let mut members = nodes(&owner, wanted, present, cx);
    ask(&mut members, &owner, &secrets, cx).await;
    let empty = members.iter().all(|member| member.node == Node::Empty);
    // Only three questions depend on claims: may a database begin, may a password be made, may a
    // deleted object go?
    let going = postgres.metadata.deletion_timestamp.is_some();
    let claims = match empty || secrets.auth.is_none() || going {
        true => Some(claims(&owner, cx).await?),
        false => None,
    };
    Ok(Seen {
        account: cx.stores.accounts.get(namespace, &names.database),
        primary: cx.stores.services.get(namespace, &names.database),
        standbys: cx.stores.services.get(namespace, &names.standby_service),
        pods: cx.stores.services.get(namespace, &names.pods_service),
        budget: cx.stores.budgets.get(namespace, &names.database),
        kind: WorkloadKind::of(workload.as_ref(), cx.stores.workloads.served()),
        workload,
        secrets,
        members,
        claims,
        now: (cx.clock)(),
        owner,
    })
}

/// The pods that are wanted or there, by ordinal.
fn nodes(owner: &Owner, wanted: i32, present: i32, cx: &Context) -> Vec<Member> {
    let domain = owner.domain();
    // A pod beyond all of these is of a workload that had more nodes than there can be.
    let last = wanted.max(present).max(MAX_NODES);
    let look = |ordinal: i32| {
        let name = owner.names.pod(ordinal);
        match cx.pods.get(&owner.database.namespace, &name) {
            Some(pod) => Some(Member::of_pod(&pod, ordinal, &domain)),
            None if ordinal < wanted.max(present) => Some(Member::absent(name, ordinal)),
            None => None,
        }
    };
    (0..last).filter_map(look).collect()
}

/// Asks every node that has an address.
async fn ask(members: &mut [Member], owner: &Owner, secrets: &Secrets, cx: &Context) {
    let Some(secret) = &secrets.client else { return };
    let identity = match identity(owner, secret, cx) {
        Ok(identity) => identity,
        Err(words) => {
            for member in members.iter_mut().filter(|member| member.address.is_some()) {
                member.node = Node::Unknown(words.clone());
            }
            return;
        }
    };
    let asked = members.iter_mut().filter(|member| member.may_be_asked()).map(|member| {
        let client = client(owner, member, &identity, cx);
        async move {
            member.node = match client {
                Some(client) => match client.facts(FACTS).await {
                    Ok(facts) => Node::from(&facts),
                    Err(error) => Node::Unknown(error.to_string()),
                },
                None => Node::Unknown("its pod's address is none".to_owned()),
            };
        }
    });
    join_all(asked).await;
}

/// The controller's certificate for this database; read once as long as the Secret is the same.
///
/// # Errors
/// What is wrong with the Secret, in words.
pub fn identity(owner: &Owner, secret: &Secret, cx: &Context) -> Result<Identity, String> {
    let version = secret.metadata.resource_version.clone().unwrap_or_default();
    if let Some(known) = cx.memory.identity(&owner.uid, &version) {
        return Ok(known);
    }
    let read = |key: &str| text(secret, key).ok_or_else(|| format!("certificates: no {key}"));
    let key = SecretString::from(read(KEY)?);
    let identity = Identity::from_pem(&read(CA_CERTIFICATE)?, &read(CERTIFICATE)?, &key)
        .map_err(|error| error.to_string())?;
    cx.memory.keep_identity(&owner.uid, version, &identity);
    Ok(identity)
}

/// The way to a node; connections are kept from pass to pass.
pub fn client(owner: &Owner, member: &Member, identity: &Identity, cx: &Context) -> Option<Client> {
    let address: IpAddr = member.address.as_deref()?.parse().ok()?;
    let address = SocketAddr::new(address, CONTROL_PORT);
    Some(cx.memory.client(&owner.uid, &member.pod, address, identity))
}

/// The Secrets; from memory for a while when they were whole.
async fn secrets(
    postgres: &Postgres,
    owner: &Owner,
    cx: &Context,
) -> Result<Arc<Secrets>, cluster::Error> {
    if let Some(known) = cx.memory.secrets(postgres, SECRETS_AGAIN) {
        return Ok(known);
    }
    let names = &owner.names;
    let read = |name: &str| {
        let name = name.to_owned();
        async move { cx.cluster.get::<Secret>(&owner.database.namespace, &name).await }
    };
    let user = async {
        match postgres.spec.secret_name() {
            Some(name) => read(name).await,
            None => Ok(None),
        }
    };
    let (auth, operator_config, instance, client, user) = tokio::try_join!(
        read(&names.auth),
        read(&names.operator_config),
        read(&names.instance_certificate),
        read(&names.client_certificate),
        user,
    )?;
    let secrets = Arc::new(Secrets { auth, operator_config, instance, client, user });
    if secrets.are_whole() {
        cx.memory.keep_secrets(postgres, &secrets);
    }
    Ok(secrets)
}

/// The data claims. A label can be put on anything: only names that the workload gives count.
async fn claims(owner: &Owner, cx: &Context) -> Result<Vec<DataClaim>, cluster::Error> {
    let selector = format!("{}={}", labels::INSTANCE, owner.database.name);
    let claims = cx
        .cluster
        .list::<PersistentVolumeClaim>(Some(&owner.database.namespace), &selector)
        .await?;
    let ours = claims.into_iter().filter_map(|claim| {
        let name = claim.metadata.name?;
        ordinal_of(&owner.database.name, name.strip_prefix("data-")?)?;
        Some(DataClaim { name, going: claim.metadata.deletion_timestamp.is_some() })
    });
    Ok(ours.collect())
}
