//! The backend: one connection, and a task that owns it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, Contention, Lease, LeaseInfo, Limits, LockBackend, LockKey,
    Release, ReleaseSignal, Renew, async_trait,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{GREETING, escaped, unescaped};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(1);

/// A connection that has owed an answer for this long is left behind: it may be dead, and nobody
/// says so.
const SILENCE: Duration = Duration::from_secs(1);

/// A client of a [`LineServer`](crate::LineServer). It connects when it has to, and again.
#[derive(Debug)]
pub struct LineBackend {
    addr: SocketAddr,
    connection: Mutex<Option<mpsc::UnboundedSender<Request>>>,
}

/// The fields of a line, and where its answer goes. Nobody may be there any more: then the answer is read all
/// the same, so that it is not taken for another's.
#[derive(Debug)]
struct Request(Vec<String>, oneshot::Sender<Vec<String>>);

impl LineBackend {
    /// A client of the server at `addr`.
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, connection: Mutex::default() }
    }

    /// A connection to a server that has said so itself. Nothing was asked until then.
    async fn connect(&self) -> Result<Connection, BackendError> {
        let connecting = async {
            let (reader, writer) = TcpStream::connect(self.addr).await?.into_split();
            let mut connection =
                Connection { reader: BufReader::new(reader), read: Vec::new(), writer };
            let greeting = connection.next().await?;
            Ok::<_, io::Error>((connection, greeting))
        };
        let connected = timeout(CONNECT, connecting).await.map_err(BackendError::unavailable)?;
        let (connection, greeting) = connected.map_err(BackendError::unavailable)?;
        if greeting != [GREETING.trim_end()] {
            return Err(BackendError::rejected("this is no server for lines"));
        }
        Ok(connection)
    }

    async fn ask(&self, fields: &[&str]) -> Result<Vec<String>, BackendError> {
        let (answer, answered) = oneshot::channel();
        let mut request = Request(fields.iter().map(|field| escaped(field)).collect(), answer);
        {
            let mut connection = self.connection.lock().await;
            // What a connection did not take was not sent: it can go to the next one.
            while let Err(not_sent) = match &*connection {
                Some(open) => open.send(request),
                None => Err(mpsc::error::SendError(request)),
            } {
                let (open, requests) = mpsc::unbounded_channel();
                tokio::spawn(converse(self.connect().await?, requests));
                *connection = Some(open);
                request = not_sent.0;
            }
        }
        let closed = |_| BackendError::ambiguous("the connection broke before the answer");
        let answer = answered.await.map_err(closed)?;
        match answer.first().map(String::as_str) {
            Some("refused") => Err(BackendError::rejected(answer.join(" "))),
            _ => Ok(answer),
        }
    }
}

/// Sends requests and hands out answers by their number, until the connection ends. Who waits for
/// an answer then hears that there is none.
async fn converse(mut connection: Connection, mut requests: mpsc::UnboundedReceiver<Request>) {
    let mut owed = BTreeMap::<u64, (Instant, oneshot::Sender<_>)>::new();
    for number in 0_u64.. {
        // Answers, until there is a request.
        let Request(fields, answer) = loop {
            let oldest = owed.first_key_value().map(|(_, (since, _))| *since + SILENCE);
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => break request,
                    None => return,
                },
                answer = connection.next() => {
                    let Ok(mut answer) = answer else { return };
                    let Ok(number) = answer.remove(0).parse() else { return };
                    // Older ones were lost: the server answers in order.
                    owed = owed.split_off(&number);
                    let Some((_, waiting)) = owed.remove(&number) else { return };
                    let _ = waiting.send(answer);
                }
                () = sleep_until(oldest.unwrap_or_else(Instant::now)), if oldest.is_some() => return,
            }
        };
        owed.insert(number, (Instant::now(), answer));
        let sent = timeout(SILENCE, connection.send(number, &fields)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}

/// A connection by lines of fields.
struct Connection {
    reader: BufReader<OwnedReadHalf>,
    /// The beginning of a line: a call of `next` may be dropped.
    read: Vec<u8>,
    writer: OwnedWriteHalf,
}

