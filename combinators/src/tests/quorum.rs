//! Agreement: equal tokens, rounds, times.

use lockcore::{LockManager, Release, Renew};

use super::*;

/// A token beyond those of the nodes' clocks.
const FAR: u64 = 4_000_000_000_000_000;

fn tokens(nodes: &[Node]) -> Vec<Option<u64>> {
    let key = LockKey::new(KEY).expect("a key");
    nodes.iter().map(|node| node.store.info(&key).map(|info| info.token)).collect()
}

/// Exactly the answered token is in a majority of the stores, however they make theirs.
pub(super) async fn what_is_answered_is_in_a_majority() {
    let (quorum, nodes) = quorum(3).await;
    nodes[0].store.set_clock(-5000);
    nodes[2].store.set_clock(5000);
    let mut last = 0;
    for _ in 0..5 {
        let asked = claim();
        let lease = acquired(&quorum, &asked).await;
        let equal = tokens(&nodes).iter().filter(|token| **token == Some(lease.token)).count();
        assert!(equal >= 2, "{lease:?} in {:?}", tokens(&nodes));
        assert!(lease.token > last, "{lease:?} after {last}");
        last = lease.token;
        quorum.release(&asked).await.expect("held");
    }
}

#[tokio::test(start_paused = true)]
async fn equality() {
    what_is_answered_is_in_a_majority().await;
}

