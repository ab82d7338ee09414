//! The store: a map behind a mutex, and a task for each connection.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::{GREETING, escaped, unescaped};

const DAY_US: u64 = 24 * 60 * 60 * 1_000_000;

/// A server on a port of 127.0.0.1, and everything that can happen to one. Its leases are in
/// memory. It ends when it is dropped.
#[derive(Debug)]
pub struct LineServer {
    addr: SocketAddr,
    store: Arc<Store>,
    running: tokio::sync::Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    /// Dropped to end the server.
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Store {
    records: Mutex<BTreeMap<String, Record>>,
    freed: broadcast::Sender<String>,
    paused: watch::Sender<bool>,
}

/// The last lease of a key, over or not: it remembers the token.
#[derive(Debug)]
struct Record {
    holder: String,
    token: u64,
    ends: Instant,
    label: String,
}

impl LineServer {
    /// Starts a server.
    ///
    /// # Errors
    ///
    /// There is no port to be had.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (freed, paused) = (broadcast::Sender::new(1024), watch::Sender::new(false));
        let store = Arc::new(Store { records: Mutex::default(), freed, paused });
        let addr = listener.local_addr()?;
        let running = tokio::sync::Mutex::new(Some(run(listener, store.clone())));
        Ok(Self { addr, store, running })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Lets it stand still, or go on: connections stay open, and nothing is answered.
    pub fn pause(&self, paused: bool) {
        self.store.paused.send_replace(paused);
    }

    /// Ends it at once, with all its connections and all that it knew.
    pub async fn kill(&self) {
        if let Some(Running { stop, task }) = self.running.lock().await.take() {
            drop(stop);
            let _ = task.await;
        }
        self.wipe();
        self.pause(false);
    }

    /// Starts it again, at the same address.
    ///
    /// # Errors
    ///
    /// The port is in use.
    pub async fn restart(&self) -> io::Result<()> {
        let listener = TcpListener::bind(self.addr).await?;
        *self.running.lock().await = Some(run(listener, self.store.clone()));
        Ok(())
    }

    /// Makes it forget everything. Nobody is told.
    pub fn wipe(&self) {
        self.store.records.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn run(listener: TcpListener, store: Arc<Store>) -> Running {
    let (stop, mut stopped) = oneshot::channel();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        connections.spawn(serve(stream, store.clone()));
                    }
                }
            }
        }
        connections.shutdown().await;
    });
    Running { stop, task }
}

/// Answers one connection, line by line, in order.
async fn serve(mut stream: TcpStream, store: Arc<Store>) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let (mut reader, mut paused) = (BufReader::new(reader), store.paused.subscribe());
    let mut line = String::new();
    let _ = paused.wait_for(|paused| !paused).await;
    writer.write_all(GREETING.as_bytes()).await?;
    loop {
        line.clear();
        reader.read_line(&mut line).await?;
        // Without its end a line is half a request: the client went, or the wire broke.
        let Some(request) = line.strip_suffix('\n') else { return Ok(()) };
        let _ = paused.wait_for(|paused| !paused).await;
        let fields: Vec<_> = request.split('\t').map(unescaped).collect();
        let fields: Vec<_> = fields.iter().map(String::as_str).collect();
        let [number, request @ ..] = &*fields else { return Ok(()) };
        if let ["watch", key] = request {
            // Armed before it is said to be.
            let mut freed = store.freed.subscribe();
            writer.write_all(format!("{number}\tarmed\n").as_bytes()).await?;
            let gone = reader.read_line(&mut line);
            // Whoever is behind missed something, which may have been this key.
            let wait = async { while freed.recv().await.is_ok_and(|freed| freed != *key) {} };
            tokio::select! { _ = gone => return Ok(()), () = wait => {} }
            return writer.write_all(format!("{number}\tfreed\n").as_bytes()).await;
        }
        let answer = store.answer(request).unwrap_or_else(|| "refused\tno such request".to_owned());
        writer.write_all(format!("{number}\t{answer}\n").as_bytes()).await?;
    }
}

impl Store {
    /// One atomic step, at one instant; `None` if this is no request.
    fn answer(&self, request: &[&str]) -> Option<String> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let standing = |record: &&mut Record| record.ends > now;
        Some(match *request {
            ["acquire", key, holder, ttl, floor, label] => {
                let (ends, floor) = (now + nanos(ttl)?, floor.parse::<u64>().ok()?);
                let mut last = 0;
                if let Some(record) = records.get_mut(key) {
                    if record.ends > now && record.holder == holder {
                        record.ends = record.ends.max(ends);
                        return Some(format!("acquired\t{}", record.token));
                    }
                    if record.ends > now {
                        return Some(format!("contended\t{}", (record.ends - now).as_nanos()));
                    }
                    last = record.token;
                }
                let today = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_micros();
                let today = u64::try_from(today).ok()?;
                let token = (last + 1).max(today).max(floor);
                // A token that the clock has left behind is not needed any more.
                records.retain(|_, record| record.ends > now || record.token + DAY_US > today);
                let (holder, label) = (holder.to_owned(), label.to_owned());
                records.insert(key.to_owned(), Record { holder, token, ends, label });
                format!("acquired\t{token}")
            }
            ["renew", key, holder, ttl, floor] => {
                let (ends, floor) = (now + nanos(ttl)?, floor.parse().ok()?);
                match records.get_mut(key).filter(standing) {
                    Some(record) if record.holder == holder => {
                        record.ends = record.ends.max(ends);
                        record.token = record.token.max(floor);
                        format!("renewed\t{}", record.token)
                    }
                    _ => "not held".to_owned(),
                }
            }
            ["release", key, holder] => match records.get_mut(key).filter(standing) {
                Some(record) if record.holder == holder => {
                    record.ends = now;
                    let _ = self.freed.send(key.to_owned());
                    format!("released\t{}", record.token)
                }
                _ => "not held".to_owned(),
            },
            ["inspect", key] => format!("leases{}", shown(records.get_key_value(key), now)),
            ["list", prefix, after, limit] => {
                let range = records.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
                let found =
                    range.filter(|(key, record)| key.starts_with(prefix) && record.ends > now);
                let limit = limit.parse().ok()?;
                let found = found.take(limit).map(|record| shown(Some(record), now));
                format!("leases{}", found.collect::<String>())
            }
            _ => return None,
        })
    }
}

fn nanos(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_nanos)
}

/// Five more fields of an answer, if the lease stands.
fn shown(record: Option<(&String, &Record)>, now: Instant) -> String {
    let Some((key, record)) = record.filter(|(_, record)| record.ends > now) else {
        return String::new();
    };
    let (key, left) = (escaped(key), (record.ends - now).as_nanos());
    format!("\t{key}\t{}\t{}\t{left}\t{}", record.holder, record.token, escaped(&record.label))
}
