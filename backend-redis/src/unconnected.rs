//! Why there is no connection, in words that say what to check.

use std::fmt;
use std::time::Duration;

use lockcore::BackendError;
use redis::{ErrorKind, RedisError};

use crate::error::{self, Failure};

/// Why no connection could be made: shared by all who waited for it.
#[derive(Clone, Debug)]
pub(crate) struct Unconnected {
    now: bool,
    failure: Failure,
}

impl Unconnected {
    pub(crate) fn abandoned() -> Self {
        Self { now: true, failure: Failure::new("the attempt to connect ended with its runtime") }
    }

    pub(crate) fn timed_out(server: &str, tls: bool, limit: Duration) -> Self {
        let hint = tls_hint(tls);
        Self {
            now: true,
            failure: Failure::new(format!(
                "{server} gave no answer within {limit:?}: check that a Redis server listens \
                 there, and {hint}"
            )),
        }
    }

    pub(crate) fn refused(server: &str, tls: bool, error: RedisError) -> Self {
        let hint = tls_hint(tls);
        let said = error.to_string();
        let (now, text) = match error.kind() {
            _ if error::is_reply(&error) => {
                let (now, text) = error::advice(&error);
                (now, format!("{server} refused the connection: {text}"))
            }
            ErrorKind::Parse => (
                false,
                format!(
                    "what listens at {server} does not speak as Redis does: check the port, and {hint}"
                ),
            ),
            _ if said.contains("invalid peer certificate") => (
                false,
                format!(
                    "the certificate of {server} is not trusted: give its authority with `root_certificates`, and connect by a name it is made out to"
                ),
            ),
            _ if error.is_connection_refusal() => (true, format!("nothing listens at {server}")),
            ErrorKind::Io if error.is_connection_dropped() => (
                true,
                format!(
                    "{server} hung up on the handshake: check that it is a Redis server, and {hint}"
                ),
            ),
            ErrorKind::InvalidClientConfig | ErrorKind::Client => {
                (false, format!("{server} cannot be connected to"))
            }
            _ if tls => (true, format!("no connection to {server}: check the address, and {hint}")),
            _ => (true, format!("no connection to {server}: check the address")),
        };
        Self { now, failure: Failure::of(text, error) }
    }
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

fn tls_hint(tls: bool) -> &'static str {
    if tls {
        "whether it speaks TLS (if not, the scheme is redis://)"
    } else {
        "whether it wants TLS (then the scheme is rediss://)"
    }
}
