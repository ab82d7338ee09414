//! Release signals: one watch stream per connection, shared by all local watchers.
//!
//! One stream for all, since servers limit how many streams a connection may have open, and calls
//! would queue behind watches. Each key is watched once, however many wait for it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Client, Error, WatchFilterType, WatchOptions, WatchResponse, WatchStream};
use lockcore::{BackendError, ReleaseSignal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::error::{self, Failure};
use crate::trouble::Trouble;

/// How long a watch outlives its last watcher. A waiter who lost the race for a key watches it
/// again at once, and then finds the watch still there.
const LINGER: Duration = Duration::from_millis(200);

type Answer = Result<Seat, BackendError>;

enum Order {
    Sit(String, oneshot::Sender<Answer>),
    Leave(String),
}

/// The watch stream of a connection, opened by the first who watches.
#[derive(Default)]
pub(crate) struct Wakes {
    tender: Mutex<Option<Tender>>,
}

/// The names that are watched, and not deleted since a watcher last sat down.
#[derive(Default)]
struct Quiet(Mutex<HashSet<String>>);

impl Quiet {
    fn names(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that reads the stream; it ends with this handle.
struct Tender {
    orders: mpsc::UnboundedSender<Order>,
    quiet: Arc<Quiet>,
    task: AbortHandle,
}

impl Drop for Tender {
    fn drop(&mut self) {
        // Its topics go with it, and whoever watches them is woken.
        self.task.abort();
    }
}

impl Wakes {
    fn tender(&self) -> MutexGuard<'_, Option<Tender>> {
        self.tender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection is of no more use. Whoever watches is woken, asks again, and arms on the
    /// next one: what was released meanwhile was told to nobody.
    pub(crate) fn end(&self) {
        *self.tender() = None;
    }

    pub(crate) fn is_quiet(&self, name: &str) -> bool {
        self.tender().as_ref().is_some_and(|tender| tender.quiet.names().contains(name))
    }

    /// Arms a signal for the deletion of a name: when this returns, the server has confirmed.
    pub(crate) async fn watch(
        &self,
        client: &Client,
        name: String,
        heard: impl Fn() + Send + 'static,
    ) -> Result<ReleaseSignal, BackendError> {
        let (reply, answer) = oneshot::channel();
        self.order(client, Order::Sit(name, reply), heard);
        let mut seat = answer.await.map_err(|_| cut())??;
        Ok(ReleaseSignal::new(async move {
            // An error means that the stream ended: as good a reason to look as a release.
            let _ = seat.released.changed().await;
        }))
    }

    fn order(&self, client: &Client, order: Order, heard: impl Fn() + Send + 'static) {
        let mut tender = self.tender();
        let order = match &*tender {
            Some(tender) => match tender.orders.send(order) {
                Ok(()) => return,
                Err(back) => back.0,
            },
            None => order,
        };
        let (orders, inbox) = mpsc::unbounded_channel();
        // The receiver is right here.
        let _ = orders.send(order);
        let desk = Desk::new(orders.downgrade(), inbox);
        let quiet = Arc::clone(&desk.quiet);
        let task = tokio::spawn(desk.run(client.clone(), heard)).abort_handle();
        let old = tender.replace(Tender { orders, quiet, task });
        drop(tender);
        drop(old);
    }
}

fn cut() -> BackendError {
    error::unavailable("the connection was lost before the watch was confirmed")
}

/// A watcher's place; empty again when dropped.
struct Seat {
    name: String,
    released: watch::Receiver<()>,
    orders: mpsc::WeakUnboundedSender<Order>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(orders) = self.orders.upgrade() {
            // Without a tender there is no seat to give up.
            let _ = orders.send(Order::Leave(std::mem::take(&mut self.name)));
        }
    }
}

/// One watched name.
struct Topic {
    id: i64,
    armed: bool,
    /// Who waits for the server's confirmation.
    arming: Vec<oneshot::Sender<Answer>>,
    seats: usize,
    empty_since: Option<Instant>,
    released: watch::Sender<()>,
}

/// What the tender keeps.
struct Desk {
    orders: mpsc::WeakUnboundedSender<Order>,
    inbox: mpsc::UnboundedReceiver<Order>,
    topics: HashMap<String, Topic>,
    names: HashMap<i64, String>,
    quiet: Arc<Quiet>,
    /// Watches that the server has not confirmed. It does so in this order.
    asked: VecDeque<i64>,
    last_id: i64,
}

impl Desk {
    fn new(
        orders: mpsc::WeakUnboundedSender<Order>,
        inbox: mpsc::UnboundedReceiver<Order>,
    ) -> Self {
        Self {
            orders,
            inbox,
            topics: HashMap::new(),
            names: HashMap::new(),
            quiet: Arc::default(),
            asked: VecDeque::new(),
            last_id: 0,
        }
    }

    async fn run(mut self, client: Client, heard: impl Fn() + Send) {
        let Some(Order::Sit(name, reply)) = self.inbox.recv().await else { return };
        let options = self.open_topic(&name, reply);
        let mut stream = match client.watch_client().watch(name.as_str(), Some(options)).await {
            Ok(stream) => stream,
            Err(error) => return self.refuse_all(error),
        };
        loop {
            let sweep = self.next_sweep();
            tokio::select! {
                order = self.inbox.recv() => match order {
                    Some(order) => {
                        if self.follow(order, &mut stream).await.is_err() {
                            return;
                        }
                    }
                    None => return,
                },
                message = stream.message() => match message {
                    Ok(Some(message)) => {
                        heard();
                        if self.hear(&message).is_break() {
                            return;
                        }
                    }
                    // A clean end is an end too.
                    Ok(None) => return,
                    Err(error) => return self.refuse_all(error),
                },
                () = sleep_until(sweep) => {
                    if self.sweep(&mut stream).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn open_topic(&mut self, name: &str, reply: oneshot::Sender<Answer>) -> WatchOptions {
        self.last_id += 1;
        let topic = Topic {
            id: self.last_id,
            armed: false,
            arming: vec![reply],
            seats: 0,
            empty_since: None,
            released: watch::Sender::new(()),
        };
        self.topics.insert(name.to_owned(), topic);
        self.names.insert(self.last_id, name.to_owned());
        self.asked.push_back(self.last_id);
        WatchOptions::new().with_watch_id(self.last_id).with_filters([WatchFilterType::NoPut])
    }

    async fn follow(&mut self, order: Order, stream: &mut WatchStream) -> Result<(), Error> {
        let (name, reply) = match order {
            Order::Sit(name, reply) => (name, reply),
            leave @ Order::Leave(_) => {
                self.leave(leave);
                return Ok(());
            }
        };
        match self.topics.get_mut(&name) {
            Some(topic) if topic.armed => {
                self.quiet.names().insert(name.clone());
                topic.seat(name, reply, &self.orders);
            }
            Some(topic) => topic.arming.push(reply),
            None => {
                let options = self.open_topic(&name, reply);
                stream.watch(name, Some(options)).await?;
            }
        }
        Ok(())
    }

    fn leave(&mut self, order: Order) {
        // An asker is told by the loss of its reply.
        let Order::Leave(name) = order else { return };
        if let Some(topic) = self.topics.get_mut(&name) {
            topic.seats = topic.seats.saturating_sub(1);
            if topic.seats == 0 {
                topic.empty_since = Some(Instant::now());
            }
        }
    }

    fn hear(&mut self, message: &WatchResponse) -> ControlFlow<()> {
        if message.created() {
            let Some(id) = self.asked.pop_front() else { return ControlFlow::Continue(()) };
            if message.canceled() {
                self.deny(id, message.cancel_reason());
                return ControlFlow::Break(());
            }
            let (orders, quiet) = (self.orders.clone(), Arc::clone(&self.quiet));
            if let Some((name, topic)) = self.topic(id) {
                topic.armed = true;
                quiet.names().insert(name.clone());
                topic.empty_since = Some(Instant::now());
                for reply in std::mem::take(&mut topic.arming) {
                    topic.seat(name.clone(), reply, &orders);
                }
            }
            return ControlFlow::Continue(());
        }
        let id = message.watch_id();
        if message.canceled() {
            // Not by us, or no longer of interest: who watches looks again.
            self.remove(id);
        } else if !message.events().is_empty()
            && let Some((name, topic)) = self.topic(id)
        {
            topic.released.send_replace(());
            self.quiet.names().remove(&name);
        }
        ControlFlow::Continue(())
    }

    fn topic(&mut self, id: i64) -> Option<(String, &mut Topic)> {
        let name = self.names.get(&id)?;
        Some((name.clone(), self.topics.get_mut(name)?))
    }

    fn remove(&mut self, id: i64) -> Option<Topic> {
        let name = self.names.remove(&id)?;
        self.quiet.names().remove(&name);
        self.topics.remove(&name)
    }

    /// The server does not let this user watch, or no longer takes the token that the stream was
    /// opened with, which looks the same. The stream ends, and the next watcher opens another.
    fn deny(&mut self, id: i64, reason: &str) {
        let text = format!("the server does not let the user watch: {reason}");
        for reply in self.remove(id).into_iter().flat_map(|topic| topic.arming) {
            let _ = reply.send(Err(BackendError::rejected(Failure::new(text.clone()))));
        }
    }

    /// The stream was refused, or broke.
    fn refuse_all(mut self, error: Error) {
        let text = error::words(&error);
        let waiting = self.topics.drain().flat_map(|(_, topic)| topic.arming);
        let mut waiting: Vec<_> = waiting.collect();
        if let Some(first) = waiting.pop() {
            let _ = first.send(Err(Trouble::Etcd(error).of_question()));
        }
        for reply in waiting {
            let _ = reply.send(Err(error::unavailable(&text)));
        }
    }

    fn next_sweep(&self) -> Option<Instant> {
        let empty = self.topics.values().filter(|topic| topic.is_empty());
        empty.filter_map(|topic| topic.empty_since).min().map(|since| since + LINGER)
    }

    async fn sweep(&mut self, stream: &mut WatchStream) -> Result<(), Error> {
        let now = Instant::now();
        let over = |topic: &&Topic| {
            topic.is_empty() && topic.empty_since.is_some_and(|since| since + LINGER <= now)
        };
        let over: Vec<_> = self.topics.values().filter(over).map(|topic| topic.id).collect();
        for id in over {
            self.remove(id);
            stream.cancel(id).await?;
        }
        Ok(())
    }
}

impl Topic {
    fn is_empty(&self) -> bool {
        self.armed && self.seats == 0
    }

    fn seat(
        &mut self,
        name: String,
        reply: oneshot::Sender<Answer>,
        orders: &mpsc::WeakUnboundedSender<Order>,
    ) {
        let seat = Seat { name, released: self.released.subscribe(), orders: orders.clone() };
        // Counted in any case: a seat that nobody took is given up like any other.
        self.seats += 1;
        self.empty_since = None;
        drop(reply.send(Ok(seat)));
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
