//! Servers for the tests of backends: real ones, private to the test, and breakable.
//!
//! A server comes from the first of these sources that there is:
//!
//! 1. **An address in the environment**: a server that is already running. Nothing is ever done
//!    to it: it cannot be paused, killed or wiped.
//! 2. **A program on this machine**, in a data folder of its own and on a free port.
//! 3. **A container**, through the program `docker` and an engine that answers it.
//!
//! `LOCKCORE_TEST_SOURCE` chooses: `auto` (the default, the order above), `url`, `container` or
//! `local`. Where no source can give a server the answer is an error that says what to install,
//! never a skipped test.
//!
//! Every server listens on 127.0.0.1 only and ends when it is dropped, inside a runtime and
//! outside. A program also ends when the test's process ends without dropping it, even by
//! SIGKILL; a container does not, but carries the label `lockcore.test.run` with the value of
//! the environment variable `LOCKCORE_TEST_RUN`, so that whoever started the tests can find it.
//!
//! | store | address | image | programs |
//! |---|---|---|---|
//! | [`RedisServer`] | `LOCKCORE_TEST_REDIS_URL` | `LOCKCORE_TEST_REDIS_IMAGE` | `redis-server`, `valkey-server` |
//! | [`EtcdServer`] | `LOCKCORE_TEST_ETCD_URL` | `LOCKCORE_TEST_ETCD_IMAGE` | `etcd` |
//! | [`EtcdCluster`] | | | `etcd`, once for each member |
//! | [`PostgresServer`] | `LOCKCORE_TEST_POSTGRES_URL` | `LOCKCORE_TEST_POSTGRES_IMAGE` | `initdb`, `postgres` and `psql`, also in `/usr/lib/postgresql/*/bin` |
//! | [`PgBouncer`] | | | `pgbouncer`, also in `/usr/sbin`: in front of any [`PostgresServer`] |
//!
//! Postgres and PgBouncer refuse to run as root. Where the tests do, these run as the user
//! `postgres`, or `nobody` where there is no such user.

mod address;
mod container;
mod etcd;
mod host;
mod http;
mod local;
mod pgbouncer;
mod postgres;
mod redis;
mod resp;
mod source;

pub use self::etcd::{EtcdCluster, EtcdOptions, EtcdServer};
pub use self::pgbouncer::PgBouncer;
pub use self::postgres::{PostgresOptions, PostgresServer};
pub use self::redis::{RedisOptions, RedisServer};

/// What a server needs beside its program: files in its data folder.
type Files = Vec<(String, Vec<u8>)>;
