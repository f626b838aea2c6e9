//! Says why nobody goes on with a database's request: something that a person has to mend first.
//!
//! A right that is missing, an object that cannot be read, a field that is somebody else's: on the
//! request, because that is where people look, and as an event. Leaves trying again to the loop.
//! Never ends a request.

use serde_json::json;

use crate::api::PostgresOpsRequest;
use crate::api::names::DatabaseRef;
use crate::api::ops_request::OpsPhase;
use crate::cluster::{self, EventKind};
use crate::ops::{Context, status};

/// Says it on the request that is carried out or would be next. `reason`: one word for it.
pub async fn say(id: &DatabaseRef, reason: &str, error: &cluster::Error, cx: &Context) {
    let all = cx.requests.all();
    let open = all.iter().filter(|r| r.database() == *id && !r.phase().is_terminal());
    let first = open.min_by_key(|request| {
        let created = request.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (request.phase() != OpsPhase::Progressing, created, request.request_name())
    });
    let Some(request) = first else { return };
    let Some(told) = status::blocked(request, reason, &error.to_string(), (cx.clock)()) else {
        return;
    };
    let patch = json!({ "metadata": { "resourceVersion": told.version }, "status": told.status });
    let name = &told.request.0;
    let written = cx.cluster.merge_status::<PostgresOpsRequest>(&id.namespace, name, &patch).await;
    match written {
        Ok(_) => {
            let note = error.without_values();
            cx.cluster.event(request.as_ref(), EventKind::Warning, reason, &note).await;
        }
        // Somebody wrote meanwhile; the next pass says it of what there is then.
        Err(conflict) if conflict.is_conflict() => {}
        Err(error) => tracing::warn!(%error, "what keeps a request could not be said on it"),
    }
}
