//! On servers from whatever source there is.

use std::io;

use super::start::PROGRAMS;
use super::*;
use crate::servers::host::{ASK_LIMIT, port_was_taken};
use crate::servers::local::{self, Folder, Launch, LocalServer, Place};
use crate::servers::source::{Source, Start};

async fn command(server: &RedisServer, command: &[&str]) -> Reply {
    let login = server.address.login.as_ref();
    ask(server.addr(), login, command, ASK_LIMIT).await.unwrap()
}

fn text(text: &str) -> Reply {
    Reply::Text(text.to_owned())
}

async fn faults(server: RedisServer) {
    assert!(server.about().contains(" ("), "{}", server.about());
    assert!(server.url().ends_with(&server.addr().to_string()));
    assert_eq!(command(&server, &["SET", "k", "v"]).await, text("OK"));

    assert!(server.inflict(Fault::Pause).await);
    let silent = ask(server.addr(), None, &["PING"], Duration::from_millis(50)).await;
    assert_eq!(silent.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert!(server.inflict(Fault::Resume).await);
    assert_eq!(command(&server, &["GET", "k"]).await, text("v"));

    assert!(server.inflict(Fault::Pause).await);
    assert!(server.inflict(Fault::Kill).await);
    assert!(ask(server.addr(), None, &["PING"], ASK_LIMIT).await.is_err());
    assert!(server.inflict(Fault::Restart).await);
    assert_eq!(command(&server, &["GET", "k"]).await, text("v"));

    assert!(server.inflict(Fault::Wipe).await);
    assert_eq!(command(&server, &["DBSIZE"]).await, text("0"));
    assert!(server.inflict(Fault::Pause).await);
}

/// Whether servers of our own can be had: not where the tests were told to use another's.
fn own_servers() -> bool {
    !matches!(Source::from_env(), Ok(Source::Url))
}

#[tokio::test]
async fn a_server_takes_all_faults() {
    if own_servers() {
        let options = RedisOptions::new().durable();
        faults(RedisServer::start(options).await.unwrap()).await;
    }
}

#[tokio::test]
async fn many_servers_start_at_once() {
    if own_servers() {
        let start = || RedisServer::start(RedisOptions::new().args(["--hz", "10"]));
        let (a, b, c) = tokio::join!(start(), start(), start());
        let addrs = [a, b, c].map(|server| server.unwrap().addr());
        assert!(addrs[0] != addrs[1] && addrs[1] != addrs[2] && addrs[0] != addrs[2]);
    }
}

#[tokio::test]
async fn options_reach_the_server() {
    if !own_servers() {
        return;
    }
    let options = RedisOptions::new()
        .args(["--requirepass", "p w", "--rename-command", "HELLO", ""])
        .args(["--maxmemory-policy", "allkeys-lru"])
        .unix_socket();
    let server = RedisServer::start(options).await.unwrap();
    assert!(server.url().contains("p%20w@"), "{}", server.url());
    let refused = ask(server.addr(), None, &["GET", "k"], ASK_LIMIT).await;
    assert!(matches!(refused.unwrap(), Reply::Error(error) if error.starts_with("NOAUTH")));
    assert!(matches!(command(&server, &["HELLO"]).await, Reply::Error(_)));
    if let Some(socket) = server.unix_socket() {
        assert!(socket.exists());
    }
}

#[tokio::test]
async fn tls_has_a_port_of_its_own() {
    if !own_servers() {
        return;
    }
    let keys = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (keys.cert.pem(), keys.signing_key.serialize_pem());
    let server = RedisServer::start(RedisOptions::new().tls(certificate, key));
    let server = server.await.unwrap();
    let tls = server.tls_addr().unwrap();
    assert_ne!(tls, server.addr());
    // It does not speak plainly there.
    assert!(ask(tls, None, &["PING"], ASK_LIMIT).await.is_err());
    assert_eq!(command(&server, &["PING"]).await, text("PONG"));
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    if !own_servers() {
        return;
    }
    let options = RedisOptions::new().args(["--no-such-option", "1"]);
    let error = RedisServer::start(options).await.unwrap_err().to_string();
    assert!(error.contains("no-such-option"), "{error}");
}

#[tokio::test]
async fn taken_ports_are_told_from_other_errors() {
    // Programs only: an engine says so itself, before anything listens.
    let Some(program) = local::find(&PROGRAMS) else {
        return;
    };
    let options = RedisOptions::new();
    let first = RedisServer::local(&options).await.unwrap().unwrap();
    let port = first.addr().port();
    let args = options.command("127.0.0.1", port, None);
    let folder = Folder::new("second", Place::Disk, None).unwrap();
    let launch = Launch { program, args, ..Launch::default() };
    let process = LocalServer::spawn(launch, folder).unwrap();
    let kind = Host::Local(Box::new(process));
    let second = RedisServer::own((port, None), &options, kind, "second".into());
    let error = second.up().await.unwrap_err();
    assert!(port_was_taken(&error), "{error}");
}

#[test]
fn servers_may_be_dropped_outside_a_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let start = RedisServer::start(RedisOptions::new());
    let server = runtime.block_on(start).unwrap();
    drop(runtime);
    let addr = server.addr();
    drop(server);
    if own_servers() {
        assert!(std::net::TcpStream::connect(addr).is_err());
    }
}

#[tokio::test]
async fn servers_of_others_are_left_alone() {
    let own = RedisServer::start(RedisOptions::new()).await.unwrap();
    let server = RedisServer::at(&own.url()).await.unwrap();
    assert!(!server.inflict(Fault::Wipe).await && !server.inflict(Fault::Kill).await);
    assert_eq!((server.addr(), server.url()), (own.addr(), own.url()));
    drop(server);
    assert_eq!(command(&own, &["PING"]).await, text("PONG"));
}
