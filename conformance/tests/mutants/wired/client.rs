//! The client: each call has a connection to itself, and passes it on when it was answered. One
//! that owes an answer is not used again.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, Contention, InvalidInput, Lease, LeaseInfo, Limits, LockBackend,
    LockKey, Release, ReleaseSignal, Renew, async_trait,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::GREETING;
use super::server::nanos;
use crate::flaws::WireFlaw;

#[derive(Debug)]
pub(crate) struct Wired {
    addr: SocketAddr,
    flaw: WireFlaw,
    idle: Mutex<Vec<BufReader<TcpStream>>>,
    connected: AtomicBool,
    dead: AtomicBool,
    watching: Arc<AtomicUsize>,
    watched: AtomicBool,
}

/// Does something when it is dropped before it was defused.
struct Bomb<'a>(Option<&'a AtomicBool>);

impl Drop for Bomb<'_> {
    fn drop(&mut self) {
        if let Some(dead) = self.0 {
            dead.store(true, Ordering::SeqCst);
        }
    }
}

struct Watching(Arc<AtomicUsize>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Wired {
    pub(crate) fn new(addr: SocketAddr, flaw: WireFlaw) -> Self {
        Self {
            addr,
            flaw,
            idle: Mutex::default(),
            connected: AtomicBool::default(),
            dead: AtomicBool::default(),
            watching: Arc::default(),
            watched: AtomicBool::default(),
        }
    }

    fn is(&self, flaw: WireFlaw) -> bool {
        self.flaw == flaw
    }

    fn check(&self, claim: &Claim) -> Result<(), BackendError> {
        if !self.is(WireFlaw::InputIsNotChecked) {
            self.limits().check(claim)?;
        }
        Ok(())
    }

    async fn connect(&self) -> Result<BufReader<TcpStream>, BackendError> {
        let connecting = async {
            let mut stream = BufReader::new(TcpStream::connect(self.addr).await?);
            let greeting = line(&mut stream).await?;
            if greeting != GREETING.trim_end() {
                return Err(io::Error::other(format!("this is no server of ours: {greeting}")));
            }
            Ok(stream)
        };
        let connected = timeout(Duration::from_secs(1), connecting).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => Ok(stream),
            Err(error) if self.is(WireFlaw::RefusedIsAmbiguous) => {
                Err(BackendError::ambiguous(error))
            }
            Err(error) if self.is(WireFlaw::RefusedIsFinal) => {
                self.dead.store(true, Ordering::SeqCst);
                Err(BackendError::rejected(error))
            }
            Err(error) => Err(BackendError::unavailable(error)),
        }
    }

    /// Sent, and no answer.
    fn lost(&self, error: io::Error) -> Result<Value, BackendError> {
        match self.flaw {
            WireFlaw::LostIsUnavailable => Err(BackendError::unavailable(error)),
            WireFlaw::LostIsRejected => Err(BackendError::rejected(error)),
            WireFlaw::LostIsAnAnswer => Ok(json!({"answer": "nothing"})),
            WireFlaw::AnythingIsYes => Ok(yes()),
            _ => Err(BackendError::ambiguous(error)),
        }
    }

    async fn exchange(&self, request: &Value) -> Result<Value, BackendError> {
        let idle = self.idle.lock().expect("unpoisoned").pop();
        let once = self.is(WireFlaw::OneConnectionForEver);
        let mut stream = match idle {
            Some(stream) => stream,
            None if once && self.connected.load(Ordering::SeqCst) => {
                return Err(BackendError::unavailable("the connection is gone"));
            }
            None => match self.connect().await {
                Err(_) if self.is(WireFlaw::AnythingIsYes) => return Ok(yes()),
                connected => connected?,
            },
        };
        self.connected.store(true, Ordering::SeqCst);
        let exchange = async {
            send(&mut stream, request).await?;
            line(&mut stream).await.and_then(parsed)
        };
        let answer = exchange.await.or_else(|error| self.lost(error));
        if answer.is_ok() {
            self.idle.lock().expect("unpoisoned").push(stream);
        }
        answer
    }

    async fn call(&self, verb: &str, claim: &Claim) -> Result<Value, BackendError> {
        self.request(json!({
            "verb": verb,
            "key": claim.key.as_str(),
            "holder": claim.holder.to_string(),
            "ttl": nanos(claim.ttl),
            "floor": claim.min_token,
            "label": &*claim.label,
        }))
        .await
    }

    async fn request(&self, request: Value) -> Result<Value, BackendError> {
        while self.is(WireFlaw::WatchingBlocks) && self.watching.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if self.dead.load(Ordering::SeqCst) {
            return match self.flaw {
                WireFlaw::RefusedIsFinal => Err(BackendError::rejected("refused before")),
                _ => Err(BackendError::unavailable("still busy with the last call")),
            };
        }
        let dropped = self.is(WireFlaw::ADroppedCallIsTheLast).then_some(&self.dead);
        let mut bomb = Bomb(dropped);
        let impatient = matches!(self.flaw, WireFlaw::Impatient | WireFlaw::ImpatientAndSure);
        let answer = if impatient {
            match timeout(Duration::from_millis(50), self.exchange(&request)).await {
                Ok(answer) => answer,
                Err(error) if self.is(WireFlaw::Impatient) => Err(BackendError::ambiguous(error)),
                Err(error) => Err(BackendError::rejected(error)),
            }
        } else {
            self.exchange(&request).await
        };
        bomb.0 = None;
        let answer = answer?;
        let why = answer["why"].as_str().unwrap_or_default().to_owned();
        match answer["answer"].as_str() {
            Some("invalid") => Err(InvalidInput::new(why).into()),
            Some("refused") => Err(BackendError::rejected(why)),
            _ => Ok(answer),
        }
    }
}

