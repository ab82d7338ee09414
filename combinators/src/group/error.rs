//! Why the stores do not agree.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use lockcore::BackendError;

use super::Group;
use crate::ballot::Stand;

/// Too few stores of a combination agree on an answer: what each of them said.
///
/// It is the source of the error that the call ended with, and is found by walking
/// [`source`](Error::source).
#[derive(Debug)]
pub struct NoAgreement {
    need: usize,
    nodes: Vec<(String, NodeState)>,
}

/// What one store said to a call.
#[derive(Debug)]
#[non_exhaustive]
pub enum NodeState {
    /// It did what was asked, and was undone.
    Agreed,
    /// It was not waited for.
    Unanswered,
    /// Another holder has the key there.
    Contended,
    /// The holder has no lease there.
    NotHeld,
    /// It began, or lost its data, too short a while ago: what it grants does not count yet.
    Young(Duration),
    /// It failed.
    Failed(BackendError),
}

impl NoAgreement {
    pub(super) fn new(group: &Group, stands: &[Stand]) -> Self {
        let state = |stand: &Stand| match stand {
            Stand::Later | Stand::Asked => NodeState::Unanswered,
            Stand::Granted(_) => NodeState::Agreed,
            Stand::Young(memory) => NodeState::Young(group.gate.saturating_sub(memory.age)),
            Stand::Contended(_) => NodeState::Contended,
            Stand::NotHeld => NodeState::NotHeld,
            Stand::Failed(error) => NodeState::Failed(copy(error)),
        };
        let names = group.calls.nodes().iter().map(|node| node.name.to_string());
        Self { need: group.need, nodes: names.zip(stands.iter().map(state)).collect() }
    }

    /// Each store's name, and what it said.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &NodeState)> {
        self.nodes.iter().map(|(name, state)| (name.as_str(), state))
    }
}

/// The same error with its source as text: sources cannot be copied.
pub(super) fn copy(error: &BackendError) -> BackendError {
    match error {
        BackendError::Ambiguous(source) => BackendError::ambiguous(source.to_string()),
        BackendError::InvalidInput(input) => input.clone().into(),
        BackendError::Rejected(source) => BackendError::rejected(source.to_string()),
        other => BackendError::unavailable(match other {
            BackendError::Unavailable(source) => source.to_string(),
            other => other.to_string(),
        }),
    }
}

impl fmt::Display for NoAgreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} stores must agree", self.need, self.nodes.len())?;
        for (index, (name, state)) in self.nodes.iter().enumerate() {
            write!(f, "{} {name}: {state}", if index == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agreed => f.write_str("agreed"),
            Self::Unanswered => f.write_str("has not answered yet"),
            Self::Contended => f.write_str("contended"),
            Self::NotHeld => f.write_str("not held"),
            Self::Young(left) => {
                write!(f, "began or lost its data lately, and counts in {left:.1?}")
            }
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl Error for NoAgreement {}
