//! From a request to a reply.

use super::{
    count::{ADMIN, Access},
    discovery, log, openapi,
    reply::{self, Continue, Reply},
    request::Request,
    route::{Resource, Route},
    state::State,
    subresources, watch,
};
use crate::sandbox::store::{
    Validation,
    kinds::Kind,
    read::Span,
    refusal::Refusal,
    selector::Selector,
    write::{Part, Target},
};
use axum::body::Body;
use http::{HeaderName, Method, header};
use serde_json::{Value, json};
use std::sync::Arc;

/// Answers one request.
pub async fn handle(state: Arc<State>, request: http::Request<Body>) -> Reply {
    let answer = async {
        let request = Request::read(request).await?;
        let route = Route::of(&request.path);
        if !matches!(route, Route::Health) {
            authenticate(&state, &request)?;
        }
        dispatch(&state, &route, &request).await
    };
    let refused = |refusal: Refusal| reply::refused(&refusal);
    answer.await.unwrap_or_else(refused)
}

fn authenticate(state: &State, request: &Request) -> Result<(), Refusal> {
    let given = request.header(header::AUTHORIZATION).strip_prefix("Bearer ").unwrap_or_default();
    // The whole text is compared, whatever differs first: the time tells nothing about the token.
    let wanted = state.options.token.as_bytes();
    let same = given.len() == wanted.len()
        && given.bytes().zip(wanted).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0;
    if same { Ok(()) } else { Err(Refusal::unauthorized()) }
}

async fn dispatch(state: &Arc<State>, route: &Route, request: &Request) -> Result<Reply, Refusal> {
    let found = |value: Option<Value>| {
        value.map(|v| reply::json(200, &v)).ok_or_else(Refusal::no_such_path)
    };
    let aggregated = request.header(header::ACCEPT).contains("as=APIGroupDiscoveryList")
        && request.header(header::ACCEPT).contains("v=v2;");
    match route {
        Route::Health => Ok(reply::typed(200, "text/plain", "ok")),
        Route::Version => Ok(reply::json(200, &discovery::version())),
        Route::Core | Route::Groups if aggregated => {
            let core = *route == Route::Core;
            let value = state.read(|store| discovery::aggregated(store, core));
            Ok(reply::typed(200, AGGREGATED, value.to_string()))
        }
        Route::Core => Ok(reply::json(200, &discovery::core(&state.options.address.to_string()))),
        Route::Groups => Ok(reply::json(200, &state.read(discovery::groups))),
        Route::Group(group) => found(state.read(|store| discovery::group(store, group))),
        Route::Resources { group, version } => {
            found(state.read(|store| discovery::resources(store, group, version)))
        }
        Route::OpenApi2 if request.header(header::ACCEPT).contains(OPENAPI_2) => {
            Ok(reply::typed(200, OPENAPI_2_REPLY, openapi::stub_protobuf()))
        }
        Route::OpenApi2 => Ok(reply::json(200, &openapi::stub())),
        Route::OpenApi3 => Ok(reply::json(200, &state.read(openapi::index))),
        Route::OpenApi3Group { group, version } => {
            found(state.read(|store| openapi::document(store, group, version)))
        }
        Route::Resource(resource) => resource_reply(state, resource, request).await,
        Route::Unknown => Err(Refusal::no_such_path()),
    }
}

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

const OPENAPI_2: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The same in a form that Go's parser of media types takes.
const OPENAPI_2_REPLY: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

async fn resource_reply(
    state: &Arc<State>,
    resource: &Resource,
    request: &Request,
) -> Result<Reply, Refusal> {
    let kind = state
        .read(|store| store.kinds().find(&resource.group, &resource.version, &resource.plural));
    let Some(kind) = kind else {
        count(state, resource, request);
        return subresources::review(state, resource, request);
    };
    count(state, resource, request);
    if resource.namespace.is_some() && !kind.namespaced {
        return Err(Refusal::no_such_path());
    }
    match (&resource.name, resource.subresource.as_deref()) {
        (None, _) => collection(state, &kind, resource, request),
        (Some(name), None) => object(state, &kind, resource, name, Part::Whole, request),
        (Some(name), Some("status")) if kind.has_status => {
            object(state, &kind, resource, name, Part::Status, request)
        }
        (Some(name), Some("log")) if kind.is("", "Pod") => {
            log::of(state, namespace(resource), name, request).await
        }
        (Some(name), Some(subresource)) => {
            subresources::reply(state, &kind, namespace(resource), name, subresource, request)
        }
    }
}

fn namespace(resource: &Resource) -> &str {
    resource.namespace.as_deref().unwrap_or_default()
}

fn count(state: &State, resource: &Resource, request: &Request) {
    let verb = match (&request.method, &resource.name) {
        (&Method::GET, None) if request.is("watch") => "watch",
        (&Method::GET, None) => "list",
        (&Method::GET, Some(_)) => "get",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, None) => "deletecollection",
        (&Method::DELETE, Some(_)) => "delete",
        _ => "other",
    };
    state.counter.add(access(verb, resource, request));
}

fn access(verb: &'static str, resource: &Resource, request: &Request) -> Access {
    let user = request.header(HeaderName::from_static("impersonate-user"));
    Access {
        user: if user.is_empty() { ADMIN } else { user }.to_owned(),
        verb,
        group: resource.group.clone(),
        plural: resource.plural.clone(),
        subresource: resource.subresource.clone(),
        namespace: resource.namespace.clone(),
    }
}

