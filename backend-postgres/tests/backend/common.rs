//! A private server per test, from whatever source there is.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lockcore::{Acquire, BackendError, Claim, HolderId, Lease, LockBackend, LockKey};
use lockcore_conformance::Fault;
use lockcore_conformance::servers::{PostgresOptions, PostgresServer};
use lockcore_postgres::{PostgresBackend, PostgresBackendBuilder, tokio_postgres};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// No test takes longer, whatever breaks, on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(60);

/// To log in takes a while where many do and much else goes on.
pub(crate) const PATIENT: Duration = Duration::from_secs(15);

/// A running server; it ends when dropped.
pub(crate) struct Server(pub(crate) PostgresServer);

pub(crate) async fn server() -> Server {
    start(PostgresOptions::new()).await
}

pub(crate) async fn start(options: PostgresOptions) -> Server {
    Server(PostgresServer::start(options.private()).await.expect("a server"))
}

/// A port nobody listens on, from outside the range that outgoing connections are given.
pub(crate) fn free_port() -> u16 {
    let ports = std::iter::repeat_with(|| fastrand::u16(12_000..32_000));
    let mut free = ports.filter(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    free.next().expect("a port")
}

impl Server {
    pub(crate) fn port(&self) -> u16 {
        self.addr().port()
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.0.addr()
    }

    pub(crate) fn url(&self) -> String {
        self.0.url()
    }

    /// The URL for another user, whose password is `secret`.
    pub(crate) fn url_of(&self, user: &str) -> String {
        format!("postgres://{user}:secret@{}/postgres", self.addr())
    }

    /// A user with a password and nothing else, and the right to come in.
    pub(crate) async fn user(&self, name: &str) {
        self.sql(&format!("CREATE ROLE {name} LOGIN PASSWORD 'secret'")).await;
    }

    /// A plain connection, to look at what the backend does.
    pub(crate) async fn raw(&self) -> Client {
        connect(&self.url()).await
    }

    pub(crate) fn builder(&self) -> PostgresBackendBuilder {
        PostgresBackend::builder(self.url()).connect_timeout(PATIENT)
    }

    pub(crate) async fn backend(&self) -> PostgresBackend {
        self.builder().connect().await.expect("a server")
    }

    /// Runs SQL as a superuser, and answers the rows: columns with `|` between them.
    pub(crate) async fn sql(&self, sql: &str) -> Vec<String> {
        query(&self.raw().await, sql).await.expect(sql)
    }

    pub(crate) async fn kill(&self) {
        self.inflict(Fault::Kill).await;
    }

    pub(crate) async fn start_again(&self) {
        self.inflict(Fault::Restart).await;
    }

    pub(crate) async fn pause(&self) {
        self.inflict(Fault::Pause).await;
    }

    pub(crate) async fn resume(&self) {
        self.inflict(Fault::Resume).await;
    }

    async fn inflict(&self, fault: Fault) {
        assert!(
            self.0.inflict(fault).await,
            "{fault}: not a server of our own: {}",
            self.0.about()
        );
    }

    /// Ends the sessions of backends of ours, and answers how many there were.
    pub(crate) async fn terminate(&self) -> u64 {
        let ended = self
            .sql(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
                 WHERE application_name = 'leaselock'",
            )
            .await;
        ended.iter().filter(|ended| *ended == "t").count() as u64
    }
}

/// A plain connection.
pub(crate) async fn connect(url: &str) -> Client {
    let config = url.parse::<tokio_postgres::Config>().expect("a URL");
    let (client, connection) = config.connect(NoTls).await.expect("a server");
    tokio::spawn(connection);
    client
}

pub(crate) async fn query(
    client: &Client,
    sql: &str,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let messages = client.simple_query(sql).await?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|n| row.get(n).unwrap_or("")).collect::<Vec<_>>().join("|"))
        }
        _ => None,
    });
    Ok(rows.collect())
}

/// Runs a test within its limit.
pub(crate) async fn limited<T>(test: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(LIMIT, test).await;
    done.expect("the test takes too long")
}

/// Asks until the answer is right.
pub(crate) async fn eventually<F: Future<Output = bool>>(mut ask: impl FnMut() -> F) {
    while !ask().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn key(name: &str) -> LockKey {
    LockKey::new(name).expect("a key")
}

pub(crate) fn claim(name: &str) -> Claim {
    Claim::new(key(name), HolderId::random(), Duration::from_secs(20))
}

/// A claim whose release is told to those who watch the key.
pub(crate) fn announced(name: &str) -> Claim {
    claim(name).with_announcement()
}

/// A claim whose answers tell the store's incarnation.
pub(crate) fn informed(name: &str) -> Claim {
    claim(name).with_incarnation()
}

/// A claim that waits in the key's line.
pub(crate) fn waiting(name: &str) -> Claim {
    claim(name).with_wait(Some(Duration::from_secs(10)))
}

/// A claim whose release starts a sweep.
pub(crate) fn sweeping(name: &str) -> Claim {
    let mut claim = claim(name);
    claim.holder = HolderId::from_u128(claim.holder.as_u128() & !15);
    claim
}

/// A claim whose release starts no sweep.
pub(crate) fn not_sweeping(name: &str) -> Claim {
    let mut claim = claim(name);
    claim.holder = HolderId::from_u128(claim.holder.as_u128() | 1);
    claim
}

pub(crate) async fn acquired(backend: &impl LockBackend, claim: &Claim) -> Lease {
    match backend.acquire(claim).await {
        Ok(Acquire::Acquired(lease)) => lease,
        other => panic!("not acquired: {other:?}"),
    }
}

pub(crate) fn is_unavailable(error: &BackendError) -> bool {
    matches!(error, BackendError::Unavailable(_))
}

pub(crate) fn is_ambiguous(error: &BackendError) -> bool {
    matches!(error, BackendError::Ambiguous(_))
}

pub(crate) fn is_rejected(error: &BackendError) -> bool {
    matches!(error, BackendError::Rejected(_))
}

/// All that an error says, to the last of its sources.
pub(crate) fn all_text(error: &dyn std::error::Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(" / {error} {error:?}"));
        source = error.source();
    }
    text
}

/// Listens and does with each connection as told, until dropped.
pub(crate) struct Impostor {
    pub(crate) port: u16,
    /// How many connections were taken.
    pub(crate) taken: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Impostor {
    /// Answers each connection with these bytes once something came, and then waits; accepts and
    /// never answers if there are none.
    pub(crate) async fn saying(words: &'static [u8]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let task = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                if !words.is_empty() {
                    let _ = stream.read(&mut [0; 512]).await;
                    let _ = stream.write_all(words).await;
                }
                open.push(stream);
            }
        });
        Self { port, taken, task }
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.task.abort();
    }
}
