#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod address;
mod answer;
mod backend;
mod builder;
mod connected;
mod connection;
mod contended;
mod driver;
mod error;
mod exchange;
mod limit;
mod line;
mod params;
#[cfg(feature = "pool")]
mod pool;
mod release_signals;
mod renewals;
mod route;
mod schema;
mod sessions;
mod statements;
mod sweep;
mod table;
#[cfg(feature = "tls")]
mod tls;
mod unconnected;
mod url;

#[cfg(feature = "pool")]
pub use deadpool_postgres;
pub use tokio_postgres;

pub use crate::backend::PostgresBackend;
pub use crate::builder::PostgresBackendBuilder;
