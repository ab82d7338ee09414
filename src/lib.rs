#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod stores;

#[doc(inline)]
pub use lockcore::*;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
#[doc(inline)]
pub use lockcore_redis as redis;

pub use crate::stores::{backend, connect};
