//! What is logged, and what never is. A program of its own with one test: whether an event is
//! logged is decided once for the whole process, by the thread that comes to it first.

#[expect(dead_code, reason = "the other tests of the backend use the rest")]
#[path = "backend/common.rs"]
mod common;

use std::io::Write;
use std::sync::{Arc, Mutex};

use crate::common::{acquired, claim, limited, raw, server};
use lockcore::LockBackend;
use lockcore_redis::RedisBackend;
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
async fn eviction_is_warned_of_and_passwords_are_not_logged() {
    let log = Log::default();
    tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).init();
    a_server_that_evicts_is_warned_of_once(&log).await;
    a_server_without_a_limit_is_not_warned_of_and_passwords_are_not_logged(&log).await;
}

async fn a_server_that_evicts_is_warned_of_once(log: &Log) {
    limited(async {
        let server = server(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]).await;
        log.clear();
        let backend = server.backend().await;
        let mut redis = server.raw().await;
        let mine = claim("k");
        acquired(&backend, &mine).await;
        // Once per backend, not per connection.
        let signal = backend.watch(&mine).await.expect("armed");
        let kill = ["CLIENT", "KILL", "TYPE", "pubsub"];
        let _: u64 = raw(&mut redis, &kill).await.expect("KILL");
        signal.await;
        acquired(&backend, &mine).await;
        assert_eq!(log.text().matches("noeviction").count(), 1, "{}", log.text());
        assert_eq!(log.text().matches("connected").count(), 2, "{}", log.text());
    })
    .await;
}

async fn a_server_without_a_limit_is_not_warned_of_and_passwords_are_not_logged(log: &Log) {
    limited(async {
        let secret = "s3cr3t-w0rd";
        let args = ["--requirepass", secret, "--maxmemory-policy", "allkeys-lru"];
        let old = ["--rename-command", "HELLO", ""];
        for args in [args.to_vec(), [&args[..], &old].concat()] {
            let server = server(&args).await;
            log.clear();
            for password in [secret, "wr0ng-one"] {
                let url = format!("redis://:{password}@127.0.0.1:{}/", server.port());
                let backend = RedisBackend::connect(&url).await;
                if let Ok(backend) = backend {
                    acquired(&backend, &claim("k")).await;
                }
                assert!(!log.text().contains(password), "{}", log.text());
            }
            assert!(!log.text().contains("WARN"), "{}", log.text());
        }
    })
    .await;
}
