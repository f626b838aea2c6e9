//! What others say about a request, as it may be passed on.
//!
//! One line, not too long, and without the sensitive values that the request carries. Leaves what
//! follows from it to the gates.

use super::Held;
use crate::api::conditions;
use crate::api::ops_request::{OpsPhase, PostgresOpsRequest, condition};
use crate::pgconf::Settings;

/// Longest piece of somebody's words that is passed on.
pub(super) const WORDS: usize = 300;

/// What a condition of a request says.
pub(super) fn said<'r>(request: &'r PostgresOpsRequest, type_: &str) -> Option<&'r str> {
    let found = conditions::find(request.conditions(), type_);
    found.map(|condition| condition.message.as_str()).filter(|message| !message.is_empty())
}

/// The server's or the operator's words about a request that failed or was denied, on one line and
/// without the sensitive values that it carries.
pub fn failed_words(request: &PostgresOpsRequest) -> String {
    let proof = request.status.as_ref().and_then(|status| status.proof.as_ref());
    let how = match request.phase() == OpsPhase::Denied {
        true => condition::DENIED,
        false => condition::FAILED,
    };
    let words = proof
        .and_then(|proof| proof.words.clone())
        .or_else(|| said(request, how).map(str::to_owned))
        .unwrap_or_default();
    passed_on(request, &words)
}

/// Somebody's words about a request: on one line, not too long, without the sensitive values that
/// it carries.
pub fn passed_on(request: &PostgresOpsRequest, words: &str) -> String {
    let asked = request.spec.configuration.as_ref().map(|asked| asked.settings());
    let carried = Settings::parse(asked.unwrap_or_default()).unwrap_or_default();
    carried.hide_in(&one_line(words)).chars().take(WORDS).collect()
}

/// Words on one line: a line break would begin another statement in a note.
pub fn one_line(words: &str) -> String {
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether these are the words with which `ops` reports a field of another owner.
pub(super) fn field_owned(words: &str) -> Option<Held> {
    let (path, rest) = words.split_once(" belongs to field manager ")?;
    let manager = rest.split(',').next().unwrap_or_default().trim().to_owned();
    Some(Held::FieldOwned { manager, path: path.to_owned() })
}
