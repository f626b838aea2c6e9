//! What people see of pgitops beside KubeDB: a case each, on a cluster that has KubeDB's
//! definitions.

use serde_json::{Value, json};

use super::operator::OPS_MANAGER;
use super::{Beside, document};
use crate::conformance::{Cluster, eventually};

/// What every note of a success says here.
const REPORTED: &str = "Outcome: applied, reported by KubeDB, not proven";

/// A database as its owner describes it, with fields that are none of our business.
pub fn spec(version: &str, more: Value) -> Value {
    let mut spec = json!({
        "version": version, "replicas": 3,
        "storage": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        "monitor": {"agent": "prometheus.io/operator",
            "prometheus": {"serviceMonitor": {"interval": "10s", "labels": {"release": "p"}}}},
        "serviceTemplates": [{"alias": "primary", "metadata": {"annotations": {"a.b/c": "d"}}}],
    });
    json_patch::merge(&mut spec, &more);
    spec
}

/// Waits for our request, plays it to its success and gives its name.
async fn carried_out(b: &Beside<'_>, database: &str) -> String {
    let name = b.asked(database).await;
    b.kubedb.carry_out(&name).await;
    name
}

pub async fn a_change_its_removal_and_a_replacement(c: &Cluster) {
    let b = Beside::start(c).await;
    b.secret("orders-config", "maintenance_work_mem=64MB\nwork_mem=7MB\n").await;
    let own = json!({"configuration": {"secretName": "orders-config"}});
    b.kubedb.database("orders", spec("16.4", own)).await;
    let text = document("orders", "", "work_mem: 16MB, shared_buffers: 512MB");
    let plan = b.plan("orders.yaml", &text).await;
    for line in [
        "shared_buffers 256MB -> 512MB (restart; orders.yaml:4)",
        "work_mem 7MB -> 16MB (reload; orders.yaml:4)",
        "costs: 3 restarts; each cuts connections",
        "if it fails: the request ends Failed; KubeDB does not promise to take the values back",
    ] {
        assert!(plan.contains(line), "{line}: {plan}");
    }
    let first = b.push("orders.yaml", &text).await;
    b.note(&first, "IN PROGRESS").await;
    let name = carried_out(&b, "orders").await;
    let note = b.note(&first, "APPLIED: 1 of 1 database applied").await;
    let namespace = &c.namespace;
    let undo = format!("Undo: git revert {}", &first[..7]);
    for line in [
        format!("Database: {namespace}/orders (orders.yaml, PostgreSQL 16.4, 3 nodes)"),
        REPORTED.to_owned(),
        format!("Ops-Request: {namespace}/{name} Successful"),
        "Changed: shared_buffers 256MB -> 512MB (restart; orders.yaml:4)".to_owned(),
        "Changed: work_mem 7MB -> 16MB (reload; orders.yaml:4)".to_owned(),
        undo,
    ] {
        assert!(note.lines().any(|known| known == line), "{line}: {note}");
    }
    assert!(!note.contains("proven on") && !note.contains("Impact:"), "{note}");
    b.settled(&first).await;
    let status = b.pgitops(&["status", "orders"]).await;
    assert!(status.contains("verdict: equal"), "{status}");
    assert!(status.contains("next start: unknown"), "{status}");
    assert!(status.contains("pgitops does not run these servers"), "{status}");

    // A parameter leaves the document: all but that one is asked for anew.
    let second = b.merge("orders", "work_mem: 16MB").await;
    let name = b.asked("orders").await;
    let asked = b.kubedb.request(&name).await["spec"]["configuration"].clone();
    let expected = json!({"applyConfig": {"user.conf": "work_mem = '16MB'\n"},
        "configSecret": {"name": "orders-config"}, "removeCustomConfig": true, "restart": "auto"});
    assert_eq!(asked, expected);
    b.kubedb.carry_out(&name).await;
    let note = b.note(&second, "APPLIED").await;
    let falls = "Changed: shared_buffers 512MB -> 256MB (restart; falls to the provisioner";
    assert!(note.contains(falls), "{note}");

    // The document is all there is: a Secret of ours takes the place of the owner's.
    let text = document("orders", "mode: Replace, ", "work_mem: 16MB");
    let third = b.push("orders.yaml", &text).await;
    carried_out(&b, "orders").await;
    let note = b.note(&third, "APPLIED").await;
    let dropped = "Changed: maintenance_work_mem 64MB -> 64MB (reload; falls to";
    assert!(note.contains(dropped), "{note}");
    let configuration = b.kubedb.get("orders").await["spec"]["configuration"].clone();
    let secret = configuration["secretName"].as_str().unwrap();
    assert!(secret.starts_with("orders-pgitops-"), "{configuration}");
    assert_eq!(configuration, json!({ "secretName": secret }));
    assert_eq!(b.text(secret).await, "work_mem = '16MB'\n");
    assert_eq!(b.text("orders-config").await, "maintenance_work_mem=64MB\nwork_mem=7MB\n");
    b.settled(&third).await;
    assert_eq!(b.look("orders").await, 3);
    b.end().await;
}

