//! A small KubeDB: sets databases up and carries requests out by its published rules, when it is
//! told to. It runs no server. What it and the owners of databases wrote is remembered, so that
//! whatever somebody else wrote shows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use super::webhook;
use crate::conformance::Cluster;

/// Field manager of the part that sets databases up.
pub const PROVISIONER: &str = "kubedb-provisioner";
/// Field manager of the part that carries requests out.
pub const OPS_MANAGER: &str = "kubedb-ops-manager";
/// Field manager of whoever writes by hand.
pub const OWNER: &str = "kubectl-create";

/// KubeDB in one namespace.
pub struct KubeDb {
    pub databases: Api<DynamicObject>,
    pub requests: Api<DynamicObject>,
    pub secrets: Api<Secret>,
    /// What databases are, as far as KubeDB and their owners say: `spec` and `status`.
    expected: Mutex<BTreeMap<String, Value>>,
}

impl KubeDb {
    pub fn new(c: &Cluster) -> Self {
        let api = |group: &str, version: &str, kind: &str, plural: &str| {
            let kind = GroupVersionKind::gvk(group, version, kind);
            let resource = ApiResource::from_gvk_with_plural(&kind, plural);
            Api::namespaced_with(c.client.clone(), &c.namespace, &resource)
        };
        Self {
            databases: api("kubedb.com", "v1", "Postgres", "postgreses"),
            requests: api(
                "ops.kubedb.com",
                "v1alpha1",
                "PostgresOpsRequest",
                "postgresopsrequests",
            ),
            secrets: c.api(),
            expected: Mutex::default(),
        }
    }

    /// Somebody creates a database and KubeDB makes it Ready.
    pub async fn database(&self, name: &str, spec: Value) {
        self.created(name, spec).await;
        self.provision(name).await;
    }

    /// Somebody creates a database.
    pub async fn created(&self, name: &str, mut spec: Value) {
        webhook::fill_in(name, &mut spec);
        self.stored(name, spec).await;
    }

