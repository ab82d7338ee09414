//! The laws, one script at a time, against the records in the store.

mod common;

use std::time::Duration;

use common::{acquired, claim, is_rejected, key, limited, raw, server};
use lockcore::{Acquire, HolderId, LockBackend, MAX_TOKEN, Release, Renew};
use lockcore_redis::redis;

#[tokio::test]
async fn asking_again_extends_and_keeps_the_token() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let mut mine = claim("k");
        let first = acquired(&backend, &mine).await;
        assert_eq!(first.ttl, mine.ttl);
        // L2: whatever floor it names; L3: a shorter ttl shortens nothing.
        mine.ttl = Duration::from_millis(10);
        let again = acquired(&backend, &mine.clone().with_min_token(MAX_TOKEN)).await;
        assert_eq!(again.token, first.token);
        let left: u64 = raw(&mut redis, &["PTTL", "leaselock:{k}:lease"]).await.expect("PTTL");
        assert!(left > 15_000, "{left}");
        mine.ttl = Duration::from_secs(60);
        acquired(&backend, &mine).await;
        let left: u64 = raw(&mut redis, &["PTTL", "leaselock:{k}:lease"]).await.expect("PTTL");
        assert!(left > 55_000, "{left}");
    })
    .await;
}

#[tokio::test]
async fn renew_never_shortens_and_raises_to_exactly_the_floor() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let mut mine = claim("k").with_label("a|b\nc");
        let lease = acquired(&backend, &mine).await;
        mine.ttl = Duration::from_millis(10);
        let Ok(Renew::Renewed(same)) = backend.renew(&mine).await else { panic!("held") };
        assert_eq!(same.token, lease.token);
        let left: u64 = raw(&mut redis, &["PTTL", "leaselock:{k}:lease"]).await.expect("PTTL");
        assert!(left > 15_000, "{left}");

        let floor = lease.token + 1_000_000_000_000;
        mine.min_token = floor;
        let Ok(Renew::Renewed(raised)) = backend.renew(&mine).await else { panic!("held") };
        assert_eq!(raised.token, floor);
        // In the lease and in the counter, and a lower floor lowers neither.
        mine.min_token = 1;
        backend.renew(&mine).await.expect("held");
        let info = backend.inspect(&mine.key).await.expect("redis").expect("held");
        assert_eq!((info.token, info.label.as_str()), (floor, "a|b\nc"));
        let last: u64 = raw(&mut redis, &["GET", "leaselock:{k}:token"]).await.expect("GET");
        assert_eq!(last, floor);
        // Kept until the clock is there: a million seconds and a day.
        let kept: u64 = raw(&mut redis, &["PTTL", "leaselock:{k}:token"]).await.expect("PTTL");
        assert!(kept > 1_000_000_000 + 80_000_000, "{kept}");
        assert_eq!(backend.release(&mine).await.expect("redis"), Release::Released);
        assert_eq!(acquired(&backend, &claim("k")).await.token, floor + 1);
    })
    .await;
}

#[tokio::test]
async fn an_evicted_counter_comes_back_with_the_next_renewal() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let mine = claim("k").with_min_token(MAX_TOKEN);
        assert_eq!(acquired(&backend, &mine).await.token, MAX_TOKEN);
        let _: () = raw(&mut redis, &["DEL", "leaselock:{k}:token"]).await.expect("DEL");
        backend.renew(&mine).await.expect("held");
        backend.release(&mine).await.expect("held");
        // Exact beyond 2^52 too.
        for n in 1..4 {
            let next = claim("k");
            assert_eq!(acquired(&backend, &next).await.token, MAX_TOKEN + n);
            backend.release(&next).await.expect("held");
        }
    })
    .await;
}

#[tokio::test]
async fn only_the_holder_renews_and_releases() {
    limited(async {
        let server = server(&[]).await;
        let backend = server.backend().await;
        let (mine, yours) = (claim("k"), claim("k"));
        assert_eq!(backend.renew(&mine).await.expect("redis"), Renew::NotHeld);
        assert_eq!(backend.release(&mine).await.expect("redis"), Release::NotHeld);
        acquired(&backend, &mine).await;
        let Ok(Acquire::Contended(contention)) = backend.acquire(&yours).await else {
            panic!("held")
        };
        let after = contention.retry_after.expect("Redis knows");
        assert!(after > Duration::from_secs(15) && after <= Duration::from_millis(20_001));
        assert_eq!(backend.renew(&yours).await.expect("redis"), Renew::NotHeld);
        assert_eq!(backend.release(&yours).await.expect("redis"), Release::NotHeld);
        assert_eq!(backend.release(&mine).await.expect("redis"), Release::Released);
        assert_eq!(backend.release(&mine).await.expect("redis"), Release::NotHeld);
        assert_eq!(backend.inspect(&mine.key).await.expect("redis"), None);
    })
    .await;
}

#[tokio::test]
async fn an_expired_lease_is_not_revived() {
    limited(async {
        let server = server(&[]).await;
        let backend = server.backend().await;
        let mut mine = claim("k");
        mine.ttl = Duration::from_micros(10_001);
        let lease = acquired(&backend, &mine).await;
        assert_eq!(lease.ttl, Duration::from_millis(11), "rounded up");
        common::eventually(async || backend.inspect(&mine.key).await.expect("redis").is_none())
            .await;
        assert_eq!(backend.renew(&mine).await.expect("redis"), Renew::NotHeld);
        let next = acquired(&backend, &claim("k")).await;
        assert!(next.token > lease.token);
    })
    .await;
}

