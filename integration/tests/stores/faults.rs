//! A server that is paused, killed and emptied while its locks are held, as users see it: two
//! managers stand for two processes, and a fenced register watches.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use integration::store::{Kind, Store};
use integration::{SLACK, eventually, limited, on_every_store};
use leaselock::{ErrorKind, FenceRegister, LockGuard, LockManager, LostReason};
use lockcore_conformance::Fault;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

const TTL: Duration = Duration::from_secs(3);
/// When a holder asks next, at the latest: a third of the ttl after it asked last.
const RENEWAL: Duration = Duration::from_secs(1);
/// `lost()` is told at the deadline, and on a real clock at most this late.
const TOLD: Duration = Duration::from_secs(1);

async fn manager(store: &Store) -> LockManager {
    let backend = leaselock::backend(&store.url()).await.expect("a server");
    LockManager::builder(backend).ttl(TTL).build().expect("settings")
}

/// The first holder's guard, where the second can look at it.
type Slot = Arc<Mutex<Option<LockGuard>>>;

fn is_valid(slot: &Slot) -> bool {
    slot.lock().expect("no panic").as_ref().is_some_and(LockGuard::is_valid)
}

/// One manager holds a key, another waits for it.
struct Scene {
    first: LockManager,
    second: LockManager,
    register: FenceRegister<&'static str>,
    held: Slot,
    first_token: u64,
    /// How late the first was told of its loss, when, and why.
    lost: JoinHandle<(Duration, Instant, LostReason)>,
    /// The second's guard, when it had it, and whether the first's was valid then.
    next: JoinHandle<(LockGuard, Instant, bool)>,
}

impl Scene {
    async fn set(store: &Store) -> Self {
        let (first, second) = tokio::join!(manager(store), manager(store));
        let guard = first.lock("k").expect("a key").acquire().await.expect("a server");
        let first_token = guard.fencing_token();
        let register = FenceRegister::new("nobody");
        register.write(first_token, "first").expect("the newest");
        let lost = guard.lost();
        let held = Slot::new(Mutex::new(Some(guard)));
        let lost = tokio::spawn(told(held.clone(), lost));
        let next = tokio::spawn({
            let (second, held) = (second.clone(), held.clone());
            async move {
                let guard = second.lock("k").expect("a key").acquire().await.expect("granted");
                let granted = Instant::now();
                let both = is_valid(&held) && guard.is_valid();
                (guard, granted, both)
            }
        });
        eventually(async || store.is_watched("k").await).await;
        Self { first, second, register, held, first_token, lost, next }
    }

    /// What holds after every accident once the second has the key and the first has lost it.
    async fn ends_well(self, store: &Store, next: LockGuard) {
        let next_token = next.fencing_token();
        assert!(next_token > self.first_token);
        self.register.write(next_token, "second").expect("the newest");
        self.register.write(self.first_token, "late").expect_err("stale");
        assert!(!is_valid(&self.held));
        let held = self.held.lock().expect("no panic").take().expect("a guard");
        let released = held.release().await;
        assert_eq!(released.expect_err("lost").kind(), ErrorKind::Lost);
        assert!(next.is_valid(), "the first's release has touched the second");
        next.release().await.expect("held");

        let guard = self.first.lock("k").expect("a key").acquire().await.expect("a server");
        assert!(guard.fencing_token() > next_token);
        self.register.write(guard.fencing_token(), "first").expect("the newest");
        drop(guard);
        self.first.drain().await;
        self.second.drain().await;
        store.nothing_left(TTL).await;
    }
}

/// Waits for the loss: how long after the deadline it was told, when, and why.
async fn told(
    held: Slot,
    lost: impl Future<Output = LostReason>,
) -> (Duration, Instant, LostReason) {
    let mut lost = pin!(lost);
    let mut deadline = Instant::now();
    loop {
        let now = Instant::now();
        let left = held.lock().expect("no panic").as_ref().map(LockGuard::remaining);
        if let Some(left) = left.filter(|left| !left.is_zero()) {
            deadline = now + left;
        }
        tokio::select! {
            biased;
            reason = &mut lost => {
                let now = Instant::now();
                return (now.saturating_duration_since(deadline), now, reason);
            }
            () = sleep(Duration::from_millis(2)) => {}
        }
    }
}