    /// Somebody created a database when the webhooks were older.
    pub async fn stored(&self, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "kubedb.com/v1", "kind": "Postgres",
            "metadata": {"name": name, "labels": {"team": "payments"},
                "annotations": {"example.com/cost-centre": "4711"}},
            "spec": spec,
        });
        assert_eq!(webhook::refusal_of_database(&object, None), None);
        let object = serde_json::from_value(object).unwrap();
        let parameters = by(OWNER);
        let stored = self.databases.create(&parameters, &object).await.unwrap();
        let known = json!({"spec": stored.data["spec"]});
        self.expected.lock().unwrap().insert(name.to_owned(), known);
    }

    /// Makes a database Ready: finalizer, Secrets, status in KubeDB's order.
    pub async fn provision(&self, name: &str) {
        let patch = json!({"metadata": {"finalizers": ["kubedb.com"]}});
        let parameters = patch_by(PROVISIONER);
        self.databases.patch(name, &parameters, &Patch::Merge(&patch)).await.unwrap();
        let auth = json!({
            "metadata": {"name": format!("{name}-auth")}, "type": "kubernetes.io/basic-auth",
            "stringData": {"username": "postgres", "password": "not-for-git"},
        });
        self.put_secret(auth, PROVISIONER).await;
        self.render(name, PROVISIONER).await;
        for (type_, reason) in [
            ("ProvisioningStarted", "DatabaseProvisioningStartedSuccessfully"),
            ("ReplicaReady", "AllReplicasReady"),
            ("AcceptingConnection", "DatabaseAcceptingConnectionRequest"),
            ("Ready", "ReadinessCheckSucceeded"),
            ("Provisioned", "DatabaseSuccessfullyProvisioned"),
        ] {
            let phase = if type_ == "Provisioned" { "Ready" } else { "Provisioning" };
            self.say(name, phase, condition(type_, "True", reason, "as it should be")).await;
        }
    }

    /// KubeDB finds a database in this phase.
    pub async fn phase(&self, name: &str, phase: &str) {
        let status = match phase {
            "Ready" => condition("Ready", "True", "ReadinessCheckSucceeded", "all is well"),
            _ => condition("Ready", "False", "ReadinessCheckFailed", "something is not well"),
        };
        self.say(name, phase, status).await;
    }

    /// The database as it is.
    pub async fn get(&self, name: &str) -> Value {
        serde_json::to_value(self.databases.get(name).await.unwrap()).unwrap()
    }

    /// A request as it is.
    pub async fn request(&self, name: &str) -> Value {
        serde_json::to_value(self.requests.get(name).await.unwrap()).unwrap()
    }

    /// Somebody writes `spec` of a database, by this field manager.
    pub async fn write_spec(&self, name: &str, manager: &str, spec: Value) {
        let before = self.get(name).await;
        let mut patch = json!({ "spec": spec });
        let mut after = before.clone();
        json_patch::merge(&mut after, &patch);
        webhook::convert(&mut after["spec"]);
        if !before["spec"]["configSecret"].is_null() && after["spec"]["configSecret"].is_null() {
            let name = after["spec"]["configuration"]["secretName"].clone();
            let more = json!({"configuration": {"secretName": name}, "configSecret": 0});
            json_patch::merge(&mut patch["spec"], &more);
            patch["spec"]["configSecret"] = Value::Null;
        }
        assert_eq!(webhook::refusal_of_database(&after, Some(&before)), None);
        let parameters = patch_by(manager);
        self.databases.patch(name, &parameters, &Patch::Merge(&patch)).await.unwrap();
        self.expect(name, &patch);
    }

    /// A tool applies fields of a database's `spec` from its own repository.
    pub async fn apply_spec(&self, name: &str, manager: &str, spec: Value) {
        let patch = json!({"apiVersion": "kubedb.com/v1", "kind": "Postgres", "spec": spec});
        let parameters = PatchParams::apply(manager).force();
        self.databases.patch(name, &parameters, &Patch::Apply(&patch)).await.unwrap();
        self.expect(name, &json!({"spec": patch["spec"]}));
    }

    /// Somebody's own request.
    pub async fn ask(&self, database: &str, name: &str, spec: Value) {
        let mut whole = json!({"databaseRef": {"name": database}});
        json_patch::merge(&mut whole, &spec);
        let databases = BTreeSet::from([database.to_owned()]);
        assert_eq!(webhook::refusal(&json!({"spec": whole}), None, &databases), None);
        let object = json!({
            "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest",
            "metadata": {"name": name}, "spec": whole,
        });
        let object = serde_json::from_value(object).unwrap();
        self.requests.create(&by(OWNER), &object).await.unwrap();
    }

    /// Begins to carry a request out: phase, paused database, paused backups.
    pub async fn begin(&self, name: &str) {
        let request = self.request(name).await;
        let type_ = request["spec"]["type"].as_str().unwrap();
        let words = format!("{type_} of the database is in progress");
        let backups = json!([{"apiGroup": "core.kubestash.com", "kind": "BackupConfiguration",
            "name": "nightly", "namespace": request["metadata"]["namespace"]}]);
        let status = json!({"phase": "Progressing", "pausedBackups": backups});
        self.tell(name, status, &[condition("Running", "True", "Running", &words)]).await;
        let database = request["spec"]["databaseRef"]["name"].as_str().unwrap().to_owned();
        let mut paused = condition("Paused", "True", "Paused", "paused by the ops manager");
        let object = self.get(&database).await;
        paused["observedGeneration"] = object["metadata"]["generation"].clone();
        let phase = object["status"]["phase"].as_str().unwrap().to_owned();
        self.say(&database, &phase, paused).await;
    }

    /// Carries a Reconfigure out, from its beginning to its success.
    pub async fn carry_out(&self, name: &str) {
        self.begin(name).await;
        self.reconfigure(name).await;
        self.end(name, "Successful", "Successfully completed the modification process.").await;
    }

    /// Writes what a Reconfigure asks for, renders it, and restarts a node, so to speak.
    pub async fn reconfigure(&self, name: &str) {
        let request = self.request(name).await;
        let database = request["spec"]["databaseRef"]["name"].as_str().unwrap();
        let before = self.get(database).await["spec"]["configuration"].clone();
        let after = reconfigured(&before, &request["spec"]["configuration"]);
        let mut patch = after;
        for field in ["secretName", "inline", "tuning"] {
            if patch[field].is_null() && !before[field].is_null() {
                patch[field] = Value::Null;
            } else if patch[field].is_null() {
                patch.as_object_mut().unwrap().remove(field);
            }
        }
        self.write_spec(database, OPS_MANAGER, json!({"configuration": patch})).await;
        self.render(database, OPS_MANAGER).await;
        let pod = format!("{database}-0");
        let steps = [
            retried("EvictPod", "evict pod", true, &pod),
            retried(&format!("CheckPodReady--{pod}"), "check pod ready", false, &pod),
            retried(&format!("CheckPodReady--{pod}"), "check pod ready", true, &pod),
        ];
        for step in steps {
            self.tell(name, json!({}), &[step]).await;
        }
    }

    /// Ends a request. The database is resumed: the condition goes, as KubeDB takes it away.
    pub async fn end(&self, name: &str, phase: &str, words: &str) {
        let status = json!({"phase": phase, "pausedBackups": null});
        self.tell(name, status, &[condition(phase, "True", phase, words)]).await;
        let request = self.request(name).await;
        let database = request["spec"]["databaseRef"]["name"].as_str().unwrap();
        self.resume(database).await;
    }

    /// Moves a request to a phase in which nothing is done to the database.
    pub async fn decide(&self, name: &str, phase: &str, words: &str) {
        let said = condition(phase, "True", phase, words);
        self.tell(name, json!({"phase": phase}), &[said]).await;
    }

    /// Somebody pauses a database.
    pub async fn pause(&self, database: &str, words: &str) {
        let phase = self.get(database).await["status"]["phase"].as_str().unwrap().to_owned();
        self.say(database, &phase, condition("Paused", "True", "Paused", words)).await;
    }

    /// Takes the condition Paused away.
    pub async fn resume(&self, database: &str) {
        let mut all = conditions(&self.get(database).await);
        all.retain(|condition| condition["type"] != "Paused");
        self.write_status(database, json!({ "conditions": all })).await;
    }

    /// Merges all pending Reconfigures of a database into a new request; its name.
    pub async fn merge(&self, database: &str) -> String {
        let all = self.requests.list(&ListParams::default()).await.unwrap().items;
        let mut pending: Vec<Value> =
            all.iter().map(|request| serde_json::to_value(request).unwrap()).collect();
        pending.retain(|request| {
            let phase = request["status"]["phase"].as_str().unwrap_or("Pending");
            request["spec"]["databaseRef"]["name"] == database
                && request["spec"]["type"] == "Reconfigure"
                && phase == "Pending"
        });
        pending.sort_by_key(|request| {
            let text = |field: &str| request["metadata"][field].as_str().unwrap().to_owned();
            (text("creationTimestamp"), text("name"))
        });
        assert!(pending.len() > 1, "nothing to merge: {pending:?}");
        let names: Vec<String> = pending
            .iter()
            .map(|request| request["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        let name = format!("{database}-rcfg-merged-{}", Timestamp::now().as_millisecond());
        let object = json!({
            "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest",
            "metadata": {"name": name, "labels": pending[0]["metadata"]["labels"]},
            "spec": {"type": "Reconfigure", "databaseRef": {"name": database},
                "configuration": merged(&pending)},
        });
        let object = serde_json::from_value(object).unwrap();
        self.requests.create(&by(OPS_MANAGER), &object).await.unwrap();
        let from = condition("MergedFromOps", "True", "ConfigurationMerged", &names.join(", "));
        self.tell(&name, json!({"phase": "Pending"}), &[from]).await;
        let namespace = pending[0]["metadata"]["namespace"].as_str().unwrap();
        let words =
            format!("Configuration merged into newly created ops request {namespace}/{name}");
        for original in &names {
            let said = condition("Skipped", "True", "ConfigurationMerged", &words);
            self.tell(original, json!({"phase": "Skipped"}), &[said]).await;
        }
        let done = condition("OriginalOpsSkipped", "True", "OriginalOpsSkipped", "all of them");
        self.tell(&name, json!({}), &[done]).await;
        name
    }

    /// What a database ought to be, but for what somebody else wrote.
    pub fn expected(&self, name: &str) -> Value {
        self.expected.lock().unwrap()[name].clone()
    }

    /// The databases that were created.
    pub fn names(&self) -> Vec<String> {
        self.expected.lock().unwrap().keys().cloned().collect()
    }

    /// Name of the operator's Secret.
    pub async fn operators_secret(&self, database: &str) -> String {
        let uid = self.databases.get(database).await.unwrap().uid().unwrap();
        format!("{database}-{}", &uid[uid.len() - 6..])
    }

    /// Renders the operator's Secret from the object.
    async fn render(&self, database: &str, manager: &str) {
        let configuration = self.get(database).await["spec"]["configuration"].clone();
        let inline = configuration["inline"]["user.conf"].as_str().unwrap_or_default();
        let tuned = &configuration["tuning"];
        let tuning = match tuned["maxConnections"].as_i64() {
            Some(number) if tuned["disableAutoTune"] != true => {
                format!("max_connections = {number}\nshared_buffers = 1GB\n")
            }
            Some(_) | None => String::new(),
        };
        let name = self.operators_secret(database).await;
        let secret = json!({
            "metadata": {"name": name},
            "stringData": {"inline.conf": inline, "pgtune.conf": tuning},
        });
        self.put_secret(secret, manager).await;
    }

    /// Creates or changes a Secret.
    pub async fn put_secret(&self, mut secret: Value, manager: &str) {
        let name = secret["metadata"]["name"].as_str().unwrap().to_owned();
        secret["apiVersion"] = "v1".into();
        secret["kind"] = "Secret".into();
        if self.secrets.get_opt(&name).await.unwrap().is_some() {
            let parameters = patch_by(manager);
            self.secrets.patch(&name, &parameters, &Patch::Merge(&secret)).await.unwrap();
            return;
        }
        let object: Secret = serde_json::from_value(secret).unwrap();
        self.secrets.create(&by(manager), &object).await.unwrap();
    }

    /// Adds conditions and more to a request's status.
    async fn tell(&self, name: &str, mut status: Value, said: &[Value]) {
        let request = self.request(name).await;
        let mut all = conditions(&request);
        for condition in said {
            set(&mut all, condition);
        }
        status["conditions"] = all.into();
        status["observedGeneration"] = request["metadata"]["generation"].clone();
        let patch = json!({ "status": status });
        let parameters = patch_by(OPS_MANAGER);
        self.requests.patch_status(name, &parameters, &Patch::Merge(&patch)).await.unwrap();
    }

    /// Sets phase and a condition of a database.
    async fn say(&self, name: &str, phase: &str, said: Value) {
        let object = self.get(name).await;
        let mut all = conditions(&object);
        set(&mut all, &said);
        let generation = object["metadata"]["generation"].clone();
        let status = json!({"phase": phase, "conditions": all, "observedGeneration": generation});
        self.write_status(name, status).await;
    }

    async fn write_status(&self, name: &str, status: Value) {
        let patch = json!({ "status": status });
        let parameters = patch_by(PROVISIONER);
        self.databases.patch_status(name, &parameters, &Patch::Merge(&patch)).await.unwrap();
        self.expect(name, &patch);
    }

    fn expect(&self, name: &str, patch: &Value) {
        let mut expected = self.expected.lock().unwrap();
        json_patch::merge(expected.get_mut(name).unwrap(), patch);
    }
}

fn by(manager: &str) -> PostParams {
    PostParams { field_manager: Some(manager.to_owned()), ..PostParams::default() }
}

fn patch_by(manager: &str) -> PatchParams {
    PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() }
}

