//! Something else at the port: no server for this client, and it may say anything.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use lockcore::{BackendError, BoxError, Error, ErrorKind, InvalidInput};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout};

use super::cases;
use super::over::Wire;
use crate::case::{Cx, Failure, Needs, Outcome, ensure};
use crate::proxy::Proxy;

cases! { "wire";
    a_stranger_at_the_port_is_told: "L7", Needs::Wire;
    a_stranger_in_the_stores_place_is_told: "L7 L8", Needs::Wire;
}

/// Generous: a harness may have connecting take long, where machines are busy.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// The core bounds what a connected client tries.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Accepts and says nothing.
    Silent,
    /// Accepts and closes.
    Closes,
    /// Answers every request so, in the manner of some other server.
    Says(&'static [u8]),
    /// Sends noise without an end.
    Noise,
    /// Sends back what it gets.
    Echo,
}

const MANNERS: [(&str, Manner); 9] = [
    ("silence", Manner::Silent),
    ("a closed door", Manner::Closes),
    (
        "HTTP",
        Manner::Says(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    ),
    ("a Redis error", Manner::Says(b"-ERR unknown command\r\n")),
    ("a TLS alert", Manner::Says(&[21, 3, 3, 0, 2, 2, 40])),
    (
        "a Postgres error",
        Manner::Says(b"E\0\0\0\x2aSFATAL\0VFATAL\0C0A000\0Munsupported\0\0\0\0\0"),
    ),
    ("half a line", Manner::Says(b"220 mail.example ESMTP")),
    ("noise", Manner::Noise),
    ("an echo", Manner::Echo),
];

/// A server of some other kind. It ends when it is dropped.
struct Stranger {
    addr: SocketAddr,
    task: AbortHandle,
}

impl Stranger {
    async fn start(manner: Manner, random: fastrand::Rng) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let task = tokio::spawn(async move {
            let mut guests = JoinSet::new();
            while let Ok((guest, _)) = listener.accept().await {
                guests.spawn(serve(guest, manner, random.clone()));
            }
        });
        Ok(Self { addr, task: task.abort_handle() })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut guest: TcpStream, manner: Manner, mut random: fastrand::Rng) {
    let mut heard = vec![0; 4096];
    match manner {
        Manner::Closes => {}
        Manner::Silent => while guest.read(&mut heard).await.is_ok_and(|read| read > 0) {},
        Manner::Says(answer) => {
            while guest.read(&mut heard).await.is_ok_and(|read| read > 0) {
                if guest.write_all(answer).await.is_err() {
                    return;
                }
            }
        }
        Manner::Echo => {
            while let Ok(read) = guest.read(&mut heard).await {
                if read == 0 || guest.write_all(&heard[..read]).await.is_err() {
                    return;
                }
            }
        }
        Manner::Noise => loop {
            random.fill(&mut heard);
            if guest.write_all(&heard).await.is_err() {
                return;
            }
            // Enough to bury a reader, and not the machine.
            tokio::time::sleep(Duration::from_millis(10)).await;
        },
    }
}

/// Each manner side by side, on a key of its own.
async fn with_each(
    cx: &Cx,
    case: impl AsyncFn(Stranger, &'static str, usize) -> Outcome,
) -> Outcome {
    let each = MANNERS.iter().enumerate().map(|(n, &(name, manner))| {
        let case = &case;
        async move {
            let stranger = Stranger::start(manner, cx.random(n as u64)).await?;
            let outcome = case(stranger, name, n).await;
            outcome.map_err(|failure| Failure::new(format!("{name}: {failure}")))
        }
    });
    for outcome in join_all(each).await {
        outcome?;
    }
    Ok(())
}

/// All outputs, in order, of futures that run side by side in one task.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (future, output) in &mut futures {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(ready) => *output = Some(ready),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    futures.into_iter().filter_map(|(_, output)| output).collect()
}

/// It is not the caller's input that was wrong.
fn honest(error: &BoxError) -> Outcome {
    let blames_the_caller = error.is::<InvalidInput>()
        || matches!(error.downcast_ref(), Some(BackendError::InvalidInput(_)))
        || error.downcast_ref::<Error>().is_some_and(|e| e.kind() == ErrorKind::InvalidInput);
    ensure!(!blames_the_caller, "the server is wrong, not the input: {error}");
    Ok(())
}

/// Asks for the key, and demands a typed error in time.
async fn refused(locks: &lockcore::LockManager, key: &lockcore::LockKey) -> Outcome {
    let asked = timeout(LIMIT, locks.lock(key)?.acquire()).await;
    let answer = asked.map_err(|_| Failure::new(format!("no end after {LIMIT:?}")))?;
    let kind = answer.as_ref().err().map(Error::kind);
    let honest = [ErrorKind::Unavailable, ErrorKind::Ambiguous, ErrorKind::Rejected];
    ensure!(kind.is_some_and(|kind| honest.contains(&kind)), "got {answer:?}");
    Ok(())
}

async fn a_stranger_at_the_port_is_told(cx: &Cx) -> Outcome {
    with_each(cx, async |stranger, name, n| {
        let at = vec![stranger.addr; cx.store.endpoints().len()];
        let began = Instant::now();
        let connected = timeout(CONNECT_LIMIT, cx.connect_at(&at)).await;
        let connected = connected.map_err(|_| Failure::new("connecting hangs"))?;
        let said = connected.as_ref().map_or_else(ToString::to_string, |_| "connected".to_owned());
        cx.note(format!("{name}: after {:?}: {said}", began.elapsed()));
        let client = match connected {
            Ok(client) => client,
            Err(error) => return honest(&error),
        };
        let locks = cx.manager(client).retry_for(cx.hold_ttl() / 3).build()?;
        let key = cx.key_with(&format!("/{n}"));
        refused(&locks, &key).await?;
        let seen = cx.b.inspect(&key).await?;
        ensure!(seen.is_none(), "nobody was asked, and it stands: {seen:?}");
        Ok(())
    })
    .await
}

/// The store was there, then something else is, as after a port was given to another.
async fn a_stranger_in_the_stores_place_is_told(cx: &Cx) -> Outcome {
    with_each(cx, async |stranger, name, n| {
        let wire = Wire::new(cx).await?;
        let locks = cx.manager(wire.client.clone()).retry_for(cx.hold_ttl() / 3).build()?;
        let key = cx.key_with(&format!("/{n}"));
        wire.each(|proxy| {
            proxy.redirect(stranger.addr);
            proxy.cut();
        });
        refused(&locks, &key).await?;
        // And the store is back.
        for (proxy, endpoint) in wire.proxies.iter().zip(cx.store.endpoints()) {
            proxy.redirect(endpoint);
        }
        wire.each(Proxy::cut);
        let back = Instant::now();
        loop {
            match timeout(LIMIT, locks.lock(&key)?.acquire()).await {
                Ok(Ok(guard)) => {
                    guard.release().await?;
                    break;
                }
                // What the stranger said last may be heard once more.
                other => ensure!(back.elapsed() < LIMIT, "the store is back: {other:?}"),
            }
        }
        cx.note(format!("{name}: served again after {:?}", back.elapsed()));
        Ok(())
    })
    .await
}
