//! URLs of Redis.

use std::net::SocketAddr;

use integration::limited;
use leaselock::ErrorKind::{InvalidInput, Rejected, Unavailable};
use lockcore_conformance::servers::{RedisOptions, RedisServer};

use super::{Other, PASSWORD, certificate, fails, listen, nobody, opens};

async fn start(options: RedisOptions) -> RedisServer {
    RedisServer::start(options.private()).await.expect("a server")
}

fn with_password(at: SocketAddr) -> String {
    format!("redis://:{PASSWORD}@{at}/")
}

#[tokio::test]
async fn the_right_url_opens_the_store() {
    limited(async {
        let server = start(RedisOptions::new().args(["--requirepass", PASSWORD])).await;
        for url in [server.url(), server.url().replace("redis:", "VALKEY:")] {
            opens(&url).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_wrong_password_or_none_is_refused() {
    limited(async {
        let server = start(RedisOptions::new().args(["--requirepass", "another"])).await;
        let at = server.addr();
        for query in ["", "?protocol=resp2"] {
            let wrong = format!("{}{query}", with_password(at));
            fails(&wrong, &[Rejected], &["password was not accepted", &at.to_string()]).await;
            let no_user = format!("redis://nobody:{PASSWORD}@{at}/{query}");
            fails(&no_user, &[Rejected], &["user or password was not accepted"]).await;
            fails(&format!("redis://{at}/{query}"), &[Rejected], &["wants a password", "URL"])
                .await;
        }
    })
    .await;
}

#[tokio::test]
async fn another_server_at_the_port_is_told() {
    const HTTP: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    limited(async {
        for (other, kinds, says) in [
            (Other::Silent, &[Unavailable][..], "check that a Redis server listens"),
            (Other::Closes, &[Unavailable], "check that it is a Redis server"),
            (Other::Says(HTTP), &[Rejected], "does not speak as Redis does: check the port"),
            (Other::Says("SSH-2.0-OpenSSH_9.2\r\n"), &[Rejected], "check the port"),
        ] {
            let listening = listen(other).await;
            let at = listening.0.to_string();
            fails(&with_password(listening.0), kinds, &[says, &at]).await;
            let tls = with_password(listening.0).replace("redis:", "rediss:");
            // Whatever it was, it was not TLS.
            fails(&tls, &[Unavailable, Rejected], &["speaks TLS", "redis://", &at]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn tls_on_one_side_only_is_told() {
    limited(async {
        let (certificate, key) = certificate();
        let server = start(RedisOptions::new().tls(certificate, key)).await;
        let (plain, tls) = (server.addr(), server.tls_addr().expect("started with TLS"));
        for query in ["", "?protocol=resp2"] {
            let url = format!("{}{query}", with_password(tls));
            fails(&url, &[Unavailable, Rejected], &["wants TLS", "rediss://"]).await;
            let url = format!("rediss://:{PASSWORD}@{plain}/{query}");
            fails(&url, &[Unavailable, Rejected], &["speaks TLS", "redis://"]).await;
        }
        // And on both, with a certificate that nobody vouches for.
        let url = format!("rediss://:{PASSWORD}@{tls}/");
        fails(&url, &[Rejected], &["is not trusted", "root_certificates"]).await;
    })
    .await;
}

#[tokio::test]
async fn nobody_there_is_told() {
    limited(async {
        let free = nobody();
        fails(&with_password(free), &[Unavailable], &["nothing listens", &free.to_string()]).await;
        let tls = with_password(free).replace("redis:", "rediss:");
        fails(&tls, &[Unavailable], &["nothing listens"]).await;

        let url = format!("redis://:{PASSWORD}@leaselock.invalid:6379/");
        fails(&url, &[Unavailable], &["leaselock.invalid:6379", "check"]).await;
        let url = format!("unix:///nowhere/redis.sock?user=me&pass={PASSWORD}");
        fails(&url, &[Unavailable], &["nothing listens at /nowhere/redis.sock"]).await;
    })
    .await;
}

#[tokio::test]
async fn malformed_urls_are_invalid_input() {
    limited(async {
        for (url, says) in [
            ("redis:", "redis://"),
            ("redis:hush-zebra-64738", "redis://"),
            ("redis:/h", "redis://"),
            ("redis://", "host"),
            ("redis:// ", "host"),
            ("redis://:hush-zebra-64738@", "host"),
            ("redis://:hush-zebra-64738@/0", "host"),
            ("redis://:hush-zebra-64738@:6379/", "host"),
            ("redis://:hush-zebra-64738@h h/", "host"),
            ("redis://:hush-zebra-64738@[::1/", "host"),
            ("redis://:hush-zebra-64738@h:70000/", "port"),
            ("redis://:hush-zebra-64738@h:0/", "port"),
            ("redis://:hush-zebra-64738@h:-1/", "port"),
            ("redis://:hush-zebra-64738@h:port/", "port"),
            ("redis://:hush-zebra-64738@h/hush", "database"),
            ("redis://:hush-zebra-64738@h/?protocol=hush", "protocol"),
            ("redis://:hush-zebra-64738@h/#hush", "`#`"),
            ("redis://:hush/zebra@h/", "percent-escape"),
            ("redis://:hush?zebra@h/", "percent-escape"),
            ("redis://:hush#zebra@h/", "percent-escape"),
            ("redis://me:64738/zebra@h/", "percent-escape"),
            ("redis://me:64738?zebra@h/", "percent-escape"),
            ("redis://me:64738#zebra@h/", "percent-escape"),
            ("redis://hush/zebra@h/", "percent-escape"),
            ("redis://:hush%FFzebra@h/", "UTF-8"),
            ("unix://", "path"),
            ("unix:///", "path"),
            ("unix:?pass=hush-zebra-64738", "start with"),
        ] {
            fails(url, &[InvalidInput], &[says]).await;
        }
    })
    .await;
}
