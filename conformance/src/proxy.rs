//! A TCP proxy that breaks connections in every way a network does.
//!
//! Put it between a client and its server, then choose what happens to the bytes, per direction
//! and while connections are open:
//!
//! ```no_run
//! # async fn case(server: std::net::SocketAddr) -> std::io::Result<()> {
//! use lockcore_conformance::proxy::{Direction, Mode, Proxy, Then};
//!
//! let proxy = Proxy::start(server).await?;
//! // … connect a client to proxy.addr() …
//! proxy.swallow_next(Direction::ToClient, Then::Go);
//! // … the next request is carried out, and its reply is lost …
//! proxy.until(|proxy| proxy.swallowed(Direction::ToClient) > 0).await;
//! proxy.set(Direction::ToServer, Mode::Stall);
//! // … the server seems to hang …
//! proxy.heal();
//! # Ok(())
//! # }
//! ```
//!
//! Everything takes effect on open and on new connections, and nothing but
//! [`until`](Proxy::until) waits. To break a conversation at each of its messages, note
//! [`delivered`](Proxy::delivered) after each step of a clean run, then repeat the run with
//! [`cut_after`](Proxy::cut_after) each of these counts.

mod relay;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use crate::port;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Requests: from the client to the server.
    ToServer,
    /// Replies: from the server to the client.
    ToClient,
}

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// They are delivered.
    #[default]
    Pass,
    /// They vanish; the connection stays open.
    Swallow,
    /// They wait, in order, and are delivered once the mode is another one.
    Stall,
    /// Each chunk is delivered this long after it was read. The next chunk is read after that.
    Delay(Duration),
    /// They are delivered one by one, each after this time.
    Drip(Duration),
}

/// What follows a swallowed chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The connection goes on as if nothing had been lost.
    Go,
    /// The connection is cut.
    Cut,
}

/// A proxy before one server, on a port of 127.0.0.1. Dropping it closes it and all its
/// connections.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    rules: watch::Sender<Rules>,
    shared: Arc<Shared>,
    task: AbortHandle,
}

/// How many chunks are remembered.
const MARKS: usize = 1000;

/// What holds until it is changed.
#[derive(Clone, Copy, Debug)]
struct Rules {
    server: SocketAddr,
    modes: [Mode; 2],
    refuse: bool,
    /// Counts the calls that reset all connections.
    cuts: u64,
    /// Counts the calls that end all connections.
    ends: u64,
    /// Counts the calls that strand all connections.
    strands: u64,
}

impl Rules {
    fn new(server: SocketAddr) -> Self {
        Self { server, modes: [Mode::Pass; 2], refuse: false, cuts: 0, ends: 0, strands: 0 }
    }
}

/// What the connections share.
#[derive(Debug, Default)]
struct Shared {
    connections: AtomicU64,
    delivered: [AtomicU64; 2],
    /// How many bytes had been delivered after each chunk, for the last chunks.
    marks: Mutex<[VecDeque<u64>; 2]>,
    swallowed: [AtomicU64; 2],
    cuts: AtomicU64,
    once: Mutex<[Once; 2]>,
    counted: Notify,
}

/// What happens once, to the first connection that comes to it.
#[derive(Clone, Copy, Debug, Default)]
struct Once {
    swallow: Option<Then>,
    /// How many bytes are still delivered before the cut.
    cut_after: Option<u64>,
}

impl Proxy {
    /// Starts a proxy before `server`, which has not to be up: a client whose connection cannot
    /// be passed on has it reset.
    ///
    /// # Errors
    ///
    /// No port can be had.
    pub async fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = listen().await?;
        let addr = listener.local_addr()?;
        let (rules, seen) = watch::channel(Rules::new(server));
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(relay::accept(listener, addr, seen, Arc::clone(&shared)));
        Ok(Self { addr, rules, shared, task: task.abort_handle() })
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Chooses what happens to the bytes of one direction from now on, including those that are
    /// on their way.
    pub fn set(&self, direction: Direction, mode: Mode) {
        self.rules.send_modify(|rules| rules.modes[direction as usize] = mode);
    }

    /// [`set`](Self::set) for both directions.
    pub fn set_both(&self, mode: Mode) {
        self.rules.send_modify(|rules| rules.modes = [mode; 2]);
    }

    /// Resets all open connections; new ones are welcome.
    pub fn cut(&self) {
        self.rules.send_modify(|rules| rules.cuts += 1);
    }

    /// Ends all open connections as a server does that closes them in order: what was delivered
    /// can be read, then comes the end of the stream. New ones are welcome.
    pub fn end(&self) {
        self.rules.send_modify(|rules| rules.ends += 1);
    }

