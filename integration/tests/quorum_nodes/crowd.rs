//! Many want one key while a minority of the nodes hangs.

use std::time::Instant;

use leaselock::LockManager;
use lockcore_conformance::Fault;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::*;

const TTL: Duration = Duration::from_secs(3);
const HOLD: Duration = Duration::from_millis(5);
const WARM_UP: Duration = Duration::from_secs(1);
const TIME: Duration = Duration::from_secs(3);

/// How many locks so many clients took, each with connections of its own, and the longest wait.
async fn crowd(nodes: &Nodes, clients: usize, key: &str) -> (usize, Duration) {
    let mut running = JoinSet::new();
    let began = Instant::now();
    for _ in 0..clients {
        let locks = LockManager::builder(nodes.quorum(MAX_TTL)).ttl(TTL).build();
        let lock = locks.expect("settings").lock(key).expect("a key");
        running.spawn(async move {
            let (mut count, mut longest) = (0, Duration::ZERO);
            while began.elapsed() < WARM_UP + TIME {
                let asked = Instant::now();
                let guard = lock.acquire().await.expect("a majority is well");
                if began.elapsed() > WARM_UP {
                    count += 1;
                    longest = longest.max(asked.elapsed());
                }
                sleep(HOLD).await;
                guard.release().await.expect("held");
            }
            (count, longest)
        });
    }
    let all = running.join_all().await;
    let longest = all.iter().map(|(_, longest)| *longest).max().unwrap_or_default();
    (all.iter().map(|(count, _)| count).sum(), longest)
}

/// How often it is tried: other work on the machine slows one of the two crowds now and then.
const ATTEMPTS: usize = 3;

async fn goes_on(count: usize, hung: usize, clients: usize) {
    let nodes = Nodes::open(count, MAX_TTL).await;
    for attempt in 1..=ATTEMPTS {
        let (well, longest_well) = crowd(&nodes, clients, "well").await;
        for node in 0..hung {
            nodes.inflict(node, Fault::Pause).await;
        }
        let (with, longest) = crowd(&nodes, clients, "hung").await;
        for node in 0..hung {
            nodes.inflict(node, Fault::Resume).await;
        }
        println!(
            "{hung} of {count} hung, {clients} clients: {with} locks in {TIME:?}, longest wait \
             {longest:.1?}; all well: {well}, {longest_well:.1?}"
        );
        // Before, the hung node was waited for after each split vote: a twelfth of the locks, and
        // none for 20 s with ten clients.
        if with * 3 >= well && longest < TTL.max(3 * longest_well) {
            return;
        }
        assert!(attempt < ATTEMPTS, "{with} locks in place of {well}, one after {longest:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_goes_on_with_hung_nodes() {
    limited(async {
        goes_on(5, 1, 10).await;
        goes_on(5, 2, 5).await;
        goes_on(3, 1, 3).await;
    })
    .await;
}
