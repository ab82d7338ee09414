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
    server: SocketAddr,
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
        let relay = relay(client, server, rules.clone(), now.cuts, Arc::clone(&shared));
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
}

/// One connection, from its first byte to its end.
async fn relay(
    mut client: TcpStream,
    server: SocketAddr,
    rules: watch::Receiver<Rules>,
    cuts: u64,
    shared: Arc<Shared>,
) {
    let mut all_cut = rules.clone();
    let mut all_cut = pin!(all_cut.wait_for(|rules| rules.cuts != cuts));
    let connected = tokio::select! {
        connected = TcpStream::connect(server) => connected.ok(),
        _ = &mut all_cut => None,
    };
    let Some(mut server) = connected else {
        return reset(&client);
    };
    // The proxy adds no delay of its own.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let broken = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let requests = pump(Direction::ToServer, from_client, to_server, &rules, &shared);
        let replies = pump(Direction::ToClient, from_server, to_client, &rules, &shared);
        tokio::select! {
            ended = async { tokio::try_join!(requests, replies) } => match ended {
                Ok(_) => return,
                Err(broken) => broken,
            },
            _ = all_cut => Broken::Both,
        }
    };
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

/// Carries the bytes of one direction until their end.
async fn pump(
    direction: Direction,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    rules: &watch::Receiver<Rules>,
    shared: &Shared,
) -> Result<(), Broken> {
    let mut rules = rules.clone();
    let mut buffer = vec![0; 16 * 1024];
    let way = direction as usize;
    loop {
        if rules.borrow_and_update().modes[way] == Mode::Stall {
            rules.changed().await.map_err(|_| Broken::Both)?;
            continue;
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.map_err(|_| Broken::Both)?,
            changed = rules.changed() => {
                changed.map_err(|_| Broken::Both)?;
                continue;
            }
        };
        if read == 0 {
            return to.shutdown().await.map_err(|_| Broken::Both);
        }
        let swallow = shared.once()[way].swallow.take();
        if let Some(then) = swallow {
            shared.count(&shared.swallowed[way], read);
            match then {
                Then::Go => continue,
                Then::Cut => return Err(Broken::Both),
            }
        }
        deliver(direction, &buffer[..read], &mut to, &mut rules, shared).await?;
    }
}

/// Carries one chunk, following the rules as they change.
async fn deliver(
    direction: Direction,
    mut chunk: &[u8],
    to: &mut WriteHalf<'_>,
    rules: &mut watch::Receiver<Rules>,
    shared: &Shared,
) -> Result<(), Broken> {
    let way = direction as usize;
    let read_at = Instant::now();
    while !chunk.is_empty() {
        let mode = rules.borrow_and_update().modes[way];
        let (due, piece) = match mode {
            Mode::Pass => (None, chunk.len()),
            Mode::Delay(delay) => (Some(read_at + delay), chunk.len()),
            Mode::Drip(interval) => (Some(Instant::now() + interval), 1),
            Mode::Stall => {
                rules.changed().await.map_err(|_| Broken::Both)?;
                continue;
            }
            Mode::Swallow => {
                shared.count(&shared.swallowed[way], chunk.len());
                return Ok(());
            }
        };
        if let Some(due) = due {
            tokio::select! {
                () = sleep_until(due) => {}
                changed = rules.changed() => {
                    changed.map_err(|_| Broken::Both)?;
                    continue;
                }
            }
        }
        let (piece, cut) = shared.up_to_the_cut(direction, piece);
        let (now, later) = chunk.split_at(piece);
        to.write_all(now).await.map_err(|_| Broken::Both)?;
        shared.count(&shared.delivered[way], piece);
        if cut {
            // The end of the stream goes out behind the bytes. Closing alone would reset the
            // connection where the other direction has bytes left unread.
            let _ = to.shutdown().await;
            return Err(Broken::Sender(direction));
        }
        chunk = later;
    }
    Ok(())
}
