//! Why there is no connection, in words that say what to check.

use std::fmt;
use std::io;
use std::time::Duration;

use etcd_client::Error;
use lockcore::BackendError;

use crate::error::{self, Failure, Meaning};

/// Why no connection could be made: shared by all who waited for it.
#[derive(Clone, Debug)]
pub(crate) struct Unconnected {
    pub(crate) now: bool,
    failure: Failure,
}

impl Unconnected {
    pub(crate) fn abandoned() -> Self {
        Self { now: true, failure: Failure::new("the attempt to connect ended with its runtime") }
    }

    pub(crate) fn timed_out(servers: &str, tls: bool, limit: Duration) -> Self {
        let hint = tls_hint(tls);
        Self {
            now: true,
            failure: Failure::new(format!(
                "{servers} gave no answer within {limit:?}: check that an etcd server listens \
                 there and its cluster has a leader, and {hint}"
            )),
        }
    }

    pub(crate) fn refused(server: &str, tls: bool, error: Error) -> Self {
        let hint = tls_hint(tls);
        let said = error::words(&error);
        let nobody = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        let (now, text) = match error::meaning(&error) {
            Meaning::Refused { now, text } => (now, format!("{server}: {text}")),
            Meaning::Full => (true, format!("{server}: {}", error::FULL)),
            _ if said.contains("invalid peer certificate") => (
                false,
                format!(
                    "the certificate of {server} is not trusted: give its authority with `root_certificates`, and connect by a name it is made out to"
                ),
            ),
            _ if error::caused_by::<io::Error>(&error, nobody) => {
                (true, format!("nothing listens at {server}"))
            }
            Meaning::Unheard if error::is_answer(&error) => {
                (true, format!("{server} does not serve now"))
            }
            Meaning::Unheard => {
                (true, format!("no connection to {server}: check the address, and {hint}"))
            }
            Meaning::Unknown => {
                (true, format!("{server} did not answer as etcd does: check the port, and {hint}"))
            }
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
        "whether it speaks TLS (if not, the scheme is etcd://)"
    } else {
        "whether it wants TLS (then the scheme is etcds://)"
    }
}
