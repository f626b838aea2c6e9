//! Columns of built-in kinds, after the real server's printers.

use super::{Header, header, pods, text};
use crate::sandbox::store::kinds::Kind;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

type Cells = fn(&Value, Timestamp) -> Vec<Value>;

/// Headers, and the cells of each object.
pub(super) fn columns(
    kind: &Kind,
    objects: &[Arc<Value>],
    now: Timestamp,
) -> (Vec<Value>, Vec<Vec<Value>>) {
    let (headers, cells) = printer(&kind.kind);
    let rows = objects.iter().map(|object| cells(object, now)).collect();
    (headers.iter().map(header).collect(), rows)
}

fn printer(kind: &str) -> (&'static [Header], Cells) {
    match kind {
        "Pod" => (pods::HEADERS, pods::cells),
        "StatefulSet" => (STATEFUL_SET, stateful_set),
        "Deployment" => (DEPLOYMENT, deployment),
        "Service" => (SERVICE, service),
        "Endpoints" => (ENDPOINTS, endpoints),
        "Secret" => (SECRET, secret),
        "ConfigMap" => (CONFIG_MAP, config_map),
        "ServiceAccount" => (SERVICE_ACCOUNT, service_account),
        "Namespace" => (NAMESPACE, namespace),
        "Node" => (NODE, node),
        "Event" => (EVENT, event),
        "Lease" => (LEASE, lease),
        "PersistentVolumeClaim" => (CLAIM, claim),
        "PersistentVolume" => (VOLUME, volume),
        "PodDisruptionBudget" => (BUDGET, budget),
        "ControllerRevision" => (REVISION, revision),
        "CustomResourceDefinition" => (DEFINITION, definition),
        _ => (PLAIN, plain),
    }
}

fn name(o: &Value) -> Value {
    o["metadata"]["name"].clone()
}

fn age(o: &Value, now: Timestamp) -> Value {
    json!(text::age(&o["metadata"]["creationTimestamp"], now))
}

fn shown(value: &Value, missing: &str) -> Value {
    json!(text::plain(value, missing))
}

const PLAIN: &[Header] = &[("Name", "string", false), ("Age", "string", false)];

fn plain(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(o), age(o, now)]
}

const STATEFUL_SET: &[Header] = &[
    ("Name", "string", false),
    ("Ready", "string", false),
    ("Age", "string", false),
    ("Containers", "string", true),
    ("Images", "string", true),
];

fn stateful_set(o: &Value, now: Timestamp) -> Vec<Value> {
    let containers =
        || o["spec"]["template"]["spec"]["containers"].as_array().into_iter().flatten();
    let ready = o["status"]["readyReplicas"].as_i64().unwrap_or(0);
    let wanted = o["spec"]["replicas"].as_i64().unwrap_or(0);
    vec![
        name(o),
        json!(format!("{ready}/{wanted}")),
        age(o, now),
        json!(text::list(containers().map(|c| &c["name"]))),
        json!(text::list(containers().map(|c| &c["image"]))),
    ]
}

const DEPLOYMENT: &[Header] = &[
    ("Name", "string", false),
    ("Ready", "string", false),
    ("Up-to-date", "string", false),
    ("Available", "string", false),
    ("Age", "string", false),
];

fn deployment(o: &Value, now: Timestamp) -> Vec<Value> {
    let status = |field: &str| o["status"][field].as_i64().unwrap_or(0);
    let wanted = o["spec"]["replicas"].as_i64().unwrap_or(0);
    vec![
        name(o),
        json!(format!("{}/{wanted}", status("readyReplicas"))),
        json!(status("updatedReplicas").to_string()),
        json!(status("availableReplicas").to_string()),
        age(o, now),
    ]
}

const SERVICE: &[Header] = &[
    ("Name", "string", false),
    ("Type", "string", false),
    ("Cluster-IP", "string", false),
    ("External-IP", "string", false),
    ("Port(s)", "string", false),
    ("Age", "string", false),
    ("Selector", "string", true),
];

fn service(o: &Value, now: Timestamp) -> Vec<Value> {
    let ports = o["spec"]["ports"].as_array().into_iter().flatten();
    let ports: Vec<String> =
        ports.map(|p| format!("{}/{}", p["port"], text::plain(&p["protocol"], "TCP"))).collect();
    let ports = if ports.is_empty() { "<none>".to_owned() } else { ports.join(",") };
    vec![
        name(o),
        shown(&o["spec"]["type"], "ClusterIP"),
        shown(&o["spec"]["clusterIP"], "<none>"),
        shown(&o["spec"]["externalName"], "<none>"),
        json!(ports),
        age(o, now),
        json!(text::labels(&o["spec"]["selector"])),
    ]
}

