//! What the store answers when it does not do what was asked: a Kubernetes `Status` as a value.
//!
//! Leaves to the API server how it is sent. The texts follow the real server's, because people
//! and tests read them.

use serde_json::{Value, json};

/// A request that was refused. `Display` is the sentence that kubectl prints.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The HTTP code.
    pub code: u16,
    /// The machine-readable reason (`NotFound`, `Conflict` …); empty where the real one has none.
    pub reason: &'static str,
    /// The sentence for people.
    pub message: String,
    /// What it is about.
    pub details: Box<Details>,
}

/// What a refusal is about.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Details {
    /// The kind that was asked for: group, plural or kind, name.
    pub about: Option<(String, String, String)>,
    /// One cause per wrong field.
    pub causes: Vec<Cause>,
}

/// One wrong field.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    /// The machine-readable type, as `FieldValueInvalid`.
    pub reason: String,
    /// What is wrong with the field, without its path.
    pub message: String,
    /// The path, as `spec.replicas`.
    pub field: String,
}

impl Cause {
    /// A value that is not acceptable: `value` is shown as the real server shows it.
    pub fn invalid(field: impl Into<String>, value: &Value, why: impl AsRef<str>) -> Self {
        let message = format!("Invalid value: {}: {}", show(value), why.as_ref());
        Self { reason: "FieldValueInvalid".into(), message, field: field.into() }
    }

    /// A field that must be there.
    pub fn required(field: impl Into<String>, why: &str) -> Self {
        let message = if why.is_empty() {
            "Required value".to_owned()
        } else {
            format!("Required value: {why}")
        };
        Self { reason: "FieldValueRequired".into(), message, field: field.into() }
    }

    /// A change that is not allowed.
    pub fn forbidden(field: impl Into<String>, why: impl AsRef<str>) -> Self {
        let message = format!("Forbidden: {}", why.as_ref());
        Self { reason: "FieldValueForbidden".into(), message, field: field.into() }
    }

    /// A value outside an enumeration.
    pub fn unsupported(field: impl Into<String>, value: &Value, supported: &[String]) -> Self {
        let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let message =
            format!("Unsupported value: {}: supported values: {}", show(value), list.join(", "));
        Self { reason: "FieldValueNotSupported".into(), message, field: field.into() }
    }
}

/// A value as Go prints it in a field error: objects and lists by their JSON type.
fn show(value: &Value) -> String {
    match value {
        Value::Object(_) => "\"object\"".into(),
        Value::Array(_) => "\"array\"".into(),
        Value::Null => "\"null\"".into(),
        other => other.to_string(),
    }
}

/// `postgreses.kubedb.com` or, for the core group, `pods`.
pub fn qualified(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

impl Refusal {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Box::default() }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        self.details.about = Some((group.to_owned(), kind.to_owned(), name.to_owned()));
        self
    }

    fn because(mut self, causes: Vec<Cause>) -> Self {
        self.details.causes = causes;
        self
    }

    /// 404: no such object.
    pub fn not_found(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(group, plural));
        Self::new(404, "NotFound", message).about(group, plural, name)
    }

    /// 404: no such path.
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 409: the name is taken.
    pub fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(group, plural));
        Self::new(409, "AlreadyExists", message).about(group, plural, name)
    }

    /// 409: somebody was faster, or a precondition does not hold.
    pub fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let what = qualified(group, plural);
        let message = format!("Operation cannot be fulfilled on {what} {name:?}: {why}");
        Self::new(409, "Conflict", message).about(group, plural, name)
    }

    /// 409: the caller read an older revision than the one that is stored.
    pub fn modified(group: &str, plural: &str, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version \
                   and try again";
        Self::conflict(group, plural, name, why)
    }

    /// 409: fields of a server-side apply that other managers own.
    pub fn apply_conflict(message: String, causes: Vec<Cause>) -> Self {
        Self::new(409, "Conflict", message).because(causes)
    }

    /// 422: fields that do not pass.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let mut lines: Vec<String> = Vec::new();
        for cause in &causes {
            let line = if cause.field.is_empty() {
                cause.message.clone()
            } else {
                format!("{}: {}", cause.field, cause.message)
            };
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        let all = match lines.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let what = qualified(group, kind);
        let message = format!("{what} {name:?} is invalid: {all}");
        Self::new(422, "Invalid", message).because(causes).about(group, kind, name)
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401: no or a wrong token.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403: understood, and refused.
    pub fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let what = qualified(group, plural);
        let message = format!("{what} {name:?} is forbidden: {why}");
        Self::new(403, "Forbidden", message).about(group, plural, name)
    }

    /// 405: the resource does not know this verb.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message)
    }

    /// 410: the revision is older than what the watch log keeps.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 413: a body above the cap.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// 415: a content type that is not spoken.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 429: an eviction that a disruption budget does not allow now.
    pub fn too_many_requests(message: impl Into<String>, cause: Cause) -> Self {
        Self::new(429, "TooManyRequests", message).because(vec![cause])
    }

    /// 500 without a reason, as the real server's unclassified errors.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "", message)
    }

    /// 501: the sandbox does not do this, and says what to do instead.
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(501, "NotImplemented", message)
    }

    /// 504: the caller knows a revision from the future (a directory that lost its last writes).
    pub fn from_the_future(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let cause = Cause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        };
        Self::new(504, "Timeout", message).because(vec![cause])
    }

    /// The `Status` object.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        let mut details = serde_json::Map::new();
        if let Some((group, kind, name)) = &self.details.about {
            for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
                if !value.is_empty() {
                    details.insert(key.into(), json!(value));
                }
            }
        }
        if !self.details.causes.is_empty() {
            let causes: Vec<Value> = self.details.causes.iter().map(cause_value).collect();
            details.insert("causes".into(), json!(causes));
        }
        if self.code == 504 {
            details.insert("retryAfterSeconds".into(), json!(1));
        }
        if !details.is_empty() {
            status["details"] = Value::Object(details);
        }
        status
    }
}

fn cause_value(cause: &Cause) -> Value {
    let mut value = json!({"reason": cause.reason, "message": cause.message});
    if !cause.field.is_empty() {
        value["field"] = json!(cause.field);
    }
    value
}
