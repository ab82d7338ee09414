//! The server: requests and answers are lines of JSON, in order.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, HolderId, LeaseInfo, LockBackend, LockKey, Release, Renew,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::GREETING;
use crate::broken::{Broken, Store};
use crate::flaws::Flaw;

pub(crate) struct Server {
    addr: SocketAddr,
    flaw: Flaw,
    store: Arc<Mutex<Store>>,
    paused: watch::Sender<bool>,
    running: Mutex<Option<JoinHandle<()>>>,
}

impl Server {
    pub(crate) async fn start(flaw: Flaw) -> io::Result<Self> {
        let store = Arc::new(Mutex::new(Store::new()));
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = TcpListener::bind(addr).await?;
        let (addr, paused) = (listener.local_addr()?, watch::Sender::new(false));
        let server = Self { addr, flaw, store, paused, running: Mutex::default() };
        server.run(listener);
        Ok(server)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn pause(&self, paused: bool) {
        self.paused.send_replace(paused);
    }

    pub(crate) fn wipe(&self) {
        self.store.lock().unwrap_or_else(PoisonError::into_inner).wipe(self.flaw);
    }

    /// It keeps nothing on disk.
    pub(crate) async fn kill(&self) {
        let task = self.running.lock().expect("unpoisoned").take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
        self.wipe();
        self.pause(false);
    }

    pub(crate) async fn restart(&self) {
        self.run(TcpListener::bind(self.addr).await.expect("the same port"));
    }

    fn run(&self, listener: TcpListener) {
        let backend = Arc::new(Broken::connect(self.flaw, &self.store));
        let paused = self.paused.subscribe();
        let task = tokio::spawn(async move {
            // They end with this task.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, backend.clone(), paused.clone()));
            }
        });
        *self.running.lock().expect("unpoisoned") = Some(task);
    }
}

async fn serve(
    mut stream: TcpStream,
    backend: Arc<Broken>,
    mut paused: watch::Receiver<bool>,
) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader).lines();
    let _ = paused.wait_for(|paused| !paused).await;
    writer.write_all(GREETING.as_bytes()).await?;
    while let Some(line) = lines.next_line().await? {
        let _ = paused.wait_for(|paused| !paused).await;
        // Half a line is no request.
        let Ok(request) = serde_json::from_str::<Value>(&line) else { return Ok(()) };
        if request["verb"] == "watch" {
            let signal = backend.watch(&claim(&request)).await.map_err(io::Error::other)?;
            writer.write_all(b"{\"answer\":\"armed\"}\n").await?;
            tokio::select! {
                () = signal => {}
                _ = lines.next_line() => return Ok(()),
            }
        }
        let answer = answer(&backend, &request).await;
        writer.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}

async fn answer(backend: &Broken, request: &Value) -> Value {
    let refused = |error: BackendError| match error {
        BackendError::InvalidInput(error) => json!({"answer": "invalid", "why": error.to_string()}),
        error => json!({"answer": "refused", "why": error.to_string()}),
    };
    match request["verb"].as_str() {
        Some("acquire") => match backend.acquire(&claim(request)).await {
            Ok(Acquire::Acquired(lease)) => json!({"answer": "granted", "token": lease.token}),
            Ok(Acquire::Contended(other)) => {
                json!({"answer": "contended", "left": other.retry_after.map(nanos)})
            }
            Err(error) => refused(error),
        },
        Some("renew") => match backend.renew(&claim(request)).await {
            Ok(Renew::Renewed(lease)) => json!({"answer": "granted", "token": lease.token}),
            Ok(Renew::NotHeld) => json!({"answer": "nothing"}),
            Err(error) => refused(error),
        },
        Some("release") => match backend.release(&claim(request)).await {
            Ok(Release::Released { token }) => {
                json!({"answer": "released", "token": token})
            }
            Ok(Release::NotHeld) => json!({"answer": "nothing"}),
            Err(error) => refused(error),
        },
        Some("list") => {
            let after = request["after"].as_str().map(|key| LockKey::new(key).expect("a key"));
            let limit = request["limit"].as_u64().and_then(|limit| limit.try_into().ok());
            let prefix = request["prefix"].as_str().unwrap_or_default();
            match backend.list(prefix, after.as_ref(), limit.unwrap_or(usize::MAX)).await {
                Ok(list) => shown(&list),
                Err(error) => refused(error),
            }
        }
        Some("inspect") => match backend.inspect(&claim(request).key).await {
            Ok(info) => shown(info.as_slice()),
            Err(error) => refused(error),
        },
        _ => json!({"answer": "nothing"}),
    }
}

fn shown(list: &[LeaseInfo]) -> Value {
    let leases = list.iter().map(|info| {
        json!({
            "key": info.key.as_str(),
            "holder": info.holder.to_string(),
            "token": info.token,
            "left": nanos(info.remaining),
            "label": info.label,
        })
    });
    json!({"answer": "leases", "leases": leases.collect::<Vec<_>>()})
}

fn claim(request: &Value) -> Claim {
    let text = |name: &str| request[name].as_str().unwrap_or_default();
    let number = |name: &str| request[name].as_u64().unwrap_or_default();
    let key = LockKey::new(text("key")).unwrap_or_else(|_| LockKey::new("?").expect("a key"));
    let holder = text("holder").parse().unwrap_or(HolderId::from_u128(0));
    Claim::new(key, holder, Duration::from_nanos(number("ttl")))
        .with_min_token(number("floor"))
        .with_label(text("label"))
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
