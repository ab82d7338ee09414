#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod address;
mod announcements;
mod answers;
mod backend;
mod builder;
mod call;
mod connected;
mod connection;
mod error;
mod join;
mod keys;
mod list;
mod memory;
mod renew_many;
mod route;
mod scripts;
mod server;
mod turns;
mod unconnected;

pub use redis;

pub use crate::backend::RedisBackend;
pub use crate::builder::RedisBackendBuilder;
