//! Secrets and config maps: `stringData`, valid keys, immutability.

use crate::sandbox::store::refusal::{Cause, Refusal};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// `stringData` goes into `data`.
pub fn prepare(secret: &mut Value) {
    let Some(map) = secret.as_object_mut() else { return };
    let Some(Value::Object(plain)) = map.remove("stringData") else { return };
    let encoded = plain.iter().map(|(key, value)| {
        let text = value.as_str().unwrap_or_default();
        (key.clone(), json!(STANDARD.encode(text)))
    });
    let encoded: Vec<(String, Value)> = encoded.collect();
    if encoded.is_empty() {
        return;
    }
    let entry = map.entry("data").or_insert_with(|| json!({}));
    if let Some(data) = entry.as_object_mut() {
        data.extend(encoded);
    }
}

/// Values must be base64.
///
/// # Errors
/// 400, as decoding does.
pub fn decodes(secret: &Value) -> Result<(), Refusal> {
    for value in secret["data"].as_object().into_iter().flatten().map(|(_, v)| v) {
        let text = value.as_str().unwrap_or_default();
        if STANDARD.decode(text).is_err() {
            return Err(Refusal::bad_request(
                "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at \
                 input byte 0",
            ));
        }
    }
    Ok(())
}

/// Keys, size, and what may not change.
pub fn judge(old: Option<&Value>, new: &Value) -> Vec<Cause> {
    let mut causes = keys(new, &["data"]);
    // The real server's limit for one Secret.
    let limit = 1024 * 1024;
    let size: usize = new["data"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(_, v)| v.as_str().map_or(0, |v| v.len() / 4 * 3))
        .sum();
    if size > limit {
        causes.push(Cause {
            reason: "FieldValueTooLong".into(),
            message: format!("Too long: may not be more than {limit} bytes"),
            field: "data".into(),
        });
    }
    if let Some(old) = old {
        if old["type"] != new["type"] {
            causes.push(Cause::invalid("type", &new["type"], "field is immutable"));
        }
        causes.extend(immutable(old, new, &["data"], "secret"));
    }
    causes
}

/// The same for a config map.
pub fn judge_config_map(old: Option<&Value>, new: &Value) -> Vec<Cause> {
    let mut causes = keys(new, &["data", "binaryData"]);
    if let Some(old) = old {
        causes.extend(immutable(old, new, &["data", "binaryData"], "configmap"));
    }
    causes
}

fn keys(object: &Value, fields: &[&str]) -> Vec<Cause> {
    let good = |key: &str| {
        !key.is_empty()
            && key.len() <= 253
            && ![".", ".."].contains(&key)
            && !key.starts_with("..")
            && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let mut causes = Vec::new();
    for field in fields {
        for (key, _) in object[*field].as_object().into_iter().flatten() {
            if !good(key) {
                let why = "a valid config key must consist of alphanumeric characters, '-', '_' \
                           or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used \
                           for validation is '[-._a-zA-Z0-9]+')";
                causes.push(Cause::invalid(format!("{field}[{key}]"), &json!(key), why));
            }
        }
    }
    causes
}

fn immutable(old: &Value, new: &Value, fields: &[&str], _word: &str) -> Vec<Cause> {
    if old["immutable"] != true {
        return Vec::new();
    }
    let mut causes = Vec::new();
    if new["immutable"] != true {
        causes.push(Cause::forbidden("immutable", "field is immutable when `immutable` is set"));
    }
    for field in fields {
        if old[*field] != new[*field] {
            causes.push(Cause::forbidden(*field, "field is immutable when `immutable` is set"));
        }
    }
    causes
}
