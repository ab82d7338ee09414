//! How often the nodes are asked for one acquisition, as they count it themselves.

use std::time::Instant;

use integration::nodes::{lease, quorum};
use integration::store::redis::ask;
use leaselock::redis::redis::aio::MultiplexedConnection;
use leaselock::{Acquire, LockBackend, Quorum};
use lockcore_conformance::proxy::{Direction, Mode, Proxy};
use tokio::time::sleep;

use super::*;

const TIMES: usize = 200;
const TTL: Duration = Duration::from_secs(3);

/// An acquisition takes a hundredth of this, unless the machine did something else.
const STOOD_STILL: Duration = Duration::from_millis(50);
/// Far nodes are this much farther away from one to the next.
const FARTHER: Duration = Duration::from_millis(3);

/// A look at the nodes past the locks.
struct Counts(Vec<MultiplexedConnection>);

impl Counts {
    /// How many scripts each node was asked to run.
    async fn requests(&mut self) -> Vec<u64> {
        let mut all = Vec::new();
        for node in &mut self.0 {
            let info: String = ask(node, &["INFO", "commandstats"]).await.expect("INFO");
            let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
            let count = line.and_then(|line| line.split(',').next());
            all.push(count.map_or(0, |count| count.parse().expect("a number")));
        }
        all
    }

    /// Waits until every node has the lease with this token at least: then nobody is asked any
    /// more. Which ones have exactly this one.
    async fn settled(&mut self, key: &str, token: u64) -> Vec<bool> {
        let mut exactly = Vec::new();
        for node in &mut self.0 {
            let found = loop {
                match lease(node, key).await {
                    Some(record) if record.token >= token => break record.token,
                    _ => sleep(Duration::from_millis(1)).await,
                }
            };
            exactly.push(found == token);
        }
        exactly
    }

    /// A process does not know the clocks of the nodes before its first acquisition, and asks on each
    /// new connection for the incarnation by a script of its own.
    async fn first(&mut self, quorum: &Quorum, key: &str) {
        let asked = claim(key, TTL);
        let answer = quorum.acquire(&asked).await.expect("all well");
        let Acquire::Acquired(lease) = answer else { panic!("{key} is free: {answer:?}") };
        self.settled(key, lease.token).await;
        self.released(quorum, &asked).await;
    }

    /// Releases, and waits until nobody is asked any more.
    async fn released(&mut self, quorum: &Quorum, asked: &Claim) {
        quorum.release(asked).await.expect("held");
        for node in &mut self.0 {
            while lease(node, asked.key.as_str()).await.is_some() {
                sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// How many rounds the acquisition of a free key takes, and whether nobody was asked twice.
    async fn rounds(&mut self, quorum: &Quorum, key: &str) -> (u64, bool) {
        let before = self.requests().await;
        let asked = claim(key, TTL);
        let began = Instant::now();
        let answer = quorum.acquire(&asked).await.expect("all well");
        let took = began.elapsed();
        let Acquire::Acquired(lease) = answer else { panic!("{key} is free: {answer:?}") };
        let exactly = self.settled(key, lease.token).await;
        let after = self.requests().await;
        let calls: Vec<_> =
            after.iter().zip(&before).map(|(after, before)| after - before).collect();
        self.released(quorum, &asked).await;
        assert!(calls.iter().all(|calls| *calls >= 1), "all are asked: {calls:?}");
        // A machine that stands still is waited for no longer than it takes, and asked again.
        let few = calls.iter().all(|calls| *calls <= 2);
        assert!(few || took > STOOD_STILL, "more than two rounds: {calls:?}, {took:?}");
        // In a majority the first answer was the one that counted.
        let first = calls.iter().zip(&exactly).filter(|(calls, exactly)| **calls == 1 && **exactly);
        let rounds = if first.count() > self.0.len() / 2 { 1 } else { 2 };
        (rounds, calls.iter().all(|calls| *calls == 1))
    }
}

async fn counts(nodes: &Nodes) -> Counts {
    let counts = nodes.connections().await;
    // The first call of all puts the scripts into the server.
    let warm = nodes.quorum(MAX_TTL);
    let asked = claim("warm", TTL);
    warm.acquire(&asked).await.expect("all well");
    warm.renew(&asked).await.expect("held");
    warm.release(&asked).await.expect("held");
    sleep(Duration::from_millis(100)).await;
    Counts(counts)
}

/// Takes free keys: so many, by these in turns.
async fn take(name: &str, nodes: &Nodes, quorums: &[Quorum], key: impl Fn(usize) -> String) {
    let mut counts = counts(nodes).await;
    for (n, quorum) in quorums.iter().enumerate() {
        counts.first(quorum, &format!("first of {n}")).await;
    }
    let (mut once, mut nobody_twice) = (0, 0);
    for n in 0..TIMES {
        let quorum = &quorums[n % quorums.len()];
        let (rounds, all_once) = counts.rounds(quorum, &key(n)).await;
        once += usize::from(rounds == 1);
        nobody_twice += usize::from(all_once);
    }
    println!(
        "{} nodes, {name}: {once} of {TIMES} acquisitions in one round, the others in two; in \
         {nobody_twice} nobody was asked twice",
        nodes.count()
    );
    assert!(once > TIMES / 2, "{name}: only {once} of {TIMES} in one round");
}

async fn of(count: usize) {
    let nodes = Nodes::open(count, MAX_TTL).await;
    let quorum = || nodes.quorum(MAX_TTL);
    let fresh = |name: &'static str| move |n| format!("{name} {n}");
    take("fresh keys", &nodes, &[quorum()], fresh("a")).await;
    take("one key", &nodes, &[quorum()], |_| "same".to_owned()).await;
    let two = [quorum(), quorum()];
    take("fresh keys, two processes in turns", &nodes, &two, fresh("b")).await;
    take("one key, two processes in turns", &nodes, &two, |_| "shared".to_owned()).await;
}

/// What differs from node to node is learned with the first answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_nodes_at_different_distances() {
    limited(async {
        let nodes = Nodes::open(5, MAX_TTL).await;
        let (mut proxies, mut urls) = (Vec::new(), Vec::new());
        for (n, far) in (0..nodes.count()).zip(0..) {
            let proxy = Proxy::start(nodes.server(n).addr()).await.expect("a port");
            proxy.set(Direction::ToServer, Mode::Delay(FARTHER * far));
            urls.push(nodes.server(n).url_at(proxy.addr()));
            proxies.push(proxy);
        }
        let quorum = || quorum(&urls, MAX_TTL);
        take("fresh keys, far away", &nodes, &[quorum()], |n| format!("c {n}")).await;
        let two = [quorum(), quorum()];
        take("one key, far away, two processes in turns", &nodes, &two, |_| "far".to_owned()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_nodes() {
    limited(of(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_five_nodes() {
    limited(of(5)).await;
}
