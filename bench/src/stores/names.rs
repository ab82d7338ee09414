//! The names of the contenders.

use crate::Failure;

/// Our own scripts, statements and transactions on the bare driver.
pub(crate) const RAW: &str = "raw";
/// The simplest lock that the store allows.
pub(crate) const PLAIN: &str = "plain";
pub(crate) const OURS: &str = "leaselock";
/// The library where the store signals nothing, so that it polls.
pub(crate) const POLLING: &str = "leaselock, polling";
pub(crate) const RSLOCK: &str = "rslock";
pub(crate) const DISTRIBUTED_LOCK: &str = "distributed-lock";
/// etcd's own lock service.
pub(crate) const LOCK_SERVICE: &str = "etcd lock()";
/// One command per holder, with a queue in memory.
pub(crate) const SWAP: &str = "fused swap";
/// The store itself wakes the next process.
pub(crate) const DIRECT: &str = "direct grant";

/// No such contender.
pub(super) fn unknown(name: &str) -> Failure {
    format!("{name} does not contend on this store").into()
}

/// A holder id of 32 hexadecimal digits.
pub(super) fn hex(holder: u128) -> String {
    format!("{holder:032x}")
}
