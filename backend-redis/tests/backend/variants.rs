//! Servers set up otherwise: clusters, users with few rights, full memory, replicas.

use std::time::Duration;

use crate::common::{
    self, acquired, all_text, claim, is_rejected, is_unavailable, limited, raw, server,
};
use lockcore::{HandOver, LockBackend, Release, Renew};
use lockcore_redis::RedisBackend;

#[tokio::test]
async fn a_user_with_the_documented_rights_is_enough() {
    limited(async {
        let rights = include_str!("../../README.md");
        let line = rights.lines().find_map(|line| line.strip_prefix("ACL SETUSER leaselock "));
        let line = line.expect("documented").replace("SECRET", "pw");
        let words: Vec<&str> = line.split_whitespace().collect();
        let server = server(&[&["--user", "leaselock"][..], &words].concat()).await;
        let at = format!("127.0.0.1:{}", server.port());
        for query in ["", "?protocol=resp2"] {
            let url = format!("redis://leaselock:pw@{at}/{query}");
            let backend = RedisBackend::connect(url).await.expect("let in");
            let mine = claim("k").with_incarnation().with_announcement();
            assert!(acquired(&backend, &mine).await.incarnation.is_some());
            let signal = backend.watch(&mine).await.expect("armed");
            let next = common::waiting("k");
            let turn = backend.watch(&next).await.expect("armed");
            assert_eq!(common::ahead(&backend, &next).await, Some(0));
            let Ok(Renew::Renewed(lease)) = backend.renew(&mine).await else { panic!("held") };
            assert!(lease.incarnation.is_some());
            assert!(backend.inspect(&mine.key).await.expect("redis").is_some());
            assert_eq!(backend.list("", None, 9).await.expect("redis").len(), 1);
            let renewed = backend.renew_many(&[mine.clone(), claim("other")]).await;
            assert!(matches!(&renewed[..], [Ok(Renew::Renewed(_)), Ok(Renew::NotHeld)]));
            assert!(backend.release(&mine).await.expect("redis").is_released());
            if query.is_empty() {
                signal.await;
                turn.await;
            }
            acquired(&backend, &next).await;
            let to = claim("k");
            let handed = backend.hand_over(&next, &to, false).await.expect("redis");
            assert!(matches!(handed, HandOver::Granted(_)), "{handed:?}");
            assert!(backend.release(&to).await.expect("redis").is_released());
        }
    })
    .await;
}