/// A condition with a reason; for most of KubeDB's the type says it again.
fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": type_, "status": status, "reason": reason, "message": message,
        "observedGeneration": 1, "lastTransitionTime": now()})
}

/// A condition of a step that is tried again and again: it has no reason.
fn retried(type_: &str, words: &str, done: bool, pod: &str) -> Value {
    let status = if done { "True" } else { "False" };
    json!({"type": type_, "status": status, "observedGeneration": 1, "lastTransitionTime": now(),
        "message": format!("{words}; ConditionStatus:{status}; PodName:{pod}")})
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn conditions(object: &Value) -> Vec<Value> {
    object["status"]["conditions"].as_array().cloned().unwrap_or_default()
}

fn set(all: &mut Vec<Value>, condition: &Value) {
    match all.iter_mut().find(|old| old["type"] == condition["type"]) {
        Some(old) => *old = condition.clone(),
        None => all.push(condition.clone()),
    }
}

/// What a Reconfigure makes of `spec.configuration`: removal, then the Secret, then the settings.
fn reconfigured(before: &Value, asked: &Value) -> Value {
    let mut after = match before.is_object() {
        true => before.clone(),
        false => json!({}),
    };
    if asked["removeCustomConfig"] == true {
        after["secretName"] = Value::Null;
        after["inline"] = Value::Null;
        // Whether Postgres' operator does is not public; those of other databases do.
        after["tuning"] = Value::Null;
    }
    if let Some(secret) = asked["configSecret"]["name"].as_str() {
        after["secretName"] = secret.into();
    }
    if let Some(settings) = asked["applyConfig"]["user.conf"].as_str() {
        let current = after["inline"]["user.conf"].as_str().unwrap_or_default();
        let settings = overlaid(current, settings);
        if !after["inline"].is_object() {
            after["inline"] = json!({});
        }
        after["inline"]["user.conf"] = settings.into();
    }
    if asked["tuning"].is_object() {
        if !after["tuning"].is_object() {
            after["tuning"] = json!({});
        }
        json_patch::merge(&mut after["tuning"], &asked["tuning"]);
    }
    after
}

/// One text over another as KubeDB's config generator does it: a key keeps its place, new keys
/// come last, `key=value` without spaces, values as they are written.
fn overlaid(current: &str, asked: &str) -> String {
    let mut lines: Vec<(String, String)> = Vec::new();
    for line in current.lines().chain(asked.lines()).map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
        match lines.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = value,
            None => lines.push((key, value)),
        }
    }
    lines.iter().map(|(key, value)| format!("{key}={value}\n")).collect()
}

/// Several Reconfigures in one: what a later one says wins.
fn merged(requests: &[Value]) -> Value {
    let mut whole = json!({});
    let mut settings = String::new();
    for request in requests {
        let asked = &request["spec"]["configuration"];
        let mut rest = asked.clone();
        if let Some(fields) = rest.as_object_mut()
            && let Some(more) = fields.remove("applyConfig")
        {
            settings = overlaid(&settings, more["user.conf"].as_str().unwrap_or_default());
        }
        json_patch::merge(&mut whole, &rest);
    }
    if !settings.is_empty() {
        whole["applyConfig"] = json!({"user.conf": settings});
    }
    whole
}
