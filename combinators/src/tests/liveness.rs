//! A minority that hangs: locks are taken all the same, about as fast, and nobody waits for long.

use lockcore::LockManager;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::*;

const LEASE: Duration = Duration::from_secs(10);
const HOLD: Duration = Duration::from_millis(5);
const WARM_UP: Duration = Duration::from_millis(500);
const TIME: Duration = Duration::from_secs(3);

/// Nodes that take up to 3 ms each way.
fn near(seed: u64, count: u64) -> Vec<Node> {
    let node = |n| {
        let node = Node::new(Tokens::Clock(0));
        node.delays(count * seed + n, 0, 3);
        node
    };
    (0..count).map(node).collect()
}

/// A client in a process of its own.
fn client(nodes: &[Node]) -> LockManager {
    LockManager::builder(over(nodes)).ttl(LEASE).build().expect("settings")
}

fn hang(nodes: &[Node], seed: u64, hung: usize) {
    for node in nodes.iter().cycle().skip(usize::try_from(seed).expect("few")).take(hung) {
        node.be(Mood::Paused);
    }
}

/// How many locks of one key so many clients took in a while, and the longest that one waited.
async fn crowd(nodes: &[Node], clients: usize) -> (usize, Duration) {
    let mut running = JoinSet::new();
    for _ in 0..clients {
        let lock = client(nodes).lock("hot").expect("a key");
        running.spawn(async move {
            let end = Instant::now() + WARM_UP + TIME;
            let (warm, mut count, mut longest) = (Instant::now() + WARM_UP, 0, Duration::ZERO);
            while Instant::now() < end {
                let began = Instant::now();
                let guard = timeout(2 * LEASE, lock.acquire()).await;
                if began >= warm {
                    longest = longest.max(began.elapsed());
                    count += 1;
                }
                let Ok(Ok(guard)) = guard else { continue };
                sleep(HOLD).await;
                let _ = guard.release().await;
                // It goes home.
                sleep(Duration::from_millis(1)).await;
            }
            (count, longest)
        });
    }
    let all = running.join_all().await;
    (all.iter().map(|one| one.0).sum(), all.iter().map(|one| one.1).max().unwrap_or_default())
}

/// With 5 ms holds: at least half of the locks, and no wait above 2 s.
async fn compare(seed: u64, count: u64, hung: usize, clients: usize) {
    let nodes = near(seed, count);
    sleep(MAX_TTL).await;
    let (well, longest_well) = crowd(&nodes, clients).await;
    hang(&nodes, seed, hung);
    let (with, longest) = crowd(&nodes, clients).await;
    println!(
        "{hung} of {count} hung, {clients} clients: {with} locks in place of {well}; longest \
         {longest:?} in place of {longest_well:?}"
    );
    assert!(with * 2 >= well, "{with} locks in place of {well}");
    // Nobody is first in line, so the more there are the longer one may wait.
    let most = (2 * longest_well).max(Duration::from_secs(2));
    assert!(longest <= most, "one waited for {longest:?}");
}

pub(super) async fn a_crowd_goes_on_with_a_hung_minority() {
    compare(2, 5, 2, 10).await;
}

#[test]
fn a_hung_minority_stops_nobody() {
    for (count, hung) in [(5, 1), (5, 2), (3, 1)] {
        for (clients, seed) in [(3, 0), (3, 1), (10, 2)] {
            paused(seed, compare(seed, count, hung, clients));
        }
    }
    paused(3, compare(3, 5, 1, 30));
}

/// Somebody is in within a second.
async fn race(seed: u64, count: u64, hung: usize, clients: usize) {
    let nodes = near(seed, count);
    sleep(MAX_TTL).await;
    hang(&nodes, seed, hung);
    let mut running = JoinSet::new();
    for _ in 0..clients {
        let lock = client(&nodes).lock("free").expect("a key");
        running.spawn(async move { lock.acquire().await });
    }
    let (took, first) = elapsed(running.join_next()).await;
    assert!(matches!(first, Some(Ok(Ok(_)))), "seed {seed}: {first:?}");
    assert!(took <= Duration::from_secs(1), "seed {seed}: after {took:?}");
}

pub(super) async fn some_are_in_soon() {
    for seed in 0..20 {
        race(seed, 5, 1, 10).await;
    }
}

#[test]
fn a_free_key_is_taken() {
    paused(0, some_are_in_soon());
    for (count, hung, clients) in [(5, 1, 3), (5, 2, 10), (3, 1, 10), (5, 1, 30)] {
        for seed in 0..10 {
            paused(seed, race(seed, count, hung, clients));
        }
    }
}

/// Runs it on a clock of its own.
fn paused(seed: u64, work: impl Future<Output = ()>) {
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(work);
}