async fn paused_for_twice_the_ttl_while_held(kind: Kind) {
    let store = Store::start(kind).await;
    let mut scene = Scene::set(&store).await;
    let backend = leaselock::backend(&store.url()).await.expect("a server");
    let impatient = LockManager::builder(backend).ttl(TTL).retry_for(Duration::from_millis(500));
    let impatient = impatient.build().expect("settings");
    store.inflict(Fault::Pause).await;
    let paused = Instant::now();

    // Who wants another key is told, and leaves nothing.
    let asked = impatient.lock("other").expect("a key").try_acquire().await;
    let kind = asked.expect_err("paused").kind();
    assert!(matches!(kind, ErrorKind::Unavailable | ErrorKind::Ambiguous), "{kind}");
    println!("paused: an impatient caller was told `{kind}` after {:?}", paused.elapsed());
    assert!(paused.elapsed() < Duration::from_secs(1) + SLACK, "{:?}", paused.elapsed());

    let (late, _, reason) = (&mut scene.lost).await.expect("no panic");
    println!("paused: lost() {late:?} after the deadline: {reason}");
    assert!(late < TOLD, "{late:?}");
    assert_eq!(reason, LostReason::Expired);
    assert!(!is_valid(&scene.held));
    assert!(!scene.next.is_finished(), "nobody can grant it");

    sleep((2 * TTL).saturating_sub(paused.elapsed())).await;
    store.inflict(Fault::Resume).await;
    let resumed = Instant::now();
    let (next, _, both) = (&mut scene.next).await.expect("no panic");
    println!("paused: the waiter had the lock {:?} after the end", resumed.elapsed());
    assert!(!both, "two valid guards at once");
    assert!(resumed.elapsed() < TTL + Duration::from_secs(1) + SLACK);
    scene.ends_well(&store, next).await;
    impatient.drain().await;
}

/// After an accident that makes the store forget: two may believe until the first asks again.
async fn forgotten(name: &str, store: &Store, faults: &[Fault]) {
    let mut scene = Scene::set(store).await;
    for &fault in faults {
        store.inflict(fault).await;
    }
    let done = Instant::now();
    let (late, lost, reason) = (&mut scene.lost).await.expect("no panic");
    let (next, granted, both) = (&mut scene.next).await.expect("no panic");
    let overlap = lost.saturating_duration_since(granted);
    println!(
        "{name}: lost() {:?} after it, {late:?} after the deadline: {reason}; the waiter had the \
         lock {:?} after it; {overlap:?} with two valid guards",
        lost.saturating_duration_since(done),
        granted.saturating_duration_since(done),
    );
    assert!(late < TOLD, "{late:?}");
    assert!(overlap < RENEWAL + TOLD, "{overlap:?}");
    // It is not seen to overlap where it did not.
    assert!(overlap > Duration::ZERO || !both);
    assert!(granted.saturating_duration_since(done) < TTL + Duration::from_secs(1) + SLACK);
    scene.ends_well(store, next).await;
}

async fn wiped_while_held(kind: Kind) {
    let store = Store::start(kind).await;
    forgotten("wiped", &store, &[Fault::Wipe]).await;
}

async fn killed_for_longer_than_the_ttl_while_held(kind: Kind) {
    let store = Store::start(kind).await;
    let mut scene = Scene::set(&store).await;
    store.inflict(Fault::Kill).await;
    let (late, _, reason) = (&mut scene.lost).await.expect("no panic");
    println!("killed: lost() {late:?} after the deadline: {reason}");
    assert!(late < TOLD, "{late:?}");
    assert_eq!(reason, LostReason::Expired);
    store.inflict(Fault::Restart).await;
    let (next, _, both) = (&mut scene.next).await.expect("no panic");
    assert!(!both, "two valid guards at once");
    scene.ends_well(&store, next).await;
}

async fn killed_and_restarted_with_its_data_while_held(kind: Kind) {
    let store = Store::start_durable(kind).await;
    let mut scene = Scene::set(&store).await;
    store.inflict(Fault::Kill).await;
    store.inflict(Fault::Restart).await;
    // The lease was read back: it is renewed on, or the server was away for too long.
    let renewed = async {
        let left =
            || scene.held.lock().expect("no panic").as_ref().map_or(TTL, LockGuard::remaining);
        // Time alone only takes from it.
        let mut before = left();
        loop {
            sleep(Duration::from_millis(2)).await;
            let now = left();
            if now > before {
                break;
            }
            before = now;
        }
    };
    tokio::select! {
        () = renewed => {
            println!("restarted with its data: renewed on");
            assert!(!scene.next.is_finished(), "the lease stands");
            assert_eq!(store.leases().await, ["k"]);
            let held = scene.held.lock().expect("no panic").take().expect("a guard");
            held.release().await.expect("held");
        }
        lost = &mut scene.lost => {
            let (late, _, reason) = lost.expect("no panic");
            println!("restarted with its data: too late; lost() {late:?} after: {reason}");
            assert!(late < TOLD, "{late:?}");
        }
    }
    let (next, _, both) = (&mut scene.next).await.expect("no panic");
    assert!(!both, "two valid guards at once");
    assert!(next.fencing_token() > scene.first_token);
    next.release().await.expect("held");
    scene.held.lock().expect("no panic").take();
    scene.first.drain().await;
    scene.second.drain().await;
    store.nothing_left(TTL).await;
}

