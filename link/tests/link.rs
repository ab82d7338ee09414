//! One connection for all, replaced when it is of no more use.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockcore_link::{Connection, Connector, Link};
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, timeout};

#[derive(Debug)]
struct Wire {
    number: usize,
    /// The number of the one that it was opened in place of.
    replaced: Option<usize>,
    broken: AtomicBool,
    retired: AtomicUsize,
}

impl Wire {
    fn break_off(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    fn retired(&self) -> usize {
        self.retired.load(Ordering::Relaxed)
    }
}

impl Connection for Wire {
    fn is_usable(&self) -> bool {
        !self.broken.load(Ordering::Relaxed)
    }

    fn retire(&self) {
        self.retired.fetch_add(1, Ordering::Relaxed);
    }
}

/// What an attempt comes to.
#[derive(Clone, Copy)]
enum Fate {
    Opens { after: u64 },
    Fails { after: u64 },
    Panics,
}

use Fate::{Fails, Opens, Panics};

#[derive(Clone, Default)]
struct Port {
    fates: Arc<Mutex<VecDeque<Fate>>>,
    attempts: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a port")
    }
}

impl Port {
    /// Attempts end as said, and at once when nothing is said of them.
    fn link<const N: usize>(fates: [Fate; N]) -> (Link<Self>, Arc<AtomicUsize>) {
        let port = Self { fates: Arc::new(Mutex::new(fates.into())), ..Self::default() };
        let attempts = Arc::clone(&port.attempts);
        (Link::new(port), attempts)
    }
}

impl Connector for Port {
    type Connection = Wire;
    type Error = String;

    async fn open(&self, replaced: Option<&Wire>) -> Result<Wire, String> {
        let number = 1 + self.attempts.fetch_add(1, Ordering::Relaxed);
        let fate = self.fates.lock().unwrap().pop_front();
        match fate {
            None => {}
            Some(Opens { after }) => sleep(Duration::from_millis(after)).await,
            Some(Fails { after }) => {
                sleep(Duration::from_millis(after)).await;
                return Err(format!("attempt {number} failed"));
            }
            Some(Panics) => panic!("on purpose"),
        }
        Ok(Wire {
            number,
            replaced: replaced.map(|wire| wire.number),
            broken: AtomicBool::new(false),
            retired: AtomicUsize::new(0),
        })
    }

    fn abandoned() -> String {
        "abandoned".to_owned()
    }
}

fn made(attempts: &AtomicUsize) -> usize {
    attempts.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn one_connection_serves_all() {
    let (link, attempts) = Port::link([Opens { after: 300 }]);
    assert_eq!(format!("{link:?}"), "a port");
    assert!(link.usable().is_none());
    let other = link.clone();
    let (a, b) = tokio::join!(link.connected(), other.connected());
    assert!(Arc::ptr_eq(&a.unwrap(), &b.unwrap()));
    let wire = link.connected().await.unwrap();
    assert!(Arc::ptr_eq(&wire, &link.usable().unwrap()));
    assert_eq!((wire.number, wire.replaced, wire.retired()), (1, None, 0));
    assert_eq!(made(&attempts), 1);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_goes_on_without_those_who_left() {
    let (link, attempts) = Port::link([Opens { after: 400 }]);
    let began = Instant::now();
    let (left, stayed) =
        tokio::join!(timeout(Duration::from_millis(20), link.connected()), link.connected());
    assert!(left.is_err());
    stayed.unwrap();
    assert_eq!((made(&attempts), began.elapsed()), (1, Duration::from_millis(400)));

    // Also without anybody.
    let (link, attempts) = Port::link([Opens { after: 400 }]);
    assert!(timeout(Duration::from_millis(20), link.connected()).await.is_err());
    sleep(Duration::from_millis(400)).await;
    assert_eq!(link.usable().map(|wire| wire.number), Some(1));
    assert_eq!(made(&attempts), 1);
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_is_replaced_by_who_asks_next() {
    let (link, attempts) = Port::link([]);
    let first = link.connected().await.unwrap();
    first.break_off();
    assert!(link.usable().is_none());
    sleep(Duration::from_secs(60)).await;
    assert_eq!((made(&attempts), first.retired()), (1, 0), "it does nothing by itself");
    let second = link.connected().await.unwrap();
    assert_eq!((second.number, second.replaced), (2, Some(1)));
    assert_eq!((first.retired(), second.retired()), (1, 0));
    // Nobody but its callers holds the one that was replaced.
    assert_eq!(Arc::strong_count(&first), 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_told_to_all_who_waited_and_to_nobody_else() {
    let (link, attempts) = Port::link([Fails { after: 100 }, Fails { after: 0 }]);
    let (a, b) = tokio::join!(link.connected(), link.connected());
    assert_eq!(
        (a.unwrap_err(), b.unwrap_err()),
        ("attempt 1 failed".into(), "attempt 1 failed".into())
    );
    assert_eq!(link.connected().await.unwrap_err(), "attempt 2 failed");
    assert_eq!(link.connected().await.unwrap().number, 3);
    assert_eq!(made(&attempts), 3);
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_stays_where_none_can_be_opened() {
    let (link, _) = Port::link([Opens { after: 0 }, Fails { after: 0 }]);
    let first = link.connected().await.unwrap();
    first.break_off();
    link.connected().await.unwrap_err();
    assert_eq!(first.retired(), 0, "nothing has taken its place");
    // It may have been slow, and not broken.
    first.broken.store(false, Ordering::Relaxed);
    assert_eq!(link.connected().await.unwrap().number, 1);
}

#[tokio::test(start_paused = true)]
async fn who_comes_late_does_not_wait_for_an_attempt_that_takes_long() {
    let (link, attempts) = Port::link([Opens { after: 5_000 }, Opens { after: 10 }]);
    let began = Instant::now();
    let slow = tokio::spawn({
        let link = link.clone();
        async move { link.connected().await }
    });
    sleep(Duration::from_millis(499)).await;
    assert!(timeout(Duration::ZERO, link.connected()).await.is_err());
    assert_eq!(made(&attempts), 1, "soon after");
    sleep(Duration::from_millis(1)).await;
    let second = link.connected().await.unwrap();
    assert_eq!((second.number, began.elapsed()), (2, Duration::from_millis(510)));
    // The slow one finds that there is a connection, and gives it to who waited.
    let slow = slow.await.unwrap().unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    assert!(Arc::ptr_eq(&slow, &second));
    assert_eq!((second.retired(), made(&attempts)), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_panics_is_abandoned() {
    let (link, _) = Port::link([Panics]);
    assert_eq!(link.connected().await.unwrap_err(), "abandoned");
    assert_eq!(link.connected().await.unwrap().number, 2);
}

#[test]
fn a_link_outlives_the_runtime_of_an_attempt() {
    let (link, attempts) = Port::link([Opens { after: 60_000 }]);
    let first = Runtime::new().unwrap();
    let mut waiting = Box::pin(link.connected());
    first.block_on(async { timeout(Duration::ZERO, &mut waiting).await.unwrap_err() });
    while made(&attempts) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    first.shutdown_background();
    let second = Runtime::new().unwrap();
    assert_eq!(second.block_on(waiting).unwrap_err(), "abandoned");
    assert_eq!(second.block_on(link.connected()).unwrap().number, 2);
}
