//! What a failure of the driver or of the server means for a caller (law L7).

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use etcd_client::Error;
use lockcore::BackendError;
use tonic::{Code, ConnectError, Status};

use crate::unconnected::Unconnected;

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
    match status.code() {
        Code::Unavailable if said("no leader") || said("not supported for learner") => {
            Meaning::Unheard
        }
        Code::ResourceExhausted if said("database space exceeded") => Meaning::Full,
        Code::ResourceExhausted if said("too many requests") => moment("the server is overloaded"),
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
        Error::GRpcStatus(status) if status.source().is_none() => !matches!(
            status.code(),
            // The driver makes these up too.
            Code::Unknown | Code::Internal | Code::Cancelled
        ),
        _ => false,
    }
}

/// Why a call has no result.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// There was no connection to send it on.
    Unconnected(Unconnected),
    Etcd(Error),
}

impl Trouble {
    pub(crate) fn says(&self, code: Code, text: &str) -> bool {
        match self {
            Self::Etcd(Error::GRpcStatus(status)) => {
                status.source().is_none()
                    && status.code() == code
                    && status.message().contains(text)
            }
            _ => false,
        }
    }

    pub(crate) fn lease_exists(&self) -> bool {
        self.says(Code::FailedPrecondition, "lease already exists")
    }

    pub(crate) fn lease_not_found(&self) -> bool {
        self.says(Code::NotFound, "lease not found")
    }

    pub(crate) fn no_space(&self) -> bool {
        self.says(Code::ResourceExhausted, "database space exceeded")
    }

    /// The error of a grant: a full store may have granted the lease, but no key is on it, and it
    /// ends with its ttl.
    pub(crate) fn of_grant(self) -> BackendError {
        if self.no_space() { self.of_question() } else { self.of_command() }
    }

    /// The error of a request that may change something.
    pub(crate) fn of_command(self) -> BackendError {
        self.told(BackendError::ambiguous)
    }

    /// The error of a request that changes nothing even if it was heard.
    pub(crate) fn of_question(self) -> BackendError {
        self.told(BackendError::unavailable)
    }

    fn told(self, unknown: fn(Failure) -> BackendError) -> BackendError {
        let error = match self {
            Self::Unconnected(unconnected) => return unconnected.into(),
            Self::Etcd(error) => error,
        };
        match meaning(&error) {
            Meaning::Unheard => {
                BackendError::unavailable(Failure::of("no server could be asked", error))
            }
            Meaning::Refused { now: true, text } => {
                BackendError::unavailable(Failure::of(text, error))
            }
            Meaning::Refused { now: false, text } => {
                BackendError::rejected(Failure::of(text, error))
            }
            Meaning::Full => unknown(Failure::of(FULL, error)),
            Meaning::Unknown => unknown(Failure::of("no definite answer came", error)),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: Code, text: &str) -> Trouble {
        Trouble::Etcd(Error::GRpcStatus(Status::new(code, text)))
    }

    #[test]
    fn a_doubt_is_ambiguous_for_a_command_and_unavailable_for_a_question() {
        for (code, text) in [
            (Code::Unavailable, "etcdserver: request timed out"),
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unavailable, "etcdserver: server stopped"),
            (Code::Unavailable, "something new"),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            (Code::FailedPrecondition, "etcdserver: not leader"),
            (Code::FailedPrecondition, "something new"),
            (Code::ResourceExhausted, "something new"),
            (Code::Unknown, "something new"),
            (Code::Internal, "something new"),
            (Code::Cancelled, "something new"),
            (Code::DeadlineExceeded, "something new"),
            (Code::Aborted, "something new"),
        ] {
            let error = of(code, text).of_command();
            assert!(matches!(error, BackendError::Ambiguous(_)), "{error:?}");
            let error = of(code, text).of_question();
            assert!(matches!(error, BackendError::Unavailable(_)), "{error:?}");
        }
    }

    #[test]
    fn refusals_of_the_moment_are_unavailable_and_others_rejected() {
        for (code, text) in [
            (Code::Unavailable, "etcdserver: no leader"),
            (Code::Unavailable, "etcdserver: rpc not supported for learner"),
            (Code::ResourceExhausted, "etcdserver: too many requests"),
            (Code::InvalidArgument, "etcdserver: revision of auth store is old"),
            (Code::NotFound, "etcdserver: requested lease not found"),
        ] {
            let error = of(code, text).of_command();
            assert!(matches!(error, BackendError::Unavailable(_)), "{error:?}");
        }
        for (code, text) in [
            (Code::PermissionDenied, "etcdserver: permission denied"),
            (Code::Unauthenticated, "etcdserver: invalid auth token"),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
            ),
            (Code::InvalidArgument, "etcdserver: user name is empty"),
            (Code::FailedPrecondition, "etcdserver: authentication is not enabled"),
            (Code::Unimplemented, "unknown service etcdserverpb.Lease"),
            (Code::OutOfRange, "etcdserver: too large lease TTL"),
        ] {
            let error = of(code, text).of_command();
            assert!(matches!(error, BackendError::Rejected(_)), "{error:?}");
        }
    }

    #[test]
    fn a_lease_of_a_full_store_holds_nothing_and_its_writes_are_a_doubt() {
        let full = || of(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
        for (error, ambiguous) in [(full().of_command(), true), (full().of_grant(), false)] {
            assert_eq!(matches!(error, BackendError::Ambiguous(_)), ambiguous, "{error:?}");
            assert!(error.to_string().contains("the store is full"), "{error}");
        }
        let error = of(Code::Unknown, "something new").of_grant();
        assert!(matches!(error, BackendError::Ambiguous(_)), "{error:?}");
    }

    #[test]
    fn a_stale_login_is_worth_another_connection_and_a_wrong_one_is_not() {
        for (text, worth) in [
            ("etcdserver: invalid auth token", true),
            ("etcdserver: revision of auth store is old", true),
            ("etcdserver: no leader", true),
            ("etcdserver: authentication failed, invalid user ID or password", false),
            ("etcdserver: permission denied", false),
            ("etcdserver: request timed out", false),
        ] {
            let error = Error::GRpcStatus(Status::new(Code::Unavailable, text));
            assert_eq!(may_go_elsewhere(&error), worth, "{text}");
        }
    }

    #[test]
    fn what_the_driver_makes_up_is_no_answer() {
        let mut status = Status::unavailable("tcp connect error");
        status.set_source(Arc::new(ConnectError(Box::new(std::io::Error::other("refused")))));
        let error = Error::GRpcStatus(status);
        assert!(!is_answer(&error));
        assert_eq!(meaning(&error), Meaning::Unheard);
        assert_eq!(words(&error), "tcp connect error: refused");
        let mut status = Status::unavailable("etcdserver: no leader");
        status.set_source(Arc::new(std::io::Error::other("reset")));
        assert_eq!(meaning(&Error::GRpcStatus(status)), Meaning::Unknown);
    }
}
