//! URLs of quorums.

use std::time::Instant;

use integration::nodes::Nodes;
use leaselock::ErrorKind::{InvalidInput, Rejected, Unavailable};
use leaselock::LockManager;
use lockcore_conformance::Fault;
use lockcore_conformance::servers::RedisOptions;

use super::*;

/// A server does not count until it has run for so long.
const GATE: Duration = Duration::from_secs(5);

async fn start(password: &'static str) -> Nodes {
    let options = || RedisOptions::new().args(["--requirepass", password]);
    Nodes::start([options(), options(), options()]).await
}

fn url(user: &str, hosts: &[String]) -> String {
    format!("quorum+redis://{user}{}/0?max_ttl_seconds={}", hosts.join(","), GATE.as_secs())
}

fn hosts(nodes: &Nodes) -> Vec<String> {
    (0..nodes.count()).map(|n| nodes.host(n)).collect()
}

/// It takes as long as the gate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_right_url_opens_the_quorum() {
    limited(async {
        let nodes = start(PASSWORD).await;
        let (user, mut hosts) = (format!(":{PASSWORD}@"), hosts(&nodes));
        let all = url(&user, &hosts);
        hosts[1] = nobody().to_string();
        let without_one = url(&user, &hosts);

        // Connecting needs a majority that lets us look, and no more.
        for url in [&all, &without_one] {
            let backend = leaselock::backend(url).await.expect("two of three");
            let locks = LockManager::builder(backend).retry_for(Duration::ZERO);
            let locks = locks.build().expect("settings");
            let asked = locks.lock("k").expect("a key").try_acquire().await;
            let error = asked.expect_err("they began just now");
            assert_eq!(error.kind(), Unavailable, "{error:?}");
            let line = error.to_string();
            assert!(line.contains("2 of 3 stores must agree"), "{line}");
            assert!(line.contains("began or lost its data lately, and counts in "), "{line}");
            assert!(PARTS.iter().all(|part| !all_text(&error).contains(part)), "{error:?}");
        }
        tokio::time::sleep(GATE).await;
        let began = Instant::now();
        for url in [&all, &without_one, &all.replace("redis:", "VALKEY:")] {
            opens(url).await;
        }
        println!("opened {:?} after the gate", began.elapsed());
    })
    .await;
}

#[tokio::test]
async fn a_server_under_two_names_is_refused() {
    limited(async {
        let nodes = start(PASSWORD).await;
        let (user, mut hosts) = (format!(":{PASSWORD}@"), hosts(&nodes));
        let first = hosts[0].clone();
        hosts[1] = first.replace("127.0.0.1", "localhost");
        // With another one an acquire may have its majority before it hears from both names.
        nodes.inflict(2, Fault::Kill).await;
        let locks = leaselock::connect(&url(&user, &hosts)).await.expect("it is there");
        let error = locks.lock("k").expect("a key").acquire().await.expect_err("the same");
        println!("{error}");
        assert_eq!(error.kind(), Rejected, "{error:?}");
        let says = format!("{first} and {} are the same store", hosts[1]);
        assert!(error.to_string().contains(&says), "{error}");
        assert!(PARTS.iter().all(|part| !all_text(&error).contains(part)), "{error:?}");
        // And nothing stays behind.
        locks.drain().await;
        let connection = &mut integration::store::redis::connection(&nodes.url(0)).await;
        assert!(integration::nodes::lease(connection, "k").await.is_none());

        // Under one name it is found without asking.
        hosts[1].clone_from(&first);
        fails(&url(&user, &hosts), &[InvalidInput], &["is listed twice", &first]).await;
    })
    .await;
}