    /// Leaves all open connections open, and has everything vanish on them from now on, for ever:
    /// a path that died silently, of which nobody is told. New connections are welcome.
    pub fn strand(&self) {
        self.rules.send_modify(|rules| rules.strands += 1);
    }

    /// Leads new connections to another server.
    pub fn redirect(&self, server: SocketAddr) {
        self.rules.send_modify(|rules| rules.server = server);
    }

    /// Resets all open connections and stops listening, so that new ones are refused, until
    /// [`heal`](Self::heal) and a moment after.
    pub fn refuse(&self) {
        self.rules.send_modify(|rules| {
            rules.refuse = true;
            rules.cuts += 1;
        });
    }

    /// Goes back to passing everything: ends every mode, refusal, and one-time fault that has
    /// not happened yet. Connections that were cut or stranded stay so, swallowed bytes stay lost.
    pub fn heal(&self) {
        *self.shared.once() = Default::default();
        self.rules.send_modify(|rules| {
            rules.modes = Default::default();
            rules.refuse = false;
        });
    }

    /// Once: delivers `bytes` more bytes in this direction, then cuts the connection that carried
    /// the last of them. With 0 it cuts the connection that carries the next byte, before it.
    ///
    /// The receiving end gets all the bytes and then the end of the stream; the sending end is
    /// reset.
    pub fn cut_after(&self, direction: Direction, bytes: u64) {
        self.shared.once()[direction as usize].cut_after = Some(bytes);
    }

    /// Once: has the next chunk in this direction vanish. A chunk is what one read gives: a
    /// message, where messages are short and one waits for the answer to the one before.
    pub fn swallow_next(&self, direction: Direction, then: Then) {
        self.shared.once()[direction as usize].swallow = Some(then);
    }

    /// How many bytes were delivered in this direction, over all connections.
    pub fn delivered(&self, direction: Direction) -> u64 {
        self.shared.delivered[direction as usize].load(Ordering::SeqCst)
    }

    /// What [`delivered`](Self::delivered) was after each chunk, for the last thousand chunks. A
    /// chunk is what one read gives, and ends where a message does, wherever the sender waits for
    /// an answer before it goes on.
    pub fn chunk_ends(&self, direction: Direction) -> Vec<u64> {
        let marks = self.shared.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks[direction as usize].iter().copied().collect()
    }

    /// How many bytes have vanished in this direction, over all connections.
    pub fn swallowed(&self, direction: Direction) -> u64 {
        self.shared.swallowed[direction as usize].load(Ordering::SeqCst)
    }

    /// How many connections [`cut_after`](Self::cut_after) has cut: a cut that was asked for may
    /// never have come to its place.
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::SeqCst)
    }

    /// [`delivered`](Self::delivered) to the server.
    pub fn bytes_to_server(&self) -> u64 {
        self.delivered(Direction::ToServer)
    }

    /// [`delivered`](Self::delivered) to the client.
    pub fn bytes_to_client(&self) -> u64 {
        self.delivered(Direction::ToClient)
    }

    /// How many connections clients have made so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Waits until the proxy's counters fulfil a condition, however long that takes.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn until(&self, mut condition: impl FnMut(&Self) -> bool) {
        loop {
            let mut counted = pin!(self.shared.counted.notified());
            // Before the condition is looked at, so that no change is missed.
            counted.as_mut().enable();
            if condition(self) {
                return;
            }
            counted.await;
        }
    }
}

/// Listens on a port to which it can come back.
async fn listen() -> io::Result<TcpListener> {
    let mut tries = 0;
    loop {
        tries += 1;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port::free()?)).await {
            // Somebody else was faster.
            Err(_) if tries < 20 => {}
            done => return done,
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn once(&self) -> MutexGuard<'_, [Once; 2]> {
        self.once.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of `bytes` may be delivered now, and whether the connection is cut behind them.
    fn up_to_the_cut(&self, direction: Direction, bytes: usize) -> (usize, bool) {
        let mut once = self.once();
        let once = &mut once[direction as usize];
        let Some(left) = once.cut_after else {
            return (bytes, false);
        };
        let now = left.min(bytes as u64);
        once.cut_after = Some(left - now).filter(|left| *left > 0);
        // Fits: it is not more than `bytes`.
        (now as usize, once.cut_after.is_none())
    }

    fn chunk_delivered(&self, direction: Direction) {
        let delivered = self.delivered[direction as usize].load(Ordering::SeqCst);
        let marks = &mut self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let marks = &mut marks[direction as usize];
        if marks.len() == MARKS {
            marks.pop_front();
        }
        marks.push_back(delivered);
    }

    fn count(&self, counter: &AtomicU64, by: usize) {
        counter.fetch_add(by as u64, Ordering::SeqCst);
        self.counted.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
