//! TLS, with certificates made for the test.
#![cfg(feature = "tls")]

use std::time::{Duration, Instant};

use crate::common::{
    self, Server, acquired, all_text, claim, is_rejected, is_unavailable, limited,
};
use lockcore::{BackendError, LockBackend};
use lockcore_conformance::servers::EtcdOptions;
use lockcore_etcd::EtcdBackend;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// The system's certificates are read at each connect, which takes long in a build for tests.
const PATIENT: Duration = Duration::from_secs(15);

/// A certificate for `localhost`, its key, and the PEM text of the authority behind it.
fn certificates() -> (String, String, String) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).expect("signed").pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned()];
    let certificate = CertificateParams::new(names).expect("parameters");
    let certificate = certificate.signed_by(&key, &issuer).expect("signed");
    (certificate.pem(), key.serialize_pem(), ca_pem)
}

async fn tls_server() -> (Server, String) {
    let (certificate, key, ca) = certificates();
    (common::start(EtcdOptions::new().tls(certificate, key)).await, ca)
}

#[tokio::test]
async fn with_its_authority_a_server_is_trusted() {
    limited(async {
        let (server, ca) = tls_server().await;
        let url = format!("etcds://localhost:{}", server.tls_port());
        let backend = EtcdBackend::builder(url).root_certificates(ca).connect_timeout(PATIENT);
        let backend = backend.connect().await.expect("trusted");
        let mine = claim("k");
        acquired(&backend, &mine).await;
        let signal = backend.watch(&mine).await.expect("armed");
        backend.release(&mine).await.expect("held");
        signal.await;
    })
    .await;
}

#[tokio::test]
async fn without_it_or_by_another_name_it_is_refused() {
    limited(async {
        let (server, ca) = tls_server().await;
        let port = server.tls_port();
        let (_, _, other) = certificates();
        for (host, roots) in [("localhost", other.as_str()), ("127.0.0.1", &ca), ("[::1]", &ca)] {
            let builder = EtcdBackend::builder(format!("etcds://{host}:{port}"));
            let error = builder.root_certificates(roots).connect_timeout(PATIENT).connect().await;
            let error = error.expect_err("not to be trusted");
            if host == "[::1]" {
                // Nobody listens there: this is about the address, which must be understood.
                assert!(error.to_string().contains("nothing listens at [::1]"), "{error:?}");
                continue;
            }
            assert!(is_rejected(&error), "{error:?}");
            assert!(error.to_string().contains("root_certificates"), "{error}");
        }
        // The system's authorities do not know it either, if there are any.
        let builder = EtcdBackend::builder(format!("etcds://localhost:{port}"));
        let error = builder.connect_timeout(PATIENT).connect().await.expect_err("unknown");
        assert!(is_rejected(&error), "{error:?}");
    })
    .await;
}

/// Found before anybody connects, and without repeating a text, which may be a key.
#[tokio::test]
async fn what_only_looks_like_pem_is_refused_at_once() {
    let (certificate, key, ca) = certificates();
    let (_, other_key, _) = certificates();
    let armour = |what: &str, inside: &str| {
        format!("-----BEGIN {what}-----\n{inside}\n-----END {what}-----\n")
    };
    // The second reads as base64, and is no certificate; nor a key.
    let (broken, empty) = ("s3cr3t!", "c2VjcmV0c2VjcmV0");
    let builder = || EtcdBackend::builder("etcds://127.0.0.1:1");
    let mut wrong = Vec::new();
    for inside in [broken, empty, ""] {
        let roots = format!("{ca}{}", armour("CERTIFICATE", inside));
        wrong.push(builder().root_certificates(roots));
        wrong.push(builder().client_certificate(armour("CERTIFICATE", inside), key.as_str()));
        let key = armour("PRIVATE KEY", inside);
        wrong.push(builder().client_certificate(certificate.as_str(), key));
    }
    wrong.push(builder().client_certificate(certificate.as_str(), other_key));
    for (n, wrong) in wrong.into_iter().enumerate() {
        let error = wrong.build().err();
        assert!(matches!(error, Some(BackendError::InvalidInput(_))), "{n}: {error:?}");
        let text = all_text(&error.expect("an error"));
        assert!(!text.contains("s3cr3t") && !text.contains("c2Vj"), "{n}: {text}");
    }
    let right = builder().root_certificates(ca).client_certificate(certificate, key);
    assert!(right.build().is_ok());
}

#[tokio::test]
async fn a_mismatch_of_tls_is_told_within_the_limit_and_explained() {
    limited(async {
        let (server, ca) = tls_server().await;
        let limit = Duration::from_secs(1);
        let plain = format!("etcd://127.0.0.1:{}", server.tls_port());
        let begun = Instant::now();
        let error = EtcdBackend::builder(plain).connect_timeout(limit).connect().await;
        let error = error.expect_err("plain to a TLS port");
        assert!(is_unavailable(&error) || is_rejected(&error), "{error:?}");
        assert!(error.to_string().contains("etcds://"), "{error}");
        let tls = EtcdBackend::builder(format!("etcds://localhost:{}", server.addr().port()));
        let error = tls.root_certificates(ca).connect_timeout(limit).connect().await;
        let error = error.expect_err("TLS to a plain port");
        assert!(is_unavailable(&error) || is_rejected(&error), "{error:?}");
        assert!(error.to_string().contains("etcd://"), "{error}");
        assert!(begun.elapsed() < limit * 2 + Duration::from_secs(5), "{:?}", begun.elapsed());
    })
    .await;
}

#[tokio::test]
async fn a_certificate_of_the_clients_is_shown() {
    limited(async {
        let (certificate, key, ca) = certificates();
        // A server that takes clients of its own authority only; its own certificate is one.
        let (own, own_key) = (certificate.clone(), key.clone());
        let options = EtcdOptions::new()
            .tls(certificate, key)
            .args(["--client-cert-auth=true", "--trusted-ca-file=tls-cert.pem"]);
        // Trusting the leaf as a root is enough for the server to ask for a certificate and to
        // know this one.
        let server = common::start(options).await;
        let url = format!("etcds://localhost:{}", server.tls_port());
        let builder =
            || EtcdBackend::builder(&url).root_certificates(&*ca).connect_timeout(PATIENT);
        let backend = builder().client_certificate(&*own, &*own_key).connect().await;
        acquired(&backend.expect("known"), &claim("k")).await;
        let error = builder().connect().await.expect_err("no certificate shown");
        assert!(!all_text(&error).contains("PRIVATE"), "{error:?}");
    })
    .await;
}