/// The time in the answer counts from the call, whatever was asked how often in it.
pub(super) async fn the_lease_stands_for_what_was_answered() {
    let (quorum, nodes) = quorum(3).await;
    for node in &nodes {
        node.delays(0, 100, 100);
    }
    let (began, asked) = (tokio::time::Instant::now(), claim());
    let lease = acquired(&quorum, &asked).await;
    assert_eq!(began.elapsed(), 400 * MS, "two rounds");
    let key = LockKey::new(KEY).expect("a key");
    for node in &nodes {
        let remaining = node.store.info(&key).expect("held").remaining;
        assert!(began + lease.ttl <= tokio::time::Instant::now() + remaining, "{lease:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn time() {
    the_lease_stands_for_what_was_answered().await;
}

/// A store that rounds up promises more than others remember; a quorum does not pass that on.
#[tokio::test(start_paused = true)]
async fn no_lease_is_longer_than_the_gate() {
    let (_, nodes) = quorum(3).await;
    let mut builder = Quorum::builder().max_ttl(Duration::from_millis(5500));
    for (n, node) in nodes.iter().enumerate() {
        node.store.round_to(Duration::from_secs(1));
        builder = builder.node(format!("n{n}"), node.clone());
    }
    let quorum = builder.build().expect("three");
    let mut claim = claim();
    claim.ttl = Duration::from_millis(5500);
    assert_eq!(acquired(&quorum, &claim).await.ttl, claim.ttl);
}

/// One round when the proposals fit, which is from the second lease on; at most two.
#[tokio::test(start_paused = true)]
async fn rounds_are_counted() {
    for count in [3, 4, 5] {
        let (quorum, nodes) = quorum(count).await;
        for n in 1..20 {
            let asked = claim();
            let (took, _) = elapsed(acquired(&quorum, &asked)).await;
            let raises: usize = nodes.iter().map(|node| node.calls("renew")).sum();
            assert_eq!(took, if n == 1 { 20 * MS } else { 10 * MS }, "the {n}th of {count}");
            assert!(raises < nodes.len(), "{raises} in all");
            quorum.release(&asked).await.expect("held");
            sleep(100 * MS).await;
            assert!(nodes.iter().all(|node| node.calls("acquire") == n), "no more than one each");
        }
    }
}

/// With one hung node of five, acquiring takes exactly as long, and so does releasing once it has
/// missed a call.
pub(super) async fn a_hung_node_adds_nothing() {
    let mut took = Vec::new();
    for mood in [Mood::Well, Mood::Paused] {
        let (quorum, nodes) = quorum(5).await;
        nodes[0].be(mood);
        let mut all = [Duration::ZERO; 3];
        for n in 0..50 {
            let asked = claim();
            all[0] += elapsed(acquired(&quorum, &asked)).await.0;
            let (took, released) = elapsed(quorum.release(&asked)).await;
            released.expect("held");
            all[if n == 0 { 1 } else { 2 }] += took;
        }
        took.push(all);
    }
    let [acquired, first, released] = took[0];
    assert_eq!(took[1], [acquired, 2 * first, released]);
}

#[tokio::test(start_paused = true)]
async fn a_hung_node() {
    a_hung_node_adds_nothing().await;
}

/// It is waited for again as soon as it has answered.
#[tokio::test(start_paused = true)]
async fn a_release_waits_for_a_slow_node_and_not_for_a_hung_one() {
    let (quorum, nodes) = quorum(3).await;
    let mut took = Vec::new();
    for mood in [Mood::Well, Mood::Paused, Mood::Paused, Mood::Well] {
        nodes[2].be(mood);
        nodes[2].delays(0, 7, 7);
        let asked = claim();
        acquired(&quorum, &asked).await;
        sleep(10 * MS).await;
        took.push(elapsed(quorum.release(&asked)).await.0);
        sleep(2 * LIMIT).await;
        assert_eq!(holding(&nodes, &asked), 0);
    }
    assert_eq!(took, [14 * MS, 20 * MS, 10 * MS, 14 * MS]);
}

/// A process that knows the holder alone: one store may not have been raised to the token that was
/// agreed on, or may have been raised above it, and the first answers need not tell which.
pub(super) async fn a_release_elsewhere_tells_what_was_agreed() {
    for agreed in [5, 9] {
        for odd in 0..3 {
            let nodes = nodes(3);
            let asked = claim();
            for (n, node) in nodes.iter().enumerate() {
                let token = if n == odd { 14 - agreed } else { agreed };
                node.store.acquire(&asked);
                let raised = node.store.renew(&asked.clone().with_min_token(FAR + token));
                assert!(matches!(raised, Renew::Renewed(lease) if lease.token == FAR + token));
                node.delays(0, 5, if n == 2 { 300 } else { 5 });
            }
            let released = over(&nodes).release(&asked).await.expect("all are well");
            assert_eq!(released, Release::Released { token: FAR + agreed }, "{odd} is odd");
        }
    }
}

/// Two stores that are heard disagree, and the third, which is not, had one of the two tokens.
pub(super) async fn a_release_elsewhere_tells_no_token_that_it_does_not_know() {
    let nodes = nodes(3);
    let asked = claim();
    for (node, token) in nodes.iter().zip([5, 9, 9]) {
        node.store.acquire(&asked);
        node.store.renew(&asked.clone().with_min_token(FAR + token));
    }
    nodes[2].be(Mood::Down);
    let quorum = over(&nodes);
    let answer = quorum.release(&asked).await;
    assert!(matches!(answer, Err(BackendError::Ambiguous(_))), "{answer:?}");
    nodes[2].be(Mood::Well);
    assert_eq!(quorum.release(&asked).await.expect("all are well"), Release::NotHeld);
    assert_eq!(holding(&nodes, &asked), 0);
}

#[tokio::test(start_paused = true)]
async fn releasing_beside_a_silent_store() {
    a_release_elsewhere_tells_no_token_that_it_does_not_know().await;
}

#[tokio::test(start_paused = true)]
async fn releasing_elsewhere() {
    a_release_elsewhere_tells_what_was_agreed().await;
}

/// Another holder's lease in the same store between two answers is seen by equality alone.
#[tokio::test(start_paused = true)]
async fn renewing_follows_a_raised_token() {
    let (quorum, nodes) = quorum(3).await;
    let asked = claim();
    let lease = acquired(&quorum, &asked).await;
    sleep(LIMIT).await;
    let ahead = asked.clone().with_min_token(lease.token + 1000);
    nodes[0].store.renew(&ahead);
    assert_eq!(quorum.renew(&asked).await.expect("two agree"), Renew::Renewed(lease));
    nodes[1].be(Mood::Down);
    let Ok(Renew::Renewed(raised)) = quorum.renew(&asked).await else { panic!("two of three") };
    assert_eq!(raised.token, lease.token + 1000);
    quorum.release(&asked).await.expect("two of three");
    assert!(acquired(&quorum, &claim()).await.token > raised.token);
}

#[tokio::test(start_paused = true)]
async fn four_need_three() {
    let (quorum, nodes) = quorum(4).await;
    let (other, asked) = (claim(), claim());
    nodes[0].be(Mood::Down);
    acquired(&quorum, &asked).await;
    quorum.release(&asked).await.expect("three of four");
    nodes[1].store.acquire(&other);
    assert!(matches!(quorum.acquire(&claim()).await, Ok(Acquire::Contended(_))));
    nodes[0].be(Mood::Well);
    acquired(&quorum, &claim()).await;
}

#[tokio::test(start_paused = true)]
async fn two_are_refused() {
    let two = |a: &str, b: &str| {
        let store = || Node::new(Tokens::PerKey);
        Quorum::builder().node(a, store()).node(b, store())
    };
    let error = two("a", "b").build().expect_err("two");
    assert!(error.to_string().contains("three stores or more"), "{error}");
    let again = two("a", "b").node("a", Node::new(Tokens::PerKey));
    assert!(again.build().expect_err("a name twice").to_string().contains("listed twice"));
    // Its gate would be shut for longer than any lease lasts.
    let endless = two("a", "b").node("c", Node::new(Tokens::PerKey)).max_ttl(Duration::MAX);
    assert!(endless.build().expect_err("too long").to_string().contains("`max_ttl`"));
    let long = || two("a", "b").node("c", Node::new(Tokens::PerKey)).node_timeout(MAX_TTL);
    assert!(long().build().is_err());
    let quorum = two("a", "b").node("c", Node::new(Tokens::PerKey));
    let quorum = quorum.max_ttl(TTL).build().expect("three");
    let mut claim = claim();
    claim.ttl = TTL + MS;
    let error = quorum.acquire(&claim).await.expect_err("longer than the gate");
    assert!(matches!(error, BackendError::InvalidInput(_)), "{error:?}");
}

/// A quorum of quorums, each of which has lost a store.
#[tokio::test(start_paused = true)]
async fn quorums_of_quorums() {
    let stores: Vec<_> = (0..3).map(|_| nodes(3)).collect();
    sleep(MAX_TTL).await;
    let mut builder = Quorum::builder();
    for (n, nodes) in stores.iter().enumerate() {
        nodes[n].be(Mood::Paused);
        builder = builder.node(format!("q{n}"), over(nodes));
    }
    let locks = LockManager::new(builder.build().expect("three"));
    let mut last = 0;
    for _ in 0..5 {
        let guard = locks.lock(KEY).expect("a key").acquire().await.expect("free");
        assert!(locks.lock(KEY).expect("a key").try_acquire().await.expect("ours").is_none());
        assert!(guard.fencing_token() > last);
        last = guard.fencing_token();
        sleep(Duration::from_secs(30)).await;
        assert!(guard.is_valid());
        guard.release().await.expect("held");
    }
}

/// Stores that count in different ways agree beyond the largest floor as well.
#[tokio::test(start_paused = true)]
async fn tokens_are_agreed_on_beyond_the_largest_floor() {
    let kinds = [Tokens::PerKey, Tokens::Revision, Tokens::Revision];
    let nodes = kinds.map(Node::new);
    sleep(MAX_TTL).await;
    let quorum = over(&nodes);
    let mut last = quorum.limits().max_token;
    let asked = claim().with_min_token(last);
    assert_eq!(acquired(&quorum, &asked).await.token, last);
    quorum.release(&asked).await.expect("all are well");
    for _ in 0..3 {
        // They go on by one, two and three.
        for (n, node) in nodes.iter().enumerate() {
            for other in 0..n {
                node.store.acquire(&claim_on(&format!("{other}")));
            }
        }
        let asked = claim();
        let lease = acquired(&quorum, &asked).await;
        assert!(lease.token > last, "{lease:?} after {last}");
        last = lease.token;
        quorum.release(&asked).await.expect("all are well");
    }
}
