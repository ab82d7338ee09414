//! Servers set up otherwise: clusters, users with few rights, full memory, replicas.

mod common;

use std::time::Duration;

use common::{acquired, all_text, claim, is_rejected, is_unavailable, limited, raw, server};
use lockcore::{Acquire, LockBackend, Release, Renew};
use lockcore_redis::RedisBackend;

#[tokio::test]
async fn a_user_with_the_documented_rights_is_enough() {
    limited(async {
        let rights = include_str!("../README.md");
        let line = rights.lines().find_map(|line| line.strip_prefix("ACL SETUSER leaselock "));
        let line = line.expect("documented").replace("SECRET", "pw");
        let words: Vec<&str> = line.split_whitespace().collect();
        let server = server(&[&["--user", "leaselock"][..], &words].concat()).await;
        let at = format!("127.0.0.1:{}", server.port());
        for query in ["", "?protocol=resp2"] {
            let url = format!("redis://leaselock:pw@{at}/{query}");
            let backend = RedisBackend::connect(url).await.expect("let in");
            let mine = claim("k");
            assert!(acquired(&backend, &mine).await.memory.is_some());
            let signal = backend.watch(&mine).await.expect("armed");
            let Ok(Renew::Renewed(lease)) = backend.renew(&mine).await else { panic!("held") };
            assert!(lease.memory.is_some());
            assert!(backend.inspect(&mine.key).await.expect("redis").is_some());
            assert_eq!(backend.list("", None, 9).await.expect("redis").len(), 1);
            assert_eq!(backend.release(&mine).await.expect("redis"), Release::Released);
            signal.await;
        }
    })
    .await;
}

#[tokio::test]
async fn fewer_rights_cost_what_they_are_for_and_no_more() {
    limited(async {
        let no_info = "on >pw ~* &* +@all -info";
        let no_publish = "on >pw ~* resetchannels +@all -publish";
        let no_set = "on >pw ~* &* +@all -set";
        let other_keys = "on >pw ~else:* &* +@all";
        let mut args = Vec::new();
        for (name, rights) in
            [("info", no_info), ("publish", no_publish), ("set", no_set), ("keys", other_keys)]
        {
            args.extend(["--user", name]);
            args.extend(rights.split(' '));
        }
        let server = server(&args).await;
        let at = format!("127.0.0.1:{}", server.port());
        let connect = async |user: &str| {
            let url = format!("redis://{user}:pw@{at}/");
            RedisBackend::connect(url).await.expect("let in")
        };

        let backend = connect("info").await;
        assert!(acquired(&backend, &claim("a")).await.memory.is_some());

        let backend = connect("publish").await;
        let mine = claim("b");
        acquired(&backend, &mine).await;
        let error = backend.watch(&mine).await.expect_err("no channel");
        assert!(is_rejected(&error), "{error:?}");
        assert_eq!(backend.release(&mine).await.expect("redis"), Release::Released);
        // Refused once, a subscription is asked for again.
        assert!(is_rejected(&backend.watch(&mine).await.expect_err("no channel")));

        for user in ["set", "keys"] {
            let backend = connect(user).await;
            let error = backend.acquire(&claim("c")).await.expect_err("no right");
            assert!(is_rejected(&error), "{error:?}");
            assert!(all_text(&error).contains("right"), "{error}");
        }
        let all = server.backend().await;
        assert_eq!(all.list("c", None, 9).await.expect("redis"), []);
    })
    .await;
}