pub async fn a_failure_is_told_and_tried_again_only_with_new_content(c: &Cluster) {
    let b = Beside::start(c).await;
    b.kubedb.database("orders", spec("16.4", json!({}))).await;
    let first = b.merge("orders", "work_mem: 16MB").await;
    let name = b.asked("orders").await;
    b.kubedb.begin(&name).await;
    // What was written stays, which proves nothing.
    b.kubedb.reconfigure(&name).await;
    b.kubedb.end(&name, "Failed", "orders-0 is not ready after 6m0s").await;
    let note = b.note(&first, "FAILED: 0 of 1 database applied, 1 failed").await;
    for line in [
        "Outcome: failed, reported by KubeDB, not proven",
        "Reason: orders-0 is not ready after 6m0s",
        "Next-Step: push a correction or a revert, or run pgitops retry",
    ] {
        assert!(note.contains(line), "{line}: {note}");
    }
    b.held("orders", "failed in").await;
    b.push("README.md", "hello again").await;
    assert_eq!(b.look("orders").await, 1);

    // Somebody asks for another try of the same.
    b.pgitops(&["retry", "orders"]).await;
    let name = carried_out(&b, "orders").await;
    let attempt = format!(
        "Attempt: {0}/orders applied, reported by KubeDB, not proven ({0}/{name})",
        c.namespace
    );
    eventually("the other try is told", || async {
        let note = b.note(&first, "FAILED").await;
        if note.lines().any(|line| line == attempt) { Ok(()) } else { Err(note) }
    })
    .await;

    // Once more a failure, and then new content.
    let second = b.merge("orders", "work_mem: 32MB").await;
    let name = b.asked("orders").await;
    b.kubedb.begin(&name).await;
    b.kubedb.end(&name, "Failed", "no").await;
    b.note(&second, "FAILED").await;
    let third = b.merge("orders", "work_mem: 8MB").await;
    carried_out(&b, "orders").await;
    let note = b.note(&third, "APPLIED").await;
    assert!(note.contains(REPORTED), "{note}");
    b.settled(&third).await;
    assert_eq!(b.look("orders").await, 4);
    b.end().await;
}

pub async fn a_denied_request_is_told(c: &Cluster) {
    let b = Beside::start(c).await;
    b.kubedb.database("orders", spec("16.4", json!({}))).await;
    let first = b.merge("orders", "work_mem: 16MB").await;
    let name = b.asked("orders").await;
    b.kubedb.decide(&name, "Denied", "not before Monday").await;
    let note = b.note(&first, "REFUSED: 0 of 1 database applied, 1 refused").await;
    for line in [
        "Outcome: denied before any change; nothing was changed".to_owned(),
        format!("Ops-Request: {}/{name} Denied", c.namespace),
        "Reason: not before Monday".to_owned(),
    ] {
        assert!(note.lines().any(|known| known == line), "{line}: {note}");
    }
    b.held("orders", "was denied in").await;
    assert_eq!(b.look("orders").await, 1);
    let second = b.merge("orders", "work_mem: 8MB").await;
    carried_out(&b, "orders").await;
    b.note(&second, "APPLIED").await;
    b.end().await;
}

