//! Keep-alives of leases on a few streams, shared by all callers of a connection.
//!
//! A keep-alive writes nothing to etcd's log. A stream of its own for each costs much more than
//! the keep-alive does. A follower hands the messages of one stream to the leader one by one, so
//! there are several streams, and leases are spread over them by their ids.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use etcd_client::{Client, Error, LeaseKeepAliveStream, LeaseKeeper};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

const STREAMS: usize = 4;

/// What the driver says to an answer with a ttl of 0.
const NOT_FOUND: &str = "lease not found";

/// The answer to a keep-alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Whether the lease stood and its ttl began anew, as far as the server that answered knew.
    pub(crate) alive: bool,
    /// The raft term that the server was in. A leader that was stopped and does not know of its
    /// successor yet answers in its old term, and what it answers is not true (S11).
    pub(crate) term: u64,
}

type Reply = oneshot::Sender<Result<Kept, Error>>;

/// A keep-alive that was ordered.
pub(crate) struct Answer(oneshot::Receiver<Result<Kept, Error>>);

impl Answer {
    pub(crate) async fn wait(self) -> Result<Kept, Error> {
        self.0.await.unwrap_or_else(|_| Err(ended()))
    }
}

struct Order {
    id: i64,
    reply: Reply,
}

/// The streams of a connection. Each is opened by the first order for it.
#[derive(Default)]
pub(crate) struct KeepAlives {
    streams: [Mutex<Option<StreamTask>>; STREAMS],
}

/// The task that owns a stream; it ends with this handle.
struct StreamTask {
    orders: mpsc::UnboundedSender<Order>,
    task: AbortHandle,
}

impl Drop for StreamTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl KeepAlives {
    /// Begins a lease's ttl anew. The order is given when this returns.
    pub(crate) fn order(&self, client: &Client, id: i64) -> Answer {
        let (reply, answer) = oneshot::channel();
        let mut order = Order { id, reply };
        let mut stream = self.stream_of(id);
        if let Some(stream) = &*stream {
            match stream.orders.send(order) {
                Ok(()) => return Answer(answer),
                Err(back) => order = back.0,
            }
        }
        let (orders, inbox) = mpsc::unbounded_channel();
        // The receiver is right here.
        let _ = orders.send(order);
        let task = tokio::spawn(run(client.clone(), inbox)).abort_handle();
        let old = stream.replace(StreamTask { orders, task });
        drop(stream);
        drop(old);
        Answer(answer)
    }

    fn stream_of(&self, id: i64) -> MutexGuard<'_, Option<StreamTask>> {
        let n = usize::try_from(id.unsigned_abs() % STREAMS as u64).unwrap_or(0);
        self.streams[n].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ended() -> Error {
    Error::LeaseKeepAliveError("the stream of keep-alives ended".to_owned())
}

/// The same failure, for one more caller. The driver's errors cannot be cloned, but a status can.
fn again(error: &Error) -> Error {
    match error {
        Error::GRpcStatus(status) => Error::GRpcStatus(status.clone()),
        other => Error::LeaseKeepAliveError(other.to_string()),
    }
}

/// Serves orders until the stream breaks or nobody can order any more.
async fn run(client: Client, mut inbox: mpsc::UnboundedReceiver<Order>) {
    let waiting = Mutex::new(Waiting::default());
    let error = match open(&client, &mut inbox, &waiting).await {
        Ok(Some((keeper, answers))) => {
            // Side by side: a full stream in one direction must not stop the other.
            tokio::select! {
                error = send(keeper, &mut inbox, &waiting) => error,
                error = receive(answers, &waiting) => Some(error),
            }
        }
        Ok(None) => None,
        Err(error) => Some(error),
    };
    let error = error.unwrap_or_else(ended);
    // What is ordered from here on opens another stream.
    inbox.close();
    while let Ok(order) = inbox.try_recv() {
        let _ = order.reply.send(Err(again(&error)));
    }
    let waiting = std::mem::take(&mut *lock(&waiting));
    for reply in waiting.0.into_values().flatten() {
        let _ = reply.send(Err(again(&error)));
    }
}

/// Who waits for an answer, by lease, in the order of their keep-alives.
#[derive(Default)]
struct Waiting(HashMap<i64, VecDeque<Reply>>);

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Waiting {
    fn add(&mut self, order: Order) {
        self.0.entry(order.id).or_default().push_back(order.reply);
    }

    fn next(&mut self, id: i64) -> Option<Reply> {
        let replies = self.0.get_mut(&id)?;
        let first = replies.pop_front();
        if replies.is_empty() {
            self.0.remove(&id);
        }
        first
    }
}

/// Opens a stream. The driver does so with a first keep-alive, and keeps the term of its answer to
/// itself: so that lease is kept alive once more. `None`: nobody orders any more.
async fn open(
    client: &Client,
    inbox: &mut mpsc::UnboundedReceiver<Order>,
    waiting: &Mutex<Waiting>,
) -> Result<Option<(LeaseKeeper, LeaseKeepAliveStream)>, Error> {
    while let Some(order) = inbox.recv().await {
        match client.lease_client().keep_alive(order.id).await {
            Ok((mut keeper, answers)) => {
                lock(waiting).add(order);
                keeper.keep_alive().await?;
                return Ok(Some((keeper, answers)));
            }
            Err(Error::LeaseKeepAliveError(text)) if text == NOT_FOUND => {
                let _ = order.reply.send(Ok(Kept { alive: false, term: 0 }));
            }
            Err(error) => {
                let _ = order.reply.send(Err(again(&error)));
                return Err(error);
            }
        }
    }
    Ok(None)
}

/// Sends what is ordered. `None`: nobody orders any more.
async fn send(
    mut keeper: LeaseKeeper,
    inbox: &mut mpsc::UnboundedReceiver<Order>,
    waiting: &Mutex<Waiting>,
) -> Option<Error> {
    while let Some(order) = inbox.recv().await {
        // Whoever gave up needs no answer.
        if order.reply.is_closed() {
            continue;
        }
        keeper.id = order.id;
        lock(waiting).add(order);
        if let Err(error) = keeper.keep_alive().await {
            return Some(error);
        }
    }
    None
}

/// Hands out the answers, until the stream ends.
async fn receive(mut answers: LeaseKeepAliveStream, waiting: &Mutex<Waiting>) -> Error {
    loop {
        let answer = match answers.message().await {
            Ok(Some(answer)) => answer,
            // A clean end is an end too.
            Ok(None) => return ended(),
            Err(error) => return error,
        };
        let term = answer.header().map_or(0, etcd_client::ResponseHeader::raft_term);
        let reply = lock(waiting).next(answer.id());
        if let Some(reply) = reply {
            let _ = reply.send(Ok(Kept { alive: answer.ttl() > 0, term }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_to_those_who_asked_for_that_lease_in_their_order() {
        let mut waiting = Waiting::default();
        let mut answers = Vec::new();
        for id in [7, 8, 7] {
            let (reply, answer) = oneshot::channel();
            waiting.add(Order { id, reply });
            answers.push(answer);
        }
        assert!(waiting.next(9).is_none());
        for (n, id) in [(0, 7), (1, 8), (2, 7)] {
            let kept = Kept { alive: true, term: n };
            let reply = waiting.next(id).expect("somebody waits");
            reply.send(Ok(kept)).expect("waiting");
            let n = usize::try_from(n).expect("small");
            let got = answers[n].try_recv().expect("answered").expect("no error");
            assert_eq!(got, kept);
        }
        assert!(waiting.0.is_empty());
    }
}
