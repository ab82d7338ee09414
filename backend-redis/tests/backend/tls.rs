//! TLS, with certificates made for the test.
#![cfg(feature = "tls")]

use std::time::{Duration, Instant};

use crate::common::{
    self, Impostor, Server, acquired, all_text, claim, is_rejected, is_unavailable, limited,
};
use lockcore::LockBackend;
use lockcore_conformance::servers::RedisOptions;
use lockcore_redis::RedisBackend;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// The system's certificates are read at each connect, which takes long in a build for tests.
const PATIENT: Duration = Duration::from_secs(15);

/// A server with a certificate for `localhost`, and the PEM text of the authority behind it.
async fn tls_server() -> (Server, String) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).expect("signed").pem();
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned()];
    let certificate = CertificateParams::new(names).expect("parameters");
    let certificate = certificate.signed_by(&key, &issuer).expect("signed");
    let options = RedisOptions::new().tls(certificate.pem(), key.serialize_pem());
    (common::start(options).await, ca_pem)
}

#[tokio::test]
async fn with_its_authority_a_server_is_trusted() {
    limited(async {
        let (server, ca) = tls_server().await;
        for url in [
            format!("rediss://localhost:{}/", server.tls_port()),
            format!("valkeys://localhost:{}/?protocol=resp2", server.tls_port()),
        ] {
            let builder = RedisBackend::builder(url).root_certificates(ca.as_str());
            let builder = builder.connect_timeout(PATIENT);
            let backend = builder.connect().await.expect("trusted");
            let mine = claim("k").with_announcement();
            acquired(&backend, &mine).await;
            let signal = backend.watch(&mine).await.expect("armed");
            backend.release(&mine).await.expect("held");
            if !signal.is_never() {
                signal.await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn without_it_or_by_another_name_it_is_refused() {
    limited(async {
        let (server, ca) = tls_server().await;
        let port = server.tls_port();
        let unknown = RedisBackend::builder(format!("rediss://localhost:{port}/"));
        let misnamed = RedisBackend::builder(format!("rediss://127.0.0.1:{port}/"));
        for builder in [unknown, misnamed.root_certificates(ca)] {
            let error = builder.connect_timeout(PATIENT).connect().await;
            let error = error.expect_err("not trusted");
            assert!(is_rejected(&error), "{error:?}");
            assert!(all_text(&error).contains("root_certificates"), "{error}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_mismatch_is_an_error_with_a_hint_both_ways() {
    limited(async {
        let (secure, _) = tls_server().await;
        let plain = common::server(&[]).await;
        let silent = Impostor::saying(b"").await;
        for (url, hint) in [
            (format!("redis://localhost:{}/", secure.tls_port()), "rediss://"),
            (format!("redis://localhost:{}/?protocol=resp2", secure.tls_port()), "rediss://"),
            (format!("rediss://localhost:{}/", plain.port()), "redis://"),
            (format!("rediss://localhost:{}/", silent.port), "redis://"),
        ] {
            let before = Instant::now();
            let builder = RedisBackend::builder(&url).connect_timeout(Duration::from_millis(500));
            let error = builder.connect().await.expect_err(&url);
            assert!(before.elapsed() < Duration::from_secs(3));
            assert!(is_rejected(&error) || is_unavailable(&error), "{error:?}");
            assert!(all_text(&error).contains(hint), "{url}: {error}");
        }
    })
    .await;
}