#[tokio::test]
async fn a_node_of_a_cluster_is_served_without_the_born_record() {
    limited(async {
        let server = server(&["--cluster-enabled", "yes"]).await;
        let mut redis = server.raw().await;
        let all = ["CLUSTER", "ADDSLOTSRANGE", "0", "16383"];
        let early = server.backend().await;
        let error = early.acquire(&claim("k")).await.expect_err("no slots");
        assert!(is_unavailable(&error), "{error:?}");
        let _: () = raw(&mut redis, &all).await.expect("ADDSLOTSRANGE");
        common::eventually(async || {
            let info = raw::<String>(&mut server.raw().await, &["CLUSTER", "INFO"]).await;
            info.expect("INFO").contains("cluster_state:ok")
        })
        .await;
        for query in ["", "?protocol=resp2"] {
            let url = format!("{}{query}", server.url());
            let backend = RedisBackend::connect(url).await.expect("a server");
            let _: () = raw(&mut redis, &["CONFIG", "RESETSTAT"]).await.expect("CONFIG");
            acquired(&backend, &claim(&format!("other{query}"))).await;
            // Once: from there on the record is left out.
            let info: String = raw(&mut redis, &["INFO", "errorstats"]).await.expect("INFO");
            assert!(info.contains("errorstat_CROSSSLOT:count=1"), "{info}");
            for name in ["k", "{a}b", "}", "x{y}z", "100%"] {
                let mine = claim(name);
                assert_eq!(acquired(&backend, &mine).await.memory, None);
                assert!(matches!(backend.acquire(&claim(name)).await, Ok(Acquire::Contended(_))));
                let signal = backend.watch(&mine).await.expect("armed");
                let Ok(Renew::Renewed(lease)) = backend.renew(&mine).await else { panic!("held") };
                assert_eq!(lease.memory, None);
                assert_eq!(backend.list(name, None, 9).await.expect("redis").len(), 1);
                assert_eq!(backend.release(&mine).await.expect("redis"), Release::Released);
                signal.await;
            }
            let info: String = raw(&mut redis, &["INFO", "errorstats"]).await.expect("INFO");
            assert!(info.contains("errorstat_CROSSSLOT:count=1"), "{info}");
            // A renewal finds out as well.
            let mine = claim("renewed");
            acquired(&backend, &mine).await;
            let fresh = server.backend().await;
            for _ in 0..2 {
                let Ok(Renew::Renewed(lease)) = fresh.renew(&mine).await else { panic!("held") };
                assert_eq!(lease.memory, None);
            }
            let info: String = raw(&mut redis, &["INFO", "errorstats"]).await.expect("INFO");
            assert!(info.contains("errorstat_CROSSSLOT:count=2"), "{info}");
            assert_eq!(backend.release(&mine).await.expect("redis"), Release::Released);
        }
    })
    .await;
}

#[tokio::test]
async fn a_replica_and_a_full_server_are_unavailable_and_nothing_is_half_done() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let port = common::free_port().to_string();
        let _: () = raw(&mut redis, &["REPLICAOF", "127.0.0.1", &port]).await.expect("REPLICAOF");
        let _: () = raw(&mut redis, &["CONFIG", "SET", "replica-serve-stale-data", "yes"])
            .await
            .expect("CONFIG");
        let error = backend.acquire(&claim("k")).await.expect_err("a replica");
        assert!(is_unavailable(&error), "{error:?}");
        let _: () = raw(&mut redis, &["REPLICAOF", "NO", "ONE"]).await.expect("REPLICAOF");

        let _: () = raw(&mut redis, &["CONFIG", "SET", "maxmemory", "1"]).await.expect("CONFIG");
        let error = backend.acquire(&claim("k")).await.expect_err("full");
        assert!(is_unavailable(&error), "{error:?}");
        let _: () = raw(&mut redis, &["CONFIG", "SET", "maxmemory", "0"]).await.expect("CONFIG");
        let names: Vec<String> = raw(&mut redis, &["KEYS", "*"]).await.expect("KEYS");
        assert_eq!(names, Vec::<String>::new());
        let mine = claim("k");
        acquired(&backend, &mine).await;
        // A release frees memory: a full server takes it.
        let _: () = raw(&mut redis, &["CONFIG", "SET", "maxmemory", "1"]).await.expect("CONFIG");
        let error = backend.renew(&mine).await.expect_err("full");
        assert!(is_unavailable(&error), "{error:?}");
        assert_eq!(backend.release(&mine).await.expect("redis"), Release::Released);
    })
    .await;
}

#[tokio::test]
async fn prefixes_keep_users_apart_and_retention_is_kept() {
    limited(async {
        let server = server(&[]).await;
        let mut redis = server.raw().await;
        for (prefix, seconds) in [("one", 60), ("two", 0)] {
            let builder = RedisBackend::builder(server.url()).prefix(prefix);
            let builder = builder.token_retention(Duration::from_secs(seconds));
            let backend = builder.connect().await.expect("a server");
            acquired(&backend, &claim("k")).await;
            let name = format!("{prefix}:{{k}}:token");
            let kept: u64 = raw(&mut redis, &["PTTL", &name]).await.expect("PTTL");
            let whole = (20 + seconds) * 1_000;
            assert!(kept <= whole && kept > whole - 5_000, "{kept}");
            assert_eq!(backend.list("", None, 9).await.expect("redis").len(), 1);
        }
    })
    .await;
}
