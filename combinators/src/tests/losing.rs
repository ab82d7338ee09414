//! Nodes that fail, lose their data, come back.

use lockcore::{Release, Renew};

use super::*;

/// A wiped node is given the lease again, although its answer comes after the majority's.
#[tokio::test(start_paused = true)]
async fn a_slow_node_that_lost_its_data_is_joined_again() {
    let (quorum, nodes) = quorum(3).await;
    let asked = claim();
    nodes[2].delays(0, 20, 20);
    let lease = acquired(&quorum, &asked).await;
    sleep(LIMIT).await;
    assert_eq!(holding(&nodes, &asked), 3);
    nodes[2].store.wipe();
    assert_eq!(quorum.renew(&asked).await.expect("a majority"), Renew::Renewed(lease));
    assert_eq!(holding(&nodes, &asked), 2);
    sleep(LIMIT).await;
    assert_eq!(holding(&nodes, &asked), 3);
    // Its lease is as good as the others' when nothing can be left that it forgot.
    for _ in 0..15 {
        sleep(MAX_TTL / 15).await;
        quorum.renew(&asked).await.expect("a majority");
    }
    nodes[0].be(Mood::Down);
    let Ok(Renew::Renewed(later)) = quorum.renew(&asked).await else { panic!("two of three") };
    assert!(later.token >= lease.token);
}

/// A node that another's attempt was at in that moment is asked again when that has gone.
#[tokio::test(start_paused = true)]
async fn a_node_that_was_contended_for_a_moment_is_joined() {
    let (quorum, nodes) = quorum(3).await;
    let (other, asked) = (claim(), claim());
    nodes[2].store.acquire(&other);
    acquired(&quorum, &asked).await;
    nodes[2].store.release(&other);
    sleep(LIMIT).await;
    assert_eq!(holding(&nodes, &asked), 3);
}

#[tokio::test(start_paused = true)]
async fn a_release_is_not_followed_by_a_late_join() {
    for after in 0..60 {
        let (quorum, nodes) = quorum(3).await;
        let (other, asked) = (claim(), claim());
        nodes[2].store.acquire(&other);
        acquired(&quorum, &asked).await;
        nodes[2].store.release(&other);
        sleep(after * MS).await;
        let _ = timeout(after * MS / 2, quorum.renew(&asked)).await;
        quorum.release(&asked).await.expect("a majority");
        sleep(LIMIT).await;
        assert_eq!(holding(&nodes, &asked), 0, "released after {after} ms");
    }
}

/// Two of three that have lost the lease are not asked to hold it in order to count.
pub(super) async fn a_renewal_does_not_count_what_it_gives() {
    let (quorum, nodes) = quorum(3).await;
    let asked = claim();
    acquired(&quorum, &asked).await;
    sleep(LIMIT).await;
    nodes[0].store.release(&asked);
    nodes[1].store.release(&asked);
    assert_eq!(quorum.renew(&asked).await.expect("answers"), Renew::NotHeld);
}

#[tokio::test(start_paused = true)]
async fn renewing() {
    a_renewal_does_not_count_what_it_gives().await;
}

/// A majority that is down is told as that, although what is left is contended.
pub(super) async fn a_majority_that_is_down_is_told() {
    let (quorum, nodes) = quorum(5).await;
    let (other, asked) = (claim(), claim());
    nodes[0].store.acquire(&other);
    for node in &nodes[2..] {
        node.be(Mood::Paused);
    }
    let (took, answer) = elapsed(quorum.acquire(&asked)).await;
    let error = answer.expect_err("three of five are down");
    assert!(matches!(error, BackendError::Unavailable(_)), "{error:?}");
    let said = said(&error);
    assert!(said.contains("n0: contended") && said.contains("n1: agreed"), "{said}");
    assert!(said.contains("n2: the outcome is unknown"), "{said}");
    // Until the last has timed out, and a release to what was granted.
    assert_eq!(took, LIMIT + 10 * MS);
    assert_eq!(holding(&nodes[..2], &asked), 0);
}

#[tokio::test(start_paused = true)]
async fn three_of_five_down() {
    a_majority_that_is_down_is_told().await;
}

/// However few answer, more than half of all must agree.
pub(super) async fn two_of_five_are_no_majority() {
    let (quorum, nodes) = quorum(5).await;
    let other = claim();
    nodes[0].store.acquire(&other);
    for node in &nodes[3..] {
        node.be(Mood::Paused);
    }
    let answer = quorum.acquire(&claim()).await;
    assert!(matches!(answer, Ok(Acquire::Contended(_))), "{answer:?}");
    nodes[0].store.release(&other);
    acquired(&quorum, &claim()).await;
}