fn yes() -> Value {
    json!({"answer": "granted", "token": 1_u64 << 51})
}

async fn send(stream: &mut BufReader<TcpStream>, request: &Value) -> io::Result<()> {
    stream.get_mut().write_all(format!("{request}\n").as_bytes()).await
}

async fn line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    // Half an answer is none.
    line.strip_suffix('\n').map(str::to_owned).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn parsed(line: String) -> io::Result<Value> {
    serde_json::from_str(&line).map_err(io::Error::other)
}

fn strange(answer: &Value) -> BackendError {
    BackendError::ambiguous(format!("a strange answer: {answer}"))
}

fn leases(answer: &Value) -> Result<Vec<LeaseInfo>, BackendError> {
    if answer["answer"] == "nothing" {
        return Ok(Vec::new());
    }
    let lease = |lease: &Value| {
        Some(LeaseInfo::new(
            LockKey::new(lease["key"].as_str()?).ok()?,
            lease["holder"].as_str()?.parse().ok()?,
            lease["token"].as_u64()?,
            Duration::from_nanos(lease["left"].as_u64()?),
            lease["label"].as_str()?,
        ))
    };
    let list = answer["leases"].as_array().ok_or_else(|| strange(answer))?;
    list.iter().map(|info| lease(info).ok_or_else(|| strange(answer))).collect()
}

#[async_trait]
impl LockBackend for Wired {
    fn limits(&self) -> Limits {
        Limits::new(Duration::from_millis(10), Duration::from_secs(24 * 60 * 60))
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        self.check(claim)?;
        let answer = self.call("acquire", claim).await?;
        match (answer["answer"].as_str(), answer["token"].as_u64()) {
            (Some("granted"), Some(token)) => Ok(Acquire::Acquired(Lease::new(token, claim.ttl))),
            (Some("contended" | "nothing"), _) => {
                let left = answer["left"].as_u64().map(Duration::from_nanos);
                Ok(Acquire::Contended(Contention::new(left)))
            }
            _ => Err(strange(&answer)),
        }
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        self.check(claim)?;
        if self.is(WireFlaw::RenewIsNotSent) {
            return Ok(Renew::Renewed(Lease::new(claim.min_token, claim.ttl)));
        }
        let answer = self.call("renew", claim).await?;
        match (answer["answer"].as_str(), answer["token"].as_u64()) {
            (Some("granted"), Some(token)) => Ok(Renew::Renewed(Lease::new(token, claim.ttl))),
            (Some("nothing"), _) => Ok(Renew::NotHeld),
            _ => Err(strange(&answer)),
        }
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        self.check(claim)?;
        let answer = self.call("release", claim).await?;
        match answer["answer"].as_str() {
            Some("released") => {
                let token = answer["token"].as_u64().ok_or_else(|| strange(&answer))?;
                Ok(Release::Released { token })
            }
            Some("nothing") => Ok(Release::NotHeld),
            _ => Err(strange(&answer)),
        }
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        self.check(claim)?;
        if self.is(WireFlaw::ABrokenWatchIsTheLast) && self.watched.load(Ordering::SeqCst) {
            return Ok(ReleaseSignal::never());
        }
        let mut stream = self.connect().await?;
        let request = json!({
            "verb": "watch",
            "key": claim.key.as_str(),
            "holder": claim.holder.to_string(),
            "ttl": nanos(claim.ttl),
        });
        let armed = async {
            send(&mut stream, &request).await?;
            line(&mut stream).await
        };
        if let Err(error) = armed.await {
            self.watched.store(true, Ordering::SeqCst);
            return Err(BackendError::ambiguous(error));
        }
        self.watching.fetch_add(1, Ordering::SeqCst);
        let watching = Watching(self.watching.clone());
        // Should the connection break, it resolves early, which it may.
        Ok(ReleaseSignal::new(async move {
            let _watching = watching;
            let _ = line(&mut stream).await;
        }))
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        let answer = self.request(json!({"verb": "inspect", "key": key.as_str()})).await?;
        Ok(leases(&answer)?.pop())
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        let after = after.map(LockKey::as_str);
        let request = json!({"verb": "list", "prefix": prefix, "after": after, "limit": limit});
        leases(&self.request(request).await?)
    }
}
