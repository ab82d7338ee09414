//! URLs of etcd.

use std::net::SocketAddr;

use integration::limited;
use leaselock::ErrorKind::{InvalidInput, Rejected, Unavailable};
use lockcore_conformance::servers::{EtcdOptions, EtcdServer};

use super::{Other, PASSWORD, certificate, fails, listen, nobody, opens};

async fn start(options: EtcdOptions) -> EtcdServer {
    EtcdServer::start(options.private()).await.expect("a server")
}

fn with_password(at: SocketAddr) -> String {
    format!("etcd://root:{PASSWORD}@{at}/")
}

#[tokio::test]
async fn the_right_url_opens_the_store() {
    limited(async {
        let server = start(EtcdOptions::new().root(PASSWORD)).await;
        opens(&server.url()).await;
        // Another prefix is another store; one of two servers is not there.
        let url = server.url().replace("etcd://", "ETCD://");
        let url = format!("{},{}/locks", url.trim_end_matches('/'), nobody());
        opens(&url).await;
    })
    .await;
}

#[tokio::test]
async fn a_wrong_password_or_none_is_refused() {
    limited(async {
        let server = start(EtcdOptions::new().root("another")).await;
        let at = server.addr();
        let says = ["password was not accepted", &at.to_string()];
        fails(&with_password(at), &[Rejected], &says).await;
        fails(&format!("etcd://nobody:{PASSWORD}@{at}"), &[Rejected], &says).await;
        fails(&format!("etcd://{at}"), &[Rejected], &["wants a user and a password", "URL"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_password_where_none_is_wanted_is_told() {
    limited(async {
        let server = start(EtcdOptions::new()).await;
        let url = with_password(server.addr());
        fails(&url, &[Rejected], &["knows no users: leave user and password out"]).await;
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
            fails(&with_password(listening.0), &[Unavailable, Rejected], &["check", &at]).await;
            let tls = with_password(listening.0).replace("etcd:", "etcds:");
            fails(&tls, &[Unavailable, Rejected], &["speaks TLS", "etcd://", &at]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn tls_on_one_side_only_is_told() {
    limited(async {
        let (certificate, key) = certificate();
        let server = start(EtcdOptions::new().tls(certificate, key)).await;
        let (plain, tls) = (server.addr(), server.tls_addr().expect("started with TLS"));
        let url = format!("etcd://{tls}/");
        fails(&url, &[Unavailable, Rejected], &["wants TLS", "etcds://"]).await;
        let url = format!("etcds://{plain}/");
        fails(&url, &[Unavailable, Rejected], &["speaks TLS", "etcd://"]).await;
        // And on both, with a certificate that nobody vouches for.
        let url = format!("etcds://{tls}/");
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
        fails(&with_password(free).replace("etcd:", "etcds:"), &[Unavailable], &says).await;
        let url = format!("etcd://root:{PASSWORD}@leaselock.invalid:2379/");
        fails(&url, &[Unavailable], &["leaselock.invalid:2379", "check"]).await;
    })
    .await;
}

#[tokio::test]
async fn malformed_urls_are_invalid_input() {
    limited(async {
        for (url, says) in [
            ("etcd:", "etcd://"),
            ("etcd:hush-zebra-64738", "etcd://"),
            ("etcd://", "host"),
            ("etcd:///p", "host"),
            ("etcd://h,,i", "host"),
            ("etcd://h,h", "twice"),
            ("etcd://me:hush-zebra-64738@", "host"),
            ("etcd://me:hush-zebra-64738@h h", "host"),
            ("etcd://me:hush-zebra-64738@[::1/", "`]`"),
            ("etcd://me:hush-zebra-64738@h:70000", "port"),
            ("etcd://me:hush-zebra-64738@h:0", "port"),
            ("etcd://me:hush-zebra-64738@h:port", "port"),
            ("etcd://hush-zebra-64738@h", "password"),
            ("etcd://me:@h", "password"),
            ("etcd://me:hush-zebra-64738@h/a/b", "prefix"),
            ("etcd://h/hush zebra", "prefix"),
            ("etcd://h?hush", "percent-escape"),
            ("etcd://me:hush/zebra@h/", "percent-escape"),
            ("etcd://me:hush?zebra@h/", "percent-escape"),
            ("etcd://me:hush#zebra@h/", "percent-escape"),
            ("etcd://me:hush@zebra@h/", "percent-escape"),
            ("etcd://me:64738/zebra@h/", "percent-escape"),
            ("etcd://me:hush%FFzebra@h/", "UTF-8"),
        ] {
            fails(url, &[InvalidInput], &[says]).await;
        }
    })
    .await;
}
