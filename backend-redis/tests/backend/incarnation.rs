//! For how long the server is known to have kept all its data, as acquire and renew tell it.

use std::time::{Duration, Instant};

use crate::common::{self, acquired, limited, raw, server};
use lockcore::{Claim, HolderId, Incarnation, LockBackend, Renew};
use lockcore_redis::redis::aio::MultiplexedConnection;
use lockcore_redis::{RedisBackend, redis};

fn claim(name: &str) -> Claim {
    common::claim(name).with_incarnation()
}

/// The server's run id.
async fn run(redis: &mut MultiplexedConnection) -> String {
    let info: String = raw(redis, &["INFO", "server"]).await.expect("INFO");
    let run = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    run.expect("told").to_owned()
}

async fn renewed(backend: &RedisBackend, claim: &Claim) -> Option<Incarnation> {
    match backend.renew(claim).await {
        Ok(Renew::Renewed(lease)) => lease.incarnation,
        other => panic!("not renewed: {other:?}"),
    }
}

#[tokio::test]
async fn an_incarnation_names_the_server_and_a_wipe_begins_another() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let mine = claim("k");
        let first = acquired(&backend, &mine).await.incarnation.expect("known");
        let other = server.backend().await;
        let second = acquired(&other, &claim("other")).await.incarnation.expect("known");
        assert_eq!(first.id, second.id);
        assert_eq!(renewed(&other, &mine).await.expect("known").id, first.id);
        let _: () = raw(&mut redis, &["FLUSHALL"]).await.expect("FLUSHALL");
        let wiped = acquired(&backend, &mine).await.incarnation.expect("known");
        assert_ne!(wiped.id, first.id);
        assert_eq!(renewed(&backend, &mine).await.expect("known").id, wiped.id);
        // Born longer ago than the server runs: what it read back from disk may be older.
        let run = run(&mut redis).await;
        let born = format!("2|{}|{:016}|{run}", HolderId::from_u128(7), 5);
        let _: () = raw(&mut redis, &["SET", "leaselock:incarnation", &born]).await.expect("SET");
        for old in [acquired(&backend, &mine).await.incarnation, renewed(&backend, &mine).await] {
            let old = old.expect("known");
            assert_eq!(old.id, 7);
            assert!(old.age < Duration::from_secs(60), "{:?}", old.age);
        }
    })
    .await;
}

#[tokio::test]
async fn another_record_in_its_place_is_left_alone_and_leaves_nothing_known() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let mine = claim("k");
        for foreign in
            [["SET", "leaselock:incarnation", "?"], ["LPUSH", "leaselock:incarnation", "?"]]
        {
            let _: u64 = raw(&mut redis, &["DEL", "leaselock:incarnation"]).await.expect("DEL");
            let _: redis::Value = raw(&mut redis, &foreign).await.expect("written");
            let before: Vec<u8> =
                raw(&mut redis, &["DUMP", "leaselock:incarnation"]).await.expect("DUMP");
            assert_eq!(acquired(&backend, &mine).await.incarnation, None);
            assert_eq!(renewed(&backend, &mine).await, None);
            let after: Vec<u8> =
                raw(&mut redis, &["DUMP", "leaselock:incarnation"]).await.expect("DUMP");
            assert_eq!(after, before);
        }
    })
    .await;
}

/// It was evicted, or deleted by hand: what took it may have taken leases too.
#[tokio::test]
async fn a_renewal_that_finds_no_incarnation_begins_one() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let mine = claim("k");
        let first = acquired(&backend, &mine).await.incarnation.expect("known");
        let _: u64 = raw(&mut redis, &["DEL", "leaselock:incarnation"]).await.expect("DEL");
        // A full server takes no record, and renews the lease: it cannot tell right now.
        let _: () = raw(&mut redis, &["CONFIG", "SET", "maxmemory", "1"]).await.expect("CONFIG");
        let unknown = renewed(&backend, &mine).await.expect("age zero");
        assert!(unknown.id != first.id && unknown.age.is_zero(), "{unknown:?}");
        let _: () = raw(&mut redis, &["CONFIG", "SET", "maxmemory", "0"]).await.expect("CONFIG");
        let there: u64 =
            raw(&mut redis, &["EXISTS", "leaselock:incarnation"]).await.expect("EXISTS");
        assert_eq!(there, 0);
        let begun = Instant::now();
        let second = renewed(&backend, &mine).await.expect("known");
        assert!(second.id != first.id && second.age.is_zero(), "{second:?} after {first:?}");
        let third = acquired(&backend, &claim("other")).await.incarnation.expect("known");
        assert!(third.id == second.id && third.age <= begun.elapsed(), "{third:?}");
    })
    .await;
}

