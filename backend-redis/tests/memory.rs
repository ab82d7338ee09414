//! How long the store has forgotten nothing, as acquire and renew tell it.

mod common;

use std::time::{Duration, Instant};

use common::{acquired, claim, is_unavailable, limited, raw, server};
use lockcore::{Claim, HolderId, LockBackend, Renew, StoreMemory};
use lockcore_redis::RedisBackend;

async fn renewed(backend: &RedisBackend, claim: &Claim) -> Option<StoreMemory> {
    match backend.renew(claim).await {
        Ok(Renew::Renewed(lease)) => lease.memory,
        other => panic!("not renewed: {other:?}"),
    }
}

#[tokio::test]
async fn memory_names_the_store_and_a_wipe_begins_another() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let mine = claim("k");
        let first = acquired(&backend, &mine).await.memory.expect("known");
        let other = server.backend().await;
        let second = acquired(&other, &claim("other")).await.memory.expect("known");
        assert_eq!(first.id, second.id);
        assert_eq!(renewed(&other, &mine).await.expect("known").id, first.id);
        let _: () = raw(&mut redis, &["FLUSHALL"]).await.expect("FLUSHALL");
        let wiped = acquired(&backend, &mine).await.memory.expect("known");
        assert_ne!(wiped.id, first.id);
        assert_eq!(renewed(&backend, &mine).await.expect("known").id, wiped.id);
        // Born longer ago than the server runs: what it read back from disk may be older.
        let born = format!("{}|5", HolderId::from_u128(7));
        let _: () = raw(&mut redis, &["SET", "leaselock:born", &born]).await.expect("SET");
        for old in [acquired(&backend, &mine).await.memory, renewed(&backend, &mine).await] {
            let old = old.expect("known");
            assert_eq!(old.id, 7);
            assert!(old.age < Duration::from_secs(60), "{:?}", old.age);
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_no_born_record_is_left_alone_and_leaves_nothing_known() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let mine = claim("k");
        for foreign in [["SET", "leaselock:born", "?"], ["LPUSH", "leaselock:born", "?"]] {
            let _: u64 = raw(&mut redis, &["DEL", "leaselock:born"]).await.expect("DEL");
            let _: redis::Value = raw(&mut redis, &foreign).await.expect("written");
            let before: Vec<u8> = raw(&mut redis, &["DUMP", "leaselock:born"]).await.expect("DUMP");
            assert_eq!(acquired(&backend, &mine).await.memory, None);
            assert_eq!(renewed(&backend, &mine).await, None);
            let after: Vec<u8> = raw(&mut redis, &["DUMP", "leaselock:born"]).await.expect("DUMP");
            assert_eq!(after, before);
        }
    })
    .await;
}

/// It was evicted, or deleted by hand: what took it may have taken leases too.
#[tokio::test]
async fn a_renewal_that_finds_no_born_record_begins_one() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let mine = claim("k");
        let first = acquired(&backend, &mine).await.memory.expect("known");
        let _: u64 = raw(&mut redis, &["DEL", "leaselock:born"]).await.expect("DEL");
        // Nobody's renewal changes nothing.
        assert!(matches!(backend.renew(&claim("k")).await, Ok(Renew::NotHeld)));
        // Nor does one that is refused.
        let _: () = raw(&mut redis, &["CONFIG", "SET", "maxmemory", "1"]).await.expect("CONFIG");
        let error = backend.renew(&mine).await.expect_err("full");
        assert!(is_unavailable(&error), "{error:?}");
        let _: () = raw(&mut redis, &["CONFIG", "SET", "maxmemory", "0"]).await.expect("CONFIG");
        let there: u64 = raw(&mut redis, &["EXISTS", "leaselock:born"]).await.expect("EXISTS");
        assert_eq!(there, 0);
        let begun = Instant::now();
        let second = renewed(&backend, &mine).await.expect("known");
        assert!(second.id != first.id && second.age.is_zero(), "{second:?} after {first:?}");
        let third = acquired(&backend, &claim("other")).await.memory.expect("known");
        assert!(third.id == second.id && third.age <= begun.elapsed(), "{third:?}");
    })
    .await;
}

#[tokio::test]
async fn who_may_not_ask_for_the_uptime_counts_from_the_connection() {
    limited(async {
        let rights: Vec<_> = "--user dumb on >pw ~* &* +@all -info".split(' ').collect();
        let server = server(&rights).await;
        let born = format!("{}|5", HolderId::from_u128(7));
        let mut redis = server.raw().await;
        let _: () = raw(&mut redis, &["SET", "leaselock:born", &born]).await.expect("SET");
        let before = Instant::now();
        let url = format!("redis://dumb:pw@127.0.0.1:{}/", server.port());
        let backend = RedisBackend::connect(url).await.expect("let in");
        let mine = claim("k");
        let first = acquired(&backend, &mine).await.memory.expect("known");
        assert!(first.id == 7 && first.age <= before.elapsed(), "{first:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let second = renewed(&backend, &mine).await.expect("known");
        assert!(second.id == 7 && second.age > first.age, "{second:?} after {first:?}");
        assert!(second.age <= before.elapsed(), "{second:?}");
    })
    .await;
}
