//! How long nobody leads: after the leader was killed, and after it was told to end.
//!
//! Two controllers beside an API server with one database. Who leads is what the lease says; a
//! killed leader's lease has to run out first, one that ends gives its lease back.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;

use crate::controller::Controller;
use crate::figure::Figure;
use crate::fleet::Fleet;

/// Each killing takes the lease's 15 s.
const RUNS: usize = 2;
/// The lease's 15 s, the other's turn to look, and time for a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Pause between two looks: far less than what is measured.
const LOOK: Duration = Duration::from_millis(5);

/// Measures.
///
/// # Errors
/// When nobody takes over.
pub async fn measure() -> anyhow::Result<Vec<Figure>> {
    let fleet = Fleet::start(1).await?;
    let measured = measured(&fleet).await;
    fleet.stop().await?;
    let (killed, ended) = measured?;
    Ok(vec![
        Figure::of_durations("leader killed -> another leads", killed)
            .remark("the lease runs for 15 s"),
        Figure::of_durations("leader told to end -> another leads", ended),
    ])
}

async fn measured(fleet: &Fleet) -> anyhow::Result<(Vec<Duration>, Vec<Duration>)> {
    let (mut killed, mut ended) = (Vec::new(), Vec::new());
    let mut leading = start(fleet, "first")?;
    leads(fleet, &leading).await?;
    for run in 0..RUNS {
        for (kill, taken) in [(true, &mut killed), (false, &mut ended)] {
            let next = start(fleet, &format!("next-{run}-{kill}"))?;
            // Whoever has not looked at the lease yet waits for all of it.
            next.heard("another controller leads").await?;
            let begun = Instant::now();
            match kill {
                true => leading.kill().await?,
                false => leading.stop().await?,
            }
            leads(fleet, &next).await?;
            taken.push(begun.elapsed());
            leading = next;
        }
    }
    leading.stop().await?;
    Ok((killed, ended))
}

fn start(fleet: &Fleet, name: &str) -> anyhow::Result<Controller> {
    let folder = fleet.folder.path().join(name);
    std::fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
    let kubeconfig = folder.join("kubeconfig");
    fleet.server.write_kubeconfig(&kubeconfig)?;
    Controller::start(&kubeconfig, &folder, "sync")
}

/// Waits until this one leads.
async fn leads(fleet: &Fleet, controller: &Controller) -> anyhow::Result<()> {
    let leases: Api<Lease> = Api::namespaced(fleet.client.clone(), "default");
    let ours = format!("_{}_", controller.pid()?);
    let deadline = Instant::now() + LIMIT;
    loop {
        let lease = leases.get_opt("pgitops").await?;
        let holder = lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default();
        if holder.contains(&ours) {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "{holder:?} leads after {LIMIT:?}");
        tokio::time::sleep(LOOK).await;
    }
}
