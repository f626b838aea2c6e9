//! Replies: objects, lists, tables, refusals.

use super::{
    request::{Form, Request},
    state::State,
    table,
};
use crate::sandbox::store::{Written, kinds::Kind, read::Page, refusal::Refusal};
use axum::body::Body;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use std::sync::Arc;

/// A reply.
pub type Reply = Response<Body>;

/// A value as JSON.
pub fn json(code: u16, value: &Value) -> Reply {
    typed(code, "application/json", value.to_string())
}

/// Text of a type.
pub fn typed(code: u16, content_type: &'static str, body: impl Into<Body>) -> Reply {
    let mut reply = Response::new(body.into());
    *reply.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// A refusal.
pub fn refused(refusal: &Refusal) -> Reply {
    let mut reply = json(refusal.code, &refusal.status());
    if refusal.code == 429 || refusal.code == 504 {
        reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    reply
}

/// What a write made.
pub fn written(written: &Written) -> Reply {
    let mut reply = json(if written.created { 201 } else { 200 }, &written.object);
    for warning in &written.warnings {
        let text = format!("299 - {:?}", warning);
        if let Ok(value) = HeaderValue::from_str(&text) {
            reply.headers_mut().append(header::WARNING, value);
        }
    }
    reply
}

/// One object in the form that was asked for.
pub fn object(kind: &Kind, object: &Arc<Value>, request: &Request, state: &State) -> Value {
    match request.form() {
        Form::Objects => Value::clone(object),
        Form::Metadata => only_metadata(object),
        Form::Table => {
            let revision = object["metadata"]["resourceVersion"].clone();
            let rows = std::slice::from_ref(object);
            let include = request.get("includeObject").unwrap_or("Metadata");
            let mut table = table::of(kind, rows, include, (state.options.clock)());
            table["metadata"] = json!({"resourceVersion": revision});
            table
        }
    }
}

/// A list in the form that was asked for.
pub fn list(kind: &Kind, page: &Page, request: &Request, state: &State) -> Reply {
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if let Some(last) = &page.last {
        metadata["continue"] = json!(Continue::write(page.revision, last));
        if let Some(remaining) = page.remaining {
            metadata["remainingItemCount"] = json!(remaining);
        }
    }
    let value = match request.form() {
        Form::Objects => return objects(kind, &metadata, &page.items),
        Form::Metadata => json!({
            "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "items": page.items.iter().map(|o| only_metadata(o)).collect::<Vec<_>>(),
        }),
        Form::Table => {
            let include = request.get("includeObject").unwrap_or("Metadata");
            let mut table = table::of(kind, &page.items, include, (state.options.clock)());
            table["metadata"] = metadata;
            table
        }
    };
    json(200, &value)
}

/// A list of whole objects, written without copying them.
fn objects(kind: &Kind, metadata: &Value, items: &[Arc<Value>]) -> Reply {
    let (list_kind, api_version) = (json!(kind.list_kind), json!(kind.api_version()));
    let mut text = format!(
        "{{\"kind\":{list_kind},\"apiVersion\":{api_version},\"metadata\":{metadata},\"items\":["
    );
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&item.to_string());
    }
    text.push_str("]}");
    typed(200, "application/json", text)
}

/// Type and metadata of an object.
pub fn only_metadata(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

/// That something was deleted.
pub fn deleted(kind: &Kind, last: &Value) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {
            "name": last["metadata"]["name"], "group": kind.group, "kind": kind.plural,
            "uid": last["metadata"]["uid"],
        },
    })
}

/// Where the next page of a list begins.
pub struct Continue;

impl Continue {
    fn write(revision: u64, (namespace, name): &(String, String)) -> String {
        URL_SAFE_NO_PAD.encode(json!([revision, namespace, name]).to_string())
    }

    /// Reads a token: the revision of the list, and the last object of the page before.
    ///
    /// # Errors
    /// 400.
    pub fn read(token: &str) -> Result<(u64, (String, String)), Refusal> {
        let parsed = URL_SAFE_NO_PAD
            .decode(token)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<(u64, String, String)>(&bytes).ok());
        let (revision, namespace, name) =
            parsed.ok_or_else(|| Refusal::bad_request("continue key is not valid"))?;
        Ok((revision, (namespace, name)))
    }
}
