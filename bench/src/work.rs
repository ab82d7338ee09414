//! The work that is measured, in a child process.

pub(crate) mod cycles;
pub(crate) mod hold;
pub(crate) mod turns;
