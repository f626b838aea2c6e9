//! The whole line behind bad weather: an API server that refuses, is overloaded, breaks, loses its
//! answers, cuts watches, and is gone for a while. Nothing is lost and nothing is done twice.
//!
//! The weather is between the controller's client and the sandbox; everything else is real. Which
//! call is hit is drawn from a seed, which a failure names with the command that draws it again.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Frame;
use kube::client::{Body, ClientBuilder, DynBody};
use kube::{Api, ResourceExt as _};
use pgitops::api::PostgresOpsRequest;
use pgitops::api::ops_request::OpsPhase;
use pgitops::cli::controller::{self, Loop, Settings};
use pgitops::cluster::Cluster;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Layer, Service};

use crate::fixture::{MAJOR, World, until};
use crate::simulate::Random;
use crate::sync::{document, git};

type Answer = Response<Box<DynBody>>;

/// One call in so many is hit.
const HIT: u64 = 8;
/// Frames of a watch before it is cut, at most.
const FRAMES: u64 = 30;

/// What becomes of a call.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Fine,
    /// Never arrives.
    Refused,
    /// Is answered so, and nothing is done.
    Status(StatusCode),
    /// Is carried out; the answer is lost.
    Lost,
}

/// The weather, shared by all calls.
#[derive(Clone)]
struct Weather {
    random: Arc<Mutex<Random>>,
    away: Arc<AtomicBool>,
    hit: Arc<AtomicU64>,
}

impl Weather {
    fn new(seed: u64) -> Self {
        let random = Arc::new(Mutex::new(Random::new(seed)));
        Self { random, away: Arc::default(), hit: Arc::default() }
    }

    fn fate(&self) -> Fate {
        let mut random = self.random.lock().unwrap();
        let fate = match (self.away.load(Ordering::Relaxed), random.once_in(HIT)) {
            (true, _) => Fate::Refused,
            (false, false) => return Fate::Fine,
            (false, true) => *random.one_of(&[
                Fate::Refused,
                Fate::Lost,
                Fate::Lost,
                Fate::Status(StatusCode::CONFLICT),
                Fate::Status(StatusCode::TOO_MANY_REQUESTS),
                Fate::Status(StatusCode::INTERNAL_SERVER_ERROR),
                Fate::Status(StatusCode::SERVICE_UNAVAILABLE),
            ]),
        };
        self.hit.fetch_add(1, Ordering::Relaxed);
        fate
    }

    /// How many calls were hit so far.
    fn hits(&self) -> u64 {
        self.hit.load(Ordering::Relaxed)
    }
}

impl<S> Layer<S> for Weather {
    type Service = Outside<S>;

    fn layer(&self, inner: S) -> Outside<S> {
        Outside { inner, weather: self.clone() }
    }
}

/// A service in that weather.
struct Outside<S> {
    inner: S,
    weather: Weather,
}

impl<S> Service<Request<Body>> for Outside<S>
where
    S: Service<Request<Body>, Response = Answer, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Answer;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answer, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let fate = self.weather.fate();
        let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        match fate {
            Fate::Refused => Box::pin(async { Err("weather: refused".into()) }),
            Fate::Status(status) => Box::pin(async move { Ok(refusal(status)) }),
            Fate::Lost => {
                let call = self.inner.call(request);
                Box::pin(async move {
                    call.await?;
                    Err("weather: the answer is lost".into())
                })
            }
            Fate::Fine if watches => {
                let left = self.weather.random.lock().unwrap().below(FRAMES);
                let call = self.inner.call(request);
                Box::pin(async move {
                    Ok(call.await?.map(|inner| Box::new(Cut { inner, left }) as Box<DynBody>))
                })
            }
            Fate::Fine => Box::pin(self.inner.call(request)),
        }
    }
}

/// An answer of the API server without its having done anything.
fn refusal(status: StatusCode) -> Answer {
    let reason = match status {
        StatusCode::CONFLICT => "Conflict",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        _ => "InternalError",
    };
    let text = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": "weather", "code": status.as_u16(),
    });
    let body = Full::new(Bytes::from(text.to_string())).map_err(|never| match never {});
    let body: Box<DynBody> = Box::new(body);
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
}

/// A body that breaks after some frames.
struct Cut {
    inner: Box<DynBody>,
    left: u64,
}

impl http_body::Body for Cut {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(left) = self.left.checked_sub(1) else {
            return Poll::Ready(Some(Err("weather: the connection was cut".into())));
        };
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if polled.is_ready() {
            self.left = left;
        }
        polled
    }
}

