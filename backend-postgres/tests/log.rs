//! What is logged, and what never is. A program of its own with one test: whether an event is
//! logged is decided once for the whole process, by the thread that comes to it first.

#[expect(dead_code, reason = "the other tests of the backend use the rest")]
#[path = "backend/common.rs"]
mod common;

use std::io::Write;
use std::sync::{Arc, Mutex};

use crate::common::{PATIENT, acquired, claim, limited, server};
use lockcore::LockBackend;
use lockcore_postgres::PostgresBackend;
use tracing_subscriber::fmt::MakeWriter;

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        let bytes = self.0.lock().expect("no panic").clone();
        String::from_utf8(bytes).expect("text")
    }

    fn clear(&self) {
        self.0.lock().expect("no panic").clear();
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_forgetful_server_is_warned_of_and_passwords_are_not_logged() {
    let log = Log::default();
    tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).init();
    limited(async {
        // The servers of the tests wait for no disk.
        let server = server().await;
        log.clear();
        let backend = server.backend().await;
        let mine = claim("k");
        acquired(&backend, &mine).await;
        // Once per backend, not per connection.
        let signal = backend.watch(&mine).await.expect("armed");
        server.terminate().await;
        signal.await;
        acquired(&backend, &mine).await;
        assert_eq!(log.text().matches("fsync off").count(), 1, "{}", log.text());
        assert_eq!(log.text().matches(": connected").count(), 2, "{}", log.text());

        let secret = "s3cr3t-w0rd";
        server.sql(&format!("CREATE ROLE me LOGIN SUPERUSER PASSWORD '{secret}'")).await;
        log.clear();
        for password in [secret, "wr0ng-one"] {
            let url = format!("postgres://me:{password}@{}/postgres", server.addr());
            let builder = PostgresBackend::builder(&url).connect_timeout(PATIENT);
            if let Ok(backend) = builder.connect().await {
                acquired(&backend, &claim("k2")).await;
            }
            assert!(!log.text().contains(password), "{}", log.text());
        }
        assert!(log.text().contains("not connected"), "{}", log.text());
    })
    .await;
}
