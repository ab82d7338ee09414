#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod acquire;
mod attempt;
mod backend;
mod background;
mod backoff;
mod claim;
mod clock;
mod error;
mod fence;
mod guard;
mod health;
mod held;
mod input;
mod join;
mod key;
mod manager;
mod memory;
mod queue;
mod release;
mod renewal;
mod seams;
mod settings;
mod shared;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod simulation;
mod store;
mod wait;

pub use async_trait::async_trait;

pub use crate::backend::LockBackend;
pub use crate::claim::{
    Acquire, Claim, Contention, HandOver, Incarnation, Lease, LeaseInfo, Limits, MAX_TOKEN,
    Release, ReleaseSignal, Renew,
};
pub use crate::error::{BackendError, BoxError, Error, ErrorKind};
pub use crate::fence::{FenceRegister, StaleToken};
pub use crate::guard::LockGuard;
pub use crate::held::LostReason;
pub use crate::input::InvalidInput;
pub use crate::key::{HolderId, LockKey};
pub use crate::manager::{Lock, LockManager, ManagerBuilder};
pub use crate::memory::MemoryBackend;
