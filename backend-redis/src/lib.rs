#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod address;
mod backend;
mod builder;
mod connected;
mod connection;
mod error;
mod keys;
mod list;
mod route;
mod scripts;
mod server;
mod unconnected;
mod wake;

pub use redis;

pub use crate::backend::RedisBackend;
pub use crate::builder::RedisBackendBuilder;
