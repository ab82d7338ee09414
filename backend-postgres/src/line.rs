//! Signalling the first in a key's line.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use lockcore::{BackendError, HolderId};
use tokio::sync::{Mutex, mpsc};
use tokio_postgres::types::Type;

use crate::answer::Answer;
use crate::exchange::Subject;
use crate::params::Uuid;
use crate::release_signals::channel;
use crate::route::Route;
use crate::sessions::Sessions;
use crate::statements::Statements;

/// The first in line: its listener, and its holder.
pub(crate) type Next = (i64, String);

/// Tells the first in line that the key may be free. One that polls asks by itself.
pub(crate) async fn signal(route: &Route, statements: &Statements, key: &[u8], next: &Next) {
    let (listener, holder) = next;
    if *listener == 0 {
        return;
    }
    let mut payload = format!("{holder}:");
    for byte in key {
        let _ = write!(payload, "{byte:02x}");
    }
    if route.signal_own(*listener, &payload) {
        return;
    }
    // A statement of its own: no release fails because the queue of notifications is full, and none
    // holds the lock of all notifications while it waits for the disk.
    let channel = channel(*listener);
    let params = [(&channel as _, Type::TEXT), (&payload as _, Type::TEXT)];
    route.tell(&statements.notify, &params).await;
}

/// Passes over holders of this process that were signalled although nobody watches for them any
/// more (W8).
pub(crate) struct Unheard {
    signals: Arc<Mutex<mpsc::UnboundedReceiver<String>>>,
    has_task: Arc<AtomicBool>,
}

impl Unheard {
    pub(crate) fn new() -> (mpsc::UnboundedSender<String>, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (sender, Self { signals: Arc::new(Mutex::new(receiver)), has_task: Arc::default() })
    }

    /// Starts the task that does it, unless there is one.
    pub(crate) fn serve(&self, route: &Route, statements: &Arc<Statements>) {
        let Route::Own(sessions) = route else { return };
        if self.has_task.swap(true, Ordering::AcqRel) {
            return;
        }
        let (sessions, statements) = (Arc::downgrade(sessions), statements.clone());
        let (signals, running) = (self.signals.clone(), Running(self.has_task.clone()));
        tokio::spawn(async move {
            let _running = running;
            // Ends with the sessions, which have the other end.
            while let Some(signal) = signals.lock().await.recv().await {
                if let Err(error) = pass(&sessions, &statements, &signal).await {
                    tracing::debug!(%error, "a place was not passed over");
                }
            }
        });
    }
}

struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

async fn pass(
    sessions: &Weak<Sessions>,
    statements: &Statements,
    unheard: &str,
) -> Result<(), BackendError> {
    let Some(route) = sessions.upgrade().map(Route::Own) else { return Ok(()) };
    let Some((holder, key)) = parse(unheard) else { return Ok(()) };
    let listener = route.listener();
    let params =
        [(&key as _, Type::BYTEA), (&holder as _, Type::UUID), (&listener as _, Type::INT8)];
    let rows = route.command(Subject::default(), &statements.pass, &params).await?;
    if let Some(row) = rows.first()
        && let Some(next) = (Answer { row, what: "a passing over" }).next()?
    {
        signal(&route, statements, &key, &next).await;
    }
    Ok(())
}

fn parse(unheard: &str) -> Option<(Uuid, Vec<u8>)> {
    let (holder, key) = unheard.split_once(':')?;
    let holder = holder.parse::<HolderId>().ok()?;
    let bytes = key.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    });
    Some((holder.into(), bytes.collect::<Option<_>>()?))
}
