//! Five nodes, of which the same two fail in any way at any time.

use std::cell::Cell;
use std::time::Duration;

use lockcore::{Acquire, Claim, HolderId, LockBackend, LockKey, LockManager};
use lockcore_combinators::Quorum;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::common::{Mood, Node, Tokens};
use crate::history::{History, Stretch};
use crate::simulate;

const MAX_TTL: Duration = Duration::from_secs(10);
const TTL: Duration = Duration::from_secs(3);
const RUN: Duration = Duration::from_secs(20);
const KEY: &str = "k";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Clocks differ by little, and data is lost.
    Losing,
    /// Clocks are wrong, go back and forth, or there are none; data is kept.
    WrongClocks,
}

/// Two guards are never valid at once, tokens rise, and locks are not lost. That is, hardly: a
/// majority may consist of the two and one more, where others were being tried by somebody else at
/// that moment, and until they are joined the loss of the two is that of the lock.
#[test]
fn a_minority_may_lose_its_data() {
    runs(Kind::Losing);
}

#[test]
fn clocks_may_be_wrong() {
    runs(Kind::WrongClocks);
}

fn runs(kind: Kind) {
    let counts = Cell::new((0, 0));
    simulate(300, async |seed| {
        let (held, lost) = run(seed, kind).await?;
        counts.set((counts.get().0 + held, counts.get().1 + lost));
        Ok(())
    });
    let (held, lost) = counts.get();
    println!("{kind:?}: {held} locks were held, {lost} of them lost");
    let most = if kind == Kind::Losing { held / 2000 } else { 0 };
    assert!(lost <= most, "{lost} of {held} locks were lost");
}

/// How many locks were held, and lost.
async fn run(seed: u64, kind: Kind) -> Result<(usize, usize), String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let slow = random.u64(1..60);
    let nodes: Vec<_> = (0..5)
        .map(|n| {
            let tokens = match kind {
                Kind::Losing => Tokens::Clock(random.i64(-200..200)),
                Kind::WrongClocks => [
                    Tokens::Clock(random.i64(-3_600_000..3_600_000)),
                    Tokens::PerKey,
                    Tokens::Revision,
                ][random.usize(..3)],
            };
            let node = Node::new(tokens);
            node.delays(seed + n, 0, slow);
            node
        })
        .collect();
    sleep(MAX_TTL).await;
    let (history, end) = (History::default(), Instant::now() + RUN);
    let mut clients = JoinSet::new();
    for who in 0..3 {
        let named = nodes.iter().enumerate();
        let builder = named.fold(Quorum::builder().max_ttl(MAX_TTL), |builder, (n, node)| {
            builder.node(format!("n{n}"), node.clone())
        });
        let quorum = builder.build().map_err(|error| error.to_string())?;
        let random = fastrand::Rng::with_seed(seed * 3 + who);
        clients.spawn(client(who, quorum, history.clone(), random, end));
    }
    let faults = tokio::spawn(faults(nodes, random, kind));
    let mut lost = Vec::new();
    while let Some(client) = clients.join_next().await {
        lost.extend(client.map_err(|error| error.to_string())??);
    }
    faults.abort();
    history.check()?;
    for lost in &lost {
        println!("seed {seed}: {lost}");
    }
    if history.len() < 3 {
        return Err(format!("only {} locks were held", history.len()));
    }
    Ok((history.len(), lost.len()))
}

/// Breaks and mends the first two nodes.
async fn faults(nodes: Vec<Node>, mut random: fastrand::Rng, kind: Kind) {
    loop {
        sleep(Duration::from_millis(random.u64(..3000))).await;
        let node = &nodes[random.usize(..2)];
        match random.u32(..8) {
            0 => node.be(Mood::Paused),
            1 => node.be(Mood::Down),
            2 => node.be(Mood::Sour),
            3 => node.delays(random.u64(..), 100, 800),
            4 => node.delays(random.u64(..), 0, 5),
            5 if kind == Kind::Losing => node.store.wipe(),
            5 => node.store.set_clock(random.i64(-3_600_000..3_600_000)),
            _ => node.be(Mood::Well),
        }
    }
}

/// Takes and gives back the lock; what it lost.
async fn client(
    who: u64,
    quorum: Quorum,
    history: History,
    mut random: fastrand::Rng,
    end: Instant,
) -> Result<Vec<String>, String> {
    let locks = LockManager::builder(quorum.clone()).ttl(TTL).build().expect("settings");
    let lock = locks.lock(KEY).expect("a key");
    let mut lost = Vec::new();
    while Instant::now() < end {
        sleep(Duration::from_millis(random.u64(..500))).await;
        let who = usize::try_from(who).expect("few");
        match random.u32(..10) {
            // A process that dies: its lease ends with its ttl.
            0 => {
                let key = LockKey::new(KEY).expect("a key");
                let claim = Claim::new(key, HolderId::random(), TTL);
                let asked = Instant::now();
                if let Ok(Acquire::Acquired(lease)) = quorum.acquire(&claim).await {
                    let (began, ended) = (Instant::now(), asked + lease.ttl.mul_f64(0.99));
                    let tokens = (lease.token, lease.token);
                    history.add(Stretch { who, key: KEY, tokens, began, ended: ended.max(began) });
                }
            }
            // A caller that stops waiting at any moment.
            1 => {
                let limit = Duration::from_millis(random.u64(..300));
                let _ = tokio::time::timeout(limit, lock.acquire()).await;
            }
            _ => {
                let guard = match lock.acquire_timeout(Duration::from_secs(5)).await {
                    Ok(guard) => guard,
                    Err(error) if error.kind() == lockcore::ErrorKind::Contended => continue,
                    Err(error) => return Err(format!("a majority is well: {error:?}")),
                };
                let (began, first) = (Instant::now(), guard.fencing_token());
                let work = Duration::from_millis(random.u64(..4000));
                tokio::select! {
                    reason = guard.lost() => lost.push(format!("{who} at {began:?}: {reason}")),
                    () = sleep(work) => {}
                }
                let (ended, tokens) = (Instant::now(), (first, guard.fencing_token()));
                history.add(Stretch { who, key: KEY, tokens, began, ended });
                if random.bool() {
                    let _ = guard.release().await;
                } else {
                    drop(guard);
                }
            }
        }
    }
    Ok(lost)
}
