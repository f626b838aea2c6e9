//! Logs of pods: from the file of a container, to its end or as it grows.

use super::{
    reply::{self, Reply},
    request::Request,
    state::State,
};
use crate::sandbox::store::refusal::Refusal;
use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use serde_json::Value;
use std::{
    io::SeekFrom,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
};

/// How often a followed file is looked at: soon enough for eyes.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Bytes of a piece of the reply.
const PIECE: usize = 64 * 1024;

/// How far back `tailLines` looks: the end of a very long file is enough.
const TAIL_WINDOW: u64 = 16 * 1024 * 1024;

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
    let tail = request.number("tailLines")?;
    let limit = request.number("limitBytes")?;
    let start = start(&path, tail).await.map_err(|e| unreadable(&path, &e))?;
    let follow = request.is("follow").then(|| Followed {
        state: Arc::clone(state),
        namespace: namespace.to_owned(),
        pod: name.to_owned(),
        uid: pod["metadata"]["uid"].clone(),
    });
    let mut file = File::open(&path).await.map_err(|e| unreadable(&path, &e))?;
    file.seek(SeekFrom::Start(start)).await.map_err(|e| unreadable(&path, &e))?;
    let reader = Reader { file, follow, left: limit.unwrap_or(u64::MAX) };
    let body = stream::unfold(reader, |mut reader| async move {
        reader.next().await.map(|piece| (piece, reader))
    });
    Ok(reply::typed(200, "text/plain", Body::from_stream(body)))
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

/// Where the last lines begin.
async fn start(path: &Path, tail: Option<u64>) -> std::io::Result<u64> {
    let Some(tail) = tail else { return Ok(0) };
    let mut file = File::open(path).await?;
    let size = file.metadata().await?.len();
    let from = size.saturating_sub(TAIL_WINDOW);
    file.seek(SeekFrom::Start(from)).await?;
    let mut end = Vec::new();
    file.take(TAIL_WINDOW).read_to_end(&mut end).await?;
    let wanted = usize::try_from(tail).unwrap_or(usize::MAX);
    let text = end.strip_suffix(b"\n").unwrap_or(&end);
    if wanted == 0 {
        return Ok(size);
    }
    let breaks: Vec<usize> =
        text.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at).collect();
    if breaks.len() < wanted {
        return Ok(from);
    }
    Ok(from + breaks[breaks.len() - wanted] as u64 + 1)
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

struct Reader {
    file: File,
    follow: Option<Followed>,
    left: u64,
}

impl Reader {
    async fn next(&mut self) -> Option<std::io::Result<Bytes>> {
        loop {
            let size = PIECE.min(usize::try_from(self.left).unwrap_or(PIECE));
            let mut piece = vec![0; size];
            match self.file.read(&mut piece).await {
                Ok(0) => {
                    let follow = self.follow.as_ref().filter(|_| size > 0)?;
                    if !follow.lives() {
                        return None;
                    }
                    tokio::select! {
                        () = follow.state.stop.cancelled() => return None,
                        () = tokio::time::sleep(LOOK_EVERY) => {}
                    }
                }
                Ok(read) => {
                    piece.truncate(read);
                    self.left -= read as u64;
                    return Some(Ok(Bytes::from(piece)));
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