pub async fn a_request_that_waits_for_approval_is_followed(c: &Cluster) {
    let b = Beside::start(c).await;
    b.kubedb.database("orders", spec("16.4", json!({}))).await;
    let first = b.merge("orders", "work_mem: 16MB").await;
    let name = b.asked("orders").await;
    b.kubedb.decide(&name, "WaitingForApproval", "somebody has to approve it").await;
    b.held("orders", "waits for approval").await;
    let note = b.note(&first, "HELD: 0 of 1 database applied, 1 held").await;
    assert!(note.contains(&format!("Reason: request {name} waits for approval")), "{note}");
    assert_eq!(b.look("orders").await, 1);
    b.kubedb.decide(&name, "Approved", "fine").await;
    b.note(&first, "IN PROGRESS").await;
    b.kubedb.carry_out(&name).await;
    let note = b.note(&first, "APPLIED").await;
    assert!(note.contains(REPORTED), "{note}");
    // A newer commit takes the place of one that nobody has approved.
    let second = b.merge("orders", "work_mem: 8MB").await;
    let name = b.asked("orders").await;
    b.kubedb.decide(&name, "WaitingForApproval", "somebody has to approve it").await;
    b.held("orders", "waits for approval").await;
    let third = b.merge("orders", "work_mem: 9MB").await;
    eventually("another request", || async {
        let open = b.asked("orders").await;
        if open == name { Err(open) } else { Ok(()) }
    })
    .await;
    carried_out(&b, "orders").await;
    b.note(&third, "APPLIED").await;
    b.note(&second, "SUPERSEDED").await;
    b.end().await;
}

pub async fn a_request_merged_with_somebody_elses_is_followed(c: &Cluster) {
    let b = Beside::start(c).await;
    b.kubedb.database("orders", spec("16.4", json!({}))).await;
    let first = b.merge("orders", "work_mem: 16MB").await;
    let name = b.asked("orders").await;
    let by_hand = |text: &str| json!({"type": "Reconfigure", "configuration": {"applyConfig": {"user.conf": text}}});
    b.kubedb.ask("orders", "by-hand", by_hand("maintenance_work_mem = 128MB")).await;
    let merged = b.kubedb.merge("orders").await;
    assert_eq!(b.look("orders").await, 1);
    let status = b.pgitops(&["plan"]).await;
    assert!(status.contains(&format!("request {merged} is open")), "{status}");
    b.kubedb.carry_out(&merged).await;
    let note = b.note(&first, "APPLIED: 1 of 1 database applied").await;
    assert!(note.contains(REPORTED), "{note}");
    let line =
        format!("Ops-Request: {}/{merged} Successful, merged from {name} and others", c.namespace);
    assert!(note.lines().any(|known| known == line), "{line}: {note}");
    assert!(note.contains("Changed: work_mem 4MB -> 16MB"), "{note}");
    b.settled(&first).await;
    assert_eq!(b.look("orders").await, 1);

    // What KubeDB makes of two that contradict each other is not ours: ours is asked for again.
    let second = b.merge("orders", "work_mem: 32MB").await;
    let name = b.asked("orders").await;
    b.kubedb.ask("orders", "z-by-hand", by_hand("work_mem = 1MB")).await;
    let merged = b.kubedb.merge("orders").await;
    b.kubedb.carry_out(&merged).await;
    let again = carried_out(&b, "orders").await;
    assert_ne!(again, name);
    let note = b.note(&second, "APPLIED").await;
    assert!(note.contains(&format!("{}/{again} Successful", c.namespace)), "{note}");
    b.settled(&second).await;
    assert_eq!(b.look("orders").await, 3);
    b.end().await;
}

pub async fn a_merged_request_that_fails_is_held(c: &Cluster) {
    let b = Beside::start(c).await;
    b.kubedb.database("orders", spec("16.4", json!({}))).await;
    let other = || {
        json!({"type": "Reconfigure", "configuration":
            {"applyConfig": {"user.conf": "maintenance_work_mem = 128MB"}}})
    };
    let first = b.merge("orders", "work_mem: 16MB").await;
    b.asked("orders").await;
    b.kubedb.ask("orders", "by-hand", other()).await;
    let merged = b.kubedb.merge("orders").await;
    b.kubedb.begin(&merged).await;
    b.kubedb.reconfigure(&merged).await;
    b.kubedb.end(&merged, "Failed", "orders-0 does not come back").await;
    b.held("orders", &format!("failed in {merged}: orders-0 does not come back")).await;
    let note = b.note(&first, "FAILED").await;
    assert!(note.contains("Reason: orders-0 does not come back"), "{note}");
    assert_eq!(b.look("orders").await, 1);

    // A newer commit waits for one that is somebody else's as well.
    let second = b.merge("orders", "work_mem: 8MB").await;
    b.asked("orders").await;
    b.kubedb.ask("orders", "by-hand-again", other()).await;
    let merged = b.kubedb.merge("orders").await;
    b.kubedb.begin(&merged).await;
    let third = b.merge("orders", "work_mem: 9MB").await;
    b.held("orders", &format!("request {merged} of {} finishes first", &second[..7])).await;
    assert_eq!(b.look("orders").await, 2);
    b.kubedb.reconfigure(&merged).await;
    b.kubedb.end(&merged, "Successful", "done").await;
    carried_out(&b, "orders").await;
    b.note(&third, "APPLIED").await;
    let note = b.note(&second, "APPLIED").await;
    assert!(note.contains(&format!("{merged} Successful, merged from")), "{note}");
    assert_eq!(b.look("orders").await, 3);
    b.end().await;
}

