//! What a failure of the driver or of the server means for a caller (law L7).

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use etcd_client::Error;
use lockcore::BackendError;
use tonic::{Code, ConnectError, Status};

/// A failure in words, with what to do about it; the driver's error is its source.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    text: String,
    /// Shared by all who waited for the same connection.
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

/// What the driver says, in one line, and why, as deep as it knows.
pub(crate) fn words(error: &Error) -> String {
    let mut said = Vec::<String>::new();
    let mut say = |text: String| {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if !text.is_empty() && !said.iter().any(|earlier| earlier.contains(&text)) {
            said.push(text);
        }
    };
    let mut cause = match error {
        Error::GRpcStatus(status) => {
            say(status.message().to_owned());
            status.source()
        }
        Error::TransportError(error) => {
            say(error.to_string());
            error.source()
        }
        other => {
            say(other.to_string());
            None
        }
    };
    while let Some(error) = cause {
        say(error.to_string());
        cause = error.source();
    }
    said.join(": ")
}

/// Whether any error on the way down is an `E` that fits.
pub(crate) fn caused_by<E: StdError + 'static>(error: &Error, fits: impl Fn(&E) -> bool) -> bool {
    let mut cause = match error {
        Error::GRpcStatus(status) => status.source(),
        Error::TransportError(error) => error.source(),
        _ => None,
    };
    while let Some(error) = cause {
        if error.downcast_ref::<E>().is_some_and(&fits) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What an error says about the call that it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The request did not reach a server that would serve it: another may.
    Unheard,
    /// The server answered and did nothing. Of the moment or for good, and what to do.
    Refused { now: bool, text: &'static str },
    /// The store is full. Writes that meet the limit first are carried out, and answered like those
    /// after them, which are not.
    Full,
    /// Anything may have happened.
    Unknown,
}

const fn moment(text: &'static str) -> Meaning {
    Meaning::Refused { now: true, text }
}

pub(crate) const FULL: &str =
    "the store is full: compact it, defragment it, and disarm its NOSPACE alarm";

const fn refused(text: &'static str) -> Meaning {
    Meaning::Refused { now: false, text }
}

pub(crate) fn meaning(error: &Error) -> Meaning {
    match error {
        Error::GRpcStatus(status) if status.source().is_none() => answer(status),
        _ if caused_by::<ConnectError>(error, |_| true) => Meaning::Unheard,
        Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::TransportError(_) => {
            refused("the driver cannot use these settings")
        }
        _ => Meaning::Unknown,
    }
}

/// Whether the request was surely not carried out, and may be on another connection: to another
/// server, or by a new login. The driver logs in anew by itself where it can.
pub(crate) fn may_go_elsewhere(error: &Error) -> bool {
    let stale = |status: &Status| {
        status.source().is_none()
            && (status.message().contains("invalid auth token")
                || status.message().contains("revision of auth store is old"))
    };
    meaning(error) == Meaning::Unheard || matches!(error, Error::GRpcStatus(s) if stale(s))
}

/// What a status says that nothing on our side caused.
fn answer(status: &Status) -> Meaning {
    let said = |text: &str| status.message().contains(text);
    // S12: etcd 3.4 refuses so with the code Unknown, later versions with ResourceExhausted.
    if said("etcdserver: too many requests") {
        return moment("the server is overloaded");
    }
    match status.code() {
        Code::Unavailable if said("no leader") || said("not supported for learner") => {
            Meaning::Unheard
        }
        Code::ResourceExhausted if said("database space exceeded") => Meaning::Full,
        Code::InvalidArgument if said("revision of auth store is old") => {
            moment("users or roles changed meanwhile")
        }
        Code::InvalidArgument if said("authentication failed") => {
            refused("the user or password was not accepted")
        }
        Code::InvalidArgument if said("user name is empty") => {
            refused("the server wants a user and a password: give them in the URL")
        }
        Code::Unauthenticated => refused("the server wants a user and a password"),
        Code::FailedPrecondition if said("authentication is not enabled") => {
            refused("the server knows no users: leave user and password out")
        }
        Code::PermissionDenied => {
            refused("the user lacks a right: grant what the documentation lists")
        }
        Code::NotFound if said("lease not found") => moment("the lease has ended"),
        Code::Unimplemented => refused("this is not etcd 3.4 or later"),
        Code::InvalidArgument | Code::NotFound | Code::OutOfRange | Code::DataLoss => {
            refused("the request was refused")
        }
        _ => Meaning::Unknown,
    }
}

/// Whether the server answered: then the connection is in order, whatever it answered.
pub(crate) fn is_answer(error: &Error) -> bool {
    match error {
        Error::GRpcStatus(status) if status.source().is_none() => {
            // The driver makes up these codes too, but not the server's words.
            let made_up = matches!(status.code(), Code::Unknown | Code::Internal | Code::Cancelled);
            !made_up || status.message().starts_with("etcdserver: ")
        }
        _ => false,
    }
}

/// A foreign value where a record of ours belongs.
pub(crate) fn foreign(name: &str) -> BackendError {
    BackendError::rejected(Failure::new(format!(
        "the etcd key `{}` holds something that this version does not know as a record of its \
         own, and it is left alone: find out whose it is (another version may hold the lock), or \
         use another key or prefix",
        name.escape_debug()
    )))
}

/// Keep-alives were answered by a server that does not know of the latest leader (S11). The lease
/// may have been kept alive or not.
pub(crate) fn other_term() -> BackendError {
    BackendError::ambiguous(Failure::new(
        "the server that keeps the lease alive is behind its cluster: it answers in an earlier \
         raft term",
    ))
}

/// Nothing can have happened, and there is no error of the driver's to show.
pub(crate) fn unavailable(text: &str) -> BackendError {
    BackendError::unavailable(Failure::new(text))
}

/// The server answered something that no transaction of ours answers.
pub(crate) fn unexpected() -> BackendError {
    BackendError::ambiguous(Failure::new(
        "the server's answer cannot be understood: is it etcd, without a proxy that rewrites \
         answers?",
    ))
}
