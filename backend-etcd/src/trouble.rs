//! Why a request to the store has no result, and what a caller is told (law L7).

use std::error::Error as _;

use etcd_client::Error;
use lockcore::BackendError;
use tonic::Code;

use crate::error::{FULL, Failure, Meaning, meaning};
use crate::unconnected::Unconnected;

/// What makes an error of one kind.
type Kind = fn(Failure) -> BackendError;

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

    fn told(self, unknown: Kind) -> BackendError {
        self.many(unknown)()
    }

    /// The error of a request that changes something for several claims: for each of them.
    pub(crate) fn of_commands(self) -> impl Fn() -> BackendError + Send {
        self.many(BackendError::ambiguous)
    }

    fn many(self, unknown: Kind) -> impl Fn() -> BackendError + Send {
        let told: Result<(Kind, Failure), Unconnected> = match self {
            Self::Unconnected(unconnected) => Err(unconnected),
            Self::Etcd(error) => {
                let (kind, text): (Kind, _) = match meaning(&error) {
                    Meaning::Unheard => (BackendError::unavailable, "no server could be asked"),
                    Meaning::Refused { now: true, text } => (BackendError::unavailable, text),
                    Meaning::Refused { now: false, text } => (BackendError::rejected, text),
                    Meaning::Full => (unknown, FULL),
                    Meaning::Unknown => (unknown, "no definite answer came"),
                };
                Ok((kind, Failure::of(text, error)))
            }
        };
        move || match &told {
            Ok((kind, failure)) => kind(failure.clone()),
            Err(unconnected) => unconnected.clone().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tonic::{ConnectError, Status};

    use super::*;
    use crate::error::{is_answer, may_go_elsewhere, words};

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
            // S12: as etcd 3.4 says it.
            (Code::Unknown, "etcdserver: too many requests"),
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
    fn an_overloaded_server_has_answered() {
        let error = Error::GRpcStatus(Status::unknown("etcdserver: too many requests"));
        assert!(is_answer(&error) && !may_go_elsewhere(&error));
        assert!(!is_answer(&Error::GRpcStatus(Status::unknown("h2 protocol error"))));
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
