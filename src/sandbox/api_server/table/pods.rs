//! Columns of pods.

use super::{Header, text};
use jiff::Timestamp;
use serde_json::{Value, json};

pub(super) const HEADERS: &[Header] = &[
    ("Name", "string", false),
    ("Ready", "string", false),
    ("Status", "string", false),
    ("Restarts", "string", false),
    ("Age", "string", false),
    ("IP", "string", true),
    ("Node", "string", true),
    ("Nominated Node", "string", true),
    ("Readiness Gates", "string", true),
];

pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let status = &pod["status"];
    let statuses = || status["containerStatuses"].as_array().into_iter().flatten();
    let wanted = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    let ready = statuses().filter(|c| c["ready"] == true).count();
    let restarts: i64 = statuses().filter_map(|c| c["restartCount"].as_i64()).sum();
    let last = statuses()
        .map(|c| &c["lastState"]["terminated"]["finishedAt"])
        .filter_map(Value::as_str)
        .max();
    let restarts = match last {
        Some(at) if restarts > 0 => format!("{restarts} ({} ago)", text::age(&json!(at), now)),
        _ => restarts.to_string(),
    };
    vec![
        pod["metadata"]["name"].clone(),
        json!(format!("{ready}/{wanted}")),
        json!(reason(pod)),
        json!(restarts),
        json!(text::age(&pod["metadata"]["creationTimestamp"], now)),
        json!(text::plain(&status["podIP"], "<none>")),
        json!(text::plain(&pod["spec"]["nodeName"], "<none>")),
        json!(text::plain(&status["nominatedNodeName"], "<none>")),
        json!("<none>"),
    ]
}

/// The word in the column STATUS, by the rules of the real printer.
fn reason(pod: &Value) -> String {
    let status = &pod["status"];
    let mut reason = text::plain(&status["phase"], "Unknown");
    if let Some(why) = status["reason"].as_str().filter(|r| !r.is_empty()) {
        reason = why.to_owned();
    }
    let inits = status["initContainerStatuses"].as_array().map_or(&[][..], Vec::as_slice);
    let mut initialising = false;
    for (index, init) in inits.iter().enumerate() {
        let state = &init["state"];
        if state["terminated"]["exitCode"] == 0 {
            continue;
        }
        reason = match (state["terminated"]["reason"].as_str(), state["waiting"]["reason"].as_str())
        {
            (Some(why), _) if !why.is_empty() => format!("Init:{why}"),
            _ if state["terminated"].is_object() => {
                format!("Init:ExitCode:{}", state["terminated"]["exitCode"])
            }
            (_, Some(why)) if why != "PodInitializing" => format!("Init:{why}"),
            _ => format!("Init:{index}/{}", inits.len()),
        };
        initialising = true;
        break;
    }
    if !initialising {
        let mut running = false;
        let statuses = status["containerStatuses"].as_array();
        for container in statuses.into_iter().flatten().rev() {
            let state = &container["state"];
            if let Some(why) = state["waiting"]["reason"].as_str() {
                reason = why.to_owned();
            } else if let Some(why) = state["terminated"]["reason"].as_str() {
                reason = why.to_owned();
            } else if state["terminated"].is_object() {
                reason = format!("ExitCode:{}", state["terminated"]["exitCode"]);
            } else if container["ready"] == true && state["running"].is_object() {
                running = true;
            }
        }
        if reason == "Completed" && running {
            reason = "Running".into();
        }
    }
    if pod["metadata"]["deletionTimestamp"].is_string() {
        let ended = ["Succeeded", "Failed"].iter().any(|p| status["phase"] == *p);
        if !ended {
            reason = "Terminating".into();
        }
    }
    reason
}
