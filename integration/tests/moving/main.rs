//! Processes that move between the phases of a switch, forth and back, in any order that keeps the
//! opposite phases apart; some leave, and some are killed. All the while they take locks, and what they
//! say of them is checked.
//!
//! | Variable | |
//! |---|---|
//! | `LOCKCORE_TEST_ACQUISITIONS` | how many locks are taken at least in each test, and all go on to and fro |
//! | `LOCKCORE_TEST_SEED` | repeats the moves of a run that printed this seed |
#![cfg(unix)]

mod fleet;
mod history;

use integration::history::check;
use integration::store::{Kind, Store};

use crate::fleet::Fleet;

/// How far all go, from the old store to the new one or back, at least.
const WAYS: usize = 2;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

async fn moves(old: Kind, new: Kind, ahead: Option<Kind>) {
    let wanted = number("LOCKCORE_TEST_ACQUISITIONS").unwrap_or(2000);
    let wanted = usize::try_from(wanted).expect("a small number");
    let seed = number("LOCKCORE_TEST_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("{old:?} to {new:?}: seed {seed}");
    let (first, second) = tokio::join!(Store::start_durable(old), Store::start_durable(new));
    let url = |kind, store: &Store| {
        let ahead = if ahead == Some(kind) { "ahead+" } else { "" };
        format!("{ahead}{}", store.url())
    };
    let mut fleet = Fleet::new(url(old, &first), url(new, &second), seed).await;
    while fleet.ways() < WAYS || fleet.taken() < wanted {
        fleet.step().await;
    }
    let all = fleet.end().await;
    println!("{old:?} to {new:?}: {}", all.summary());
    check(&all.held).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    assert!(all.held.len() >= wanted);
    all.has_seen_everything();
}

macro_rules! moves {
    ($($name:ident: $old:ident to $new:ident, $ahead:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            moves(Kind::$old, Kind::$new, $ahead).await;
        }
    )*};
}

// Two seconds between the clocks of the stores, and etcd, which has none, in either place.
moves! {
    from_redis_to_etcd: Redis to Etcd, None;
    from_etcd_to_postgres: Etcd to Postgres, None;
    from_postgres_to_redis_whose_clock_is_ahead: Postgres to Redis, Some(Kind::Redis);
    from_redis_whose_clock_is_ahead_to_postgres: Redis to Postgres, Some(Kind::Redis);
}
