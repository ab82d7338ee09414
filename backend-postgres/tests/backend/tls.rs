//! TLS, with certificates made for the test.
#![cfg(feature = "tls")]

use std::time::Duration;

use crate::common::{
    self, Impostor, PATIENT, Server, acquired, all_text, is_rejected, is_unavailable, limited,
};
use lockcore::LockBackend;
use lockcore_conformance::servers::PostgresOptions;
use lockcore_postgres::PostgresBackend;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

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
    let options = PostgresOptions::new().tls(certificate.pem(), key.serialize_pem());
    (common::start(options).await, ca_pem)
}

fn url(server: &Server, host: &str, query: &str) -> String {
    server.url().replace("127.0.0.1", host) + query
}

/// Whether each session of ours is over TLS, as the server sees it.
async fn encrypted(server: &Server) -> Vec<String> {
    server
        .sql(
            "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
             WHERE application_name = 'leaselock'",
        )
        .await
}

#[tokio::test]
async fn with_its_authority_a_server_is_trusted() {
    limited(async {
        let (server, ca) = tls_server().await;
        let file = std::env::temp_dir().join(format!("lockcore-ca-{}.pem", std::process::id()));
        std::fs::write(&file, &ca).expect("a file");
        for query in ["", "?sslmode=require", "?sslmode=verify-full", "?sslmode=verify-ca"] {
            let builder = PostgresBackend::builder(url(&server, "localhost", query));
            let builder = builder.root_certificates(ca.as_str()).connect_timeout(PATIENT);
            let backend = builder.connect().await.expect("trusted");
            let mine = common::announced("k");
            acquired(&backend, &mine).await;
            let signal = backend.watch(&mine).await.expect("armed");
            backend.release(&mine).await.expect("held");
            signal.await;
            assert_eq!(encrypted(&server).await, ["t"], "{query}");
            drop(backend);
            common::eventually(async || encrypted(&server).await.is_empty()).await;
        }
        let query = format!("?sslmode=verify-full&sslrootcert={}", file.display());
        let builder = PostgresBackend::builder(url(&server, "localhost", &query));
        builder.connect_timeout(PATIENT).connect().await.expect("trusted");
        std::fs::remove_file(&file).expect("removed");
        // Refused in the URL, it is not spoken.
        let builder = PostgresBackend::builder(url(&server, "localhost", "?sslmode=disable"));
        let _plain = builder.connect_timeout(PATIENT).connect().await.expect("a server");
        common::eventually(async || encrypted(&server).await == ["f"]).await;
    })
    .await;
}

#[tokio::test]
async fn without_it_or_by_another_name_it_is_refused() {
    limited(async {
        let (server, ca) = tls_server().await;
        let unknown = PostgresBackend::builder(url(&server, "localhost", "?sslmode=require"));
        let misnamed = PostgresBackend::builder(url(&server, "127.0.0.1", "?sslmode=verify-full"));
        for builder in [unknown, misnamed.root_certificates(ca)] {
            let error = builder.connect_timeout(PATIENT).connect().await;
            let error = error.expect_err("not trusted");
            assert!(is_rejected(&error), "{error:?}");
            assert!(all_text(&error).contains("root_certificates"), "{error}");
        }
        // Who only prefers it goes on without.
        let builder = PostgresBackend::builder(url(&server, "localhost", ""));
        let _backend = builder.connect_timeout(PATIENT).connect().await.expect("a server");
        assert_eq!(encrypted(&server).await, ["f"]);
    })
    .await;
}

#[tokio::test]
async fn a_mismatch_is_an_error_with_a_hint() {
    limited(async {
        let plain = common::server().await;
        let silent = Impostor::saying(b"").await;
        let no = url(&plain, "localhost", "?sslmode=require");
        let error = PostgresBackend::builder(no).connect_timeout(PATIENT).connect().await;
        let error = error.expect_err("no TLS");
        assert!(is_rejected(&error) && error.to_string().contains("sslmode"), "{error:?}");
        let hole = format!("postgres://me@localhost:{}/db?sslmode=require", silent.port);
        let builder = PostgresBackend::builder(hole).connect_timeout(Duration::from_millis(500));
        let error = builder.connect().await.expect_err("silent");
        assert!(is_unavailable(&error), "{error:?}");
    })
    .await;
}