#[tokio::test(start_paused = true)]
async fn two_of_five() {
    two_of_five_are_no_majority().await;
}

#[tokio::test(start_paused = true)]
async fn a_minority_that_is_down_or_mad_or_sour_is_not_noticed() {
    for mood in [Mood::Paused, Mood::Down, Mood::Mad, Mood::Sour] {
        let (quorum, nodes) = quorum(5).await;
        acquired(&quorum, &claim_on("another")).await;
        let asked = claim();
        nodes[1].be(mood);
        nodes[3].be(mood);
        let (took, first) = elapsed(acquired(&quorum, &asked)).await;
        assert_eq!(took, 10 * MS, "{mood:?}");
        let (took, renewed) = elapsed(quorum.renew(&asked)).await;
        assert_eq!(renewed.expect("a majority"), Renew::Renewed(first), "{mood:?}");
        assert_eq!(took, 10 * MS, "{mood:?}");
        let (took, released) = elapsed(quorum.release(&asked)).await;
        assert!(released.expect("a majority").is_released(), "{mood:?}");
        assert!(took <= 20 * MS, "{mood:?}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_majority_that_refuses_is_told() {
    for (mood, refused) in [(Mood::Sour, true), (Mood::Mad, false), (Mood::Down, false)] {
        let (quorum, nodes) = quorum(3).await;
        nodes[0].be(mood);
        nodes[2].be(mood);
        let asked = claim();
        let error = quorum.acquire(&asked).await.expect_err("one of three");
        assert_eq!(matches!(error, BackendError::Rejected(_)), refused, "{error:?}");
        assert_eq!(matches!(error, BackendError::Unavailable(_)), !refused, "{error:?}");
        sleep(LIMIT).await;
        assert_eq!(holding(&nodes, &asked), 0);
    }
}

/// A is held by two of three, one of which forgets it: nobody else gets it while A may believe.
pub(super) async fn an_emptied_node_does_not_give_the_lock_away() {
    let (quorum, nodes) = quorum(3).await;
    let (first, second) = (claim(), claim());
    nodes[2].be(Mood::Down);
    acquired(&quorum, &first).await;
    nodes[2].be(Mood::Well);
    nodes[1].store.wipe();
    let answer = quorum.acquire(&second).await;
    assert!(!matches!(answer, Ok(Acquire::Acquired(_))), "{answer:?}");
    // It counts again exactly when it has kept its memory for as long as a lease can be.
    nodes[0].be(Mood::Down);
    sleep(MAX_TTL - 40 * MS).await;
    let error = quorum.acquire(&claim()).await.expect_err("one young, one down");
    assert!(said(&error).contains("n1: began or lost its data lately"), "{error}");
    sleep(50 * MS).await;
    acquired(&quorum, &claim()).await;
}

#[tokio::test(start_paused = true)]
async fn the_gate() {
    an_emptied_node_does_not_give_the_lock_away().await;
}

/// A lease that a store was given after it had lost its data counts when nothing can be left that it
/// forgot, and not before: meanwhile the third may have been given to somebody who counts on what
/// was forgotten.
pub(super) async fn an_emptied_node_does_not_renew() {
    let (quorum, nodes) = quorum(3).await;
    let asked = claim();
    acquired(&quorum, &asked).await;
    sleep(LIMIT).await;
    nodes[1].store.wipe();
    nodes[1].store.acquire(&asked);
    nodes[2].be(Mood::Down);
    let error = quorum.renew(&asked).await.expect_err("one of three counts");
    assert!(matches!(error, BackendError::Ambiguous(_)), "{error:?}");
    assert!(said(&error).contains("n1: began or lost its data lately"), "{error}");
    // The others keep it until then.
    nodes[2].be(Mood::Well);
    for _ in 0..15 {
        sleep(MAX_TTL / 15).await;
        let renewed = quorum.renew(&asked).await;
        assert!(matches!(renewed, Ok(Renew::Renewed(_))), "{renewed:?}");
    }
    nodes[2].be(Mood::Down);
    let renewed = quorum.renew(&asked).await;
    assert!(matches!(renewed, Ok(Renew::Renewed(_))), "{renewed:?}");
}

#[tokio::test(start_paused = true)]
async fn the_gate_of_renewals() {
    an_emptied_node_does_not_renew().await;
}

/// A renewal finds that too few have the lease, and its caller has gone and relies on it: what is
/// left of it keeps others out for as long as that may be.
pub(super) async fn what_is_left_keeps_others_out() {
    let (quorum, nodes) = quorum(3).await;
    let asked = claim();
    nodes[2].be(Mood::Down);
    acquired(&quorum, &asked).await;
    nodes[2].be(Mood::Well);
    nodes[0].store.wipe();
    assert!(timeout(2 * MS, quorum.renew(&asked)).await.is_err());
    sleep(LIMIT).await;
    let answer = quorum.acquire(&claim()).await;
    assert!(!matches!(answer, Ok(Acquire::Acquired(_))), "{answer:?}");
    // It is not renewed any more, and so it ends.
    assert_eq!(quorum.renew(&asked).await.expect("all are well"), Renew::NotHeld);
    sleep(TTL).await;
    assert_eq!(holding(&nodes, &asked), 0);
    acquired(&quorum, &claim()).await;
    assert_eq!(quorum.release(&asked).await.expect("all are well"), Release::NotHeld);
    sleep(LIMIT).await;
    assert_eq!(quorum.0.calls.holders_known(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_left() {
    what_is_left_keeps_others_out().await;
}

#[tokio::test(start_paused = true)]
async fn asking_again_does_not_pass_the_gate() {
    let nodes = nodes(3);
    let (quorum, asked) = (over(&nodes), claim());
    for _ in 0..3 {
        assert!(timeout(8 * MS, quorum.acquire(&asked)).await.is_err());
    }
    let answer = quorum.acquire(&asked).await;
    assert!(matches!(answer, Err(BackendError::Unavailable(_))), "{answer:?}");
}

/// A store that does not know its memory is vouched for by whoever lists it.
#[tokio::test(start_paused = true)]
async fn a_store_without_a_memory_counts() {
    let nodes = nodes(3);
    for node in &nodes {
        node.store.forget_memory();
    }
    acquired(&over(&nodes), &claim()).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_listed_twice_is_refused() {
    let (_, nodes) = quorum(3).await;
    let twice = [nodes[0].clone(), nodes[0].clone(), nodes[1].clone()];
    let error = over(&twice).acquire(&claim()).await.expect_err("twice");
    assert!(matches!(error, BackendError::Rejected(_)), "{error:?}");
    assert!(error.to_string().contains("n0 and n1 are the same store"), "{error}");
}

/// Also where the two have not met in an acquire: one was too slow for it.
pub(super) async fn one_store_twice_does_not_renew() {
    let (_, nodes) = quorum(3).await;
    let mut again = Node::new(Tokens::Clock(0));
    again.store = nodes[0].store.clone();
    again.delays(0, 40, 40);
    let quorum = over(&[nodes[0].clone(), nodes[1].clone(), again.clone()]);
    let asked = claim();
    acquired(&quorum, &asked).await;
    sleep(LIMIT).await;
    again.delays(0, 1, 1);
    nodes[1].delays(0, 40, 40);
    let error = quorum.renew(&asked).await.expect_err("twice");
    assert!(matches!(error, BackendError::Rejected(_)), "{error:?}");
    assert!(error.to_string().contains("n0 and n2 are the same store"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_listed_twice_is_refused_in_renewals() {
    one_store_twice_does_not_renew().await;
}

/// C11: stores that restart with their data, each when the status allows it, take no lock away.
#[tokio::test(start_paused = true)]
async fn a_rolling_restart_waits_for_the_gate() {
    let (quorum, nodes) = quorum(3).await;
    let asked = claim();
    acquired(&quorum, &asked).await;
    for (n, node) in nodes.iter().enumerate() {
        let status = quorum.status().await.expect("settings");
        assert!(status.may_stop(&format!("n{n}")), "{status}");
        assert_eq!((status.counting(), status.all_count_in()), (3, Duration::ZERO), "{status}");
        node.be(Mood::Down);
        let status = quorum.status().await.expect("settings");
        assert_eq!(status.counting(), 2, "{status}");
        node.store.restart();
        node.be(Mood::Well);
        // The next one too early.
        let status = quorum.status().await.expect("settings");
        for other in 0..3 {
            let is_young = other == n;
            assert_eq!(status.may_stop(&format!("n{other}")), is_young, "{status}");
            let text = if is_young { "counts in" } else { "must not be stopped" };
            let text = |line: &str| line.starts_with(&format!("n{other}")) && line.contains(text);
            assert!(status.to_string().lines().any(text), "{status}");
        }
        let wait = status.all_count_in();
        assert!(wait <= MAX_TTL && wait > MAX_TTL - TTL, "{wait:?}");
        let began = tokio::time::Instant::now();
        while began.elapsed() < wait {
            sleep(TTL / 4).await;
            assert!(matches!(quorum.renew(&asked).await, Ok(Renew::Renewed(_))));
        }
    }
    assert!(quorum.release(&asked).await.expect("held").is_released());
}
