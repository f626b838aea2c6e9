//! Logs of pods: from the file of a container, to its end or as it grows.

use super::{
    reply::{self, Reply},
    request::Request,
    state::State,
};
use crate::sandbox::log_file::{self, Follow, Part};
use crate::sandbox::store::refusal::Refusal;
use axum::body::Body;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Answers with the log of a container.
///
/// # Errors
/// 404 for a pod that is not there, 400 for a container that is not there or has no log yet.
pub async fn of(
    state: &Arc<State>,
    namespace: &str,
    name: &str,
    request: &Request,
) -> Result<Reply, Refusal> {
    let pod = state.read(|store| {
        let kind = store.kinds().find("", "v1", "pods").ok_or_else(Refusal::no_such_path)?;
        store.get(&kind, namespace, name)
    })?;
    let container = container(&pod, name, request.get("container"))?;
    let previous = request.is("previous");
    let path = (state.options.log_path)(namespace, name, &container, previous);
    let Some(path) = path.filter(|p| p.exists()) else {
        let word = if previous { "previous terminated container" } else { "container" };
        return Err(Refusal::bad_request(format!(
            "{word} {container:?} in pod {name:?} is waiting to start or has no log"
        )));
    };
    if request.is("timestamps") || request.get("sinceTime").is_some() {
        tracing::debug!("logs of the sandbox carry no times; all lines are sent");
    }
    let part = Part { tail: request.number("tailLines")?, limit: request.number("limitBytes")? };
    let follow = request.is("follow").then(|| {
        let followed = Followed {
            state: Arc::clone(state),
            namespace: namespace.to_owned(),
            pod: name.to_owned(),
            uid: pod["metadata"]["uid"].clone(),
        };
        let stop = state.stop.clone();
        Follow { lives: Box::new(move || followed.lives()), stop }
    });
    let pieces = log_file::read(&path, part, follow).await.map_err(|e| unreadable(&path, &e))?;
    Ok(reply::typed(200, "text/plain", Body::from_stream(pieces)))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Refusal {
    let file = path.file_name().map(PathBuf::from).unwrap_or_default();
    Refusal::internal(format!("reading the log {}: {error}", file.display()))
}

fn container(pod: &Value, name: &str, asked: Option<&str>) -> Result<String, Refusal> {
    let names = |list: &str| -> Vec<String> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.filter_map(|c| c["name"].as_str()).map(str::to_owned).collect()
    };
    let (main, init) = (names("containers"), names("initContainers"));
    match (asked, main.as_slice()) {
        (Some(asked), _) if main.iter().chain(&init).any(|c| c == asked) => Ok(asked.to_owned()),
        (Some(asked), _) => {
            Err(Refusal::bad_request(format!("container {asked} is not valid for pod {name}")))
        }
        (None, [one]) => Ok(one.clone()),
        (None, many) => Err(Refusal::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            many.join(" ")
        ))),
    }
}

/// A pod whose log is followed until it is gone.
struct Followed {
    state: Arc<State>,
    namespace: String,
    pod: String,
    uid: Value,
}

impl Followed {
    fn lives(&self) -> bool {
        self.state.read(|store| {
            let pod = store.kinds().find("", "v1", "pods");
            let pod = pod.and_then(|kind| store.get(&kind, &self.namespace, &self.pod).ok());
            pod.is_some_and(|pod| {
                let ended = ["Succeeded", "Failed"].iter().any(|p| pod["status"]["phase"] == *p);
                pod["metadata"]["uid"] == self.uid && !ended
            })
        })
    }
}
