//! A controller that lacks a right in one namespace: only a real authorizer refuses.
//!
//! What it lacks is named on the object, with verb, resource and namespace, and in an event; the
//! database of another namespace goes on, and this one too as soon as the right is there.

use std::path::Path;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use pgitops::cli::controller::{self, Loop, Settings};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::conformance::{Cluster, eventually};
use crate::fixture::MAJOR;
use crate::kubectl::Kubectl;

/// The user that the controller is known as.
const USER: &str = "narrow";

/// Runs the case. `kubeconfig`: an administrator's.
pub async fn a_missing_right_is_named_and_others_go_on(c: &Cluster, kubeconfig: &Path) {
    let bare = format!("{}-bare", c.namespace);
    c.ok(&format!("create namespace {bare}")).await;
    // Objects say themselves where they belong.
    let anywhere = Kubectl { namespace: None, ..Kubectl::clone(c) };
    grant_all_but_secrets(&anywhere).await;
    grant_secrets(&anywhere, &c.namespace).await;
    let mirrors = tempfile::tempdir().unwrap();
    let settings = Settings {
        lease_namespace: c.namespace.clone(),
        ..Settings::sandbox(mirrors.path().to_owned())
    };
    let stop = CancellationToken::new();
    let cluster = pgitops::cluster::Cluster::new(client(kubeconfig).await);
    let work = controller::work(cluster, Loop::ALL.to_vec(), settings, stop.clone());
    let work = tokio::spawn(work);
    for namespace in [&c.namespace, &bare] {
        anywhere.apply(&database(namespace)).await;
    }
    let message = "{.status.conditions[?(@.type=='Stalled')].message}";
    let said = eventually("the right is named", || async {
        let get = format!("get pg orders -n {bare} -o jsonpath={message}");
        let said = c.run(&get).await?;
        if said.is_empty() { Err(said) } else { Ok(said) }
    })
    .await;
    for words in ["cannot get", "resource \"secrets\"", &format!("in the namespace \"{bare}\"")] {
        assert!(said.contains(words), "{words}: {said}");
    }
    eventually("an event", || async {
        let events = c.run(&format!("get events -n {bare}")).await?;
        let told = events.lines().any(|line| line.contains("Forbidden") && line.contains("orders"));
        if told { Ok(()) } else { Err(events) }
    })
    .await;
    c.ok("wait pg/orders --for=condition=Ready --timeout=60s").await;
    grant_secrets(&anywhere, &bare).await;
    c.ok(&format!("wait pg/orders -n {bare} --for=condition=Ready --timeout=60s")).await;
    eventually("it is said no more", || async {
        let get = format!("get pg orders -n {bare} -o jsonpath={message}");
        let said = c.run(&get).await?;
        if said.is_empty() { Ok(()) } else { Err(said) }
    })
    .await;
    for namespace in [&c.namespace, &bare] {
        c.ok(&format!("delete pg orders -n {namespace} --timeout=60s")).await;
    }
    stop.cancel();
    work.await.unwrap().unwrap();
    c.ok(&format!("delete namespace {bare}")).await;
}

/// The roles of `deploy/` with what they say of Secrets taken out but for list and watch, which
/// can only be granted for all namespaces.
async fn grant_all_but_secrets(kubectl: &Kubectl) {
    let mut rules = vec![
        rule("", "secrets", &["list", "watch"]),
        rule("coordination.k8s.io", "leases", &["create", "get", "update"]),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    for file in ["base/sync-role.yaml", "overlays/standalone/servers-role.yaml"] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        let role: ClusterRole = serde_yaml::from_str(&text).unwrap();
        let others = role.rules.into_iter().flatten();
        rules.extend(others.filter(|rule| rule.resources != Some(vec!["secrets".to_owned()])));
    }
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": USER}, "rules": rules,
    });
    kubectl.apply(&role.to_string()).await;
    kubectl.apply(&binding("ClusterRoleBinding", None, USER).to_string()).await;
    let secrets = rule("", "secrets", &["get", "create", "patch", "delete", "list"]);
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "narrow-secrets"}, "rules": [secrets],
    });
    kubectl.apply(&role.to_string()).await;
}

async fn grant_secrets(kubectl: &Kubectl, namespace: &str) {
    kubectl.apply(&binding("RoleBinding", Some(namespace), "narrow-secrets").to_string()).await;
}

fn rule(group: &str, resource: &str, verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(vec![resource.to_owned()]),
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        ..PolicyRule::default()
    }
}

fn binding(kind: &str, namespace: Option<&str>, role: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
        "metadata": {"name": role, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
    })
}

fn database(namespace: &str) -> String {
    json!({
        "apiVersion": "kubedb.com/v1", "kind": "Postgres",
        "metadata": {"name": "orders", "namespace": namespace},
        "spec": {
            "version": *MAJOR, "storageType": "Ephemeral",
            // Passes that are refused are made again after this long at most.
            "healthChecker": {"periodSeconds": 1},
            "podTemplate": {"spec": {"containers": [
                {"name": "postgres", "resources": {"limits": {"memory": "64Mi"}}}
            ]}},
        },
    })
    .to_string()
}

/// A client that acts for the user.
async fn client(kubeconfig: &Path) -> kube::Client {
    let read = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(read, &Default::default()).await;
    let mut config = config.unwrap();
    config.auth_info.impersonate = Some(USER.to_owned());
    kube::Client::try_from(config).unwrap()
}
