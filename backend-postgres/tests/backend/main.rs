//! What the backend does on a real Postgres that the conformance suite does not ask for: a file each
//! subject.

mod common;
mod connecting;
mod connection;
mod defaults;
mod format;
mod line;
mod locks;
mod memory;
mod pool;
mod schema;
mod sessions;
mod tls;
mod waiting;