/// An acquisition: when it was asked for, when it was there, and its token.
type Grant = (Instant, Instant, u64);

/// Locks, writes and releases for as long as it is told to, and never gives up.
async fn work(
    locks: LockManager,
    register: Arc<FenceRegister<u64>>,
    grants: Arc<Mutex<Vec<Grant>>>,
    refused: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
) -> Instant {
    let lock = locks.lock("k").expect("a key");
    loop {
        let asked = Instant::now();
        match lock.acquire_timeout(Duration::from_secs(1)).await {
            Ok(guard) => {
                let (there, token) = (Instant::now(), guard.fencing_token());
                grants.lock().expect("no panic").push((asked, there, token));
                let written = async {
                    let seen = register.read(token)?;
                    sleep(Duration::from_millis(5)).await;
                    register.write(token, seen + 1)
                };
                if let Ok(Err(_stale)) = guard.run(written).await {
                    refused.fetch_add(1, Ordering::Relaxed);
                }
                let released = guard.release().await;
                if let Err(error) = released {
                    assert_ne!(error.kind(), ErrorKind::InvalidInput, "{error}");
                    assert_ne!(error.kind(), ErrorKind::Rejected, "{error}");
                } else if end.load(Ordering::Relaxed) {
                    return Instant::now();
                }
            }
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::InvalidInput, "{error}");
                assert_ne!(error.kind(), ErrorKind::Rejected, "{error}");
            }
        }
    }
}

async fn a_crowd_lives_through_all_of_it(kind: Kind) {
    let store = Store::start(kind).await;
    let (first, second) = tokio::join!(manager(&store), manager(&store));
    let register = Arc::new(FenceRegister::new(0));
    let grants = Arc::new(Mutex::new(Vec::new()));
    let (refused, end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut workers = JoinSet::new();
    for locks in [&first, &second] {
        for _ in 0..3 {
            let shared = (register.clone(), grants.clone(), refused.clone(), end.clone());
            workers.spawn(work(locks.clone(), shared.0, shared.1, shared.2, shared.3));
        }
    }
    let granted = || grants.lock().expect("no panic").len();
    let some_more = async || {
        let before = granted();
        eventually(async || granted() >= before + 20).await;
    };
    some_more().await;
    store.inflict(Fault::Pause).await;
    sleep(2 * TTL).await;
    store.inflict(Fault::Resume).await;
    some_more().await;
    for faults in [&[Fault::Wipe][..], &[Fault::Kill, Fault::Restart], &[Fault::Wipe]] {
        for &fault in faults {
            store.inflict(fault).await;
        }
        some_more().await;
    }
    end.store(true, Ordering::Relaxed);
    let told = Instant::now();
    while let Some(worker) = workers.join_next().await {
        worker.expect("no panic");
    }
    println!("crowd: all at their end {:?} after they were told", told.elapsed());
    first.drain().await;
    second.drain().await;

    let mut grants = grants.lock().expect("no panic").clone();
    grants.sort_by_key(|&(_, there, _)| there);
    // Greater than whatever was granted before it was asked for.
    let (mut newest, mut before) = (0, grants.iter().peekable());
    let mut asked = grants.clone();
    asked.sort_by_key(|&(asked, ..)| asked);
    for (asked, _, token) in asked {
        while let Some((_, _, earlier)) = before.next_if(|&&(_, there, _)| there < asked) {
            newest = newest.max(*earlier);
        }
        assert!(token > newest, "tokens fell: {token} after {newest}");
    }
    let mut tokens: Vec<_> = grants.iter().map(|&(.., token)| token).collect();
    tokens.sort_unstable();
    assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "a token was granted twice");
    println!(
        "crowd: {} acquisitions, {} additions, {} refused by the register",
        grants.len(),
        register.read(register.token()).expect("the newest"),
        refused.load(Ordering::Relaxed),
    );
    let left = store.nothing_left(TTL).await;
    println!("crowd: nothing left after {left:?}");
}

on_every_store! {
    paused_for_twice_the_ttl_while_held,
    wiped_while_held,
    killed_for_longer_than_the_ttl_while_held,
    killed_and_restarted_with_its_data_while_held,
    a_crowd_lives_through_all_of_it,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_restarted_empty_while_held() {
    // What the others lose only with their disk, Redis forgets by default.
    limited(async {
        let store = Store::start(Kind::Redis).await;
        forgotten("restarted empty", &store, &[Fault::Kill, Fault::Restart]).await;
    })
    .await;
}
