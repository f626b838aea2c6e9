//! Says on a database why nobody looks after it: something that a person has to mend first.
//!
//! A right that is missing, an object that the API server refuses, a field that is somebody else's.
//! The next pass that comes to its end takes it back (`status`). Never stops another database's
//! pass.

use serde_json::json;

use crate::api::Postgres;
use crate::api::conditions::{self, Condition, STALLED};
use crate::cluster::{self, EventKind};
use crate::pgconf::Settings;
use crate::provision::Context;

/// Says it, unless it is said already. `reason`: one word for it.
pub async fn say(postgres: &Postgres, reason: &str, error: &cluster::Error, cx: &Context) {
    // An admission webhook's words may quote what the object carries.
    let carried = Settings::parse(postgres.spec.inline()).unwrap_or_default();
    let sentence = carried.hide_in(&error.to_string());
    let condition = Condition::new(STALLED, true, reason, &sentence, (cx.clock)());
    let condition = condition.observed(postgres.metadata.generation);
    let said = conditions::find(postgres.conditions(), STALLED);
    if said.is_some_and(|said| said.reason == reason && said.message == condition.message) {
        return;
    }
    let mut all = postgres.conditions().to_vec();
    conditions::set(&mut all, condition);
    let patch = json!({
        "metadata": { "resourceVersion": postgres.metadata.resource_version },
        "status": { "conditions": all },
    });
    let database = postgres.database();
    let written =
        cx.cluster.merge_status::<Postgres>(&database.namespace, &database.name, &patch).await;
    match written {
        Ok(_) => {
            let note = error.without_values();
            cx.cluster.event(postgres, EventKind::Warning, reason, &note).await;
        }
        // Somebody wrote meanwhile; the next pass says it of what there is then.
        Err(conflict) if conflict.is_conflict() => {}
        Err(error) => tracing::warn!(
            error = error.without_values(),
            "what keeps a database could not be said on it"
        ),
    }
}
