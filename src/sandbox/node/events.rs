//! Events about pods, as `kubectl describe` shows them.
//!
//! A repeat raises the count of the first instead of adding another. Never holds up its caller
//! and never fails: an event that cannot be written is logged. Messages carry no values of
//! variables and no secrets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;

use super::observe::within;

/// Events waiting to be written; more are dropped, with a log line.
const QUEUE: usize = 256;

/// Different events remembered for counting.
const REMEMBERED: usize = 512;

/// A repeat is written no sooner than this after the one before, in milliseconds.
const REPEAT_AFTER_MS: i64 = 2_000;

/// Longest message, in characters: the API allows 1024 bytes.
const MESSAGE: usize = 250;

/// Writes events from a queue of its own.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<Item>,
    dropped: Arc<Mutex<u64>>,
}

struct Item {
    pod: ObjectReference,
    normal: bool,
    reason: String,
    message: String,
    container: Option<String>,
}

impl Events {
    /// Starts the writer; it ends with the last clone.
    pub fn start(client: Client, component: &str, host: &str) -> Self {
        let (queue, items) = mpsc::channel(QUEUE);
        let source =
            EventSource { component: Some(component.to_owned()), host: Some(host.to_owned()) };
        tokio::spawn(write(client, source, items));
        Self { queue, dropped: Arc::default() }
    }

    /// Tells something that went as it should.
    pub fn normal(&self, pod: &Pod, container: Option<&str>, reason: &str, message: &str) {
        self.put(pod, container, true, reason, message);
    }

    /// Tells something that a person may have to look at.
    pub fn warning(&self, pod: &Pod, container: Option<&str>, reason: &str, message: &str) {
        self.put(pod, container, false, reason, message);
    }

    fn put(&self, pod: &Pod, container: Option<&str>, normal: bool, reason: &str, message: &str) {
        let field_path = container.map(|name| format!("spec.containers{{{name}}}"));
        let item = Item {
            pod: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                namespace: pod.metadata.namespace.clone(),
                uid: pod.metadata.uid.clone(),
                field_path,
                ..ObjectReference::default()
            },
            normal,
            reason: reason.to_owned(),
            message: message.chars().take(MESSAGE).collect(),
            container: container.map(str::to_owned),
        };
        if self.queue.try_send(item).is_err() {
            let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
            *dropped += 1;
            tracing::debug!(dropped = *dropped, reason, "an event was dropped");
        }
    }
}

/// What was written, to count repeats.
struct Written {
    name: String,
    count: i32,
    at: Timestamp,
}

async fn write(client: Client, source: EventSource, mut items: mpsc::Receiver<Item>) {
    type Key = (Option<String>, Option<String>, String, String);
    let mut known: BTreeMap<Key, Written> = BTreeMap::new();
    while let Some(item) = items.recv().await {
        let namespace = item.pod.namespace.clone().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let now = Timestamp::now();
        let key = (
            item.pod.uid.clone(),
            item.container.clone(),
            item.reason.clone(),
            item.message.clone(),
        );
        if let Some(written) = known.get_mut(&key) {
            written.count += 1;
            if now.as_millisecond() - written.at.as_millisecond() < REPEAT_AFTER_MS {
                continue;
            }
            written.at = now;
            let change = json!({"count": written.count, "lastTimestamp": Time(now)});
            let (parameters, patch) = (PatchParams::default(), Patch::Merge(&change));
            let call = api.patch(&written.name, &parameters, &patch);
            if within("repeating an event", call).await.is_ok() {
                continue;
            }
        }
        let event = event(&item, &source, now);
        let name = event.metadata.name.clone().unwrap_or_default();
        match within("writing an event", api.create(&PostParams::default(), &event)).await {
            Ok(_) => {
                if known.len() >= REMEMBERED {
                    known.clear();
                }
                known.insert(key, Written { name, count: 1, at: now });
            }
            Err(error) => tracing::debug!(reason = item.reason, "{error:#}"),
        }
    }
}

fn event(item: &Item, source: &EventSource, now: Timestamp) -> Event {
    let pod = item.pod.name.as_deref().unwrap_or("pod");
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{pod}.{:016x}", now.as_nanosecond() as u64)),
            namespace: item.pod.namespace.clone(),
            ..ObjectMeta::default()
        },
        involved_object: item.pod.clone(),
        reason: Some(item.reason.clone()),
        message: Some(item.message.clone()),
        type_: Some(if item.normal { "Normal" } else { "Warning" }.to_owned()),
        source: Some(source.clone()),
        reporting_component: source.component.clone(),
        reporting_instance: source.host.clone(),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..Event::default()
    }
}
