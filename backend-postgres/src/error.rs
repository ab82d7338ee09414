//! What a failure of the driver or of the server means for a caller (law L7).

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use lockcore::{BackendError, BoxError};
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, Severity};

/// A failure in words, with what to do about it; the driver's error is its source.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    text: String,
    source: Option<Arc<Error>>,
}

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), source: None }
    }

    pub(crate) fn of(text: impl Into<String>, source: Error) -> Self {
        Self { text: text.into(), source: Some(Arc::new(source)) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match &self.source {
            Some(source) => write!(f, ": {}", words(source)),
            None => Ok(()),
        }
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}

/// What the driver says, on one line: its own words name the kind of failure only.
pub(crate) fn words(error: &Error) -> String {
    if let Some(error) = error.as_db_error() {
        let mut text = format!("{} ({})", error.message(), error.code().code());
        for more in [error.detail(), error.hint()].into_iter().flatten() {
            text.push_str(", ");
            text.push_str(more);
        }
        return text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

/// Whether the server answered that it undid the statement. What ends the session may come after
/// a commit, and then says nothing about it.
pub(crate) fn is_refusal(error: &Error) -> bool {
    error.as_db_error().is_some_and(|error| error.parsed_severity() == Some(Severity::Error))
}

/// Why a statement has no result.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The server answered with an error and undid the statement.
    Refused(Error),
    /// No answer came, or one that leaves the outcome open.
    Unanswered(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        if is_refusal(&error) { Self::Refused(error) } else { Self::Unanswered(error) }
    }
}

fn code(error: &Error) -> &str {
    error.as_db_error().map_or("", |error| error.code().code())
}

/// Whether a new connection may do better: the primary has become a standby, or the table was made
/// anew under a prepared statement.
pub(crate) fn is_of_another_server(error: &Error) -> bool {
    matches!(code(error), "25006" | "0A000")
}

/// Two clients made the same table at once. Which index notices first decides about the code.
pub(crate) fn is_made_twice(failed: &Failed) -> bool {
    matches!(failed, Failed::Refused(error) if matches!(code(error), "23505" | "42P07" | "42710"))
}

pub(crate) fn cannot_create(table: &str, failed: Failed) -> BackendError {
    match failed {
        Failed::Refused(error) if matches!(code(&error), "42501" | "3F000" | "25006") => {
            BackendError::rejected(Failure::of(
                format!(
                    "the table {table} is missing and cannot be created: create it as the \
                     documentation of lockcore-postgres shows, as a user who may"
                ),
                error,
            ))
        }
        Failed::Refused(error) => refusal(error),
        // Made or not, nothing was locked by it.
        Failed::Unanswered(error) => {
            BackendError::unavailable(Failure::of("no answer came", error))
        }
    }
}

/// A foreign record where one of ours belongs.
pub(crate) fn foreign(table: &str, format: i16) -> BackendError {
    BackendError::rejected(Failure::new(format!(
        "the record under this key in {table} has the format {format}, which this version does not \
         know, and it is left alone: find out whose it is (another version may hold the lock), or \
         use another key or table"
    )))
}

/// The server answered something no statement of ours answers: it may have done anything.
pub(crate) fn unexpected(what: &str) -> BackendError {
    BackendError::ambiguous(Failure::new(format!(
        "the server's answer to {what} cannot be understood: is it PostgreSQL?"
    )))
}

/// The failure of a statement that changes something.
pub(crate) fn of_command(failed: Failed) -> BackendError {
    match failed {
        Failed::Refused(error) => refusal(error),
        Failed::Unanswered(error) => BackendError::ambiguous(Failure::of("no answer came", error)),
    }
}

/// The failure of a question, which changes nothing even if it was heard.
pub(crate) fn of_question(failed: Failed) -> BackendError {
    match failed {
        Failed::Refused(error) => refusal(error),
        Failed::Unanswered(error) => {
            BackendError::unavailable(Failure::of("no answer came", error))
        }
    }
}

/// The same failure for each of those whom it concerns.
pub(crate) fn again(failure: &BackendError) -> BackendError {
    let copy = |source: &BoxError| {
        let known = source.downcast_ref::<Failure>().cloned();
        known.unwrap_or_else(|| Failure::new(source.to_string()))
    };
    match failure {
        BackendError::Rejected(source) => BackendError::rejected(copy(source)),
        BackendError::Ambiguous(source) => BackendError::ambiguous(copy(source)),
        BackendError::Unavailable(source) => BackendError::unavailable(copy(source)),
        BackendError::InvalidInput(wrong) => wrong.clone().into(),
        other => BackendError::ambiguous(Failure::new(other.to_string())),
    }
}

fn refusal(error: Error) -> BackendError {
    let (now, text) = error.as_db_error().map_or((true, "the statement was refused"), advice);
    let failure = Failure::of(text, error);
    if now { BackendError::unavailable(failure) } else { BackendError::rejected(failure) }
}

/// Whether a refusal is of the moment, and what to do.
pub(crate) fn advice(error: &DbError) -> (bool, &'static str) {
    advice_on(error.code().code())
}

fn advice_on(code: &str) -> (bool, &'static str) {
    match code {
        "55P03" => (true, "another transaction holds the lock's row or table for long: end it"),
        "57014" => (true, "the statement took too long or was cancelled"),
        "40001" | "40P01" => (true, "the server undid the statement in favour of another"),
        "25006" | "0A000" => (true, "this server or session is read-only: connect to the primary"),
        "53300" => (true, "the server takes no more connections: raise max_connections or pool"),
        "57P03" => (true, "the server is starting up or shutting down"),
        "42P01" => (
            false,
            "the table is missing: call `ensure_schema`, or create it as the documentation of \
             lockcore-postgres shows",
        ),
        "42703" | "42804" | "42883" | "42P10" => {
            (false, "the table is not one of ours, or the server is not PostgreSQL 13 or later")
        }
        "42501" => (false, "the user lacks a right: grant what the documentation lists"),
        "28000" | "28P01" => (false, "the user or password was not accepted"),
        "3D000" => (false, "there is no such database"),
        "3F000" => (false, "there is no such schema"),
        // A pooler between us and the server, or the server's resources, system and operators.
        _ => match code.get(..2) {
            Some("08") => (true, "the connection to the server failed"),
            Some("53") => (true, "the server lacks resources"),
            // At a commit: the queue of notifications is full.
            Some("54") => (
                true,
                "a limit of the server was reached: if it is the queue of notifications, end the \
                 session that listens and is long in a transaction",
            ),
            Some("57") => (true, "an operator intervened"),
            Some("58") => (true, "the server's system failed"),
            _ => (false, "the statement was refused"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_the_moment_are_told_from_others() {
        for code in [
            "55P03", "57014", "40001", "40P01", "25006", "53100", "53200", "53300", "57P01",
            "57P02", "57P03", "57P05", "54000", "08006", "08P01", "58030",
        ] {
            assert!(advice_on(code).0, "{code}");
        }
        for code in [
            "28000", "28P01", "3D000", "3F000", "42501", "42P01", "42703", "42804", "23514",
            "22001", "22P02", "XX000", "",
        ] {
            assert!(!advice_on(code).0, "{code}");
        }
        assert!(advice_on("42P01").1.contains("ensure_schema"));
    }
}
