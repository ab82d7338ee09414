#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
mod claim;
mod clock;
mod error;
mod fence;
mod key;
mod memory;

pub use async_trait::async_trait;

pub use crate::backend::LockBackend;
pub use crate::claim::{
    Acquire, Claim, Contention, Lease, LeaseInfo, Limits, MAX_TOKEN, Release, ReleaseSignal, Renew,
    StoreMemory,
};
pub use crate::error::{BackendError, BoxError, Error, ErrorKind, InvalidInput};
pub use crate::fence::{FenceRegister, StaleToken};
pub use crate::key::{HolderId, LockKey};
pub use crate::memory::MemoryBackend;
