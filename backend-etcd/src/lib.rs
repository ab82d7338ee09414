#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod acquire;
mod address;
mod backend;
mod book;
mod builder;
mod connected;
mod connection;
mod error;
mod keys;
mod list;
mod memory;
mod record;
mod release;
mod renew;
mod route;
#[cfg(feature = "tls")]
mod trust;
mod unconnected;
mod wake;

pub use etcd_client;

pub use crate::backend::EtcdBackend;
pub use crate::builder::EtcdBackendBuilder;
