#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod acquire;
mod address;
mod attempt;
mod backend;
mod book;
mod builder;
mod connected;
mod connection;
mod error;
mod grant;
mod hand_over;
mod keep_alive;
mod keys;
mod leases;
mod life;
mod line;
mod list;
mod mail;
mod memory;
mod moment;
mod places;
mod record;
mod release;
mod renew;
mod renew_many;
mod route;
mod spot;
mod supply;
mod trouble;
#[cfg(feature = "tls")]
mod trust;
mod unconnected;
mod wake;

pub use etcd_client;

pub use crate::backend::EtcdBackend;
pub use crate::builder::EtcdBackendBuilder;
