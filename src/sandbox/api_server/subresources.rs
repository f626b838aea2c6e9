//! Subresources other than status and log: scale, binding, eviction, finalize; and an honest 501
//! for those that need a real cluster.

use super::{
    reply::{self, Reply},
    request::Request,
    route::Resource,
    state::State,
    table,
};
use crate::sandbox::store::{
    By, Store, Validation,
    delete::Deletion,
    kinds::Kind,
    patch::Patch,
    read::Span,
    refusal::{Cause, Refusal},
    selector::{Selector, label_selector_selects},
    write::{Part, Target},
};
use http::Method;
use serde_json::{Value, json};

/// Answers for a subresource.
///
/// # Errors
/// 404, 405, 409, 422, 429 (eviction), 501.
pub fn reply(
    state: &State,
    kind: &Kind,
    namespace: &str,
    name: &str,
    subresource: &str,
    request: &Request,
) -> Result<Reply, Refusal> {
    let pod = kind.is("", "Pod");
    match subresource {
        "scale" if kind.scale.is_some() => scale(state, kind, namespace, name, request),
        "binding" if pod => bind(state, kind, namespace, name, request),
        "eviction" if pod => evict(state, kind, namespace, name, request),
        "finalize" if kind.is("", "Namespace") => {
            // Namespaces of the sandbox are emptied and removed by the server itself.
            let found = state.read(|store| store.get(kind, "", name))?;
            Ok(reply::json(200, &found))
        }
        "exec" | "attach" | "portforward" if pod => {
            state.read(|store| store.get(kind, namespace, name))?;
            let line = (state.options.psql_line)(namespace, name);
            Err(Refusal::not_implemented(format!(
                "the sandbox runs containers as plain processes and has no {subresource}; use \
                 instead: {line}"
            )))
        }
        "ephemeralcontainers" | "proxy" | "resize" | "token" => {
            Err(Refusal::not_implemented(format!("the sandbox does not offer {subresource}")))
        }
        _ => Err(Refusal::no_such_path()),
    }
}

/// Answers for kinds that are not stored: reviews of the caller's own rights. In the sandbox the
/// one user may do everything.
///
/// # Errors
/// 404, 501.
pub fn review(state: &State, resource: &Resource, request: &Request) -> Result<Reply, Refusal> {
    let reviews = ["selfsubjectaccessreviews", "selfsubjectrulesreviews", "subjectaccessreviews"];
    let version = state.read(|store| {
        store.kinds().groups().iter().any(|(g, _)| *g == resource.group)
            || resource.group.is_empty()
    });
    if request.method == Method::POST && reviews.contains(&resource.plural.as_str()) {
        let mut body = request.object()?;
        body["status"] = json!({"allowed": true, "reason": "the sandbox has one user"});
        return Ok(reply::json(201, &body));
    }
    if request.method == Method::POST && resource.plural == "selfsubjectreviews" {
        let mut body = request.object()?;
        let groups = ["system:masters", "system:authenticated"];
        body["status"] = json!({"userInfo": {"username": "sandbox-admin", "groups": groups}});
        return Ok(reply::json(201, &body));
    }
    if version || !KNOWN_GROUPS.contains(&resource.group.as_str()) {
        return Err(Refusal::no_such_path());
    }
    let why = format!(
        "the sandbox does not serve {}.{}; use a real cluster",
        resource.plural, resource.group
    );
    Err(Refusal::not_implemented(why))
}

/// Groups of a real cluster that the sandbox leaves out.
const KNOWN_GROUPS: &[&str] = &[
    "batch",
    "autoscaling",
    "networking.k8s.io",
    "admissionregistration.k8s.io",
    "apiregistration.k8s.io",
    "certificates.k8s.io",
    "metrics.k8s.io",
    "node.k8s.io",
    "scheduling.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
];

fn scale(
    state: &State,
    kind: &Kind,
    namespace: &str,
    name: &str,
    request: &Request,
) -> Result<Reply, Refusal> {
    let Some(paths) = &kind.scale else { return Err(Refusal::no_such_path()) };
    let target = Target { kind, namespace, name, part: Part::Scale };
    let shown = |object: &Value| {
        let number = |path: &str| first(object, path).and_then(Value::as_i64).unwrap_or(0);
        let meta = &object["metadata"];
        let selector = match &paths.selector {
            Some(path) => first(object, path).cloned().unwrap_or_default(),
            None => json!(selector_text(&object["spec"]["selector"])),
        };
        let mut scale = json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {
                "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"],
                "resourceVersion": meta["resourceVersion"],
                "creationTimestamp": meta["creationTimestamp"],
            },
            "spec": {"replicas": number(&paths.spec)},
            "status": {"replicas": number(&paths.status)},
        });
        if selector.as_str().is_some_and(|s| !s.is_empty()) {
            scale["status"]["selector"] = selector;
        }
        scale
    };
    let object = state.read(|store| store.get(kind, namespace, name))?;
    let mut wanted = shown(&object);
    match request.method {
        Method::GET => return Ok(reply::json(200, &wanted)),
        Method::PUT => wanted = request.object()?,
        Method::PATCH => match request.patch()? {
            Patch::Merge(patch) | Patch::Strategic(patch) => {
                crate::sandbox::store::patch::merge::patch(&mut wanted, &patch);
            }
            Patch::Json(patch) => crate::sandbox::store::patch::json::patch(&mut wanted, &patch)
                .map_err(Refusal::bad_request)?,
            Patch::Apply { config, .. } => {
                crate::sandbox::store::patch::merge::patch(&mut wanted, &config);
            }
        },
        _ => return Err(Refusal::method_not_allowed()),
    }
    let by = state.by(request.manager(), request.dry_run()?, Validation::Ignore);
    let mut change = json!({});
    put(&mut change, &paths.spec, wanted["spec"]["replicas"].clone());
    if let Some(revision) = wanted["metadata"]["resourceVersion"].as_str()
        && request.method == Method::PUT
    {
        change["metadata"] = json!({"resourceVersion": revision});
    }
    let written = state.write(|store| store.patch(target, &Patch::Merge(change), &by))?;
    Ok(reply::json(200, &shown(&written.object)))
}

