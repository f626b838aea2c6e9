//! What a request says: query, headers, body.

use super::protobuf;
use crate::sandbox::store::{
    Validation,
    delete::{Deletion, Dependents},
    patch::Patch,
    refusal::{Cause, Refusal},
};
use axum::{body::Body, extract::Query};
use bytes::Bytes;
use http::{HeaderMap, Method, Uri, header};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use std::collections::BTreeMap;

/// The largest body: what the real server accepts (etcd's limit with room for the envelope).
pub const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// A request that was read.
#[derive(Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path, not decoded.
    pub path: String,
    /// The query.
    pub query: BTreeMap<String, String>,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// How a reply is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Whole objects.
    Objects,
    /// Rows for kubectl.
    Table,
    /// Only type and metadata.
    Metadata,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// 413 for a body above the limit, 400 for a query that cannot be read.
    pub async fn read(request: http::Request<Body>) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let body = Limited::new(body, BODY_LIMIT).collect().await;
        let body = body.map_err(|_| Refusal::too_large(BODY_LIMIT))?.to_bytes();
        let query = query(&parts.uri)?;
        let path = parts.uri.path().to_owned();
        Ok(Self { method: parts.method, path, query, headers: parts.headers, body })
    }

    /// A parameter; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// True for a parameter that says so.
    pub fn is(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1"))
    }

    /// A number.
    ///
    /// # Errors
    /// 400.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let parse = |text: &str| {
            text.parse().map_err(|_| Refusal::bad_request(format!("{name}: {text:?} is no number")))
        };
        self.get(name).map(parse).transpose()
    }

    /// The text of a header.
    pub fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// The form of the reply.
    pub fn form(&self) -> Form {
        for wanted in self.header(header::ACCEPT).split(',') {
            if wanted.contains("as=Table") && !wanted.contains("v1beta1") {
                return Form::Table;
            }
            if wanted.contains("as=PartialObjectMetadata") {
                return Form::Metadata;
            }
            if wanted.trim() == "application/json" {
                break;
            }
        }
        Form::Objects
    }

    /// The field manager: what the query says, otherwise the program's name.
    pub fn manager(&self) -> String {
        let agent = self.header(header::USER_AGENT).split('/').next().unwrap_or_default();
        let name = self.get("fieldManager").unwrap_or(agent);
        if name.is_empty() { "unknown".to_owned() } else { name.to_owned() }
    }

    /// What to do about unknown fields.
    ///
    /// # Errors
    /// 400.
    pub fn validation(&self) -> Result<Validation, Refusal> {
        match self.get("fieldValidation") {
            None | Some("Warn") => Ok(Validation::Warn),
            Some("Ignore") => Ok(Validation::Ignore),
            Some("Strict") => Ok(Validation::Strict),
            Some(other) => {
                Err(Refusal::bad_request(format!("invalid fieldValidation value: {other:?}")))
            }
        }
    }

    /// The body as an object.
    ///
    /// # Errors
    /// 400, 415.
    pub fn object(&self) -> Result<Value, Refusal> {
        let content = self.header(header::CONTENT_TYPE);
        if content.contains("protobuf") {
            return protobuf::decode(&self.body);
        }
        parse(&self.body, content.contains("yaml"))
    }

    /// The body as a patch.
    ///
    /// # Errors
    /// 400, 415, 422.
    pub fn patch(&self) -> Result<Patch, Refusal> {
        let content = self.header(header::CONTENT_TYPE);
        let content = content.split(';').next().unwrap_or_default().trim();
        match content {
            "application/json-patch+json" => Ok(Patch::Json(parse(&self.body, false)?)),
            "application/merge-patch+json" => Ok(Patch::Merge(parse(&self.body, false)?)),
            "application/strategic-merge-patch+json" => {
                Ok(Patch::Strategic(parse(&self.body, false)?))
            }
            "application/apply-patch+yaml" => {
                if self.get("fieldManager").is_none() {
                    let cause = Cause::required("fieldManager", "is required for apply patch");
                    return Err(Refusal::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
                }
                let config = parse(&self.body, true)?;
                Ok(Patch::Apply { config, force: self.is("force") })
            }
            _ => Err(Refusal::unsupported_media_type(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, \
                 application/strategic-merge-patch+json, application/apply-patch+yaml",
            )),
        }
    }

    /// True if nothing is to be stored.
    ///
    /// # Errors
    /// 400.
    pub fn dry_run(&self) -> Result<bool, Refusal> {
        let options = self.delete_options();
        let in_body = options["dryRun"][0].as_str();
        match self.get("dryRun").or(in_body) {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(Refusal::bad_request(format!("invalid dryRun value: {other:?}"))),
        }
    }

    /// How to delete.
    pub fn deletion(&self) -> Deletion {
        let options = self.delete_options();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let policy = self.get("propagationPolicy").map(str::to_owned);
        let orphan = options["orphanDependents"] == true || self.is("orphanDependents");
        let dependents = match text(&options["propagationPolicy"]).or(policy).as_deref() {
            Some("Foreground") => Dependents::Foreground,
            Some("Orphan") => Dependents::Orphan,
            None if orphan => Dependents::Orphan,
            _ => Dependents::Background,
        };
        let grace = self.get("gracePeriodSeconds").and_then(|g| g.parse().ok());
        Deletion {
            dependents,
            uid: text(&options["preconditions"]["uid"]),
            revision: text(&options["preconditions"]["resourceVersion"]),
            grace: options["gracePeriodSeconds"].as_i64().or(grace),
        }
    }

    fn delete_options(&self) -> Value {
        if self.method != Method::DELETE && !self.path.ends_with("/eviction") {
            return Value::Null;
        }
        let body = self.object().unwrap_or_default();
        match body.get("deleteOptions") {
            Some(options) => options.clone(),
            None => body,
        }
    }
}

fn query(uri: &Uri) -> Result<BTreeMap<String, String>, Refusal> {
    // The last value of a repeated parameter counts.
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri);
    let pairs = pairs.map_err(|e| Refusal::bad_request(format!("query: {e}")))?;
    Ok(pairs.0.into_iter().collect())
}

fn parse(body: &[u8], yaml: bool) -> Result<Value, Refusal> {
    match serde_json::from_slice(body) {
        Ok(value) => Ok(value),
        Err(_) if yaml => serde_yaml::from_slice(body)
            .map_err(|e| Refusal::bad_request(format!("error decoding YAML: {e}"))),
        Err(e) => Err(Refusal::bad_request(format!("the object provided is unrecognized: {e}"))),
    }
}