const ENDPOINTS: &[Header] =
    &[("Name", "string", false), ("Endpoints", "string", false), ("Age", "string", false)];

fn endpoints(o: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in o["subsets"].as_array().into_iter().flatten() {
        let ports: Vec<&Value> =
            subset["ports"].as_array().into_iter().flatten().map(|p| &p["port"]).collect();
        for address in subset["addresses"].as_array().into_iter().flatten() {
            let ip = text::plain(&address["ip"], "");
            all.extend(ports.iter().map(|port| format!("{ip}:{port}")));
        }
    }
    let more = all.len().saturating_sub(3);
    all.truncate(3);
    let shown = match (all.is_empty(), more) {
        (true, _) => "<none>".to_owned(),
        (false, 0) => all.join(","),
        (false, more) => format!("{} + {more} more...", all.join(",")),
    };
    vec![name(o), json!(shown), age(o, now)]
}

const SECRET: &[Header] = &[
    ("Name", "string", false),
    ("Type", "string", false),
    ("Data", "integer", false),
    ("Age", "string", false),
];

fn secret(o: &Value, now: Timestamp) -> Vec<Value> {
    let count = o["data"].as_object().map_or(0, serde_json::Map::len);
    vec![name(o), shown(&o["type"], "Opaque"), json!(count), age(o, now)]
}

const CONFIG_MAP: &[Header] =
    &[("Name", "string", false), ("Data", "integer", false), ("Age", "string", false)];

fn config_map(o: &Value, now: Timestamp) -> Vec<Value> {
    let count = |field: &str| o[field].as_object().map_or(0, serde_json::Map::len);
    vec![name(o), json!(count("data") + count("binaryData")), age(o, now)]
}

const SERVICE_ACCOUNT: &[Header] =
    &[("Name", "string", false), ("Secrets", "integer", false), ("Age", "string", false)];

fn service_account(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(o), json!(o["secrets"].as_array().map_or(0, Vec::len)), age(o, now)]
}

const NAMESPACE: &[Header] =
    &[("Name", "string", false), ("Status", "string", false), ("Age", "string", false)];

fn namespace(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(o), shown(&o["status"]["phase"], "Active"), age(o, now)]
}

const NODE: &[Header] = &[
    ("Name", "string", false),
    ("Status", "string", false),
    ("Roles", "string", false),
    ("Age", "string", false),
    ("Version", "string", false),
    ("Internal-IP", "string", true),
];

fn node(o: &Value, now: Timestamp) -> Vec<Value> {
    let conditions = || o["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions().any(|c| c["type"] == "Ready" && c["status"] == "True");
    let mut status = String::from(if ready { "Ready" } else { "NotReady" });
    if o["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    let addresses = || o["status"]["addresses"].as_array().into_iter().flatten();
    let internal =
        addresses().find(|a| a["type"] == "InternalIP").map_or(&Value::Null, |a| &a["address"]);
    vec![
        name(o),
        json!(status),
        json!("<none>"),
        age(o, now),
        shown(&o["status"]["nodeInfo"]["kubeletVersion"], "<unknown>"),
        shown(internal, "<none>"),
    ]
}

const EVENT: &[Header] = &[
    ("Last Seen", "string", false),
    ("Type", "string", false),
    ("Reason", "string", false),
    ("Object", "string", false),
    ("Subobject", "string", true),
    ("Source", "string", true),
    ("Message", "string", false),
    ("First Seen", "string", true),
    ("Count", "string", true),
    ("Name", "string", true),
];

fn event(o: &Value, now: Timestamp) -> Vec<Value> {
    let either =
        |new: &str, old: &str| if o[new].is_null() { o[old].clone() } else { o[new].clone() };
    let about = either("regarding", "involvedObject");
    let first = either("deprecatedFirstTimestamp", "firstTimestamp");
    let last = either("deprecatedLastTimestamp", "lastTimestamp");
    let begun = if first.is_null() { o["eventTime"].clone() } else { first };
    let series = &o["series"]["lastObservedTime"];
    let seen = [series, &last, &begun].into_iter().find(|t| !t.is_null()).cloned();
    let count = [&o["series"]["count"], &either("deprecatedCount", "count")]
        .into_iter()
        .find_map(Value::as_i64)
        .unwrap_or(1);
    let kind = text::plain(&about["kind"], "").to_lowercase();
    vec![
        json!(text::age(&seen.unwrap_or_default(), now)),
        o["type"].clone(),
        o["reason"].clone(),
        json!(format!("{kind}/{}", text::plain(&about["name"], ""))),
        shown(&about["fieldPath"], ""),
        shown(&either("reportingController", "reportingComponent"), ""),
        shown(&either("note", "message"), ""),
        json!(text::age(&begun, now)),
        json!(count.to_string()),
        name(o),
    ]
}

const LEASE: &[Header] =
    &[("Name", "string", false), ("Holder", "string", false), ("Age", "string", false)];

fn lease(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(o), shown(&o["spec"]["holderIdentity"], ""), age(o, now)]
}

const CLAIM: &[Header] = &[
    ("Name", "string", false),
    ("Status", "string", false),
    ("Volume", "string", false),
    ("Capacity", "string", false),
    ("Access Modes", "string", false),
    ("StorageClass", "string", false),
    ("Age", "string", false),
];

fn claim(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(o),
        shown(&o["status"]["phase"], "Pending"),
        shown(&o["spec"]["volumeName"], ""),
        shown(&o["status"]["capacity"]["storage"], ""),
        json!(modes(&o["status"]["accessModes"])),
        shown(&o["spec"]["storageClassName"], ""),
        age(o, now),
    ]
}

