//! URLs of Postgres.

use std::net::SocketAddr;

use integration::limited;
use leaselock::ErrorKind::{InvalidInput, Rejected, Unavailable};
use lockcore_conformance::Fault;
use lockcore_conformance::servers::{PostgresOptions, PostgresServer};

use super::{Other, PASSWORD, certificate, fails, listen, nobody, opens};

async fn start(options: PostgresOptions) -> PostgresServer {
    PostgresServer::start(options.private()).await.expect("a server")
}

fn with_password(at: SocketAddr) -> String {
    format!("postgres://nobody:{PASSWORD}@{at}/nothing")
}

#[tokio::test]
async fn the_right_url_opens_the_store() {
    limited(async {
        let server = start(PostgresOptions::new()).await;
        let create = format!("CREATE ROLE me LOGIN SUPERUSER PASSWORD '{PASSWORD}'");
        server.psql(&create).await.expect("SQL");
        let (_, at) =
            server.url().split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("a URL");
        for scheme in ["postgres", "POSTGRESQL"] {
            opens(&format!("{scheme}://me:{PASSWORD}@{at}")).await;
        }
        let url = format!("postgres://me:{PASSWORD}@{at}?table=others&sslmode=disable");
        opens(&url).await;
    })
    .await;
}

#[tokio::test]
async fn a_wrong_password_or_database_is_refused() {
    limited(async {
        let server = start(PostgresOptions::new()).await;
        let at = server.addr();
        fails(&with_password(at), &[Rejected], &["password", &at.to_string()]).await;
        fails(&format!("postgres://nobody@{at}/nothing"), &[Rejected], &[&at.to_string()]).await;
        let (before, _) = server
            .url()
            .rsplit_once('/')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .expect("a URL");
        fails(&format!("{before}/nowhere"), &[Rejected], &["database", &at.to_string()]).await;
    })
    .await;
}

#[tokio::test]
async fn another_server_at_the_port_is_told() {
    const HTTP: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    limited(async {
        for other in [
            Other::Silent,
            Other::Closes,
            Other::Says(HTTP),
            Other::Says("SSH-2.0-OpenSSH_9.2\r\n"),
        ] {
            let listening = listen(other).await;
            let at = listening.0.to_string();
            for mode in ["disable", "prefer", "require"] {
                let url = format!("{}?sslmode={mode}", with_password(listening.0));
                fails(&url, &[Unavailable, Rejected], &[&at]).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn tls_on_one_side_only_is_told() {
    limited(async {
        let plain = start(PostgresOptions::new()).await;
        let url = format!("{}?sslmode=require", plain.url());
        fails(&url, &[Rejected], &["does not speak TLS", "sslmode=disable"]).await;
        // And on both, with a certificate that nobody vouches for.
        let (certificate, key) = certificate();
        let tls = start(PostgresOptions::new().tls(certificate, key)).await;
        let url = format!("{}?sslmode=verify-full", tls.url());
        fails(&url, &[Rejected], &["is not trusted", "root_certificates"]).await;
    })
    .await;
}

#[tokio::test]
async fn nobody_there_is_told() {
    limited(async {
        let free = nobody();
        let says = ["nothing listens", &free.to_string()];
        fails(&with_password(free), &[Unavailable], &says).await;
        let url = format!("postgres://me:{PASSWORD}@leaselock.invalid:5432/");
        fails(&url, &[Unavailable], &["leaselock.invalid:5432", "check"]).await;
        let url = format!("postgres://me:{PASSWORD}@%2Fnowhere/db");
        fails(&url, &[Unavailable], &["/nowhere"]).await;
    })
    .await;
}

#[tokio::test]
async fn malformed_urls_are_invalid_input() {
    limited(async {
        for (url, says) in [
            ("postgres:", "postgres://"),
            ("postgres:hush-zebra-64738", "postgres://"),
            ("postgres://", "host"),
            ("postgres:///db", "host"),
            ("postgres://me:hush-zebra-64738@", "host"),
            ("postgres://me:hush-zebra-64738@h:70000/", "port"),
            ("postgres://me:hush-zebra-64738@h:0/", "port"),
            ("postgres://me:hush-zebra-64738@h:port/", "port"),
            ("postgres://me:hush-zebra-64738@h/db?unknown=hush", "unknown"),
            ("postgres://me:hush-zebra-64738@h/db?pooler=hush", "pooler"),
            ("postgres://me:hush-zebra-64738@h/db?table=a b", "table"),
            ("postgres://me:hush-zebra-64738@h/db?sslmode=allow", "sslmode"),
            ("postgres://me:hush/zebra@h/", "percent-escape"),
            ("postgres://me:hush?zebra@h/", "percent-escape"),
            ("postgres://me:hush#zebra@h/", "percent-escape"),
            ("postgres://me:hush@zebra@h/", "percent-escape"),
            ("postgres://me:64738/zebra@h/", "percent-escape"),
        ] {
            fails(url, &[InvalidInput], &[says]).await;
        }
    })
    .await;
}

/// A part that was down when a quorum was opened gets its table as soon as it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_comes_later_gets_its_table() {
    limited(async {
        let mut servers = Vec::new();
        for _ in 0..3 {
            servers.push(start(PostgresOptions::new()).await);
        }
        let (login, _) = servers[0]
            .url()
            .rsplit_once('@')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .expect("a URL");
        let hosts: Vec<_> = servers.iter().map(|server| server.addr().to_string()).collect();
        assert!(servers[2].inflict(Fault::Kill).await, "a server of our own");
        let url = format!("quorum+{login}@{}/postgres?max_ttl_seconds=2", hosts.join(","));
        let locks = leaselock::connect(&url).await.expect("two of three");
        assert!(servers[2].inflict(Fault::Restart).await, "a server of our own");
        let there = "SELECT count(*) FROM pg_tables WHERE tablename = 'leaselock'";
        let lock = locks.lock("k").expect("a key");
        loop {
            match lock.try_acquire().await {
                Ok(Some(guard)) => {
                    let made = servers[2].psql(there).await.expect("SQL");
                    guard.release().await.expect("held");
                    if made.trim() == "1" {
                        break;
                    }
                }
                Ok(None) => {}
                Err(error) => assert_ne!(error.kind(), Rejected, "{error:?}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        // Now it is needed.
        assert!(servers[0].inflict(Fault::Kill).await, "a server of our own");
        loop {
            match lock.try_acquire().await {
                Ok(Some(guard)) => break guard.release().await.expect("held"),
                Ok(None) => {}
                Err(error) => assert_ne!(error.kind(), Rejected, "{error:?}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;
}
