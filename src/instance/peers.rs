//! Asks the other instances of the database which timeline they are on.
//!
//! A primary that was away while another one was promoted must not come back as a primary: two
//! servers would take writes. Only what answers counts; with nobody to ask the server starts,
//! because electing leaders is not our business. Certificates keep strangers out at both ends.

use std::{collections::BTreeSet, net::SocketAddr, slice, time::Duration};

use futures::future::join_all;
use tokio::time::timeout;

use super::{
    client::{Client, Identity},
    facts,
    options::Options,
    protocol::{AskTimeline, Role, ServerState, Timeline},
    server_file,
    store::State,
    supervisor::Supervisor,
    tls,
};

/// How long all peers together may take to answer. It delays every start of a primary while one
/// of them does not answer, so it is short; on one network an answer takes 10 ms.
const WITHIN: Duration = Duration::from_millis(700);
/// How often a standby introduces itself: a new primary knows it before it can go away again.
const EVERY: Duration = Duration::from_secs(20);

/// The peer with the highest timeline above ours, if there is one.
pub async fn ahead(options: &Options, state: &State) -> Option<Timeline> {
    let own = facts::timeline(options).await;
    let system = own.system_identifier?;
    let identity = match tls::peer_identity(&options.tls_directory) {
        Ok(identity) => identity,
        Err(error) => {
            tracing::warn!(%error, "cannot ask the peers for their timeline");
            return None;
        }
    };
    let asked = hosts(options, state).into_iter().map(|(host, port)| {
        let identity = &identity;
        async move { timeout(WITHIN, ask(&host, port, None, identity)).await.ok().flatten() }
    });
    join_all(asked)
        .await
        .into_iter()
        .flatten()
        .filter(|peer| peer.system_identifier == Some(system) && peer.timeline > own.timeline)
        .max_by_key(|peer| peer.timeline)
}

/// Those given as arguments, those that streamed from here, and the primary of earlier days.
fn hosts(options: &Options, state: &State) -> BTreeSet<(String, u16)> {
    let known = state.peers.iter().chain(&options.peers).chain(primaries(state));
    known.map(|host| split(host, options.control_port)).collect()
}

fn primaries(state: &State) -> &[String] {
    match &state.role {
        Some(Role::Standby { primary_hosts, primary_port: _ }) => primary_hosts,
        Some(Role::Primary) | None => &[],
    }
}

/// Remembers an instance that has introduced itself.
pub fn remember(own: &Supervisor, from: Option<String>) {
    let Some(host) = from.filter(|host| server_file::check_hosts(slice::from_ref(host)).is_ok())
    else {
        return;
    };
    if !own.store.state().peers.contains(&host)
        && let Err(error) = own.store.update(|state| {
            state.peers.insert(host);
        })
    {
        tracing::warn!(%error, "could not remember the address of a peer");
    }
}

/// Introduces this instance to its primary while it is a standby, at every change and now and
/// then: arguments may name peers by names that nothing resolves.
pub async fn introduce(own: &Supervisor) {
    let mut seen = own.state.subscribe();
    loop {
        let state = own.store.state();
        if *seen.borrow_and_update() == ServerState::Running
            && own.options.is_standby()
            && !own.options.listen_address.is_unspecified()
            && let Ok(identity) = tls::peer_identity(&own.options.tls_directory)
        {
            let from = own.options.listen_address.to_string();
            for host in primaries(&state) {
                let (host, port) = split(host, own.options.control_port);
                let asked = ask(&host, port, Some(from.clone()), &identity);
                // The primary may be away; it is asked again.
                let _ = timeout(WITHIN, asked).await;
            }
        }
        let _ = timeout(EVERY, seen.changed()).await;
    }
}

/// `host`, `host:port` or an IPv6 address.
fn split(host: &str, port: u16) -> (String, u16) {
    match host.rsplit_once(':') {
        Some((name, digits)) if !name.contains(':') => {
            (name.to_owned(), digits.parse().unwrap_or(port))
        }
        Some(_) | None => (host.to_owned(), port),
    }
}

async fn ask(host: &str, port: u16, from: Option<String>, identity: &Identity) -> Option<Timeline> {
    let call = AskTimeline { from };
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await.ok()?.collect();
    for address in addresses {
        let answer = Client::new(address, identity).call(&call, WITHIN).await;
        if let Ok(answer) = answer {
            return Some(answer);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_may_name_its_port() {
        let check = |text: &str, host: &str, port| {
            assert_eq!(split(text, 8743), (host.to_owned(), port));
        };
        check("db-1.db-pods", "db-1.db-pods", 8743);
        check("127.0.0.2:9000", "127.0.0.2", 9000);
        check("fd00::1", "fd00::1", 8743);
    }
}
