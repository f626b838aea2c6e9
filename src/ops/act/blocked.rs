//! Says why nobody goes on with a database's request: something that a person has to mend first.
//!
//! A right that is missing, an object that cannot be read, a field that is somebody else's: on the
//! request, because that is where people look, and as an event. Leaves to `queue` which request
//! that is, and trying again to the loop. Never ends a request.

use serde_json::json;

use crate::api::PostgresOpsRequest;
use crate::api::names::DatabaseRef;
use crate::cluster::{self, EventKind};
use crate::ops::step::Step;
use crate::ops::{Context, queue, status};

/// Says it. `step`: what could not be done, if it came so far. `reason`: one word for it.
pub async fn say(
    id: &DatabaseRef,
    step: Option<&Step>,
    reason: &str,
    error: &cluster::Error,
    cx: &Context,
) {
    let all = cx.requests.all();
    let of_database = all.iter().filter(|request| request.database() == *id);
    let all: Vec<PostgresOpsRequest> = of_database.map(|r| PostgresOpsRequest::clone(r)).collect();
    let Some(request) = queue::concerned(&all, step) else { return };
    let sentence = error.to_string();
    let Some(told) = status::blocked(request, reason, &sentence, (cx.clock)()) else { return };
    let patch = json!({ "metadata": { "resourceVersion": told.version }, "status": told.status });
    let name = &told.request.0;
    let written = cx.cluster.merge_status::<PostgresOpsRequest>(&id.namespace, name, &patch).await;
    match written {
        Ok(_) => {
            let note = error.without_values();
            cx.cluster.event(request, EventKind::Warning, reason, &note).await;
        }
        // Somebody wrote meanwhile; the next pass says it of what there is then.
        Err(conflict) if conflict.is_conflict() => {}
        Err(error) => tracing::warn!(
            error = error.without_values(),
            "what keeps a request could not be said on it"
        ),
    }
}
