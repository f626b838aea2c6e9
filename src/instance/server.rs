//! The control API: HTTP/1.1 over mutual TLS, one path per call.
//!
//! Bounds everything a caller could use up: connections, time for the handshake, time and size
//! of a request. Leaves what a call does to the other files.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    changes, dry_run, facts, fill, peers,
    protocol::{
        AskFacts, AskSettings, AskTimeline, Call, Checkpoint, DryRun, Follow, Initialise, Join,
        Load, MAX_BODY, Promote, Prove, Refused, Reply, Restart, ServerVersion,
    },
    prove,
    supervisor::Supervisor,
    tls::{Acceptor, Caller, caller},
    work::{Stop, Work},
};

/// Connections at a time: the controller keeps two, peers one each; the rest is for a controller
/// that is being replaced.
const MAX_CONNECTIONS: usize = 64;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a connection may wait for the next request; the controller looks every 10 s.
const IDLE: Duration = Duration::from_secs(60);
/// How long the body of a request may take to arrive.
const BODY: Duration = Duration::from_secs(20);
/// How long anything that is only asked may take; a dry run has its own deadline below it.
const ASKED: Duration = Duration::from_secs(300);

/// Everything a call may need.
pub struct Api {
    /// The server.
    pub supervisor: Arc<Supervisor>,
    /// The change under way.
    pub work: Arc<Work>,
    /// Version of the server's program.
    pub version: ServerVersion,
}

/// Serves until the instance stops.
pub async fn serve(
    api: Arc<Api>,
    listener: TcpListener,
    acceptor: Arc<Acceptor>,
    stopping: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping.cancelled() => return,
        };
        let tcp = match accepted {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                // Out of file descriptors, for example; some will be closed soon.
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!("too many connections to the control API; closing the newest");
            continue;
        };
        let (api, acceptor, stopping) = (api.clone(), acceptor.clone(), stopping.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = connection(api, tcp, acceptor) => {}
                () = stopping.cancelled() => {}
            }
            drop(place);
        });
    }
}

async fn connection(api: Arc<Api>, tcp: TcpStream, acceptor: Arc<Acceptor>) {
    let _ = tcp.set_nodelay(true);
    let tls = match timeout(HANDSHAKE, acceptor.acceptor().accept(tcp)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a connection without a good certificate");
            return;
        }
        Err(_) => return,
    };
    let Some(caller) = tls.get_ref().1.peer_certificates().and_then(caller) else { return };
    let service = service_fn(move |request| {
        let api = api.clone();
        async move { Ok::<_, Infallible>(answer(&api, caller, request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(tls), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of the control API ended");
    }
}

async fn answer(
    api: &Arc<Api>,
    caller: Caller,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    if head.method != Method::POST {
        return refuse(format!("send a POST, not {}", head.method));
    }
    if caller == Caller::Instance && path != AskTimeline::PATH {
        return refuse("an instance may only ask for the timeline".to_owned());
    }
    match timeout(BODY, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => route(api, &path, &body.to_bytes()).await,
        Ok(Err(error)) => refuse(format!("read the request (at most {MAX_BODY} bytes): {error}")),
        Err(_) => refuse(format!("the request did not arrive within {BODY:?}")),
    }
}

async fn route(api: &Arc<Api>, path: &str, body: &[u8]) -> Response<Full<Bytes>> {
    let own = &api.supervisor;
    macro_rules! asked {
        ($call:ty, |$named:ident| $answer:expr) => {
            match read::<$call>(body) {
                Ok($named) => written(&asked::<$call>($answer).await),
                Err(words) => refuse(words),
            }
        };
    }
    macro_rules! changed {
        ($call:ty, $carry_out:path) => {
            match read::<$call>(body) {
                Ok(call) => {
                    let fence = call.fence.clone();
                    let own = own.clone();
                    let carry_out =
                        |call, ticket| async move { $carry_out(&own, call, ticket).await };
                    written(&api.work.change(&api.supervisor, call, &fence, carry_out).await)
                }
                Err(words) => refuse(words),
            }
        };
    }
    let number = api.version.number;
    match path {
        AskFacts::PATH => asked!(AskFacts, |call| async {
            Ok(facts::facts(own, &api.work, Some(&api.version), &call).await)
        }),
        AskTimeline::PATH => {
            asked!(AskTimeline, |call| async {
                peers::remember(own, call.from);
                Ok(facts::timeline(&own.options).await)
            })
        }
        AskSettings::PATH => asked!(AskSettings, |call| async {
            changes::running(own)?;
            Ok(facts::settings(own, &call).await?)
        }),
        Prove::PATH => asked!(Prove, |call| prove::prove(own, number, &call)),
        DryRun::PATH => asked!(DryRun, |call| dry_run::dry_run(own, number, &call)),
        Initialise::PATH => changed!(Initialise, fill::initialise),
        Join::PATH => changed!(Join, fill::join),
        Follow::PATH => changed!(Follow, fill::follow),
        Promote::PATH => changed!(Promote, fill::promote),
        Load::PATH => changed!(Load, changes::load),
        Checkpoint::PATH => changed!(Checkpoint, changes::checkpoint),
        Restart::PATH => changed!(Restart, changes::restart),
        unknown => refuse(format!("no such call: {unknown}")),
    }
}

fn read<C: Call>(body: &[u8]) -> Result<C, String> {
    // The error names a place and a field, never a value that could be a secret.
    serde_json::from_slice(body).map_err(|error| {
        format!("understand {} at line {}, column {}", C::PATH, error.line(), error.column())
    })
}

async fn asked<C: Call>(answer: impl Future<Output = Result<C::Answer, Stop>>) -> Reply<C::Answer> {
    match timeout(ASKED, answer).await {
        Ok(Ok(answer)) => Reply::Done { answer },
        Ok(Err(Stop::Refused(refused))) => Reply::Refused { refused },
        Ok(Err(Stop::Failed(words))) => Reply::Failed { words },
        Err(_) => Reply::Failed { words: format!("no answer within {ASKED:?}") },
    }
}

fn refuse(words: String) -> Response<Full<Bytes>> {
    written(&Reply::<()>::Refused { refused: Refused::Invalid { words } })
}

fn written<A: Serialize>(reply: &Reply<A>) -> Response<Full<Bytes>> {
    let status = match reply {
        Reply::Done { .. } => StatusCode::OK,
        Reply::Working => StatusCode::ACCEPTED,
        Reply::Refused { .. } => StatusCode::CONFLICT,
        Reply::Failed { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let body = serde_json::to_vec(reply).unwrap_or_else(|error| {
        tracing::error!(%error, "could not write an answer");
        Vec::new()
    });
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}
