//! Judges a value by its schema: types, ranges, patterns, enumerations, required fields.

use super::join;
use crate::sandbox::store::{
    refusal::Cause,
    shape::{ListKind, Shape},
};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// All that is wrong with a value.
pub fn validate(value: &Value, shape: Shape<'_>, path: &str, causes: &mut Vec<Cause>) {
    if value.is_null() && shape.is_nullable() {
        return;
    }
    if !type_fits(value, shape, path, causes) {
        return;
    }
    enumeration(value, shape, path, causes);
    match value {
        Value::Object(map) => object(map, shape, path, causes),
        Value::Array(items) => list(items, shape, path, causes),
        Value::String(text) => string(text, shape, path, causes),
        Value::Number(_) => number(value, shape, path, causes),
        Value::Bool(_) | Value::Null => {}
    }
    combinations(value, shape, path, causes);
}

fn type_fits(value: &Value, shape: Shape<'_>, path: &str, causes: &mut Vec<Cause>) -> bool {
    if shape.is_int_or_string() {
        let fits = value.is_i64() || value.is_u64() || value.is_string();
        let quantity = shape.get("x-quantity").is_some() && value.is_number();
        if !fits && !quantity {
            causes.push(wrong_type(value, path, "integer,string"));
        }
        return fits || quantity;
    }
    let Some(wanted) = shape.get("type").and_then(Value::as_str) else { return true };
    let fits = match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => is_integer(value),
        "number" => value.is_number(),
        _ => true,
    };
    if !fits {
        causes.push(wrong_type(value, path, wanted));
    }
    fits
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0)
}

fn wrong_type(value: &Value, path: &str, wanted: &str) -> Cause {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let why = format!("{path} in body must be of type {wanted}: {found:?}");
    Cause {
        reason: "FieldValueTypeInvalid".into(),
        ..Cause::invalid(path, &Value::from(found), why)
    }
}

fn enumeration(value: &Value, shape: Shape<'_>, path: &str, causes: &mut Vec<Cause>) {
    if let Some(allowed) = shape.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let supported: Vec<String> = allowed.iter().map(text).collect();
        causes.push(Cause::unsupported(path, value, &supported));
    }
}

fn object(map: &Map<String, Value>, shape: Shape<'_>, path: &str, causes: &mut Vec<Cause>) {
    let required = shape.get("required").and_then(Value::as_array);
    for name in required.into_iter().flatten().filter_map(Value::as_str) {
        if !map.contains_key(name) {
            causes.push(Cause::required(join(path, name), ""));
        }
    }
    let size = map.len() as u64;
    if let Some(most) = limit(shape, "maxProperties")
        && size > most
    {
        let why = format!("must have at most {most} items");
        causes.push(too_many(path, size, &why));
    }
    if let Some(least) = limit(shape, "minProperties")
        && size < least
    {
        let why = format!("{path} in body should have at least {least} properties");
        causes.push(Cause::invalid(path, &Value::from(size), why));
    }
    for (name, value) in map {
        let below = if shape.declares(name) || !shape.is_free_map() {
            join(path, name)
        } else {
            format!("{path}.{name}")
        };
        validate(value, shape.field(name), &below, causes);
    }
}

fn list(items: &[Value], shape: Shape<'_>, path: &str, causes: &mut Vec<Cause>) {
    let size = items.len() as u64;
    if let Some(most) = limit(shape, "maxItems")
        && size > most
    {
        causes.push(too_many(path, size, &format!("must have at most {most} items")));
    }
    if let Some(least) = limit(shape, "minItems")
        && size < least
    {
        let why = format!("{path} in body should have at least {least} items");
        causes.push(Cause::invalid(path, &Value::from(size), why));
    }
    doubles(items, shape, path, causes);
    for (index, item) in items.iter().enumerate() {
        validate(item, shape.items(), &format!("{path}[{index}]"), causes);
    }
}

fn doubles(items: &[Value], shape: Shape<'_>, path: &str, causes: &mut Vec<Cause>) {
    let kind = shape.list_kind();
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let shown = match &kind {
            ListKind::Atomic => return,
            ListKind::Set => item.clone(),
            ListKind::Map(keys) => {
                let defaulted = |k: &str| {
                    item.get(k).or_else(|| shape.items().field(k).get("default")).cloned()
                };
                keys.iter().filter_map(|k| Some(((*k).to_owned(), defaulted(k)?))).collect()
            }
        };
        if !seen.insert(shown.to_string()) {
            causes.push(Cause {
                reason: "FieldValueDuplicate".into(),
                message: format!("Duplicate value: {shown}"),
                field: format!("{path}[{index}]"),
            });
        }
    }
}

fn too_many(path: &str, size: u64, why: &str) -> Cause {
    Cause {
        reason: "FieldValueTooMany".into(),
        message: format!("Too many: {size}: {why}"),
        field: path.into(),
    }
}