#[tokio::test]
async fn fewer_rights_cost_what_they_are_for_and_no_more() {
    limited(async {
        let no_info = "on >pw ~* &* +@all -info";
        let no_publish = "on >pw ~* resetchannels +@all -publish";
        let no_set = "on >pw ~* &* +@all -psetex";
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
        assert!(acquired(&backend, &claim("a").with_incarnation()).await.incarnation.is_some());

        let backend = connect("publish").await;
        let mine = claim("b");
        acquired(&backend, &mine).await;
        let error = backend.watch(&mine).await.expect_err("no channel");
        assert!(is_rejected(&error), "{error:?}");
        assert!(backend.release(&mine).await.expect("redis").is_released());
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

/// Records of a key share a slot; the record of an incarnation would not.
#[tokio::test]
async fn a_node_of_a_cluster_is_served_and_waiting_polls() {
    limited(async {
        let rights: Vec<_> = "--user dumb on >pw ~* &* +@all -info".split(' ').collect();
        let server = server(&[&["--cluster-enabled", "yes"][..], &rights].concat()).await;
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
        // The last one is not told that it is a cluster.
        for user in ["", "dumb:pw@"] {
            let url = format!("redis://{user}127.0.0.1:{}/", server.port());
            let backend = RedisBackend::connect(url).await.expect("a server");
            let names = ["k", "{a}b", "}", "x{y}z", "100%"];
            for name in names {
                let mine = claim(name).with_incarnation().with_announcement();
                let told = acquired(&backend, &mine).await.incarnation.is_some();
                assert_eq!(told, !user.is_empty());
                let next = common::waiting(name);
                if user.is_empty() {
                    assert!(backend.watch(&next).await.expect("polls").is_never());
                }
                assert_eq!(common::ahead(&backend, &next).await, Some(0));
                let signal = backend.watch(&claim(name)).await.expect("armed");
                assert!(matches!(backend.renew(&mine).await, Ok(Renew::Renewed(_))));
                assert_eq!(backend.list(name, None, 9).await.expect("redis").len(), 1);
                assert!(backend.release(&mine).await.expect("redis").is_released());
                signal.await;
                acquired(&backend, &next).await;
                assert!(backend.release(&next).await.expect("redis").is_released());
            }
            let claims = names.map(claim);
            for mine in &claims[1..] {
                acquired(&backend, mine).await;
            }
            for _ in 0..2 {
                let renewed = backend.renew_many(&claims).await;
                assert!(matches!(renewed[0], Ok(Renew::NotHeld)));
                assert!(renewed[1..].iter().all(|it| matches!(it, Ok(Renew::Renewed(_)))));
            }
            for mine in &claims[1..] {
                backend.release(mine).await.expect("held");
            }
        }
    })
    .await;
}

/// C2: what one server of several shows is not all.
#[tokio::test]
async fn locks_of_a_cluster_are_listed_whole_or_not_at_all() {
    limited(async {
        let rights: Vec<_> = "--user dumb on >pw ~* &* +@all -info".split(' ').collect();
        let options = [&["--cluster-enabled", "yes"][..], &rights].concat();
        let servers = [server(&options).await, server(&options).await];
        let slots = [["0", "8191"], ["8192", "16383"]];
        for (server, [first, last]) in servers.iter().zip(slots) {
            let add = ["CLUSTER", "ADDSLOTSRANGE", first, last];
            let _: () = raw(&mut server.raw().await, &add).await.expect("ADDSLOTSRANGE");
        }
        let other = servers[1].port().to_string();
        let meet = ["CLUSTER", "MEET", "127.0.0.1", &other];
        let _: () = raw(&mut servers[0].raw().await, &meet).await.expect("MEET");
        common::eventually(async || {
            let mut whole = true;
            for server in &servers {
                let info = raw::<String>(&mut server.raw().await, &["CLUSTER", "INFO"]).await;
                let info = info.expect("INFO");
                whole &= info.contains("cluster_state:ok") && info.contains("cluster_size:2");
            }
            whole
        })
        .await;
        let at = |user: &str| format!("redis://{user}127.0.0.1:{}/", servers[0].port());
        let cluster = redis::cluster::ClusterClient::new(vec![at("")]).expect("a URL");
        let cluster = cluster.get_async_connection().await.expect("a cluster");
        let all = [
            RedisBackend::connect(at("")).await.expect("a server"),
            // This one is not told that it is a cluster.
            RedisBackend::connect(at("dumb:pw@")).await.expect("a server"),
            RedisBackend::from_connection(servers[0].raw().await),
            RedisBackend::from_connection(cluster),
        ];
        for backend in &all {
            for (prefix, limit) in [("", 0), ("", 9), ("k{", 9)] {
                let error = backend.list(prefix, None, limit).await.expect_err("a part");
                assert!(is_rejected(&error), "{error:?}");
                assert!(error.to_string().contains("Cluster"), "{error}");
            }
        }
        // Keys are served wherever they are.
        let followed = &all[3];
        for name in ["a", "b", "c", "d"] {
            let mine = claim(name);
            acquired(followed, &mine).await;
            assert!(followed.inspect(&mine.key).await.expect("redis").is_some());
            assert!(followed.release(&mine).await.expect("redis").is_released());
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
    })
    .await;
}

/// R4: `noeviction` is the recommended setting, and then a full server loses no lock.
#[tokio::test]
async fn a_full_server_renews_and_releases() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let all = ["a", "b", "c", "d"].map(common::waiting);
        for mine in &all {
            acquired(&backend, mine).await;
        }
        let [a, b, c, d] = &all;
        let (next, later) = (common::waiting("c"), common::waiting("c"));
        let turn = backend.watch(&next).await.expect("armed");
        assert_eq!(common::ahead(&backend, &next).await, Some(0));
        let token = acquired(&backend, c).await.token;
        let full = ["CONFIG", "SET", "maxmemory", "1"];
        let _: () = raw(&mut redis, &full).await.expect("CONFIG");

        let mut longer = a.clone();
        longer.ttl = Duration::from_secs(60);
        assert!(matches!(backend.renew(&longer).await, Ok(Renew::Renewed(_))));
        assert!(common::left(&mut redis, "a").await > 50_000);
        let renewed = backend.renew_many(&all).await;
        assert!(renewed.iter().all(|it| matches!(it, Ok(Renew::Renewed(_)))), "{renewed:?}");
        // A greater token takes room: that one is refused, and the others are renewed.
        let mut raised = all.clone();
        raised[1].min_token = token + 1_000_000_000;
        let renewed = backend.renew_many(&raised).await;
        assert!(renewed[1].as_ref().is_err_and(is_unavailable), "{renewed:?}");
        let others = [&renewed[0], &renewed[2], &renewed[3]];
        assert!(others.iter().all(|it| matches!(it, Ok(Renew::Renewed(_)))), "{renewed:?}");
        // Asking again is granted again. Nothing new is taken, and no place either.
        acquired(&backend, b).await;
        let error = backend.acquire(&claim("e")).await.expect_err("full");
        assert!(is_unavailable(&error), "{error:?}");
        assert_eq!(common::ahead(&backend, &later).await, None);
        let handed = backend.hand_over(b, &claim("b"), true).await.expect_err("full");
        assert!(is_unavailable(&handed), "{handed:?}");
        for mine in [a, b, c, d] {
            assert!(backend.release(mine).await.expect("redis").is_released());
            assert_eq!(backend.release(mine).await.expect("redis"), Release::NotHeld);
            assert_eq!(backend.inspect(&mine.key).await.expect("redis"), None);
        }
        turn.await;
        let _: () = raw(&mut redis, &["CONFIG", "SET", "maxmemory", "0"]).await.expect("CONFIG");
        assert_eq!(common::ahead(&backend, &later).await, Some(1));
        assert!(acquired(&backend, &next).await.token > token);
    })
    .await;
}

#[tokio::test]
async fn prefixes_keep_users_apart_and_retention_is_kept() {
    limited(async {
        let server = server(&[]).await;
        let mut redis = server.raw().await;
        // A line lives as long as its record: a minute at least.
        for (prefix, seconds, kept_for) in [("one", 120, 120), ("two", 0, 60)] {
            let builder = RedisBackend::builder(server.url()).prefix(prefix);
            let builder = builder.token_retention(Duration::from_secs(seconds));
            let backend = builder.connect().await.expect("a server");
            acquired(&backend, &claim("k")).await;
            let name = format!("{prefix}:{{k}}");
            let kept: u64 = raw(&mut redis, &["PTTL", &name]).await.expect("PTTL");
            let whole = (20 + kept_for) * 1_000;
            assert!(kept <= whole + 1 && kept > whole - 5_000, "{kept}");
            assert_eq!(backend.list("", None, 9).await.expect("redis").len(), 1);
        }
    })
    .await;
}
