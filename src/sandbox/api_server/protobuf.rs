//! Bodies in protobuf, which kubectl sends for some `create` commands and asks nobody whether it
//! may. Pure.
//!
//! Only the messages of those commands are known (field numbers from Kubernetes'
//! `generated.proto`). A field that is not known refuses the whole body: nothing is dropped in
//! silence.

use crate::sandbox::store::refusal::Refusal;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

/// What every protobuf body of Kubernetes begins with.
const MAGIC: &[u8] = b"k8s\0";

/// Reads a body.
///
/// # Errors
/// 400 for a body that is cut off, 415 for a message or field that is not known.
pub fn decode(body: &[u8]) -> Result<Value, Refusal> {
    let body = body.strip_prefix(MAGIC).ok_or_else(|| broken("it does not begin with k8s"))?;
    let envelope = message("Unknown", body)?;
    let header = &envelope["typeMeta"];
    let kind = header["kind"].as_str().unwrap_or_default();
    let raw = envelope["raw"].as_str().unwrap_or_default();
    let raw = STANDARD.decode(raw).map_err(|_| broken("its content cannot be read"))?;
    let mut value = message(kind, &raw)?;
    value["apiVersion"] = header["apiVersion"].clone();
    value["kind"] = json!(kind);
    Ok(value)
}

fn broken(why: &str) -> Refusal {
    Refusal::bad_request(format!("the protobuf body cannot be read: {why}"))
}

fn unknown(what: &str) -> Refusal {
    Refusal::unsupported_media_type(format!(
        "the sandbox does not read {what} from protobuf; put `--dry-run=client -o yaml` behind the \
         command and pipe it into `kubectl apply -f -`"
    ))
}

/// The form of a field.
#[derive(Debug, Clone, Copy)]
enum Form {
    Text,
    Texts,
    Bytes,
    Int,
    Bool,
    Time,
    IntOrString,
    TextMap,
    BytesMap,
    One(&'static str),
    Many(&'static str),
    /// Read by nobody: what the server itself sets.
    Skip,
}

fn message(name: &str, mut body: &[u8]) -> Result<Value, Refusal> {
    let fields = MESSAGES.iter().find(|(message, _)| *message == name);
    let (_, fields) = fields.ok_or_else(|| unknown(&format!("a {name}")))?;
    let mut out = Map::new();
    while !body.is_empty() {
        let (number, wire) = next(&mut body)?;
        let known = fields.iter().find(|(n, _, _)| *n == number);
        let Some((_, field, form)) = known else {
            if is_empty(&wire) {
                continue;
            }
            return Err(unknown(&format!("field {number} of a {name}")));
        };
        set(&mut out, field, *form, &wire)?;
    }
    Ok(Value::Object(out))
}

/// A value on the wire.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn is_empty(wire: &Wire<'_>) -> bool {
    match wire {
        Wire::Number(number) => *number == 0,
        Wire::Bytes(bytes) => bytes.is_empty(),
    }
}

fn next<'a>(body: &mut &'a [u8]) -> Result<(u64, Wire<'a>), Refusal> {
    let key = varint(body)?;
    let wire = match key & 7 {
        0 => Wire::Number(varint(body)?),
        2 => {
            let length = usize::try_from(varint(body)?).map_err(|_| broken("a length"))?;
            let bytes = body.get(..length).ok_or_else(|| broken("it is cut off"))?;
            *body = &body[length..];
            Wire::Bytes(bytes)
        }
        _ => return Err(broken("an unusual wire type")),
    };
    Ok((key >> 3, wire))
}

fn varint(body: &mut &[u8]) -> Result<u64, Refusal> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = body.split_first().ok_or_else(|| broken("it is cut off"))?;
        *body = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(broken("a number is too long"))
}

