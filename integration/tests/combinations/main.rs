//! The conformance suite on combinations of real servers: on quorums, and on switches from each
//! kind of store to each other one.

mod about;
mod node;
mod quorum;
mod server;
mod switchover;

use std::process::ExitCode;

use lockcore_conformance::Suites;
use lockcore_conformance::servers::{
    EtcdServer as Etcd, PostgresServer as Postgres, RedisServer as Redis,
};

use crate::quorum::QuorumOf;
use crate::switchover::{BOTH, NEW, OLD, Switch};

/// In phases `Old` and `New` calls go to one store, on which the whole suite runs elsewhere.
const SMOKE: &[&str] = &[
    "ownership::one_holder",
    "ownership::release_",
    "expiry::gone_after_its_ttl",
    "expiry::renew_extends",
    "fencing::rises_over_re",
    "waiting::a_release_wakes",
    "waiting::an_expiry_lets_in",
];

fn main() -> ExitCode {
    Suites::new()
        .on::<QuorumOf<Redis, Redis, Redis>>("quorum::redis_redis_redis")
        .on::<QuorumOf<Redis, Etcd, Postgres>>("quorum::redis_etcd_postgres")
        .on::<Switch<Redis, Etcd, BOTH>>("switchover::redis_to_etcd")
        .on::<Switch<Redis, Postgres, BOTH>>("switchover::redis_to_postgres")
        .on::<Switch<Etcd, Redis, BOTH>>("switchover::etcd_to_redis")
        .on::<Switch<Etcd, Postgres, BOTH>>("switchover::etcd_to_postgres")
        .on::<Switch<Postgres, Redis, BOTH>>("switchover::postgres_to_redis")
        .on::<Switch<Postgres, Etcd, BOTH>>("switchover::postgres_to_etcd")
        .some_on::<Switch<Redis, Postgres, OLD>>("switchover::redis_to_postgres_old", SMOKE)
        .some_on::<Switch<Redis, Postgres, NEW>>("switchover::redis_to_postgres_new", SMOKE)
        .main()
}