/// A client of the sandbox in that weather.
async fn client(world: &World, weather: &Weather) -> kube::Client {
    let read = kube::config::Kubeconfig::read_from(&world.sandbox.kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(read, &Default::default()).await.unwrap();
    ClientBuilder::try_from(config).unwrap().with_layer(weather).build()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_weather_loses_nothing_and_does_nothing_twice() {
    let seed = std::env::var("PGITOPS_WEATHER_SEED").ok().map(|seed| seed.parse().unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    let seed = seed.unwrap_or(u64::try_from(now % 1_000_000).unwrap());
    println!("again: PGITOPS_WEATHER_SEED={seed} cargo test --test it weather::");
    let world = World::start().await;
    let weather = Weather::new(seed);
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings::sandbox(folder.path().join("mirrors"));
    let stop = CancellationToken::new();
    let cluster = Cluster::new(client(&world, &weather).await);
    let work = controller::work(cluster, Loop::ALL.to_vec(), settings, stop.clone());
    let work = tokio::spawn(work);
    world.apply(&json!({
        "apiVersion": "kubedb.com/v1", "kind": "Postgres",
        "metadata": {"name": "orders", "namespace": "demo"},
        "spec": {
            "version": *MAJOR, "replicas": 2,
            "storage": {"resources": {"requests": {"storage": "1Gi"}}},
            "podTemplate": {"spec": {"containers": [
                {"name": "postgres", "resources": {"limits": {"memory": "64Mi"}}}
            ]}},
        },
    }));
    world.kubectl(&["wait", "pg/orders", "--for=condition=Ready", "--timeout=60s"]);
    // By hand, with a restart of each node.
    world.apply(&json!({
        "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest",
        "metadata": {"name": "by-hand", "namespace": "demo"},
        "spec": {
            "type": "Reconfigure", "databaseRef": {"name": "orders"}, "apply": "Always",
            "configuration": {"applyConfig": {"user.conf": "max_connections = 130"}},
        },
    }));
    let by_hand = ended(&world, "by-hand").await;
    let report = by_hand.status.unwrap().proof.unwrap();
    assert_eq!(report.restarted, ["orders-1 standby", "orders-0 primary"]);
    // By git; then while the API server is away.
    let bare = world.sandbox.config_git.clone().unwrap();
    git(folder.path(), &["clone", "-q", bare.to_str().unwrap(), "work"]);
    let clone = folder.path().join("work");
    git(&clone, &["checkout", "-q", "-b", "main"]);
    let push = |parameters: &str| {
        std::fs::write(clone.join("orders.yaml"), document("orders", parameters)).unwrap();
        git(&clone, &["add", "."]);
        git(&clone, &["commit", "-q", "-m", parameters]);
        git(&clone, &["push", "-q", "origin", "main"]);
        git(&clone, &["rev-parse", "HEAD"])
    };
    let first = push("work_mem: 16MB");
    let note = world.note(&first, "APPLIED").await;
    assert!(note.contains("proven on 2 of 2 nodes"), "{note}");
    weather.away.store(true, Ordering::Relaxed);
    let second = push("work_mem: 32MB");
    let before = weather.hits();
    until("the API server is missed", || async {
        let missed = weather.hits() - before;
        if missed >= 10 { Ok(()) } else { Err(format!("{missed} calls")) }
    })
    .await;
    weather.away.store(false, Ordering::Relaxed);
    let note = world.note(&second, "APPLIED").await;
    assert!(note.contains("Changed: work_mem 16MB -> 32MB"), "{note}");
    // One request for each change, all of them done with, and nobody is left paused.
    until("everything is let go", || async {
        let all = requests(&world).await;
        let open = all.iter().find(|request| !request.finalizers().is_empty());
        match open {
            None if all.len() == 3 => Ok(()),
            _ => Err(format!("{} requests: {open:#?}", all.len())),
        }
    })
    .await;
    for request in requests(&world).await {
        assert_eq!(request.phase(), OpsPhase::Successful, "{:#}", json!(request.status));
    }
    let types = world.kubectl(&["get", "pg/orders", "-o=jsonpath={.status.conditions[*].type}"]);
    assert!(!types.contains("Paused"), "{types}");
    assert!(weather.hits() > 20, "only {} calls were hit", weather.hits());
    stop.cancel();
    work.await.unwrap().unwrap();
    world.stop().await;
}

async fn requests(world: &World) -> Vec<PostgresOpsRequest> {
    let api = Api::<PostgresOpsRequest>::namespaced(world.client(), "demo");
    api.list(&Default::default()).await.unwrap().items
}

async fn ended(world: &World, name: &str) -> PostgresOpsRequest {
    until(&format!("{name} is Successful"), || async {
        let all = requests(world).await;
        let request = all.into_iter().find(|request| request.name_any() == name).unwrap();
        match request.phase() == OpsPhase::Successful {
            true => Ok(request),
            false => Err(format!("{:#}", json!(request.status))),
        }
    })
    .await
}