fn collection(
    state: &Arc<State>,
    kind: &Arc<Kind>,
    resource: &Resource,
    request: &Request,
) -> Result<Reply, Refusal> {
    let labels = request.get("labelSelector").unwrap_or_default();
    let fields = request.get("fieldSelector").unwrap_or_default();
    match request.method {
        Method::GET | Method::HEAD => {
            let selector = Selector::parse(labels, fields, kind)?;
            if request.is("watch") {
                return watch::start(state, kind, resource.namespace.clone(), selector, request);
            }
            let span = span(resource, request, state.read(|store| store.revision()))?;
            let page = state.read(|store| store.list(kind, &selector, &span))?;
            Ok(reply::list(kind, &page, request, state))
        }
        Method::POST => {
            if kind.namespaced && resource.namespace.is_none() {
                return Err(Refusal::method_not_allowed());
            }
            let by = state.by(request.manager(), request.dry_run()?, request.validation()?);
            let body = request.object()?;
            let created =
                state.write(|store| store.create(kind, namespace(resource), body, &by))?;
            Ok(reply::written(&created))
        }
        Method::DELETE => {
            let selector = Selector::parse(labels, fields, kind)?;
            delete_collection(state, kind, resource, &selector, request)
        }
        _ => Err(Refusal::method_not_allowed()),
    }
}

/// Which revision and page of a list is asked for.
fn span<'a>(resource: &'a Resource, request: &Request, current: u64) -> Result<Span<'a>, Refusal> {
    let limit = request.number("limit")?.filter(|l| *l > 0).and_then(|l| usize::try_from(l).ok());
    let mut span = Span { namespace: resource.namespace.as_deref(), limit, ..Span::default() };
    if let Some(token) = request.get("continue") {
        let (revision, after) = Continue::read(token)?;
        span.at = Some(revision);
        span.after = Some(after);
        return Ok(span);
    }
    let asked = request.number("resourceVersion")?.unwrap_or(0);
    if asked > current {
        return Err(Refusal::from_the_future(asked, current));
    }
    let exact = match request.get("resourceVersionMatch") {
        Some("Exact") => true,
        Some("NotOlderThan") => false,
        Some(other) => {
            let why = format!("invalid resourceVersionMatch: {other:?}");
            return Err(Refusal::bad_request(why));
        }
        // Before there was a match, a limit made a revision exact.
        None => limit.is_some() && asked > 0,
    };
    if exact {
        span.at = Some(asked);
    }
    Ok(span)
}

fn delete_collection(
    state: &State,
    kind: &Kind,
    resource: &Resource,
    selector: &Selector,
    request: &Request,
) -> Result<Reply, Refusal> {
    let by = state.by(request.manager(), request.dry_run()?, Validation::Ignore);
    let deletion = request.deletion();
    let span = Span { namespace: resource.namespace.as_deref(), ..Span::default() };
    let gone = state.write(|store| -> Result<Vec<Value>, Refusal> {
        let page = store.list(kind, selector, &span)?;
        let mut gone = Vec::new();
        for object in &page.items {
            let meta = &object["metadata"];
            let target = Target {
                kind,
                namespace: meta["namespace"].as_str().unwrap_or_default(),
                name: meta["name"].as_str().unwrap_or_default(),
                part: Part::Whole,
            };
            match store.delete(target, &deletion, &by) {
                Ok((last, _)) => gone.push(Value::clone(&last)),
                // Another deletion of the same collection has taken it along.
                Err(refusal) if refusal.code == 404 => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(gone)
    })?;
    let metadata = json!({"resourceVersion": state.read(|s| s.revision()).to_string()});
    let list = json!({
        "kind": kind.list_kind, "apiVersion": kind.api_version(), "metadata": metadata,
        "items": gone,
    });
    Ok(reply::json(200, &list))
}

fn object(
    state: &State,
    kind: &Kind,
    resource: &Resource,
    name: &str,
    part: Part,
    request: &Request,
) -> Result<Reply, Refusal> {
    let target = Target { kind, namespace: namespace(resource), name, part };
    match request.method {
        Method::GET | Method::HEAD => {
            let found = state.read(|store| store.get(kind, target.namespace, name))?;
            Ok(reply::json(200, &reply::object(kind, &found, request, state)))
        }
        Method::PUT => {
            let by = state.by(request.manager(), request.dry_run()?, request.validation()?);
            let body = request.object()?;
            let written = state.write(|store| store.replace(target, body, &by))?;
            Ok(reply::written(&written))
        }
        Method::PATCH => {
            let by = state.by(request.manager(), request.dry_run()?, request.validation()?);
            let patch = request.patch()?;
            let written = state.write(|store| store.patch(target, &patch, &by))?;
            if written.created {
                // An apply that creates is asked about twice (the real server's patch.go).
                state.counter.also(access("create", resource, request));
            }
            Ok(reply::written(&written))
        }
        Method::DELETE if part == Part::Whole => {
            let by = state.by(request.manager(), request.dry_run()?, Validation::Ignore);
            let deletion = request.deletion();
            let (last, gone) = state.write(|store| store.delete(target, &deletion, &by))?;
            let body = if gone && !kind.is("", "Pod") {
                reply::deleted(kind, &last)
            } else {
                Value::clone(&last)
            };
            Ok(reply::json(200, &body))
        }
        _ => Err(Refusal::method_not_allowed()),
    }
}
