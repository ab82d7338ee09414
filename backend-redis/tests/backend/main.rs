//! What the backend does on a real Redis that the conformance suite does not ask for: a file each
//! subject.

mod common;
mod connecting;
mod connection;
mod format;
mod incarnation;
mod law;
mod line;
mod scripts;
mod tls;
mod variants;
mod waiting;
