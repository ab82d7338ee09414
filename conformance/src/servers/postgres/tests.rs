//! On servers from whatever source there is.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::up::takes_connections;
use super::*;
use crate::servers::source::{Source, Start};

/// Whether servers of our own can be had: not where the tests were told to use another's.
fn own_servers() -> bool {
    !matches!(Source::from_env(), Ok(Source::Url))
}

#[tokio::test]
async fn a_server_takes_all_faults() {
    if !own_servers() {
        return;
    }
    let server = PostgresServer::start(PostgresOptions::new().private()).await.unwrap();
    assert!(server.about().starts_with("Postgres 1") && server.about().contains(" ("));
    let url = format!("postgres://lockcore:lockcore@{}/postgres", server.addr());
    assert_eq!(server.url(), url);
    server.psql("CREATE SCHEMA s; CREATE TABLE s.t (a serial, b int)").await.unwrap();
    server.psql("INSERT INTO s.t (b) VALUES (7)").await.unwrap();
    assert_eq!(server.psql("SELECT * FROM s.t").await.unwrap(), "1|7");

    // One session stays open, which is a process of its own in the server.
    let mut idle = TcpStream::connect(server.addr()).await.unwrap();
    idle.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await.unwrap();
    assert!(matches!(idle.read_u8().await.unwrap(), b'N' | b'S'));

    assert!(server.inflict(Fault::Pause).await);
    let silent = timeout(Duration::from_millis(50), takes_connections(server.addr())).await;
    assert!(silent.is_err());
    // Not even a session that was there before answers.
    idle.write_all(&[0, 0, 0, 8, 4, 210, 22, 48]).await.unwrap();
    assert!(timeout(Duration::from_millis(50), idle.read_u8()).await.is_err());
    assert!(server.inflict(Fault::Resume).await);
    assert_eq!(server.psql("SELECT * FROM s.t").await.unwrap(), "1|7");

    assert!(server.inflict(Fault::Pause).await);
    assert!(server.inflict(Fault::Kill).await);
    assert!(takes_connections(server.addr()).await.is_err());
    assert!(server.inflict(Fault::Restart).await);
    assert_eq!(server.psql("SELECT * FROM s.t").await.unwrap(), "1|7");
    // A restart of a server that runs.
    assert!(server.inflict(Fault::Restart).await);

    assert!(server.inflict(Fault::Wipe).await);
    assert_eq!(server.psql("SELECT count(*) FROM s.t").await.unwrap(), "0");
    assert!(server.inflict(Fault::Pause).await);
}

#[tokio::test]
async fn wiping_an_empty_server_and_failing_statements_are_told() {
    if !own_servers() {
        return;
    }
    let server = PostgresServer::start(PostgresOptions::new().private()).await.unwrap();
    assert!(server.inflict(Fault::Wipe).await);
    let error = server.psql("SELECT no_such_function()").await.unwrap_err().to_string();
    assert!(error.contains("no_such_function"), "{error}");
}

#[tokio::test]
async fn settings_and_certificates_reach_the_server() {
    if !own_servers() {
        return;
    }
    let keys = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (keys.cert.pem(), keys.signing_key.serialize_pem());
    let options = PostgresOptions::new()
        .setting("default_transaction_isolation", "serializable")
        .setting("application_name", "a b")
        .tls(certificate, key);
    let server = PostgresServer::start(options).await.unwrap();
    let isolation = server.psql("SHOW default_transaction_isolation").await.unwrap();
    assert_eq!(isolation, "serializable");
    // The client uses TLS where it is offered.
    let tls = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(server.psql(tls).await.unwrap(), "t");
    if let Some(folder) = server.unix_socket() {
        let socket = folder.join(format!(".s.PGSQL.{}", server.addr().port()));
        assert!(socket.exists());
    }
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    if !own_servers() {
        return;
    }
    let options = PostgresOptions::new().setting("no_such_setting", "1");
    let error = PostgresServer::start(options).await.unwrap_err().to_string();
    assert!(error.contains("no_such_setting"), "{error}");
}

/// A dropped server must leave nothing behind, neither processes nor shared memory; and what does
/// not answer is not up.
#[tokio::test]
async fn a_dropped_server_is_gone_even_when_paused() {
    if !own_servers() {
        return;
    }
    let server = PostgresServer::start(PostgresOptions::new().private()).await.unwrap();
    assert!(server.inflict(Fault::Pause).await);
    let (addr, folder) = (server.addr(), server.unix_socket().map(Path::to_owned));
    drop(server);
    let error = TcpStream::connect(addr).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    if let Some(folder) = folder {
        assert!(!folder.exists());
    }
}

#[tokio::test]
async fn servers_of_others_are_left_alone() {
    let own = PostgresServer::start(PostgresOptions::new()).await.unwrap();
    let server = PostgresServer::at(&own.url()).await.unwrap();
    assert!(!server.inflict(Fault::Wipe).await && !server.inflict(Fault::Kill).await);
    assert_eq!((server.addr(), server.url()), (own.addr(), own.url()));
    drop(server);
    takes_connections(own.addr()).await.unwrap();
}
