//! Why there is no connection, in words that say what to check.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use lockcore::BackendError;
use tokio_postgres::Error;

use crate::error::{self, Failure};

/// Why no connection could be made: shared by all who waited for it.
#[derive(Clone, Debug)]
pub(crate) struct Unconnected {
    now: bool,
    failure: Failure,
    /// The server, or what is in front of it, takes no startup options.
    pub(crate) no_options: bool,
}

impl Unconnected {
    fn new(now: bool, failure: Failure) -> Self {
        Self { now, failure, no_options: false }
    }

    pub(crate) fn abandoned() -> Self {
        Self::new(true, Failure::new("the attempt to connect ended with its runtime"))
    }

    pub(crate) fn timed_out(shown: &str, limit: Duration) -> Self {
        Self::new(
            true,
            Failure::new(format!(
                "{shown} gave no answer within {limit:?}: check that a PostgreSQL server listens \
                 there"
            )),
        )
    }

    pub(crate) fn standby(shown: &str) -> Self {
        Self::new(
            true,
            Failure::new(format!("{shown} is a standby and grants nothing: name the primary")),
        )
    }

    pub(crate) fn too_old(shown: &str, version: i32) -> Self {
        let version = version / 10_000;
        Self::new(
            false,
            Failure::new(format!("{shown} is version {version}: PostgreSQL 13 or later is needed")),
        )
    }

    pub(crate) fn not_postgres(shown: &str) -> Self {
        Self::new(
            false,
            Failure::new(format!("{shown} does not answer as PostgreSQL does: check the address")),
        )
    }

    /// The error of a pool that could not connect.
    #[cfg(feature = "pool")]
    pub(crate) fn of_pool(error: Error) -> Self {
        Self::refused("the pool's server", false, error)
    }

    pub(crate) fn refused(shown: &str, tls: bool, error: Error) -> Self {
        let io = first_io(&error).map(io::Error::kind);
        if let Some(answer) = error.as_db_error() {
            let (now, text) = error::advice(answer);
            let no_options = matches!(answer.code().code(), "08P01" | "0A000");
            let failure = Failure::of(format!("{shown} refused the connection: {text}"), error);
            return Self { now, failure, no_options };
        }
        // The driver keeps the kinds of its errors to itself, and shows them by their words.
        let (now, text) = match error.to_string().as_str() {
            _ if is_untrusted(&error) => (
                false,
                format!(
                    "the certificate of {shown} is not trusted: give its authority with \
                     `root_certificates` or `sslrootcert`, and connect by a name it is made out to"
                ),
            ),
            "error performing TLS handshake" if io.is_none() => {
                (false, format!("{shown} does not speak TLS: if it is not to, say sslmode=disable"))
            }
            "error performing TLS handshake" => {
                (true, format!("{shown} hung up on the TLS handshake"))
            }
            "unexpected message from server" | "error parsing response from server" => {
                return Self::not_postgres(shown);
            }
            "invalid configuration" | "authentication error" => {
                (false, format!("{shown} wants other credentials than were given"))
            }
            "connection closed" | "error communicating with the server" => (
                true,
                format!(
                    "{shown} hung up on the handshake: check that it is a PostgreSQL server{}",
                    if tls { ", and that it speaks TLS" } else { "" }
                ),
            ),
            _ if io == Some(io::ErrorKind::ConnectionRefused) => {
                (true, format!("nothing listens at {shown}"))
            }
            _ if matches!(io, Some(io::ErrorKind::NotFound)) => {
                (true, format!("there is no socket at {shown}"))
            }
            _ => (true, format!("no connection to {shown}: check the address")),
        };
        Self::new(now, Failure::of(text, error))
    }
}

fn sources<'a>(error: &'a Error) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

fn first_io(error: &Error) -> Option<&io::Error> {
    sources(error).find_map(|error| error.downcast_ref::<io::Error>())
}

/// The server showed a certificate that does not convince.
pub(crate) fn is_untrusted(error: &Error) -> bool {
    sources(error).any(|error| error.to_string().contains("invalid peer certificate"))
}

impl fmt::Display for Unconnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.failure, f)
    }
}

impl From<Unconnected> for BackendError {
    fn from(unconnected: Unconnected) -> Self {
        if unconnected.now {
            Self::unavailable(unconnected.failure)
        } else {
            Self::rejected(unconnected.failure)
        }
    }
}
