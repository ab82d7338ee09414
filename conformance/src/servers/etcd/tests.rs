//! On servers from whatever source there is.

use std::io;
use std::time::Duration;

use super::up::base64;
use super::*;
use crate::servers::host::ASK_LIMIT;
use crate::servers::http::ask;
use crate::servers::source::Source;

/// Whether servers of our own can be had: not where the tests were told to use another's.
fn own_servers() -> bool {
    !matches!(Source::from_env(), Ok(Source::Url))
}

async fn put(server: &EtcdServer) -> u64 {
    let body = format!(r#"{{"key":"{}","value":"{}"}}"#, base64(b"k"), base64(b"v"));
    let answer = server.post("kv/put", &body).await.unwrap();
    answer.field("revision").unwrap().parse().unwrap()
}

async fn holds(server: &EtcdServer) -> bool {
    let body = format!(r#"{{"key":"{}"}}"#, base64(b"k"));
    let answer = server.post("kv/range", &body).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.field("value") == Some(base64(b"v").as_str())
}

#[tokio::test]
async fn a_server_takes_all_faults() {
    if !own_servers() {
        return;
    }
    let server = EtcdServer::start(EtcdOptions::new().private()).await.unwrap();
    assert!(server.about().starts_with("etcd 3.") && server.about().contains(" ("));
    assert_eq!(server.url(), format!("etcd://{}/", server.addr()));
    assert_eq!((put(&server).await, put(&server).await), (2, 3));

    assert!(server.inflict(Fault::Pause).await);
    let silent = ask(server.addr(), "/version", None, Duration::from_millis(50)).await;
    assert_eq!(silent.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert!(server.inflict(Fault::Resume).await);
    assert!(holds(&server).await);

    assert!(server.inflict(Fault::Pause).await);
    assert!(server.inflict(Fault::Kill).await);
    assert!(ask(server.addr(), "/version", None, ASK_LIMIT).await.is_err());
    assert!(server.inflict(Fault::Restart).await);
    assert!(holds(&server).await);
    assert_eq!(put(&server).await, 4);

    assert!(server.inflict(Fault::Wipe).await);
    assert!(!holds(&server).await);
    assert_eq!(put(&server).await, 2);
    assert!(server.inflict(Fault::Pause).await);
}

#[tokio::test]
async fn users_have_their_rights_even_after_a_wipe() {
    if !own_servers() {
        return;
    }
    let options = EtcdOptions::new().root("p@\"w").user("locker", "hush", "locks/");
    let server = EtcdServer::start(options).await.unwrap();
    assert_eq!(server.url(), format!("etcd://root:p%40%22w@{}/", server.addr()));
    let login =
        |body: &'static str| async { server.post("auth/authenticate", body).await.unwrap() };
    for _ in 0..2 {
        assert_ne!(server.post("kv/put", r#"{"key":"aw=="}"#).await.unwrap().status, 200);
        let root = login(r#"{"name":"root","password":"p@\"w"}"#).await;
        assert!(root.field("token").is_some(), "{}", root.body);
        let locker = login(r#"{"name":"locker","password":"hush"}"#).await;
        assert!(locker.field("token").is_some(), "{}", locker.body);
        assert_ne!(login(r#"{"name":"locker","password":"x"}"#).await.status, 200);
        assert!(server.inflict(Fault::Restart).await);
        assert!(server.inflict(Fault::Wipe).await);
    }
}

#[tokio::test]
async fn tls_has_a_port_of_its_own() {
    if !own_servers() {
        return;
    }
    let keys = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (keys.cert.pem(), keys.signing_key.serialize_pem());
    let server = EtcdServer::start(EtcdOptions::new().tls(certificate, key)).await.unwrap();
    let tls = server.tls_addr().unwrap();
    assert_ne!(tls, server.addr());
    // It does not speak plainly there.
    let plain = ask(tls, "/health", None, ASK_LIMIT).await;
    assert!(plain.is_err() || plain.is_ok_and(|answer| answer.status == 400));
    assert_eq!(put(&server).await, 2);
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    if !own_servers() {
        return;
    }
    let options = EtcdOptions::new().args(["--no-such-option=1"]);
    let error = EtcdServer::start(options).await.unwrap_err().to_string();
    assert!(error.contains("no-such-option"), "{error}");
}

#[tokio::test]
async fn servers_of_others_are_left_alone() {
    use crate::servers::source::Start;

    let own = EtcdServer::start(EtcdOptions::new()).await.unwrap();
    let server = EtcdServer::at(&own.url()).await.unwrap();
    assert!(!server.inflict(Fault::Wipe).await && !server.inflict(Fault::Kill).await);
    assert_eq!((server.addr(), server.url()), (own.addr(), own.url()));
}

#[tokio::test]
async fn a_cluster_has_another_leader_when_one_is_gone() {
    if !own_servers() {
        return;
    }
    let cluster = EtcdCluster::start(3).await.unwrap();
    assert_eq!(cluster.addrs().len(), 3);
    let first = cluster.leader().await.unwrap();
    assert!(!cluster.inflict(first, Fault::Wipe).await);
    assert!(cluster.inflict(first, Fault::Kill).await);
    let second = cluster.leader().await.unwrap();
    assert_ne!(first, second);
    assert!(cluster.inflict(first, Fault::Restart).await);
}
