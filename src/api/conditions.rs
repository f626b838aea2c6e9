//! Conditions: statements about an object that people and other programs wait for.
//!
//! The form is that of Kubernetes (`metav1.Condition`) plus KubeDB's `severity`. Times are
//! parameters. Never decides which condition an object has.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One statement about an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is said, for example `Ready`.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One CamelCase word for programs.
    #[serde(default)]
    pub reason: String,
    /// A sentence for people.
    #[serde(default)]
    pub message: String,
    /// The generation of the object that this was said of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When `status` last changed.
    pub last_transition_time: Time,
    /// KubeDB's own; kept, never written by us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
}

/// An object whose status holds conditions.
pub trait Conditioned {
    /// The conditions, none when there is no status yet.
    fn conditions(&self) -> &[Condition];
}

/// Everything that was asked for is so (kstatus).
pub const READY: &str = "Ready";
/// Work goes on (kstatus); there only while it does.
pub const RECONCILING: &str = "Reconciling";
/// Nothing will change by itself (kstatus); there only while it is so.
pub const STALLED: &str = "Stalled";

/// Messages are cut to this many characters, so that conditions stay readable and objects small.
pub const MESSAGE_LIMIT: usize = 1024;

impl Condition {
    /// A statement made at `now`.
    pub fn new(type_: &str, status: bool, reason: &str, message: &str, now: Timestamp) -> Self {
        Self {
            type_: type_.to_owned(),
            status: if status { "True" } else { "False" }.to_owned(),
            reason: reason.to_owned(),
            message: message.chars().take(MESSAGE_LIMIT).collect(),
            observed_generation: None,
            last_transition_time: Time(now),
            severity: None,
        }
    }

    /// The same statement, made of this generation of the object.
    #[must_use]
    pub fn observed(mut self, generation: Option<i64>) -> Self {
        self.observed_generation = generation;
        self
    }

    /// Whether the status is `True`.
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }
}

/// The condition of this type, if there is one.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition of this type is there and `True`.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(Condition::is_true)
}

/// Puts a condition in its place: foreign ones are kept, order is that of first appearance, and
/// the time of transition moves only when the status does.
pub fn set(conditions: &mut Vec<Condition>, mut condition: Condition) {
    match conditions.iter_mut().find(|old| old.type_ == condition.type_) {
        Some(old) => {
            if old.status == condition.status {
                condition.last_transition_time = old.last_transition_time.clone();
            }
            *old = condition;
        }
        None => conditions.push(condition),
    }
}

/// Takes the condition of this type away.
pub fn remove(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.retain(|condition| condition.type_ != type_);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_moves_with_the_status_only() {
        let (early, late) = (Timestamp::UNIX_EPOCH, Timestamp::MAX);
        let mut all = vec![Condition::new("Foreign", true, "X", "", early)];
        set(&mut all, Condition::new("Ready", false, "A", "", early));
        set(&mut all, Condition::new("Ready", false, "B", "", late));
        assert_eq!(find(&all, "Ready").unwrap().last_transition_time.0, early);
        assert_eq!(find(&all, "Ready").unwrap().reason, "B");
        set(&mut all, Condition::new("Ready", true, "B", "", late));
        assert_eq!(find(&all, "Ready").unwrap().last_transition_time.0, late);
        remove(&mut all, "Ready");
        assert_eq!(all.len(), 1);
    }
}
