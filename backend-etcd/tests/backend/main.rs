//! What the backend does on a real etcd that the conformance suite does not ask for: a file each
//! subject.

mod answers;
mod common;
mod connecting;
mod costs;
mod format;
mod leases;
mod line;
mod memory;
mod relay;
mod renewals;
mod rights;
mod store;
mod tls;
mod waiting;
