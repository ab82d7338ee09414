//! The conformance suite on combinations of real servers: on quorums, and on switches from each
//! kind of store to each other one.

mod about;
mod node;
mod quorum;
mod server;
mod switchover;

use std::env;
use std::process::ExitCode;

use lockcore_conformance::Suites;
use lockcore_conformance::servers::{
    EtcdServer as Etcd, PostgresServer as Postgres, RedisServer as Redis,
};

use crate::quorum::QuorumOf;
use crate::switchover::{BOTH, NEW, OLD, Switch};

/// The cases on combinations whose suite is not whole in this run, and in phases `Old` and `New`:
/// there calls go to one store, on which the whole suite runs elsewhere.
const SMOKE: &[&str] = &[
    "ownership::one_holder",
    "ownership::release_",
    "expiry::gone_after_its_ttl",
    "expiry::renew_extends",
    "fencing::rises_over_re",
    "waiting::a_release_wakes",
    "waiting::an_expiry_lets_in",
];

/// How many suites of each kind are whole in one run.
const TURN: usize = 1;

/// Has all suites be whole.
const FULL: &str = "LOCKCORE_TEST_FULL";

/// The combinations whose suites are whole in this run, which others follow in other runs.
struct Turn {
    all: bool,
    whole: Vec<&'static str>,
}

impl Turn {
    /// All of them where the caller asks for that, or for cases by their names. Otherwise a
    /// quorum and a switch, chosen by the seed of the run.
    fn new(seed: u64) -> Self {
        let by_name = env::args().skip(1).any(|arg| !arg.is_empty());
        let all = by_name || env::var(FULL).is_ok_and(|full| full == "1");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut whole = random.choose_multiple(QUORUMS, TURN);
        whole.extend(random.choose_multiple(SWITCHES, TURN));

        if all {
            println!("suites of combinations that are whole: all");
        } else {
            let names = whole.join(", ");
            println!("suites of combinations that are whole: {names} (LOCKCORE_TEST_SEED={seed})");
        }
        Self { all, whole }
    }

    /// What runs of the suite on this combination.
    fn cases(&self, name: &str) -> &'static [&'static str] {
        let whole = self.all || self.whole.contains(&name);
        if whole { &[""] } else { SMOKE }
    }
}

const QUORUMS: [&str; 2] = ["quorum::redis_redis_redis", "quorum::redis_etcd_postgres"];
const SWITCHES: [&str; 6] = [
    "switchover::redis_to_etcd",
    "switchover::redis_to_postgres",
    "switchover::etcd_to_redis",
    "switchover::etcd_to_postgres",
    "switchover::postgres_to_redis",
    "switchover::postgres_to_etcd",
];

fn main() -> ExitCode {
    let seed = env::var("LOCKCORE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let turn = Turn::new(seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000)));
    let suites = Suites::new();
    macro_rules! add {
        ($suites:ident, $($harness:ty => $name:expr;)*) => {
            $suites$(.some_on::<$harness>($name, turn.cases($name)))*
        };
    }
    let suites = add! { suites,
        QuorumOf<Redis, Redis, Redis> => QUORUMS[0];
        QuorumOf<Redis, Etcd, Postgres> => QUORUMS[1];
        Switch<Redis, Etcd, BOTH> => SWITCHES[0];
        Switch<Redis, Postgres, BOTH> => SWITCHES[1];
        Switch<Etcd, Redis, BOTH> => SWITCHES[2];
        Switch<Etcd, Postgres, BOTH> => SWITCHES[3];
        Switch<Postgres, Redis, BOTH> => SWITCHES[4];
        Switch<Postgres, Etcd, BOTH> => SWITCHES[5];
    };
    suites
        .some_on::<Switch<Redis, Postgres, OLD>>("switchover::redis_to_postgres_old", SMOKE)
        .some_on::<Switch<Redis, Postgres, NEW>>("switchover::redis_to_postgres_new", SMOKE)
        .main()
}
