#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod address;
mod backend;
mod builder;
mod connected;
mod connection;
mod driver;
mod error;
mod exchange;
mod limit;
#[cfg(feature = "pool")]
mod pool;
mod route;
mod statements;
mod table;
#[cfg(feature = "tls")]
mod tls;
mod unconnected;
mod url;
mod wake;

#[cfg(feature = "pool")]
pub use deadpool_postgres;
pub use tokio_postgres;

pub use crate::backend::PostgresBackend;
pub use crate::builder::PostgresBackendBuilder;