pub async fn other_operations_go_first(c: &Cluster) {
    let b = Beside::start(c).await;
    b.kubedb.database("orders", spec("16.4", json!({}))).await;
    let more_memory = json!({"resources": {"limits": {"memory": "2Gi"}}});
    let operations = [
        (
            "update",
            json!({"type": "UpdateVersion", "updateVersion": {"targetVersion": "17.2-bookworm"}}),
        ),
        ("scale", json!({"type": "VerticalScaling", "verticalScaling": {"postgres": more_memory}})),
        // A type that this version of pgitops has never heard of.
        ("defragment", json!({"type": "Defragment"})),
    ];
    for (number, (name, operation)) in operations.into_iter().enumerate() {
        b.kubedb.ask("orders", name, operation).await;
        let commit = b.merge("orders", &format!("work_mem: {}MB", number + 5)).await;
        let open = format!("request {name} of somebody else is open");
        b.held("orders", &open).await;
        let note = b.note(&commit, "HELD").await;
        assert!(note.contains(&open), "{note}");
        b.kubedb.begin(name).await;
        // A phase that this version of pgitops has never heard of: open, whatever it means.
        b.kubedb.decide(name, "Queued", "for later").await;
        assert_eq!(b.look("orders").await, number);
        b.held("orders", &open).await;
        b.kubedb.begin(name).await;
        if name == "update" {
            let spec = json!({"version": "17.2-bookworm"});
            b.kubedb.write_spec("orders", OPS_MANAGER, spec).await;
        }
        b.kubedb.end(name, "Successful", "done").await;
        carried_out(&b, "orders").await;
        let note = b.note(&commit, "APPLIED").await;
        assert!(note.contains("PostgreSQL 17.2-bookworm"), "{note}");
    }
    b.end().await;
}

pub async fn phases_and_pauses_are_waited_for(c: &Cluster) {
    let b = Beside::start(c).await;
    b.kubedb.created("orders", spec("16.4", json!({}))).await;
    let first = b.merge("orders", "work_mem: 16MB").await;
    b.held("orders", "the database is not Ready yet").await;
    b.note(&first, "WAITING").await;
    b.kubedb.provision("orders").await;
    carried_out(&b, "orders").await;
    b.note(&first, "APPLIED").await;
    let phases = [
        ("Critical", "the database is Critical, not Ready"),
        ("NotReady", "the database is NotReady, not Ready"),
        ("Halted", "the database is Halted, not Ready"),
        ("Provisioning", "the database is Provisioning, not Ready"),
        // One that this version of pgitops has never heard of.
        ("Upgrading", "the database is in a phase that this version does not know, not Ready"),
    ];
    for (number, (phase, because)) in phases.into_iter().enumerate() {
        b.kubedb.phase("orders", phase).await;
        let commit = b.merge("orders", &format!("work_mem: {}MB", number + 5)).await;
        b.held("orders", because).await;
        assert_eq!(b.look("orders").await, number + 1);
        b.kubedb.phase("orders", "Ready").await;
        carried_out(&b, "orders").await;
        b.note(&commit, "APPLIED").await;
    }
    // Somebody at KubeDB's command line.
    b.kubedb.pause("orders", "paused by kubedb cli").await;
    let commit = b.merge("orders", "work_mem: 64MB").await;
    b.held("orders", "somebody paused the database: paused by kubedb cli").await;
    assert_eq!(b.look("orders").await, 6);
    b.kubedb.resume("orders").await;
    carried_out(&b, "orders").await;
    b.note(&commit, "APPLIED").await;
    // Who says Always means it.
    b.kubedb.phase("orders", "Critical").await;
    let text = document("orders", "apply: Always, ", "work_mem: 65MB");
    let commit = b.push("orders.yaml", &text).await;
    let name = carried_out(&b, "orders").await;
    assert_eq!(b.kubedb.request(&name).await["spec"]["apply"], "Always");
    b.note(&commit, "APPLIED").await;
    b.end().await;
}

