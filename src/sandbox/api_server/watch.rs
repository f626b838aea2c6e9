//! Watches: a cursor in the store's log for each. Nothing is buffered for a slow client; one that
//! falls behind what the log keeps is told so (410) and lists again.

use super::{
    reply::{self, Reply},
    request::{Form, Request},
    state::State,
    table,
};
use crate::sandbox::store::{
    kinds::Kind,
    log::{Change, Verb},
    read::Span,
    refusal::Refusal,
    selector::Selector,
};
use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use serde_json::{Value, json};
use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};

/// Seconds a watch lives unless the client says otherwise; the real server takes 30 to 60 minutes.
const LIFETIME: u64 = 1800;

/// Seconds between bookmarks, as the real server's.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// Changes that are turned into one piece of the reply at most, so that one fast writer does not
/// make a single huge piece.
const BATCH: usize = 256;

struct Watcher {
    state: Arc<State>,
    kind: Arc<Kind>,
    namespace: Option<String>,
    selector: Selector,
    form: Form,
    include: String,
    bookmarks: bool,
    cursor: u64,
    revision: watch::Receiver<u64>,
    /// Events that wait to be sent: the first list, then nothing.
    waiting: VecDeque<Value>,
    headed: bool,
    ends: Instant,
    bookmark_at: Instant,
    over: bool,
}

/// Starts a watch.
///
/// # Errors
/// 400 for parameters that cannot be read, 410 for a revision that is no longer kept.
pub fn start(
    state: &Arc<State>,
    kind: &Arc<Kind>,
    namespace: Option<String>,
    selector: Selector,
    request: &Request,
) -> Result<Reply, Refusal> {
    let lifetime = request.number("timeoutSeconds")?.unwrap_or(LIFETIME);
    let from = request.number("resourceVersion")?.unwrap_or(0);
    let initial = request.is("sendInitialEvents");
    let now = Instant::now();
    let mut watcher = Watcher {
        state: Arc::clone(state),
        kind: Arc::clone(kind),
        namespace,
        selector,
        form: request.form(),
        include: request.get("includeObject").unwrap_or("Metadata").to_owned(),
        bookmarks: request.is("allowWatchBookmarks"),
        cursor: from,
        revision: state.revision.subscribe(),
        waiting: VecDeque::new(),
        headed: false,
        ends: now + Duration::from_secs(lifetime),
        bookmark_at: now + BOOKMARK_EVERY,
        over: false,
    };
    watcher.begin(from, initial)?;
    let body = stream::unfold(watcher, |mut watcher| async move {
        watcher.next().await.map(|piece| (Ok::<_, Infallible>(piece), watcher))
    });
    Ok(reply::typed(200, "application/json", Body::from_stream(body)))
}

impl Watcher {
    /// Without a revision a watch begins with all objects as additions.
    fn begin(&mut self, from: u64, initial: bool) -> Result<(), Refusal> {
        let state = Arc::clone(&self.state);
        if from > 0 && !initial {
            // A revision that is no longer kept is told inside the watch, as the real server does.
            let current = state.read(|store| store.revision());
            return if from > current {
                Err(Refusal::from_the_future(from, current))
            } else {
                Ok(())
            };
        }
        let span = Span { namespace: self.namespace.as_deref(), ..Span::default() };
        let page = state.read(|store| store.list(&self.kind, &self.selector, &span))?;
        self.cursor = page.revision;
        for object in &page.items {
            let event = self.event(Verb::Added.word(), object);
            self.waiting.push_back(event);
        }
        if initial && self.bookmarks {
            let mut bookmark = self.bookmark();
            bookmark["object"]["metadata"]["annotations"] =
                json!({"k8s.io/initial-events-end": "true"});
            self.waiting.push_back(bookmark);
        }
        Ok(())
    }

    /// The next piece of the reply; `None` ends it.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.over {
                return None;
            }
            self.collect();
            if !self.waiting.is_empty() {
                return Some(self.piece());
            }
            let stop = self.state.stop.clone();
            tokio::select! {
                changed = self.revision.changed() => { changed.ok()?; }
                () = stop.cancelled() => return None,
                () = tokio::time::sleep_until(self.ends) => return None,
                () = tokio::time::sleep_until(self.bookmark_at), if self.bookmarks => {
                    self.bookmark_at = Instant::now() + BOOKMARK_EVERY;
                    let bookmark = self.bookmark();
                    self.waiting.push_back(bookmark);
                    return Some(self.piece());
                }
            }
        }
    }

    fn piece(&mut self) -> Bytes {
        let mut piece = Vec::new();
        for event in self.waiting.drain(..self.waiting.len().min(BATCH)) {
            piece.extend_from_slice(event.to_string().as_bytes());
            piece.push(b'\n');
        }
        Bytes::from(piece)
    }

    /// Moves the cursor over the next changes until some are asked for, or all were seen.
    fn collect(&mut self) {
        self.revision.mark_unchanged();
        while self.waiting.is_empty() && !self.over {
            let before = self.cursor;
            match self.read_on() {
                Ok(changes) => {
                    let events: Vec<Value> = changes.iter().filter_map(|c| self.seen(c)).collect();
                    self.waiting.extend(events);
                }
                Err(refusal) => {
                    let event = json!({"type": "ERROR", "object": refusal.status()});
                    self.waiting.push_back(event);
                    self.over = true;
                }
            }
            if self.cursor == before {
                return;
            }
        }
    }

    fn read_on(&mut self) -> Result<Vec<Change>, Refusal> {
        let state = Arc::clone(&self.state);
        state.read(|store| {
            let mut found = Vec::new();
            for change in store.changes(self.cursor)? {
                self.cursor = change.revision;
                let here = change.key.storage == self.kind.storage
                    && self.namespace.as_ref().is_none_or(|n| *n == change.key.namespace);
                if here {
                    found.push(change.clone());
                }
                if found.len() >= BATCH {
                    break;
                }
            }
            Ok(found)
        })
    }

    /// What a change looks like through the selector.
    fn seen(&mut self, change: &Change) -> Option<Value> {
        let object = self.kind.present(&change.object);
        let is = change.verb != Verb::Deleted && self.selector.selects(&object);
        let was = change.previous.as_ref().is_some_and(|previous| {
            self.selector.is_everything() || self.selector.selects(&self.kind.present(previous))
        });
        let word = match (was, is) {
            (false, false) => return None,
            (false, true) => Verb::Added,
            (true, true) => Verb::Modified,
            (true, false) => Verb::Deleted,
        };
        Some(self.event(word.word(), &object))
    }

    fn event(&mut self, word: &str, object: &Arc<Value>) -> Value {
        let object = match self.form {
            Form::Objects => Value::clone(object),
            Form::Metadata => reply::only_metadata(object),
            Form::Table => {
                let now = (self.state.options.clock)();
                let rows = std::slice::from_ref(object);
                let mut table = table::of(&self.kind, rows, &self.include, now);
                table["metadata"] =
                    json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                // Only the first row of a watch carries the headers.
                if std::mem::replace(&mut self.headed, true) {
                    table["columnDefinitions"] = json!([]);
                }
                table
            }
        };
        json!({"type": word, "object": object})
    }

    fn bookmark(&self) -> Value {
        let metadata =
            json!({"resourceVersion": self.cursor.to_string(), "creationTimestamp": null});
        let object = match self.form {
            Form::Objects => json!({
                "kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": metadata,
            }),
            Form::Metadata => json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
            }),
            Form::Table => json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                "columnDefinitions": [], "rows": [],
            }),
        };
        json!({"type": "BOOKMARK", "object": object})
    }
}
