//! What is wrong in a file of the repository: where, and what to write instead.
//!
//! `pgconf::Problem` with the name of the file. Everything that a person has to correct in git
//! reaches them in this form: in `validate`, `plan`, the status and the note. Never carries a value
//! of the sensitive tier.

use std::fmt;

use serde::Serialize;

use crate::pgconf;
pub use crate::pgconf::{Position, Severity};

/// One thing to correct in one file.
///
/// Displays as notes show it: `billing.yaml:7:21 shared_buffers: unknown unit "gb"; write 12GB`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The file, relative to the repository's root.
    pub file: String,
    /// Where in it, when that is known.
    #[serde(flatten)]
    pub at: Option<Position>,
    /// The parameter, unless the problem concerns no single one.
    pub parameter: Option<String>,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to do instead, as an imperative clause.
    pub instead: Option<String>,
    /// Whether this stops the change.
    pub severity: Severity,
}

impl Problem {
    /// A problem that stops the change.
    pub fn refused(
        file: &str,
        at: impl Into<Option<Position>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            file: file.to_owned(),
            at: at.into(),
            parameter: None,
            message: message.into(),
            instead: None,
            severity: Severity::Refused,
        }
    }

    /// A problem that a person should know of, and that stops nothing.
    pub fn warning(
        file: &str,
        at: impl Into<Option<Position>>,
        message: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::refused(file, at, message) }
    }

    /// A problem of a piece of configuration, with the file it stands in. `at` counts where the
    /// problem itself does not know its place.
    pub fn of(file: &str, at: impl Into<Option<Position>>, problem: pgconf::Problem) -> Self {
        let pgconf::Problem { at: own, parameter, message, instead, severity } = problem;
        Self { file: file.to_owned(), at: own.or(at.into()), parameter, message, instead, severity }
    }

    /// The same problem with what to do instead.
    #[must_use]
    pub fn instead(self, instead: impl Into<String>) -> Self {
        Self { instead: Some(instead.into()), ..self }
    }

    /// The same problem with the parameter it concerns.
    #[must_use]
    pub fn parameter(self, name: impl Into<String>) -> Self {
        Self { parameter: Some(name.into()), ..self }
    }

    /// Whether this stops the change.
    pub fn is_refusal(&self) -> bool {
        self.severity == Severity::Refused
    }

    /// Whether one of these says already what is wrong with the same parameter in the same place:
    /// the check against a version finds again what was refused without one.
    pub fn is_among(&self, known: &[Self]) -> bool {
        let place = |problem: &Self| (problem.file.clone(), problem.at, problem.parameter.clone());
        let here = place(self);
        known.iter().any(|other| other.is_refusal() && place(other) == here)
    }

    /// As compilers print it, so that editors jump to it: `file:line:column: message; instead`.
    pub fn as_compiler_line(&self) -> String {
        let warning = if self.is_refusal() { "" } else { "warning: " };
        let place = self.place();
        format!("{place}: {warning}{}", self.sentence())
    }

    /// `file:line:column`, as far as it is known.
    pub fn place(&self) -> String {
        match self.at {
            Some(at) => format!("{}:{at}", self.file),
            None => self.file.clone(),
        }
    }

    fn sentence(&self) -> String {
        let mut text = String::new();
        if let Some(parameter) = &self.parameter {
            text.push_str(parameter);
            text.push_str(": ");
        }
        text.push_str(&self.message);
        if let Some(instead) = &self.instead {
            text.push_str("; ");
            text.push_str(instead);
        }
        text
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.place(), self.sentence())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_as_notes_and_compilers_write_it() {
        let problem = Problem::refused("a.yaml", Position::new(7, 21), "unknown unit \"gb\"")
            .parameter("shared_buffers")
            .instead("write 12GB");
        assert_eq!(
            problem.to_string(),
            "a.yaml:7:21 shared_buffers: unknown unit \"gb\"; write 12GB"
        );
        assert_eq!(
            problem.as_compiler_line(),
            "a.yaml:7:21: shared_buffers: unknown unit \"gb\"; write 12GB"
        );
        let warning = Problem::warning("a.yaml", None, "odd");
        assert_eq!(warning.as_compiler_line(), "a.yaml: warning: odd");
    }
}