#[tokio::test]
async fn who_may_not_ask_for_the_uptime_counts_from_the_connection() {
    limited(async {
        let rights: Vec<_> = "--user dumb on >pw ~* &* +@all -info".split(' ').collect();
        let server = server(&rights).await;
        let mut redis = server.raw().await;
        let born = format!("2|{}|{:016}|{}", HolderId::from_u128(7), 5, run(&mut redis).await);
        let _: () = raw(&mut redis, &["SET", "leaselock:incarnation", &born]).await.expect("SET");
        let before = Instant::now();
        let url = format!("redis://dumb:pw@127.0.0.1:{}/", server.port());
        let backend = RedisBackend::connect(url).await.expect("let in");
        let mine = claim("k");
        let first = acquired(&backend, &mine).await.incarnation.expect("known");
        assert!(first.id == 7 && first.age <= before.elapsed(), "{first:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let second = renewed(&backend, &mine).await.expect("known");
        assert!(second.id == 7 && second.age > first.age, "{second:?} after {first:?}");
        assert!(second.age <= before.elapsed(), "{second:?}");
    })
    .await;
}

/// S3: a record comes with replication, and back from disk, to a server that may miss the rest.
#[tokio::test]
async fn the_record_of_another_server_begins_a_new_life() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let other = "0123456789abcdef0123456789abcdef01234567";
        let born = format!("2|{}|{:016}|{other}", HolderId::from_u128(7), 5);
        let _: () = raw(&mut redis, &["SET", "leaselock:incarnation", &born]).await.expect("SET");
        let mine = claim("k");
        let first = acquired(&backend, &mine).await.incarnation.expect("known");
        assert!(first.id != 7 && first.age.is_zero(), "{first:?}");
        assert_eq!(renewed(&backend, &mine).await.expect("known").id, first.id);
        let record: String = raw(&mut redis, &["GET", "leaselock:incarnation"]).await.expect("GET");
        assert!(record.ends_with(&run(&mut redis).await), "{record}");
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_does_not_ask_pays_nothing() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let mine = common::claim("k");
        assert_eq!(acquired(&backend, &mine).await.incarnation, None);
        assert_eq!(renewed(&backend, &mine).await, None);
        let names: Vec<String> = raw(&mut redis, &["KEYS", "*"]).await.expect("KEYS");
        assert_eq!(names, ["leaselock:{k}"]);
        assert_eq!(common::calls(&mut redis, "evalsha").await, 2 + 2, "and what found no script");
        // In one round trip, where asked for; many at once ask once.
        let all = [claim("k1"), claim("k2"), claim("k3")];
        for claim in &all {
            acquired(&backend, claim).await;
        }
        // The first of these teaches the server the script.
        backend.renew_many(&all).await;
        let _: () = raw(&mut redis, &["CONFIG", "RESETSTAT"]).await.expect("CONFIG");
        for renewed in backend.renew_many(&all).await {
            let Ok(Renew::Renewed(lease)) = renewed else { panic!("held") };
            assert!(lease.incarnation.is_some());
        }
        // The server's run was asked for when the connection was new: it ends with it.
        assert_eq!(common::calls(&mut redis, "info").await, 0, "known");
        let _: u64 = raw(&mut redis, &["DEL", "leaselock:incarnation"]).await.expect("DEL");
        let _: () = raw(&mut redis, &["CONFIG", "RESETSTAT"]).await.expect("CONFIG");
        backend.renew_many(&all).await;
        assert_eq!(common::calls(&mut redis, "info").await, 1, "for all of them");
    })
    .await;
}
