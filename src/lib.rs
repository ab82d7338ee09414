#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod combined;
#[cfg(feature = "postgres")]
mod late;
mod stores;

#[doc(inline)]
pub use lockcore::*;
#[doc(inline)]
pub use lockcore_combinators::*;
#[cfg(feature = "etcd")]
#[cfg_attr(docsrs, doc(cfg(feature = "etcd")))]
#[doc(inline)]
pub use lockcore_etcd as etcd;
#[cfg(feature = "postgres")]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres")))]
#[doc(inline)]
pub use lockcore_postgres as postgres;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
#[doc(inline)]
pub use lockcore_redis as redis;

pub use crate::stores::{backend, connect, switchover};

/// The blocks of a page that is no crate's documentation.
#[cfg(doctest)]
#[doc = include_str!("../docs/switching-stores.md")]
struct SwitchingStores;