#[tokio::test]
async fn tokens_are_dated_and_obey_floors() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let first = claim("k");
        let token = acquired(&backend, &first).await.token;
        let (s, us): (u64, u64) = raw(&mut redis, &["TIME"]).await.expect("TIME");
        let now = s * 1_000_000 + us;
        assert!(token <= now && token > now - 10_000_000, "{token} {now}");
        backend.release(&first).await.expect("held");
        let _: () = raw(&mut redis, &["FLUSHALL"]).await.expect("FLUSHALL");
        assert!(acquired(&backend, &claim("k")).await.token > token, "L5 over a wipe");
        let floor = claim("new").with_min_token(now * 2);
        assert_eq!(acquired(&backend, &floor).await.token, now * 2);
        let low = claim("low").with_min_token(5);
        assert!(acquired(&backend, &low).await.token > token);
    })
    .await;
}

#[tokio::test]
async fn foreign_values_are_refused_and_left_alone() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let name = "leaselock:{k}:lease";
        let holder = HolderId::random().to_string();
        let endless = format!("1|{holder}|5|");
        let values: Vec<Vec<&str>> = vec![
            vec!["SET", name, "someone's", "PX", "100000"],
            vec!["SET", name, "", "PX", "100000"],
            vec!["SET", name, "1|xyz|5|", "PX", "100000"],
            vec!["SET", name, "2|00000000000000000000000000000007|5|", "PX", "100000"],
            vec!["SET", name, "1|00000000000000000000000000000007|9007199254740993|", "PX", "9999"],
            // A lease that never ends.
            vec!["SET", name, &endless],
            vec!["HSET", name, "a", "b"],
            vec!["RPUSH", name, "a"],
        ];
        for value in values {
            let _: () = raw(&mut redis, &["DEL", name]).await.expect("DEL");
            let _: redis::Value = raw(&mut redis, &value).await.expect("written");
            let before: Vec<u8> = raw(&mut redis, &["DUMP", name]).await.expect("DUMP");
            let mine = claim("k");
            let errors = [
                backend.acquire(&mine).await.expect_err("foreign"),
                backend.renew(&mine).await.expect_err("foreign"),
                backend.release(&mine).await.expect_err("foreign"),
                backend.inspect(&mine.key).await.expect_err("foreign"),
            ];
            for error in errors {
                assert!(is_rejected(&error), "{error:?}");
                assert!(error.to_string().contains(name), "{error}");
            }
            let after: Vec<u8> = raw(&mut redis, &["DUMP", name]).await.expect("DUMP");
            assert_eq!(before, after);
            assert_eq!(backend.list("", None, 10).await.expect("redis"), []);
        }
    })
    .await;
}

#[tokio::test]
async fn a_foreign_counter_is_refused_and_left_alone() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let name = "leaselock:{k}:token";
        for value in [["SET", name, "many"], ["SET", name, "9007199254740993"], ["SADD", name, "a"]]
        {
            let mine = claim("k");
            acquired(&backend, &mine).await;
            let _: () = raw(&mut redis, &["DEL", name]).await.expect("DEL");
            let _: redis::Value = raw(&mut redis, &value).await.expect("written");
            for error in [
                backend.acquire(&mine).await.expect_err("foreign"),
                backend.renew(&mine).await.expect_err("foreign"),
            ] {
                assert!(is_rejected(&error) && error.to_string().contains(name), "{error:?}");
            }
            // A release has no need of the counter.
            assert_eq!(backend.release(&mine).await.expect("redis"), Release::Released);
            let error = backend.acquire(&mine).await.expect_err("foreign");
            assert!(is_rejected(&error), "{error:?}");
            assert_eq!(backend.inspect(&mine.key).await.expect("redis"), None, "not half done");
            let _: () = raw(&mut redis, &["DEL", name]).await.expect("DEL");
        }
    })
    .await;
}

#[tokio::test]
async fn list_is_ordered_bounded_and_literal() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let names = ["a", "a*", "a*b", "a?", "a[b]", "a{b}", "a%b", "a\\", "b", "é", "a:lease"];
        for name in names {
            acquired(&backend, &claim(name).with_label(name)).await;
        }
        let _: () = raw(&mut redis, &["SET", "leaselock:{a0}:lease", "x"]).await.expect("SET");
        let listed = async |prefix: &str, after: Option<&str>, limit| {
            let after = after.map(key);
            let leases = backend.list(prefix, after.as_ref(), limit).await.expect("redis");
            leases.into_iter().map(|lease| lease.label).collect::<Vec<_>>()
        };
        let mut sorted = names.to_vec();
        sorted.sort_unstable();
        assert_eq!(listed("", None, usize::MAX).await, sorted);
        assert_eq!(listed("a*", None, 10).await, ["a*", "a*b"]);
        assert_eq!(listed("a{", None, 10).await, ["a{b}"]);
        assert_eq!(listed("a", Some("a"), 2).await, sorted[1..3]);
        assert_eq!(listed("", None, 0).await, Vec::<String>::new());
        // Page by page, the foreign value between them taking no one's place.
        let mut paged: Vec<String> = Vec::new();
        loop {
            let after = paged.last().cloned();
            let page = listed("", after.as_deref(), 2).await;
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, sorted);
    })
    .await;
}