pub async fn what_a_tool_would_write_back_is_held(c: &Cluster) {
    let b = Beside::start(c).await;
    b.kubedb.database("orders", spec("16.4", json!({}))).await;
    let inline = |text: &str| json!({"configuration": {"inline": {"user.conf": text}}});
    b.kubedb.apply_spec("orders", "argocd-controller", inline("work_mem=1MB\n")).await;
    let first = b.merge("orders", "work_mem: 16MB").await;
    b.held("orders", "spec.configuration.inline is owned by argocd-controller").await;
    let note = b.note(&first, "HELD").await;
    assert!(note.contains("Next-Step: make argocd-controller leave"), "{note}");
    assert_eq!(b.look("orders").await, 0);
    // It is KubeDB's again.
    b.kubedb.write_spec("orders", OPS_MANAGER, inline("work_mem=2MB\n")).await;
    carried_out(&b, "orders").await;
    b.note(&first, "APPLIED").await;
    // A tool that nobody knows shows by what it does: three times it is corrected.
    let policy = "apiVersion: pgitops.dev/v1alpha1\nkind: ConfigPolicy\n\
                  spec: {drift: EnforceWithRestart}\n";
    let first = b.push("pgitops.yaml", policy).await;
    for number in 1..=3 {
        b.settled(&first).await;
        b.kubedb.write_spec("orders", "some-tool", inline("work_mem=1MB\n")).await;
        carried_out(&b, "orders").await;
        assert_eq!(b.look("orders").await, number + 1);
    }
    b.settled(&first).await;
    b.kubedb.write_spec("orders", "some-tool", inline("work_mem=1MB\n")).await;
    b.held("orders", "work_mem was corrected three times within an hour").await;
    assert_eq!(b.look("orders").await, 4);
    b.end().await;
}