/// The first complaint about a text is the only one, as with the real server.
fn string(text: &str, shape: Shape<'_>, path: &str, causes: &mut Vec<Cause>) {
    let value = Value::from(text);
    let length = text.chars().count() as u64;
    if let Some(most) = limit(shape, "maxLength")
        && length > most
    {
        causes.push(Cause {
            reason: "FieldValueTooLong".into(),
            message: format!("Too long: may not be more than {most} bytes"),
            field: path.into(),
        });
        return;
    }
    if let Some(least) = limit(shape, "minLength")
        && length < least
    {
        let why = format!("{path} in body should be at least {least} chars long");
        causes.push(Cause::invalid(path, &value, why));
        return;
    }
    if let Some(pattern) = shape.get("pattern").and_then(Value::as_str)
        && !regex::Regex::new(pattern).is_ok_and(|p| p.is_match(text))
    {
        let why = format!("{path} in body should match '{pattern}'");
        causes.push(Cause::invalid(path, &value, why));
    }
    if shape.get("format").and_then(Value::as_str) == Some("date-time")
        && text.parse::<jiff::Timestamp>().is_err()
    {
        let why = format!("{path} in body must be of type date-time: {value}");
        causes.push(Cause::invalid(path, &value, why));
    }
}

fn number(value: &Value, shape: Shape<'_>, path: &str, causes: &mut Vec<Cause>) {
    let Some(n) = value.as_f64() else { return };
    let bound = |keyword| shape.get(keyword).and_then(Value::as_f64);
    let exclusive = |keyword| shape.get(keyword) == Some(&Value::Bool(true));
    let mut refuse = |why: String| causes.push(Cause::invalid(path, value, why));
    if let Some(least) = bound("minimum") {
        if exclusive("exclusiveMinimum") && n <= least {
            refuse(format!("{path} in body should be greater than {least}"));
        } else if n < least {
            refuse(format!("{path} in body should be greater than or equal to {least}"));
        }
    }
    if let Some(most) = bound("maximum") {
        if exclusive("exclusiveMaximum") && n >= most {
            refuse(format!("{path} in body should be less than {most}"));
        } else if n > most {
            refuse(format!("{path} in body should be less than or equal to {most}"));
        }
    }
    if let Some(step) = bound("multipleOf")
        && (n / step).fract() != 0.0
    {
        refuse(format!("{path} in body should be a multiple of {step}"));
    }
    let int32 = shape.get("format").and_then(Value::as_str) == Some("int32");
    if int32 && !(f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&n) {
        refuse(format!("{path} in body must be of type int32: {value}"));
    }
}

fn combinations(value: &Value, shape: Shape<'_>, path: &str, causes: &mut Vec<Cause>) {
    let branches = |keyword| {
        let count = shape.get(keyword).and_then(Value::as_array).map_or(0, Vec::len);
        (0..count).map(move |i| shape.branch(keyword, i)).map(|branch| {
            let mut found = Vec::new();
            validate(value, branch, path, &mut found);
            found
        })
    };
    let mut refuse =
        |why: &str| causes.push(Cause::invalid(path, value, format!("{path} in body {why}")));
    // `anyOf: integer, string` is how int-or-string spells its types; it was judged above.
    if shape.get("anyOf").is_some()
        && !shape.is_int_or_string()
        && branches("anyOf").all(|found| !found.is_empty())
    {
        refuse("must validate at least one schema (anyOf)");
    }
    if shape.get("oneOf").is_some() && branches("oneOf").filter(Vec::is_empty).count() != 1 {
        refuse("must validate one and only one schema (oneOf)");
    }
    if shape.get("not").is_some() {
        let mut found = Vec::new();
        validate(value, shape.keyword("not"), path, &mut found);
        if found.is_empty() {
            refuse("must not validate the schema (not)");
        }
    }
    let all: Vec<Cause> = branches("allOf").flatten().collect();
    causes.extend(all);
}

fn limit(shape: Shape<'_>, keyword: &str) -> Option<u64> {
    shape.get(keyword).and_then(Value::as_u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::store::shape::Schema;
    use serde_json::json;
    use std::sync::Arc;

    fn check(schema: Value, value: Value, expected: &[&str]) {
        let schema = Schema { root: Arc::new(schema), definitions: Arc::default() };
        let mut causes = Vec::new();
        validate(&value, schema.shape(), "spec.x", &mut causes);
        let found: Vec<String> =
            causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_texts_are_the_real_servers() {
        check(json!({"type": "integer"}), json!(3), &[]);
        check(
            json!({"type": "integer"}),
            json!("3"),
            &[
                r#"spec.x: Invalid value: "string": spec.x in body must be of type integer: "string""#,
            ],
        );
        check(
            json!({"type": "integer", "maximum": 5.0}),
            json!(9),
            &["spec.x: Invalid value: 9: spec.x in body should be less than or equal to 5"],
        );
        check(
            json!({"type": "string", "enum": ["A", "B"]}),
            json!("C"),
            &[r#"spec.x: Unsupported value: "C": supported values: "A", "B""#],
        );
        check(
            json!({"type": "string", "pattern": "^a+$"}),
            json!("b"),
            &[r#"spec.x: Invalid value: "b": spec.x in body should match '^a+$'"#],
        );
        check(
            json!({"type": "object", "required": ["a"]}),
            json!({}),
            &["spec.x.a: Required value"],
        );
        check(json!({"x-kubernetes-int-or-string": true}), json!("50%"), &[]);
        check(json!({"type": "string", "nullable": true}), json!(null), &[]);
    }
}
