//! `PostgresConfig` (pgitops.dev/v1alpha1): the document in git, one database each. Not a kind of
//! the cluster.
//!
//! Only the form: what a document means, and where in a file a problem stands, is `sync`'s.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::duration::Length;
use super::ops_request::{Apply, Restart};

/// The document's `apiVersion`.
pub const API_VERSION: &str = "pgitops.dev/v1alpha1";
/// The document's `kind`.
pub const KIND: &str = "PostgresConfig";

/// One document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PostgresConfig {
    /// Always [`API_VERSION`].
    pub api_version: String,
    /// Always [`KIND`].
    pub kind: String,
    /// Name of the document, for people.
    pub metadata: DocumentMetadata,
    /// What is desired.
    pub spec: PostgresConfigSpec,
}

/// `metadata` of a document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentMetadata {
    /// Name of the document.
    pub name: String,
    /// For people and other tools; nothing acts on them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// For people and other tools; nothing acts on them.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// What is desired of one database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PostgresConfigSpec {
    /// The database.
    pub database_ref: TargetRef,
    /// Whose parameters these are.
    #[serde(default)]
    pub mode: Mode,
    /// Parameters: name to scalar.
    #[serde(default)]
    pub parameters: BTreeMap<String, Scalar>,
    /// A fragment beside this file; `parameters` win over it.
    #[serde(default)]
    pub config_file: Option<String>,
    /// As in the request.
    #[serde(default, deserialize_with = "restart")]
    pub restart: Restart,
    /// As in the request.
    #[serde(default)]
    pub apply: Apply,
    /// Lower waves are applied and proven first.
    #[serde(default)]
    pub wave: i32,
    /// Bounds each wait of the rollout.
    #[serde(default)]
    pub timeout: Option<Length>,
    /// Unsafe parameters that are wanted all the same, each with a reason.
    #[serde(default)]
    pub allow_unsafe: BTreeMap<String, AllowUnsafe>,
}

/// A database as a document names it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetRef {
    /// Name of the `Postgres` object.
    pub name: String,
    /// Its namespace; the repository's own when absent.
    #[serde(default)]
    pub namespace: Option<String>,
}

/// Whose parameters a document names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// These parameters are ours; all others are left alone.
    #[default]
    Merge,
    /// This is all the custom configuration there is.
    Replace,
}

/// Why an unsafe parameter is wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowUnsafe {
    /// Why, for whoever reads the log.
    pub reason: String,
    /// The last day (RFC 3339 date) on which it is allowed; for ever when absent.
    #[serde(default)]
    pub until: Option<String>,
}

/// A parameter's value as YAML writes it. `true` and `false` mean `on` and `off`; numbers keep
/// the text that serde_yaml gives them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A whole number beyond `i64`.
    Unsigned(u64),
    /// A number with a fraction.
    Real(f64),
    /// Text.
    Text(String),
}

impl Scalar {
    /// The text that the server is given.
    pub fn text(&self) -> String {
        match self {
            Self::Bool(true) => "on".to_owned(),
            Self::Bool(false) => "off".to_owned(),
            Self::Integer(number) => number.to_string(),
            Self::Unsigned(number) => number.to_string(),
            Self::Real(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

/// `restart: true` is a boolean in YAML and a word in the request.
fn restart<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Restart, D::Error> {
    match Scalar::deserialize(deserializer)?.text().as_str() {
        "auto" => Ok(Restart::Auto),
        "on" | "true" => Ok(Restart::True),
        "off" | "false" => Ok(Restart::False),
        other => Err(serde::de::Error::custom(format!(
            "restart: unknown value {other:?}; write auto, true or false"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_as_the_design_shows_it() {
        let yaml = r#"
apiVersion: pgitops.dev/v1alpha1
kind: PostgresConfig
metadata: {name: orders}
spec:
  databaseRef: {name: ha-postgres}
  parameters:
    max_connections: 250
    work_mem: 16MB
    fsync: off
    jit: true
    random_page_cost: 1.1
  configFile: orders.conf
  restart: true
  timeout: 5m
  allowUnsafe: {fsync: {reason: "bulk load, OPS-312", until: 2026-12-01}}
"#;
        let document: PostgresConfig = serde_yaml::from_str(yaml).unwrap();
        let text = |name: &str| document.spec.parameters[name].text();
        assert_eq!(text("max_connections"), "250");
        assert_eq!(text("fsync"), "off");
        assert_eq!(text("jit"), "on");
        assert_eq!(text("random_page_cost"), "1.1");
        assert_eq!(document.spec.restart, Restart::True);
        assert_eq!(document.spec.mode, Mode::Merge);
        assert_eq!(document.spec.allow_unsafe["fsync"].until.as_deref(), Some("2026-12-01"));
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        let yaml = "{apiVersion: a, kind: b, metadata: {name: n}, \
                    spec: {databaseRef: {name: x}, parametres: {}}}";
        let error = serde_yaml::from_str::<PostgresConfig>(yaml).unwrap_err().to_string();
        assert!(error.contains("parametres"), "{error}");
    }
}
