//! What a call to the API server can come back with, and when to try again.
//!
//! [`Error::retry`] is the only place that decides about trying again; nobody else looks at codes.

use std::time::Duration;

use kube::core::Status;

use super::unreadable::words as words_of;

/// A call to the API server that did not succeed.
///
/// `what` names the call: verb, kind, namespace and name; never content.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object, or its namespace or kind, is not there.
    #[error("{what}: not found")]
    NotFound {
        /// The call.
        what: String,
    },
    /// Somebody else wrote the object first.
    #[error("{what}: the object has changed; it is read again")]
    Conflict {
        /// The call.
        what: String,
    },
    /// Another field manager owns what we were to apply without force.
    #[error("{what}: field {path} is owned by {manager}")]
    FieldConflict {
        /// The call.
        what: String,
        /// The owner.
        manager: String,
        /// The field.
        path: String,
    },
    /// The controller's account may not do this.
    #[error("{what}: forbidden; grant the controller's role this verb ({words})")]
    Forbidden {
        /// The call.
        what: String,
        /// The server's words.
        words: String,
    },
    /// The server refuses the object.
    #[error("{what}: refused: {words}")]
    Invalid {
        /// The call.
        what: String,
        /// The server's words.
        words: String,
    },
    /// The answer has a form that is not known here. Its content is never shown.
    #[error("{what}: {words}")]
    Unreadable {
        /// The call.
        what: String,
        /// Where, and what to do.
        words: String,
    },
    /// No answer in time.
    #[error("{what}: no answer within {deadline:?}")]
    Timeout {
        /// The call.
        what: String,
        /// How long was waited.
        deadline: Duration,
    },
    /// The server cannot be reached, is overloaded or broken.
    #[error("{what}: the API server is not available")]
    Unavailable {
        /// The call.
        what: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

/// When a failed call may be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// At once, after reading again.
    Soon,
    /// With growing pauses.
    Later,
    /// Not before something changes.
    Never,
}

impl Error {
    /// Classifies an error of the client; `what` names the call.
    pub(super) fn of(what: String, error: kube::Error) -> Self {
        let status = match &error {
            kube::Error::Api(status) => status,
            // Its words would quote the value.
            kube::Error::SerdeError(_) => {
                return Self::Unreadable { what, words: words_of("a field") };
            }
            _ => return Self::Unavailable { what, source: Box::new(error) },
        };
        match status.code {
            404 => Self::NotFound { what },
            409 => field_conflict(status).map_or_else(
                || Self::Conflict { what: what.clone() },
                |(manager, path)| Self::FieldConflict { what: what.clone(), manager, path },
            ),
            // An admission webhook answers so by default: it is not a right that is missing.
            403 if status.message.starts_with("admission webhook") => {
                Self::Invalid { what, words: words(status) }
            }
            403 => Self::Forbidden { what, words: words(status) },
            400 | 405 | 413 | 415 | 422 | 501 => Self::Invalid { what, words: words(status) },
            _ => Self::Unavailable { what, source: Box::new(error) },
        }
    }

    /// When to try again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Conflict { .. } => Retry::Soon,
            Self::NotFound { .. }
            | Self::Forbidden { .. }
            | Self::Unreadable { .. }
            | Self::Timeout { .. }
            | Self::Unavailable { .. } => Retry::Later,
            Self::FieldConflict { .. } | Self::Invalid { .. } => Retry::Never,
        }
    }

    /// One word for machines.
    pub fn class(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
            Self::Conflict { .. } => "conflict",
            Self::FieldConflict { .. } => "field_conflict",
            Self::Forbidden { .. } => "forbidden",
            Self::Invalid { .. } => "invalid",
            Self::Unreadable { .. } => "unreadable",
            Self::Timeout { .. } => "timeout",
            Self::Unavailable { .. } => "unavailable",
        }
    }

    /// One word for what a person has to mend first; `None` for what passes by itself.
    pub fn blocks(&self) -> Option<&'static str> {
        match self {
            Self::Forbidden { .. } => Some("Forbidden"),
            Self::FieldConflict { .. } => Some("FieldOwned"),
            Self::Invalid { .. } => Some("Refused"),
            // Not the word for an object that itself cannot be read.
            Self::Unreadable { .. } => Some("NeedsUnreadable"),
            Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::Timeout { .. }
            | Self::Unavailable { .. } => None,
        }
    }

    /// The same without the API server's words about an object, which may quote it: for events.
    pub fn without_values(&self) -> String {
        match self {
            Self::Invalid { what, .. } => format!("{what}: refused; its status says why"),
            Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::FieldConflict { .. }
            | Self::Forbidden { .. }
            | Self::Unreadable { .. }
            | Self::Timeout { .. }
            | Self::Unavailable { .. } => self.to_string(),
        }
    }

    /// Whether the object was not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether somebody else wrote first.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }
}

/// The server's sentence, capped: messages of validation can list a whole object. Of a field that
/// it does not know it says first what kind of object it was sent, which the call says too.
fn words(status: &Status) -> String {
    let message = &status.message;
    let unknown = message.find("strict decoding error: ").unwrap_or_default();
    message[unknown..].chars().take(600).collect()
}

/// Manager and field of a server-side apply conflict. The API server names the manager in the
/// cause's message only, as `conflict with "kubectl" using …` (apimachinery, `NewApplyConflict`).
fn field_conflict(status: &Status) -> Option<(String, String)> {
    let causes = &status.details.as_ref()?.causes;
    let cause = causes.iter().find(|cause| cause.reason == "FieldManagerConflict")?;
    let manager = cause.message.split('"').nth(1).unwrap_or("somebody else").to_owned();
    Some((manager, cause.field.clone()))
}
