//! The keys that switches keep for themselves.

use lockcore::{HolderId, InvalidInput, LockKey};

use super::Phase;

/// What all of them begin with.
pub(super) const PREFIX: &str = "leaselock.switchover/";

/// Refuses a key of the switch's own to its users.
pub(super) fn refuse(key: &LockKey) -> Result<(), InvalidInput> {
    if key.as_str().starts_with(PREFIX) {
        return Err(InvalidInput::new(format!("keys below `{PREFIX}` belong to the switch")));
    }
    Ok(())
}

/// What the registrations of a phase begin with.
pub(super) fn registrations(phase: Phase) -> String {
    format!("{PREFIX}{phase}/")
}

/// A process's registration in a phase.
pub(super) fn registration(phase: Phase, process: HolderId) -> String {
    format!("{PREFIX}{phase}/{process}")
}

/// The phase and the process of a registration.
pub(super) fn registered(key: &LockKey) -> Option<(Phase, &str)> {
    let (phase, process) = key.as_str().strip_prefix(PREFIX)?.split_once('/')?;
    Some((phase.parse().ok()?, process))
}

/// One of the keys whose tokens are the ceilings of the tokens in their store.
pub(super) fn ceiling(number: usize) -> String {
    format!("{PREFIX}ceiling/{number}")
}
