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
mod hold;
mod key;
mod manager;
mod memory;
mod queue;
mod settings;

pub use async_trait::async_trait;

pub use crate::backend::LockBackend;
pub use crate::claim::{
    Acquire, Claim, Contention, Lease, LeaseInfo, Limits, MAX_TOKEN, Release, ReleaseSignal, Renew,
    StoreMemory,
};
pub use crate::error::{BackendError, BoxError, Error, ErrorKind, InvalidInput};
pub use crate::fence::{FenceRegister, StaleToken};
pub use crate::guard::LockGuard;
pub use crate::hold::LostReason;
pub use crate::key::{HolderId, LockKey};
pub use crate::manager::{Lock, LockManager, ManagerBuilder};
pub use crate::memory::MemoryBackend;
