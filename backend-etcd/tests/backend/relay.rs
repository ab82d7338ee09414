//! Between a client and a server, request by request: what comes between two of them, and answers
//! that the server gives in moments which no test can bring about.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use lockcore::BoxError;
use lockcore_etcd::EtcdBackend;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// What becomes of a request for the planned method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// It goes on.
    Pass,
    /// It is carried out, and its answer is that the store is full.
    Full,
    /// It waits until it is let on.
    Hold,
    /// Keep-alives are answered in the raft term before: as by a leader that was stopped and does
    /// not know of its successor yet.
    OldTerm,
}

/// A relay on a port of its own, until dropped.
pub(crate) struct Relay {
    addr: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    plan: watch::Sender<(&'static str, Plan)>,
    held: Notify,
    ends: Notify,
    watches: AtomicUsize,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relay {
    pub(crate) async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            plan: watch::Sender::new(("", Plan::Pass)),
            held: Notify::new(),
            ends: Notify::new(),
            watches: AtomicUsize::new(0),
        });
        let task = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(connection(stream, server, Arc::clone(&shared)));
                }
            }
        });
        Self { addr, shared, task }
    }

    pub(crate) async fn backend(&self) -> EtcdBackend {
        EtcdBackend::connect(format!("etcd://{}", self.addr)).await.expect("a server")
    }

    /// From here on, requests for this method go that way; all others pass.
    pub(crate) fn plan(&self, method: &'static str, plan: Plan) {
        self.shared.plan.send_replace((method, plan));
    }

    /// Waits until a request is held.
    pub(crate) async fn held(&self) {
        self.shared.held.notified().await;
    }

    /// Ends the watch streams that are open, without an error.
    pub(crate) fn end_watches(&self) {
        self.shared.ends.notify_waiters();
    }

    /// How many watch streams were opened.
    pub(crate) fn watches(&self) -> usize {
        self.shared.watches.load(Ordering::Relaxed)
    }
}

async fn connection(
    stream: TcpStream,
    server: SocketAddr,
    shared: Arc<Shared>,
) -> Result<(), BoxError> {
    let mut inbound = h2::server::handshake(stream).await?;
    let (outbound, driver) = h2::client::handshake(TcpStream::connect(server).await?).await?;
    tokio::spawn(driver);
    while let Some(asked) = inbound.accept().await {
        let (request, respond) = asked?;
        tokio::spawn(one(request, respond, outbound.clone(), Arc::clone(&shared)));
    }
    Ok(())
}

async fn one(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    outbound: SendRequest<Bytes>,
    shared: Arc<Shared>,
) -> Result<(), BoxError> {
    let (parts, body) = request.into_parts();
    let method = parts.uri.path().rsplit('/').next().unwrap_or("").to_owned();
    let mut plans = shared.plan.subscribe();
    let plan_for = |(planned, plan): &(&str, Plan)| {
        if *planned == method { *plan } else { Plan::Pass }
    };
    let plan = plan_for(&plans.borrow());
    if plan == Plan::Hold {
        shared.held.notify_one();
        plans.wait_for(|plan| plan_for(plan) != Plan::Hold).await?;
    }
    let mut outbound = outbound.ready().await?;
    let (response, up) = outbound.send_request(Request::from_parts(parts, ()), false)?;
    tokio::spawn(pump(body, up));
    let (parts, mut body) = response.await?.into_parts();
    if plan == Plan::Full {
        // Carried out once it is answered.
        while let Some(part) = body.data().await {
            part?;
        }
        let full = Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "8")
            .header("grpc-message", "etcdserver: mvcc: database space exceeded")
            .body(())?;
        respond.send_response(full, true)?;
        return Ok(());
    }
    let mut down = respond.send_response(Response::from_parts(parts, ()), false)?;
    if method == "LeaseKeepAlive" {
        while let Some(part) = body.data().await {
            let part = part?;
            let is_old = plan_for(&plans.borrow()) == Plan::OldTerm;
            let told = if is_old { in_old_term(&part) } else { part.clone() };
            body.flow_control().release_capacity(part.len())?;
            down.send_data(told, false)?;
        }
        return pump(body, down).await;
    }
    if method != "Watch" {
        return pump(body, down).await;
    }
    shared.watches.fetch_add(1, Ordering::Relaxed);
    let ended = shared.ends.notified();
    tokio::pin!(ended);
    loop {
        tokio::select! {
            part = body.data() => match part {
                Some(part) => pass(&mut body, part?, &mut down)?,
                None => return Ok(()),
            },
            () = &mut ended => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                down.send_trailers(trailers)?;
                return Ok(());
            }
        }
    }
}

async fn pump(mut from: RecvStream, mut to: SendStream<Bytes>) -> Result<(), BoxError> {
    while let Some(part) = from.data().await {
        pass(&mut from, part?, &mut to)?;
    }
    match from.trailers().await? {
        Some(trailers) => to.send_trailers(trailers)?,
        None => to.send_data(Bytes::new(), true)?,
    }
    Ok(())
}

/// Whole answers to keep-alives, with the term in each lowered. Each begins with five bytes of
/// gRPC's, then the tag and the length of its header, whose last field is the term.
fn in_old_term(answers: &Bytes) -> Bytes {
    let mut told = answers.to_vec();
    let mut at = 0;
    while at < told.len() {
        let end = at + 5 + told[at + 4] as usize;
        assert!(end <= told.len() && told[at + 5] == 0x0a, "a whole answer with a header");
        let term = at + 6 + told[at + 6] as usize;
        assert!(told[term - 1] == 0x20 && told[term] > 1, "a small term, and not the first");
        told[term] -= 1;
        at = end;
    }
    told.into()
}

fn pass(from: &mut RecvStream, part: Bytes, to: &mut SendStream<Bytes>) -> Result<(), BoxError> {
    from.flow_control().release_capacity(part.len())?;
    to.send_data(part, false)?;
    Ok(())
}
