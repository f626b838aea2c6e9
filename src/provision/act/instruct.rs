//! Tells instances what to do.
//!
//! A call that takes long is begun and not waited for: the next pass sees how far it is. Every call
//! carries the lease's transitions and names its step, so that a repeat does nothing and a former
//! controller is refused. Leaves what to say to `roles`.

use std::time::Duration;

use futures::future::join_all;

use crate::api::names::{POSTGRES_PORT, digest};
use crate::instance::client::{Client, Error};
use crate::instance::protocol::{Credentials, Fence, Follow, Initialise, Join, Refused};
use crate::provision::Context;
use crate::provision::children::{auth_secret, certificates::CERTIFICATE};
use crate::provision::members::Member;
use crate::provision::observe::{Seen, client, identity};
use crate::provision::roles::{Instruction, Roles};

/// How long a call that fills a volume is waited for: long enough to hear a refusal.
const BEGIN: Duration = Duration::from_millis(100);
/// How long a reload may take.
const RELOAD: Duration = Duration::from_secs(2);

/// Tells every instance that has to be told something; answers what could not be done, by pod.
pub async fn instruct(
    roles: &Roles,
    seen: &Seen,
    transitions: u64,
    cx: &Context,
) -> Vec<(String, String)> {
    let told = roles.instructions.iter().filter_map(|(pod, instruction)| {
        let member = seen.members.iter().find(|member| member.pod == *pod)?;
        Some(async move {
            let words = tell(instruction, member, seen, transitions, cx).await?;
            tracing::warn!(pod, words, "instance did not do as it was told");
            Some((pod.clone(), words))
        })
    });
    join_all(told).await.into_iter().flatten().collect()
}

/// Tells one instance; words when it did not work.
async fn tell(
    instruction: &Instruction,
    member: &Member,
    seen: &Seen,
    lease_transitions: u64,
    cx: &Context,
) -> Option<String> {
    let auth = seen.secrets.auth.as_ref()?;
    let (username, password) = match auth_secret::credentials(auth) {
        Ok(credentials) => credentials,
        Err(words) => return Some(words),
    };
    let credentials = Credentials { username, password };
    let secret = seen.secrets.client.as_ref().filter(|s| has(s, CERTIFICATE))?;
    let client = match identity(&seen.owner, secret, cx) {
        Ok(identity) => client(&seen.owner, member, &identity, cx)?,
        Err(words) => return Some(words),
    };
    // Unique for what is asked of whom: another pod, other hosts or another password is another
    // step, and the same again is a repeat.
    let version = auth.metadata.resource_version.clone().unwrap_or_default();
    let fence = |what: &str, hosts: &[String]| Fence {
        lease_transitions,
        request: "provision".to_owned(),
        step: step(what, &member.uid, &version, hosts),
    };
    let answer = match instruction {
        Instruction::Initialise => {
            let fence = fence("initialise", &[]);
            client.call(&Initialise { fence, credentials }, BEGIN).await
        }
        Instruction::Join { hosts } => {
            let (fence, primary_hosts) = (fence("join", hosts), hosts.clone());
            let primary_port = POSTGRES_PORT;
            client.call(&Join { fence, primary_hosts, primary_port, credentials }, BEGIN).await
        }
        Instruction::Follow { hosts } => {
            let (fence, primary_hosts) = (fence("follow", hosts), hosts.clone());
            let (primary_port, credentials) = (POSTGRES_PORT, Some(credentials));
            client.call(&Follow { fence, primary_hosts, primary_port, credentials }, RELOAD).await
        }
    };
    tracing::info!(pod = member.pod, ?instruction, "told an instance");
    words(&client, answer.err()?)
}

fn has(secret: &k8s_openapi::api::core::v1::Secret, key: &str) -> bool {
    secret.data.as_ref().is_some_and(|keys| keys.contains_key(key))
}

fn step(what: &str, uid: &str, version: &str, hosts: &[String]) -> String {
    let mut parts = vec![uid, version];
    parts.extend(hosts.iter().map(String::as_str));
    let mut id = digest(&parts);
    // 64 bits tell the steps of one pod apart.
    id.truncate(16);
    format!("{what}-{id}")
}

/// What is worth telling of an answer: work that goes on is no trouble.
fn words(client: &Client, error: Error) -> Option<String> {
    match &error {
        Error::Late { .. } => None,
        Error::Refused { refused: Refused::Busy { .. }, .. } => None,
        Error::Refused { .. }
        | Error::Identity { .. }
        | Error::Unreachable { .. }
        | Error::Failed { .. }
        | Error::Protocol { .. } => {
            tracing::debug!(address = %client.address(), %error, "call to an instance");
            Some(error.to_string())
        }
    }
}
