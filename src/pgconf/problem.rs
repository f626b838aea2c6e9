//! What is wrong with a piece of configuration, where, and what to write instead.
//!
//! Leaves the name of the file to the caller, who knows it. Never carries a value of the sensitive
//! tier: whoever makes a [`Problem`] leaves it out.

use std::fmt;

use serde::Serialize;

/// One thing that a person has to know about one place of their configuration.
///
/// Displays as `7:21 shared_buffers: unknown unit "gb"; write 12GB`; parts that are not known are
/// left out. Put the file's name and a colon before it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Line and column, if the text was at hand.
    pub at: Option<Position>,
    /// The parameter's name as it was written, unless the problem concerns no single one.
    pub parameter: Option<String>,
    /// What is wrong: lower case, no full stop, no parameter name.
    pub message: String,
    /// What to do instead, as an imperative clause: `write 12GB`, `remove the line`.
    pub instead: Option<String>,
    /// Whether this stops the change.
    pub severity: Severity,
}

/// Whether a [`Problem`] stops the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is not used as long as this stands.
    Refused,
    /// The configuration is used; a person should look at this.
    Warning,
}

/// A place in a text. Both numbers start at 1; columns count characters, not bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Character within the line, from 1.
    pub column: u32,
}

impl Problem {
    /// A problem that stops the change.
    pub fn refused(message: impl Into<String>) -> Problem {
        Problem {
            at: None,
            parameter: None,
            message: message.into(),
            instead: None,
            severity: Severity::Refused,
        }
    }

    /// A problem that a person should know of, and that stops nothing.
    pub fn warning(message: impl Into<String>) -> Problem {
        Problem { severity: Severity::Warning, ..Problem::refused(message) }
    }

    /// The same problem at a place of a text.
    #[must_use]
    pub fn at(self, at: impl Into<Option<Position>>) -> Problem {
        Problem { at: at.into(), ..self }
    }

    /// The same problem with the parameter it concerns.
    #[must_use]
    pub fn of(self, parameter: impl Into<String>) -> Problem {
        Problem { parameter: Some(parameter.into()), ..self }
    }

    /// The same problem with what to do instead (`write 12GB`).
    #[must_use]
    pub fn instead(self, instead: impl Into<String>) -> Problem {
        Problem { instead: Some(instead.into()), ..self }
    }

    /// Whether this stops the change.
    pub fn is_refusal(&self) -> bool {
        match self.severity {
            Severity::Refused => true,
            Severity::Warning => false,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.at {
            write!(f, "{at} ")?;
        }
        if let Some(parameter) = &self.parameter {
            write!(f, "{parameter}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.instead {
            Some(instead) => write!(f, "; {instead}"),
            None => Ok(()),
        }
    }
}

impl Position {
    /// A place; both numbers start at 1.
    pub fn new(line: u32, column: u32) -> Position {
        Position { line, column }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_as_one_line() {
        let problem = Problem::refused("unknown unit \"gb\"").instead("write 12GB");
        assert_eq!(problem.to_string(), "unknown unit \"gb\"; write 12GB");
        let problem = problem.of("shared_buffers").at(Position::new(7, 21));
        assert_eq!(problem.to_string(), "7:21 shared_buffers: unknown unit \"gb\"; write 12GB");
        assert!(problem.is_refusal());
        assert!(!Problem::warning("w").is_refusal());
    }
}