const VOLUME: &[Header] = &[
    ("Name", "string", false),
    ("Capacity", "string", false),
    ("Access Modes", "string", false),
    ("Reclaim Policy", "string", false),
    ("Status", "string", false),
    ("Claim", "string", false),
    ("Age", "string", false),
];

fn volume(o: &Value, now: Timestamp) -> Vec<Value> {
    let claim = &o["spec"]["claimRef"];
    let claim = if claim.is_object() {
        format!("{}/{}", text::plain(&claim["namespace"], ""), text::plain(&claim["name"], ""))
    } else {
        String::new()
    };
    vec![
        name(o),
        shown(&o["spec"]["capacity"]["storage"], ""),
        json!(modes(&o["spec"]["accessModes"])),
        shown(&o["spec"]["persistentVolumeReclaimPolicy"], ""),
        shown(&o["status"]["phase"], "Pending"),
        json!(claim),
        age(o, now),
    ]
}

fn modes(modes: &Value) -> String {
    let short = |mode: &Value| match mode.as_str() {
        Some("ReadWriteOnce") => "RWO".to_owned(),
        Some("ReadOnlyMany") => "ROX".to_owned(),
        Some("ReadWriteMany") => "RWX".to_owned(),
        Some("ReadWriteOncePod") => "RWOP".to_owned(),
        other => other.unwrap_or_default().to_owned(),
    };
    let all: Vec<String> = modes.as_array().into_iter().flatten().map(short).collect();
    all.join(",")
}

const BUDGET: &[Header] = &[
    ("Name", "string", false),
    ("Min Available", "string", false),
    ("Max Unavailable", "string", false),
    ("Allowed Disruptions", "integer", false),
    ("Age", "string", false),
];

fn budget(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(o),
        shown(&o["spec"]["minAvailable"], "N/A"),
        shown(&o["spec"]["maxUnavailable"], "N/A"),
        json!(o["status"]["disruptionsAllowed"].as_i64().unwrap_or(0)),
        age(o, now),
    ]
}

const REVISION: &[Header] = &[
    ("Name", "string", false),
    ("Controller", "string", false),
    ("Revision", "integer", false),
    ("Age", "string", false),
];

fn revision(o: &Value, now: Timestamp) -> Vec<Value> {
    let owners = o["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    let controller = owners.into_iter().find(|r| r["controller"] == true).map_or_else(
        || "<none>".to_owned(),
        |r| {
            format!(
                "{}/{}",
                text::plain(&r["kind"], "").to_lowercase(),
                text::plain(&r["name"], "")
            )
        },
    );
    vec![name(o), json!(controller), o["revision"].clone(), age(o, now)]
}

const DEFINITION: &[Header] = &[("Name", "string", false), ("Created At", "date", false)];

fn definition(o: &Value, _now: Timestamp) -> Vec<Value> {
    vec![name(o), o["metadata"]["creationTimestamp"].clone()]
}
