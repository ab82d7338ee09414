//! Wrong input, the same on every backend.

/// Input that no request was sent for: a wrong key, ttl, token floor, label, setting or URL.
///
/// The same input gets the same answer on every backend. Fix the code; trying again cannot help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid input: {message}")]
pub struct InvalidInput {
    message: String,
}

impl InvalidInput {
    /// Says what is wrong, and what would be right.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}
