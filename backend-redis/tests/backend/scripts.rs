//! The laws, one script at a time, against the records in the store.

use std::time::Duration;

use crate::common::{self, acquired, claim, is_rejected, key, limited, raw, server};
use lockcore::{Acquire, LockBackend, MAX_TOKEN, Release, Renew};
use lockcore_redis::{RedisBackend, redis};

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
        let left = common::left(&mut redis, "k").await;
        assert!(left > 15_000, "{left}");
        mine.ttl = Duration::from_secs(60);
        acquired(&backend, &mine).await;
        let left = common::left(&mut redis, "k").await;
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
        let left = common::left(&mut redis, "k").await;
        assert!(left > 15_000, "{left}");

        let floor = lease.token + 1_000_000_000_000;
        mine.min_token = floor;
        let Ok(Renew::Renewed(raised)) = backend.renew(&mine).await else { panic!("held") };
        assert_eq!(raised.token, floor);
        // A lower floor does not lower it.
        mine.min_token = 1;
        backend.renew(&mine).await.expect("held");
        let info = backend.inspect(&mine.key).await.expect("redis").expect("held");
        assert_eq!((info.token, info.label.as_str()), (floor, "a|b\nc"));
        let left = common::left(&mut redis, "k").await;
        assert!((15_000..=20_001).contains(&left), "{left}");
        // Kept until the clock is there: a million seconds and an hour.
        let kept: u64 = raw(&mut redis, &["PTTL", "leaselock:{k}"]).await.expect("PTTL");
        assert!(kept > 1_000_000_000 + 3_000_000, "{kept}");
        assert!(backend.release(&mine).await.expect("redis").is_released());
        assert_eq!(acquired(&backend, &claim("k")).await.token, floor + 1);
    })
    .await;
}

#[tokio::test]
async fn the_largest_tokens_are_exact_and_a_record_has_room_for_them() {
    limited(async {
        let server = server(&[]).await;
        let builder = RedisBackend::builder(server.url());
        let longest = Duration::from_secs(10 * 366 * 24 * 60 * 60);
        let backend = builder.token_retention(longest).connect().await.expect("a server");
        let mine = claim("k").with_min_token(MAX_TOKEN);
        assert_eq!(acquired(&backend, &mine).await.token, MAX_TOKEN);
        // Raised again and again, it is not kept longer and longer.
        for n in 1..9 {
            let raised = mine.clone().with_min_token(MAX_TOKEN - n);
            backend.renew(&raised).await.expect("held");
        }
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
        assert!(backend.release(&mine).await.expect("redis").is_released());
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
        let name = "leaselock:{k}";
        let head = "2|00000000000000000000000000000007";
        let whole = format!("{head}|1795344351792114|0000003600000|000|label");
        let former = "1|00000000000000000000000000000007|1795344351792114|label";
        let next = whole.replacen('2', "3", 1);
        let large = whole.replace("1795344351792114", "9007199254740991");
        let short = whole.replace("|000|label", "|001|label");
        let moved = whole.replace("|1795344351792114|", "1|795344351792114|");
        let values: Vec<Vec<&str>> = vec![
            vec!["SET", name, "someone's", "PX", "100000"],
            vec!["SET", name, "", "PX", "100000"],
            vec!["SET", name, "16 bytes of text", "PX", "100000"],
            vec!["SET", name, "9007199254740991", "PX", "100000"],
            vec!["SET", name, head, "PX", "100000"],
            vec!["SET", name, former, "PX", "100000"],
            vec!["SET", name, &next, "PX", "100000"],
            vec!["SET", name, &large, "PX", "4000000"],
            vec!["SET", name, &short, "PX", "4000000"],
            vec!["SET", name, &moved, "PX", "4000000"],
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

/// Nobody could wait for it.
#[tokio::test]
async fn a_record_that_never_ends_is_refused_and_left_alone() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        acquired(&backend, &claim("k")).await;
        let _: u64 = raw(&mut redis, &["PERSIST", "leaselock:{k}"]).await.expect("PERSIST");
        let error = backend.acquire(&claim("k")).await.expect_err("endless");
        assert!(is_rejected(&error), "{error:?}");
        let key = key("k");
        assert!(is_rejected(&backend.inspect(&key).await.expect_err("endless")));
        let pttl: i64 = raw(&mut redis, &["PTTL", "leaselock:{k}"]).await.expect("PTTL");
        assert_eq!(pttl, -1);
    })
    .await;
}

/// R7: whoever locks ever new names does not fill the server.
#[tokio::test]
async fn a_released_key_keeps_its_token_alone_and_for_an_hour() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let mine = claim("bench/000001").with_label("web-1.example:4711");
        let token = acquired(&backend, &mine).await.token;
        backend.release(&mine).await.expect("held");
        let name = "leaselock:{bench/000001}";
        let value: String = raw(&mut redis, &["GET", name]).await.expect("GET");
        assert_eq!(value, token.to_string());
        let usage: u64 = raw(&mut redis, &["MEMORY", "USAGE", name]).await.expect("MEMORY");
        assert!(usage <= 100, "{usage}");
        let pttl: i64 = raw(&mut redis, &["PTTL", name]).await.expect("PTTL");
        assert!((3_590_000..=3_600_000).contains(&pttl), "{pttl}");
        assert!(acquired(&backend, &claim("bench/000001")).await.token > token);
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
        let _: () = raw(&mut redis, &["SET", "leaselock:{a0}", "x"]).await.expect("SET");
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