/// Go writes fields that are not set as empty; those are left out.
fn set(
    out: &mut Map<String, Value>,
    field: &str,
    form: Form,
    wire: &Wire<'_>,
) -> Result<(), Refusal> {
    let mut push = |value: Value| {
        if let Some(list) = out.entry(field.to_owned()).or_insert_with(|| json!([])).as_array_mut()
        {
            list.push(value);
        }
    };
    let value = match (form, wire) {
        (Form::Skip, _) => return Ok(()),
        (Form::Texts, Wire::Bytes(bytes)) => {
            push(json!(text(bytes)?));
            return Ok(());
        }
        (Form::Many(name), Wire::Bytes(bytes)) => {
            push(message(name, bytes)?);
            return Ok(());
        }
        (Form::TextMap | Form::BytesMap, Wire::Bytes(bytes)) => {
            return entry(out, field, form, bytes);
        }
        (Form::Text, Wire::Bytes([])) => return Ok(()),
        (Form::Text, Wire::Bytes(bytes)) => json!(text(bytes)?),
        (Form::Bytes, Wire::Bytes(bytes)) => json!(STANDARD.encode(bytes)),
        (Form::One(name), Wire::Bytes(bytes)) => {
            let value = message(name, bytes)?;
            if value.as_object().is_some_and(Map::is_empty) {
                return Ok(());
            }
            value
        }
        (Form::Time, Wire::Bytes(bytes)) => match message("Time", bytes)?["seconds"].as_i64() {
            Some(seconds) => json!(jiff::Timestamp::from_second(seconds).unwrap_or_default()),
            None => return Ok(()),
        },
        (Form::IntOrString, Wire::Bytes(bytes)) => {
            let value = message("IntOrString", bytes)?;
            match value["type"].as_i64() {
                Some(1) => value["strVal"].clone(),
                _ => json!(value["intVal"].as_i64().unwrap_or(0)),
            }
        }
        (Form::Int, Wire::Number(0)) | (Form::Bool, Wire::Number(0)) => return Ok(()),
        (Form::Int, Wire::Number(number)) => json!(number.cast_signed()),
        (Form::Bool, Wire::Number(number)) => json!(*number != 0),
        _ => return Err(broken("a field has another wire type than expected")),
    };
    out.insert(field.to_owned(), value);
    Ok(())
}

fn text(bytes: &[u8]) -> Result<String, Refusal> {
    String::from_utf8(bytes.to_vec()).map_err(|_| broken("a text is not UTF-8"))
}

fn entry(
    out: &mut Map<String, Value>,
    field: &str,
    form: Form,
    mut bytes: &[u8],
) -> Result<(), Refusal> {
    let (mut key, mut value) = (String::new(), json!(""));
    while !bytes.is_empty() {
        match next(&mut bytes)? {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?,
            (2, Wire::Bytes(bytes)) if matches!(form, Form::BytesMap) => {
                value = json!(STANDARD.encode(bytes));
            }
            (2, Wire::Bytes(bytes)) => value = json!(text(bytes)?),
            _ => return Err(broken("an entry of a map")),
        }
    }
    if let Some(map) = out.entry(field.to_owned()).or_insert_with(|| json!({})).as_object_mut() {
        map.insert(key, value);
    }
    Ok(())
}

use Form::{Bool, Bytes, BytesMap, Int, IntOrString, Many, One, Skip, Text, TextMap, Texts, Time};

