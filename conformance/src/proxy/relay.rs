//! The connections of a proxy.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Direction, Mode, Rules, Shared, Then};

/// Takes connections until the proxy is dropped, which also ends them: they are its tasks.
pub(super) async fn accept(
    listener: TcpListener,
    addr: SocketAddr,
    mut rules: watch::Receiver<Rules>,
    shared: Arc<Shared>,
) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        let now = *rules.borrow_and_update();
        if now.refuse {
            // Where nobody listens, the system refuses.
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(addr).await.ok();
        }
        let client = tokio::select! {
            Some(_) = connections.join_next() => continue,
            changed = rules.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            client = take(listener.as_ref(), now.refuse) => client,
        };
        let Some(client) = client else { continue };
        shared.count(&shared.connections, 1);
        let relay = relay(client, rules.clone(), now, Arc::clone(&shared));
        connections.spawn(relay);
    }
}

/// The next client; `None` to look again.
async fn take(listener: Option<&TcpListener>, refuse: bool) -> Option<TcpStream> {
    match listener {
        Some(listener) => {
            if let Ok((client, _)) = listener.accept().await {
                return Some(client);
            }
        }
        None if refuse => return std::future::pending().await,
        None => {}
    }
    // Out of file descriptors, a client that has already gone, or a port not yet given back.
    sleep(Duration::from_millis(1)).await;
    None
}

/// Why a connection ends before both sides have closed it.
enum Broken {
    /// Both ends are reset.
    Both,
    /// The receiving end keeps what it has got.
    Sender(Direction),
    /// Both ends are told of the end, in order.
    Neither,
}

/// One connection, from its first byte to its end.
async fn relay(
    mut client: TcpStream,
    rules: watch::Receiver<Rules>,
    then: Rules,
    shared: Arc<Shared>,
) {
    let mut all_over = rules.clone();
    let mut all_over = pin!(async move {
        let over = |rules: &Rules| rules.cuts != then.cuts || rules.ends != then.ends;
        match all_over.wait_for(over).await {
            Ok(rules) if rules.cuts == then.cuts => Broken::Neither,
            _ => Broken::Both,
        }
    });
    let connected = tokio::select! {
        connected = TcpStream::connect(then.server) => connected.ok(),
        _ = &mut all_over => None,
    };
    let Some(mut server) = connected else {
        return reset(&client);
    };
    // The proxy adds no delay of its own.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let broken = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let pump = |direction, from, to| Pump {
            direction,
            from,
            to,
            rules: rules.clone(),
            strands: then.strands,
            shared: &shared,
        };
        let requests = pump(Direction::ToServer, from_client, to_server).run();
        let replies = pump(Direction::ToClient, from_server, to_client).run();
        tokio::select! {
            ended = async { tokio::try_join!(requests, replies) } => match ended {
                Ok(_) => return,
                Err(broken) => broken,
            },
            broken = all_over => broken,
        }
    };
    if matches!(broken, Broken::Neither) {
        // What is left unread would turn closing into a reset.
        let _ = tokio::join!(client.shutdown(), server.shutdown());
        let rest = async { tokio::join!(drain(&mut client), drain(&mut server)) };
        let _ = tokio::time::timeout(LINGER, rest).await;
        return;
    }
    if !matches!(broken, Broken::Sender(Direction::ToServer)) {
        reset(&server);
    }
    if !matches!(broken, Broken::Sender(Direction::ToClient)) {
        reset(&client);
    }
}

/// Has the stream reset its connection when it is dropped.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

/// How long an end that was told may take.
const LINGER: Duration = Duration::from_secs(1);

/// Reads to the end.
async fn drain(stream: &mut TcpStream) {
    let mut buffer = [0; 1024];
    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}

/// Carries the bytes of one direction.
struct Pump<'a> {
    direction: Direction,
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    rules: watch::Receiver<Rules>,
    /// As many as there were when the connection was made.
    strands: u64,
    shared: &'a Shared,
}

impl Pump<'_> {
    /// Carries bytes until their end.
    async fn run(mut self) -> Result<(), Broken> {
        let mut buffer = vec![0; 16 * 1024];
        let way = self.direction as usize;
        loop {
            if self.mode() == Mode::Stall {
                self.changed().await?;
                continue;
            }
            let read = tokio::select! {
                read = self.from.read(&mut buffer) => read.map_err(|_| Broken::Both)?,
                changed = self.rules.changed() => {
                    changed.map_err(|_| Broken::Both)?;
                    continue;
                }
            };
            if read == 0 {
                if self.stranded() {
                    // Nor does the end get through.
                    return std::future::pending().await;
                }
                return self.to.shutdown().await.map_err(|_| Broken::Both);
            }
            let swallow = self.shared.once()[way].swallow.take();
            if let Some(then) = swallow {
                self.shared.count(&self.shared.swallowed[way], read);
                match then {
                    Then::Go => continue,
                    Then::Cut => return Err(Broken::Both),
                }
            }
            self.deliver(&buffer[..read]).await?;
        }
    }

    /// What holds now, seen.
    fn mode(&mut self) -> Mode {
        let rules = *self.rules.borrow_and_update();
        if rules.strands == self.strands {
            rules.modes[self.direction as usize]
        } else {
            Mode::Swallow
        }
    }

    fn stranded(&self) -> bool {
        self.rules.borrow().strands != self.strands
    }

    async fn changed(&mut self) -> Result<(), Broken> {
        self.rules.changed().await.map_err(|_| Broken::Both)
    }

    /// Carries one chunk, following the rules as they change.
    async fn deliver(&mut self, mut chunk: &[u8]) -> Result<(), Broken> {
        let way = self.direction as usize;
        let read_at = Instant::now();
        // Of a drip: when the byte before was due. A busy machine catches up, and is no slower
        // than the wire is to be.
        let mut dripped = read_at;
        while !chunk.is_empty() {
            let (due, piece) = match self.mode() {
                Mode::Pass => (None, chunk.len()),
                Mode::Delay(delay) => (Some(read_at + delay), chunk.len()),
                Mode::Drip(interval) => (Some(dripped + interval), 1),
                Mode::Stall => {
                    self.changed().await?;
                    dripped = Instant::now();
                    continue;
                }
                Mode::Swallow => {
                    self.shared.count(&self.shared.swallowed[way], chunk.len());
                    return Ok(());
                }
            };
            if let Some(due) = due {
                tokio::select! {
                    () = sleep_until(due) => {}
                    changed = self.rules.changed() => {
                        changed.map_err(|_| Broken::Both)?;
                        continue;
                    }
                }
            }
            let (piece, cut) = self.shared.up_to_the_cut(self.direction, piece);
            let (now, later) = chunk.split_at(piece);
            self.to.write_all(now).await.map_err(|_| Broken::Both)?;
            self.shared.count(&self.shared.delivered[way], piece);
            if cut {
                self.shared.count(&self.shared.cuts, 1);
                // The end of the stream goes out behind the bytes. Closing alone would reset the
                // connection where the other direction has bytes left unread.
                let _ = self.to.shutdown().await;
                return Err(Broken::Sender(self.direction));
            }
            chunk = later;
            dripped = due.unwrap_or_else(Instant::now);
        }
        self.shared.chunk_delivered(self.direction);
        Ok(())
    }
}
