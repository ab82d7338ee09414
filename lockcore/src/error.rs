//! Errors: those of a backend towards the core, and those of the core towards users.

use std::error::Error as StdError;
use std::fmt;

use crate::input::InvalidInput;
use crate::key::LockKey;

/// A boxed error, as sources of [`BackendError`] and [`Error`] are kept.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// Why a backend could not answer (law L7). Contended and not held are answers, not errors.
///
/// The source is the driver's error, for people to read and for callers to downcast.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// Sent, or possibly sent, and not answered: it may have happened. Any doubt belongs here.
    #[error("the outcome is unknown: {0}")]
    Ambiguous(#[source] BoxError),
    /// The claim is outside the store's [`Limits`](crate::Limits); nothing was sent.
    #[error(transparent)]
    InvalidInput(#[from] InvalidInput),
    /// The store answered and refused: wrong password, missing schema, a foreign value under the
    /// key. Nothing was changed, and trying again cannot help until an operator acts.
    #[error("the store refused: {0}")]
    Rejected(#[source] BoxError),
    /// The store was not reached, or cannot serve now: nothing can have happened. (Of a backend
    /// made of several: no lease that counts; strays end with their ttl.)
    #[error("the store is unavailable: {0}")]
    Unavailable(#[source] BoxError),
}

impl BackendError {
    /// [`BackendError::Ambiguous`], from an error or a text.
    pub fn ambiguous(source: impl Into<BoxError>) -> Self {
        Self::Ambiguous(source.into())
    }

    /// The same error where an earlier step of the same call has already happened: no error may
    /// then say that nothing has.
    #[must_use]
    pub fn into_ambiguous(self) -> Self {
        match self {
            Self::Ambiguous(source) | Self::Rejected(source) | Self::Unavailable(source) => {
                Self::Ambiguous(source)
            }
            Self::InvalidInput(input) => Self::Ambiguous(input.into()),
        }
    }

    /// [`BackendError::Rejected`], from an error or a text.
    pub fn rejected(source: impl Into<BoxError>) -> Self {
        Self::Rejected(source.into())
    }

    /// [`BackendError::Unavailable`], from an error or a text.
    pub fn unavailable(source: impl Into<BoxError>) -> Self {
        Self::Unavailable(source.into())
    }
}

/// What kind of failure an [`Error`] is, and so what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A request was sent, no answer came, and it could not be undone in time. Treat the lock as
    /// *not held*; the key may stay taken for up to its ttl.
    Ambiguous,
    /// The time limit ran out while others held the key. Back off, or look who holds it
    /// ([`LockManager::inspect`](crate::LockManager::inspect)).
    Contended,
    /// A wrong key, ttl, setting or URL; nothing was sent. Fix the code.
    InvalidInput,
    /// The lease had gone before the work was done or released. Treat what was done since
    /// [`LockGuard::remaining`](crate::LockGuard::remaining) reached zero as unprotected.
    Lost,
    /// The store answered and refused. Ask its operator; trying again cannot help.
    Rejected,
    /// The store was not reached, and nothing was taken. Trying again later is safe.
    Unavailable,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ambiguous => "ambiguous",
            Self::Contended => "contended",
            Self::InvalidInput => "invalid input",
            Self::Lost => "lost",
            Self::Rejected => "rejected",
            Self::Unavailable => "unavailable",
        })
    }
}

/// Why a lock could not be acquired, held or released.
///
/// [`kind`](Error::kind) tells what to do; [`source`](StdError::source) is the driver's error.
/// The text is for people and may change.
pub struct Error {
    kind: ErrorKind,
    message: String,
    key: Option<LockKey>,
    source: Option<BoxError>,
}

impl Error {
    /// An error of `kind`; `message` in lower case and without what the source says.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), key: None, source: None }
    }

    /// Adds what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(crate) fn into_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    pub(crate) fn with_key(mut self, key: &LockKey) -> Self {
        self.key = Some(key.clone());
        self
    }

    /// The kind, which tells what to do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The key concerned, where there is one.
    #[must_use]
    pub fn key(&self) -> Option<&LockKey> {
        self.key.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(key) = &self.key {
            write!(f, " (key=`{key}`)")?;
        }
        // One line says it all: callers that print only the top of the chain still learn why.
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error {{ kind: {:?}, \"{self}\" }}", self.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<InvalidInput> for Error {
    fn from(input: InvalidInput) -> Self {
        Self::new(ErrorKind::InvalidInput, input.message())
    }
}

impl From<BackendError> for Error {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Ambiguous(source) => {
                Self::new(ErrorKind::Ambiguous, "the store did not answer").with_source(source)
            }
            BackendError::InvalidInput(input) => input.into(),
            BackendError::Rejected(source) => {
                Self::new(ErrorKind::Rejected, "the store refused").with_source(source)
            }
            BackendError::Unavailable(source) => {
                Self::new(ErrorKind::Unavailable, "the store is unavailable").with_source(source)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_key_and_cause() {
        let key = LockKey::new("orders/42").expect("valid");
        let error = Error::from(BackendError::unavailable("connection refused")).with_key(&key);
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.key(), Some(&key));
        assert_eq!(
            error.to_string(),
            "the store is unavailable (key=`orders/42`): connection refused"
        );
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("connection refused"));
    }

    #[test]
    fn the_driver_error_can_be_downcast() {
        let io = std::io::Error::other("reset");
        let error = Error::from(BackendError::ambiguous(io));
        let source = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
        assert!(source.is_some());
    }
}