type Message = (&'static str, &'static [(u64, &'static str, Form)]);

#[rustfmt::skip]
const MESSAGES: &[Message] = &[
    ("Unknown", &[(1, "typeMeta", One("TypeMeta")), (2, "raw", Bytes), (3, "encoding", Text), (4, "type", Text)]),
    ("TypeMeta", &[(1, "apiVersion", Text), (2, "kind", Text)]),
    ("Time", &[(1, "seconds", Int), (2, "nanos", Skip)]),
    ("IntOrString", &[(1, "type", Int), (2, "intVal", Int), (3, "strVal", Text)]),
    ("ObjectMeta", &[
        (1, "name", Text), (2, "generateName", Text), (3, "namespace", Text), (4, "selfLink", Skip),
        (5, "uid", Text), (6, "resourceVersion", Text), (7, "generation", Skip),
        (8, "creationTimestamp", Skip), (9, "deletionTimestamp", Time),
        (10, "deletionGracePeriodSeconds", Int), (11, "labels", TextMap),
        (12, "annotations", TextMap), (13, "ownerReferences", Many("OwnerReference")),
        (14, "finalizers", Texts), (17, "managedFields", Skip),
    ]),
    ("OwnerReference", &[
        (1, "kind", Text), (3, "name", Text), (4, "uid", Text), (5, "apiVersion", Text),
        (6, "controller", Bool), (7, "blockOwnerDeletion", Bool),
    ]),
    ("ObjectReference", &[
        (1, "kind", Text), (2, "namespace", Text), (3, "name", Text), (4, "uid", Text),
        (5, "apiVersion", Text), (6, "resourceVersion", Text), (7, "fieldPath", Text),
    ]),
    ("LocalObjectReference", &[(1, "name", Text)]),
    ("LabelSelector", &[(1, "matchLabels", TextMap), (2, "matchExpressions", Many("Requirement"))]),
    ("Requirement", &[(1, "key", Text), (2, "operator", Text), (3, "values", Texts)]),
    ("Namespace", &[(1, "metadata", One("ObjectMeta")), (2, "spec", One("NamespaceSpec")), (3, "status", Skip)]),
    ("NamespaceSpec", &[(1, "finalizers", Texts)]),
    ("Secret", &[
        (1, "metadata", One("ObjectMeta")), (2, "data", BytesMap), (3, "type", Text),
        (4, "stringData", TextMap), (5, "immutable", Bool),
    ]),
    ("ConfigMap", &[
        (1, "metadata", One("ObjectMeta")), (2, "data", TextMap), (3, "binaryData", BytesMap),
        (4, "immutable", Bool),
    ]),
    ("ServiceAccount", &[
        (1, "metadata", One("ObjectMeta")), (2, "secrets", Many("ObjectReference")),
        (3, "imagePullSecrets", Many("LocalObjectReference")),
        (4, "automountServiceAccountToken", Bool),
    ]),
    ("Service", &[(1, "metadata", One("ObjectMeta")), (2, "spec", One("ServiceSpec")), (3, "status", Skip)]),
    ("ServiceSpec", &[
        (1, "ports", Many("ServicePort")), (2, "selector", TextMap), (3, "clusterIP", Text),
        (4, "type", Text), (5, "externalIPs", Texts), (7, "sessionAffinity", Text),
        (8, "loadBalancerIP", Text), (10, "externalName", Text),
        (11, "externalTrafficPolicy", Text), (13, "publishNotReadyAddresses", Bool),
    ]),
    ("ServicePort", &[
        (1, "name", Text), (2, "protocol", Text), (3, "port", Int), (4, "targetPort", IntOrString),
        (5, "nodePort", Int), (6, "appProtocol", Text),
    ]),
    ("Role", &[(1, "metadata", One("ObjectMeta")), (2, "rules", Many("PolicyRule"))]),
    ("ClusterRole", &[(1, "metadata", One("ObjectMeta")), (2, "rules", Many("PolicyRule"))]),
    ("PolicyRule", &[
        (1, "verbs", Texts), (2, "apiGroups", Texts), (3, "resources", Texts),
        (4, "resourceNames", Texts), (5, "nonResourceURLs", Texts),
    ]),
    ("RoleBinding", &[
        (1, "metadata", One("ObjectMeta")), (2, "subjects", Many("Subject")), (3, "roleRef", One("RoleRef")),
    ]),
    ("ClusterRoleBinding", &[
        (1, "metadata", One("ObjectMeta")), (2, "subjects", Many("Subject")), (3, "roleRef", One("RoleRef")),
    ]),
    ("Subject", &[(1, "kind", Text), (2, "apiGroup", Text), (3, "name", Text), (4, "namespace", Text)]),
    ("RoleRef", &[(1, "apiGroup", Text), (2, "kind", Text), (3, "name", Text)]),
    ("PodDisruptionBudget", &[
        (1, "metadata", One("ObjectMeta")), (2, "spec", One("PodDisruptionBudgetSpec")), (3, "status", Skip),
    ]),
    ("PodDisruptionBudgetSpec", &[
        (1, "minAvailable", IntOrString), (2, "selector", One("LabelSelector")), (3, "maxUnavailable", IntOrString),
    ]),
    ("Eviction", &[(1, "metadata", One("ObjectMeta")), (2, "deleteOptions", One("DeleteOptions"))]),
    ("DeleteOptions", &[
        (1, "gracePeriodSeconds", Int), (2, "preconditions", One("Preconditions")),
        (3, "orphanDependents", Bool), (4, "propagationPolicy", Text), (5, "dryRun", Texts),
    ]),
    ("Preconditions", &[(1, "uid", Text), (2, "resourceVersion", Text)]),
    ("SelfSubjectAccessReview", &[
        (1, "metadata", One("ObjectMeta")), (2, "spec", Skip), (3, "status", Skip),
    ]),
    ("SelfSubjectReview", &[(1, "metadata", One("ObjectMeta")), (2, "status", Skip)]),
    ("SelfSubjectRulesReview", &[
        (1, "metadata", One("ObjectMeta")), (2, "spec", Skip), (3, "status", Skip),
    ]),
];