impl Connection {
    async fn next(&mut self) -> io::Result<Vec<String>> {
        self.reader.read_until(b'\n', &mut self.read).await?;
        let line = String::from_utf8(std::mem::take(&mut self.read)).map_err(io::Error::other)?;
        // Half an answer is none.
        let line = line.strip_suffix('\n').ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(line.split('\t').map(unescaped).collect())
    }

    async fn send(&mut self, number: u64, fields: &[String]) -> io::Result<()> {
        let line = format!("{number}\t{}\n", fields.join("\t"));
        self.writer.write_all(line.as_bytes()).await
    }
}

/// Whatever it was, it was not understood: any doubt is ambiguous.
fn strange(answer: &[String]) -> BackendError {
    BackendError::ambiguous(format!("a strange answer: {answer:?}"))
}

fn number(text: &str, answer: &[String]) -> Result<u64, BackendError> {
    text.parse().map_err(|_| strange(answer))
}

/// The leases of an answer, five fields each.
fn leases(answer: &[String]) -> Result<Vec<LeaseInfo>, BackendError> {
    let lease = |fields: &[String]| {
        let [key, holder, token, left, label] = fields else { return Err(strange(answer)) };
        let key = LockKey::new(key).map_err(|_| strange(answer))?;
        let holder = holder.parse().map_err(|_| strange(answer))?;
        let left = Duration::from_nanos(number(left, answer)?);
        Ok(LeaseInfo::new(key, holder, number(token, answer)?, left, label))
    };
    match answer.split_first() {
        Some((word, fields)) if word == "leases" => fields.chunks(5).map(lease).collect(),
        _ => Err(strange(answer)),
    }
}

#[async_trait]
impl LockBackend for LineBackend {
    fn limits(&self) -> Limits {
        Limits::new(Duration::from_millis(100), Duration::from_secs(24 * 60 * 60))
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        self.limits().check(claim)?;
        let (key, holder) = (claim.key.as_str(), claim.holder.to_string());
        let (ttl, floor) = (claim.ttl.as_nanos().to_string(), claim.min_token.to_string());
        let answer = self.ask(&["acquire", key, &holder, &ttl, &floor, &claim.label]).await?;
        match &*answer {
            [word, token] if word == "acquired" => {
                Ok(Acquire::Acquired(Lease::new(number(token, &answer)?, claim.ttl)))
            }
            [word, left] if word == "contended" => {
                let left = Duration::from_nanos(number(left, &answer)?);
                Ok(Acquire::Contended(Contention::new(Some(left))))
            }
            _ => Err(strange(&answer)),
        }
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        self.limits().check(claim)?;
        let (key, holder) = (claim.key.as_str(), claim.holder.to_string());
        let (ttl, floor) = (claim.ttl.as_nanos().to_string(), claim.min_token.to_string());
        let answer = self.ask(&["renew", key, &holder, &ttl, &floor]).await?;
        match &*answer {
            [word, token] if word == "renewed" => {
                Ok(Renew::Renewed(Lease::new(number(token, &answer)?, claim.ttl)))
            }
            [word] if word == "not held" => Ok(Renew::NotHeld),
            _ => Err(strange(&answer)),
        }
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        self.limits().check(claim)?;
        let answer = self.ask(&["release", claim.key.as_str(), &claim.holder.to_string()]).await?;
        match &*answer {
            [word, token] if word == "released" => {
                Ok(Release::Released { token: number(token, &answer)? })
            }
            [word] if word == "not held" => Ok(Release::NotHeld),
            _ => Err(strange(&answer)),
        }
    }

    /// On a connection of its own, which is dropped with the signal. Should it break, the signal
    /// resolves early, which a signal may.
    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        self.limits().check(claim)?;
        let mut connection = self.connect().await?;
        let request = ["watch".to_owned(), escaped(claim.key.as_str())];
        connection.send(0, &request).await.map_err(BackendError::unavailable)?;
        let armed = connection.next().await.map_err(BackendError::unavailable)?;
        if armed != ["0", "armed"] {
            return Err(strange(&armed));
        }
        Ok(ReleaseSignal::new(async move {
            let _ = connection.next().await;
        }))
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        Ok(leases(&self.ask(&["inspect", key.as_str()]).await?)?.pop())
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        // No key is empty, so nothing is left out by what comes after "".
        let (after, limit) = (after.map_or("", LockKey::as_str), limit.to_string());
        leases(&self.ask(&["list", prefix, after, &limit]).await?)
    }
}