fn first<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    table::find(object, path).first().copied()
}

fn put(object: &mut Value, path: &str, value: Value) {
    let mut here = object;
    for part in path.split('.').filter(|p| !p.is_empty()) {
        here = &mut here[part];
    }
    *here = value;
}

fn selector_text(selector: &Value) -> String {
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let pairs: Vec<String> =
        labels.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    pairs.join(",")
}

/// A pod gets its node.
fn bind(
    state: &State,
    kind: &Kind,
    namespace: &str,
    name: &str,
    request: &Request,
) -> Result<Reply, Refusal> {
    if request.method != Method::POST {
        return Err(Refusal::method_not_allowed());
    }
    let body = request.object()?;
    let node = body["target"]["name"].as_str().unwrap_or_default();
    let by = state.by(request.manager(), request.dry_run()?, Validation::Ignore);
    let target = Target { kind, namespace, name, part: Part::Whole };
    state.write(|store| {
        let pod = store.get(kind, namespace, name)?;
        if let Some(bound) = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
            let why = format!("pod {name} is already assigned to node {bound:?}");
            return Err(Refusal::conflict("", "pods/binding", name, &why));
        }
        let change = json!({"spec": {"nodeName": node}});
        store.patch(target, &Patch::Merge(change), &by)
    })?;
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
    });
    Ok(reply::json(201, &status))
}

/// A deletion that asks the disruption budgets first.
fn evict(
    state: &State,
    kind: &Kind,
    namespace: &str,
    name: &str,
    request: &Request,
) -> Result<Reply, Refusal> {
    if request.method != Method::POST {
        return Err(Refusal::method_not_allowed());
    }
    let by = state.by(request.manager(), request.dry_run()?, Validation::Ignore);
    let deletion = request.deletion();
    let target = Target { kind, namespace, name, part: Part::Whole };
    state.write(|store| {
        let pod = store.get(kind, namespace, name)?;
        spend_budget(store, namespace, &pod, &by)?;
        store.delete(target, &Deletion { ..deletion.clone() }, &by)
    })?;
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
    });
    Ok(reply::json(201, &status))
}

fn spend_budget(store: &mut Store, namespace: &str, pod: &Value, by: &By) -> Result<(), Refusal> {
    let running = ["Running", "Pending"].iter().any(|p| pod["status"]["phase"] == *p);
    let Some(kind) = store.kinds().find("policy", "v1", "poddisruptionbudgets") else {
        return Ok(());
    };
    let span = Span { namespace: Some(namespace), ..Span::default() };
    let budgets = store.list(&kind, &Selector::default(), &span)?.items;
    let labels = &pod["metadata"]["labels"];
    let budget = budgets.iter().find(|b| label_selector_selects(&b["spec"]["selector"], labels));
    let Some(budget) = budget.filter(|_| running) else { return Ok(()) };
    let name = budget["metadata"]["name"].as_str().unwrap_or_default();
    let allowed = budget["status"]["disruptionsAllowed"].as_i64().unwrap_or(0);
    if allowed < 1 {
        let healthy = budget["status"]["currentHealthy"].as_i64().unwrap_or(0);
        let wanted = budget["status"]["desiredHealthy"].as_i64().unwrap_or(0);
        let cause = Cause {
            reason: "DisruptionBudget".into(),
            message: format!(
                "The disruption budget {name} needs {wanted} healthy pods and has {healthy} \
                 currently"
            ),
            field: String::new(),
        };
        let why = "Cannot evict pod as it would violate the pod's disruption budget.";
        return Err(Refusal::too_many_requests(why, cause));
    }
    if by.dry_run {
        return Ok(());
    }
    let target = Target { kind: &kind, namespace, name, part: Part::Status };
    let change = json!({"status": {"disruptionsAllowed": allowed - 1}});
    store.patch(target, &Patch::Merge(change), by).map(|_| ())
}