pub async fn old_and_odd_databases_are_understood(c: &Cluster) {
    let b = Beside::start(c).await;
    b.secret("old-config", "work_mem=7MB\n").await;
    // Stored when there was no other form, and not touched since.
    let old = json!({"configSecret": {"name": "old-config"}, "deletionPolicy": "WipeOut",
        "healthChecker": {"periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 1}});
    b.kubedb.stored("old", spec("13.13", old)).await;
    b.kubedb.provision("old").await;
    // Tuned, and named after an extension.
    let tuned = json!({"configuration": {"tuning": {"profile": "web", "maxConnections": 200}}});
    b.kubedb.database("tuned", spec("timescaledb-2.14.2-pg14", tuned)).await;
    // Its Secret has no user.conf, which nobody asks for.
    let odd = json!({"metadata": {"name": "odd-config"}, "stringData": {"user_hba.conf": ""}});
    b.kubedb.put_secret(odd, super::OWNER).await;
    let odd = json!({"configuration": {"secretName": "odd-config"}});
    b.kubedb.database("odd", spec("17.2-bookworm", odd)).await;
    b.kubedb.database("ancient", spec("9.6.24", json!({}))).await;
    let mut commits = Vec::new();
    for database in ["old", "tuned", "odd", "ancient"] {
        commits.push(b.merge(database, "work_mem: 16MB, max_connections: 250").await);
    }
    // One restart at a time, by name.
    for (number, database, said) in [
        (0, "old", ["PostgreSQL 13.13", "work_mem 7MB -> 16MB", "max_connections 100 -> 250"]),
        (2, "odd", ["PostgreSQL 17.2-b", "work_mem 4MB -> 16MB", "max_connections 100 -> 250"]),
        (1, "tuned", ["-2.14.2-pg14", "work_mem 4MB -> 16MB", "max_connections 200 -> 250"]),
    ] {
        carried_out(&b, database).await;
        let note = b.note(&commits[number], "APPLIED").await;
        for said in said {
            assert!(note.contains(said), "{database} {said}: {note}");
        }
    }
    b.held("ancient", "PostgreSQL \"9.6.24\" is none of").await;
    // A removal keeps the Secret of the old form.
    let commit = b.merge("old", "max_connections: 250").await;
    let name = b.asked("old").await;
    let asked = b.kubedb.request(&name).await["spec"]["configuration"].clone();
    assert_eq!(asked["configSecret"]["name"], "old-config");
    b.kubedb.carry_out(&name).await;
    b.note(&commit, "APPLIED").await;
    let after = b.kubedb.get("old").await["spec"].clone();
    assert_eq!(
        (&after["configSecret"], &after["configuration"]["secretName"]),
        (&Value::Null, &json!("old-config"))
    );
    b.end().await;
}

pub async fn a_change_without_a_restart_waits_for_one(c: &Cluster) {
    let b = Beside::start(c).await;
    b.kubedb.database("orders", spec("16.4", json!({}))).await;
    let text = document("orders", "restart: false, ", "work_mem: 16MB, max_connections: 300");
    let first = b.push("orders.yaml", &text).await;
    let name = carried_out(&b, "orders").await;
    let asked = b.kubedb.request(&name).await["spec"]["configuration"].clone();
    assert_eq!(asked["restart"], "false");
    let note = b.note(&first, "PENDING RESTART: 0 of 1 database applied").await;
    for line in [
        "Outcome: configured, waits for a restart".to_owned(),
        "Reason: max_connections waits for a restart".to_owned(),
        format!("Next-Step: run pgitops restart -n {} orders", c.namespace),
    ] {
        assert!(note.lines().any(|known| known == line), "{line}: {note}");
    }
    assert_eq!(b.look("orders").await, 1);
    // A removal cannot be asked for without allowing a restart.
    let second =
        b.push("orders.yaml", &document("orders", "restart: false, ", "work_mem: 16MB")).await;
    b.held("orders", "max_connections cannot be taken away while restart is false").await;
    b.note(&second, "HELD").await;
    assert_eq!(b.look("orders").await, 1);
    b.end().await;
}

pub async fn what_kubedb_may_restart_for_is_planned_as_a_restart(c: &Cluster) {
    let b = Beside::start(c).await;
    b.kubedb.database("orders", spec("16.4", json!({}))).await;
    // No hour of the day is for restarts.
    let policy = "apiVersion: pgitops.dev/v1alpha1\nkind: ConfigPolicy\n\
                  spec: {windows: [{name: never, deny: '0 * * * *', duration: 61m}]}\n";
    b.push("pgitops.yaml", policy).await;
    // Whatever changes: what KubeDB makes of `auto` is its own decision.
    let parameters = "work_mem: 16MB, maintenance_work_mem: 64MB";
    b.merge("orders", parameters).await;
    b.held("orders", "window never is closed").await;
    assert_eq!(b.look("orders").await, 0);
    let text = document("orders", "", parameters);
    let plan = b.plan("orders.yaml", &text).await;
    let costs = "costs: at most 3 restarts, as KubeDB decides; each cuts connections";
    assert!(plan.contains(costs), "{plan}");
    // Who forbids restarts need not wait.
    let text = document("orders", "restart: false, ", parameters);
    let plan = b.plan("orders.yaml", &text).await;
    assert!(plan.contains("costs: no restart; the document forbids it"), "{plan}");
    let first = b.push("orders.yaml", &text).await;
    let name = b.asked("orders").await;
    let asked = b.kubedb.request(&name).await["spec"]["configuration"].clone();
    assert_eq!(asked["restart"], "false");
    b.kubedb.begin(&name).await;
    b.kubedb.end(&name, "Failed", "orders-0 is not ready").await;
    b.note(&first, "FAILED").await;
    // Another try may restart as well, although by now everything may be written.
    let second = b.merge("orders", parameters).await;
    b.pgitops(&["retry", "orders"]).await;
    b.held("orders", "window never is closed").await;
    assert_eq!(b.look("orders").await, 1);
    b.push("pgitops.yaml", &policy.replace("deny", "allow")).await;
    let name = carried_out(&b, "orders").await;
    let asked = b.kubedb.request(&name).await["spec"]["configuration"].clone();
    assert_eq!(asked["restart"], "auto");
    b.note(&second, "APPLIED").await;
    // What somebody changes is brought back where a restart is allowed.
    b.push("pgitops.yaml", "apiVersion: pgitops.dev/v1alpha1\nkind: ConfigPolicy\nspec: {}\n")
        .await;
    let inline = json!({"configuration": {"inline": {"user.conf": "work_mem=1MB\n"}}});
    b.kubedb.write_spec("orders", super::OWNER, inline).await;
    let drifted =
        "somebody changed work_mem, maintenance_work_mem; correcting it may need a restart";
    b.held("orders", drifted).await;
    b.end().await;
}

pub async fn what_the_document_does_not_name_is_not_taken_away(c: &Cluster) {
    let b = Beside::start(c).await;
    let files = json!({"metadata": {"name": "orders-config"}, "stringData": {
        "user.conf": "maintenance_work_mem=64MB\n",
        "user_hba.conf": "host all postgres 0.0.0.0/0 reject\n"}});
    b.kubedb.put_secret(files, super::OWNER).await;
    let tuning = json!({"profile": "oltp", "maxConnections": 200, "storageType": "ssd"});
    let own = json!({"configuration": {"secretName": "orders-config", "tuning": tuning}});
    b.kubedb.database("orders", spec("17.2", own)).await;
    let rules = json!({"configuration": {"inline": {"user_hba.conf": "local all all trust\n"}}});
    b.kubedb.database("billing", spec("17.2", rules)).await;
    b.merge("billing", "work_mem: 16MB").await;
    let first = b.merge("orders", "work_mem: 16MB, temp_buffers: 16MB").await;
    carried_out(&b, "billing").await;
    carried_out(&b, "orders").await;
    b.note(&first, "APPLIED").await;

    // A removal says the tuning again: nobody wants it to go.
    let second = b.merge("orders", "work_mem: 16MB").await;
    let name = b.asked("orders").await;
    let asked = b.kubedb.request(&name).await["spec"]["configuration"].clone();
    assert_eq!((&asked["removeCustomConfig"], &asked["tuning"]), (&json!(true), &tuning));
    b.kubedb.carry_out(&name).await;
    b.note(&second, "APPLIED").await;
    let after = b.kubedb.get("orders").await["spec"]["configuration"].clone();
    assert_eq!((&after["tuning"], &after["secretName"]), (&tuning, &json!("orders-config")));

    // Rules of access would go with the Secret, and with the inline configuration.
    let text = document("orders", "mode: Replace, ", "work_mem: 16MB");
    let third = b.push("orders.yaml", &text).await;
    b.held("orders", "user_hba.conf of Secret orders-config would be taken away with it").await;
    let note = b.note(&third, "HELD").await;
    assert!(note.contains("Next-Step: take user_hba.conf out of Secret orders-config"), "{note}");
    b.merge("billing", "maintenance_work_mem: 64MB").await;
    let inline = "user_hba.conf of spec.configuration.inline would be taken away with it";
    b.held("billing", inline).await;
    assert_eq!((b.look("orders").await, b.look("billing").await), (2, 1));
    // Somebody has put them elsewhere.
    let gone = json!({"metadata": {"name": "orders-config"}, "data": {"user_hba.conf": null}});
    b.kubedb.put_secret(gone, super::OWNER).await;
    carried_out(&b, "orders").await;
    b.note(&third, "HELD").await;
    b.end().await;
}

pub async fn an_old_definition_gets_no_request(c: &Cluster) {
    super::define_old_requests(&c.client).await;
    let mut b = Beside::start(c).await;
    b.kubedb.database("orders", spec("16.4", json!({}))).await;
    let first = b.merge("orders", "work_mem: 16MB").await;
    // Without this field KubeDB would restart, which nobody asked for.
    b.held("orders", "unknown field \"spec.configuration.restart\"").await;
    assert_eq!(b.look("orders").await, 0);
    // While a definition changes, some watches still show what the old one keeps: not to be taken
    // for somebody's change of the request.
    b.pgitops(&["suspend", "config"]).await;
    b.held("orders", "the repository is suspended").await;
    super::define(&c.client).await;
    super::restart_is(&c.client, true).await;
    b.watch_anew();
    b.pgitops(&["resume", "config"]).await;
    carried_out(&b, "orders").await;
    b.note(&first, "APPLIED").await;
    b.end().await;
}