#[tokio::test]
async fn too_few_are_refused() {
    limited(async {
        let nodes = start(PASSWORD).await;
        let (user, hosts) = (format!(":{PASSWORD}@"), hosts(&nodes));
        for count in [1, 2] {
            let few = url(&user, &hosts[..count]);
            fails(&few, &[InvalidInput], &["three stores or more"]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn wrong_passwords_are_refused() {
    limited(async {
        let nodes = start("another").await;
        let hosts = hosts(&nodes);
        let wrong = url(&format!(":{PASSWORD}@"), &hosts);
        fails(&wrong, &[Rejected], &["password was not accepted", "127.0.0.1:"]).await;
        fails(&url("", &hosts), &[Rejected], &["wants a password"]).await;
        // One of three that refuses is a mistake as well.
        let other = Nodes::start([RedisOptions::new().args(["--requirepass", PASSWORD])]).await;
        let mixed = [hosts[0].clone(), hosts[1].clone(), other.host(0)];
        let mixed = url(":another@", &mixed);
        fails(&mixed, &[Rejected], &["password was not accepted", &other.host(0)]).await;
    })
    .await;
}

#[tokio::test]
async fn a_majority_that_is_not_there_is_told() {
    limited(async {
        let nodes = Nodes::start([RedisOptions::new().args(["--requirepass", PASSWORD])]).await;
        let hosts = [nodes.host(0), nobody().to_string(), nobody().to_string()];
        let url = url(&format!(":{PASSWORD}@"), &hosts);
        fails(&url, &[Unavailable], &["2 of 3 stores must agree", &hosts[1], &hosts[2]]).await;
    })
    .await;
}

/// A switch leaves a quorum that is gone for good as it does a store: somebody says that it is gone
/// and what its floor was, and nobody looks into it.
#[tokio::test]
async fn a_quorum_that_is_gone_is_left_with_a_floor() {
    limited(async {
        let nodes = Nodes::start([RedisOptions::new()]).await;
        let gone = [nobody(), nobody(), nobody()].map(|host| host.to_string()).join("%2C");
        let (new, floor) = (nodes.host(0), 1_u64 << 51);
        let switch = format!("switchover:?old=quorum%2Bredis://{gone}&new=redis://{new}&phase=new");
        fails(&switch, &[Unavailable], &["2 of 3 stores must agree"]).await;
        let floor_alone = format!("{switch}&floor={floor}");
        fails(&floor_alone, &[Unavailable], &["`gone` and `floor` are needed"]).await;
        let locks = leaselock::connect(&format!("{floor_alone}&gone=yes")).await;
        let guard = locks.expect("nobody looks").lock("k").expect("a key").acquire().await;
        assert!(guard.expect("it is free").fencing_token() >= floor);
    })
    .await;
}

#[tokio::test]
async fn malformed_urls_are_invalid_input() {
    limited(async {
        for (url, says) in [
            ("quorum", "a store is named by a URL"),
            ("quorum+redis", "a store is named by a URL"),
            ("quorum+", "a store is named by a URL"),
            ("quorum+redis:", "quorum+SCHEME://HOST,HOST,HOST"),
            ("quorum+redis://", "quorum+SCHEME://HOST,HOST,HOST"),
            ("quorum+redis:hush-zebra-64738", "quorum+SCHEME://HOST,HOST,HOST"),
            ("quorum+redis://:hush-zebra-64738@/0", "quorum+SCHEME://HOST,HOST,HOST"),
            ("quorum+redis://:hush-zebra-64738@a,b,/0", "quorum+SCHEME://HOST,HOST,HOST"),
            ("quorum+redis://:hush-zebra-64738@a,,b/0", "quorum+SCHEME://HOST,HOST,HOST"),
            ("quorum+redis://:hush/zebra@a,b,c/0", "percent-escape"),
            ("quorum+redis://:hush?zebra@a,b,c/0", "percent-escape"),
            ("quorum+redis://:hush#zebra@a,b,c/0", "percent-escape"),
            ("quorum+redis://:hush-zebra-64738@a,b:port,c/0", "port"),
            ("quorum+redis://:hush-zebra-64738@a,b,c:0/0", "port"),
            ("quorum+redis://:hush-zebra-64738@a,b,c/hush", "database"),
            ("quorum+redis://:hush-zebra-64738@a,b,c/0?protocol=hush", "protocol"),
            ("quorum+redis://:hush@a,:zebra@b,:64738@c/0", "before the first host"),
            ("quorum+mysql://me:hush-zebra-64738@a,b,c/0", "no store has the scheme `mysql`"),
            ("quorum+memory://a,b,c", "memory://NAME"),
            ("quorum+memory://a", "no quorum is made of stores of `memory:`"),
            ("quorum+quorum+redis://:hush-zebra-64738@a,b,c", "no quorum is made of stores"),
            ("quorum+switchover:?old=hush-zebra-64738", "no quorum is made of stores"),
        ] {
            fails(url, &[InvalidInput], &[says]).await;
        }
    })
    .await;
}
