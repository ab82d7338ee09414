//! Who may run at once, and until when.

use lockcore::{ErrorKind, LockManager, LostReason, Renew};

use super::switchover::{pair, start, started};
use super::*;
use crate::Phase::{Both, New, Old};

/// However two starts interleave, never do both succeed; and one of two in turn does.
pub(super) async fn opposite_phases_never_run_at_once() {
    let mut outcomes = [0; 3];
    for seed in 0..60 {
        let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
        for (n, node) in (0..).zip(&nodes) {
            node.delays(2 * seed + n, 0, 40);
        }
        let late = Duration::from_millis(fastrand::Rng::with_seed(seed).u64(..60));
        let second = async {
            sleep(late).await;
            start(&nodes, New).await
        };
        let (first, second) = tokio::join!(start(&nodes, Old), second);
        assert!(first.is_err() || second.is_err(), "seed {seed}: both run");
        for refused in [&first, &second].into_iter().filter_map(|start| start.as_ref().err()) {
            assert_eq!(refused.kind(), ErrorKind::Rejected, "{refused}");
        }
        outcomes[usize::from(first.is_ok()) + 2 * usize::from(second.is_ok())] += 1;
    }
    // Not because none ever did.
    assert!(outcomes[1] > 0, "{outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn opposite_phases() {
    opposite_phases_never_run_at_once().await;
}

/// A registration lives on in the stores for as long as a lease given under it may.
pub(super) async fn no_lease_outlives_its_registration() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    let switch = started(&nodes, New).await;
    // From now on nothing comes through that renews it.
    nodes[1].be(Mood::Paused);
    let mut given = 0;
    for _ in 0..200 {
        sleep(Duration::from_secs(1)).await;
        nodes[1].be(Mood::Well);
        let registered = nodes[1].store.list("leaselock.switchover/new/", None, 1);
        let remaining = registered.first().map_or(Duration::ZERO, |info| info.remaining);
        let mut claim = claim_on("long");
        claim.ttl = MAX_TTL;
        // As it was at the beginning of the call: the network is held up meanwhile.
        nodes[1].be(Mood::Paused);
        let answer = timeout(MS, switch.acquire(&claim)).await;
        if answer.is_err() {
            assert!(remaining >= claim.ttl, "a lease could outlive {remaining:?}");
            given += 1;
        }
    }
    assert!(given > 10, "{given}");
}

#[tokio::test(start_paused = true)]
async fn registrations_and_leases() {
    no_lease_outlives_its_registration().await;
}

/// While it was not registered others may have been in the opposite phase.
pub(super) async fn a_registration_that_was_lost_is_begun_anew() {
    let nodes = pair(Tokens::Clock(0), Tokens::Revision);
    let new = started(&nodes, New).await;
    let before = acquired(&new, &claim()).await;
    nodes[1].store.wipe();
    let old = started(&nodes, Old).await;
    // It finds out when it renews, and is refused.
    sleep(MAX_TTL + Duration::from_secs(1)).await;
    let refused = new.acquire(&claim()).await.expect_err("others are in the opposite phase");
    assert!(matches!(refused, BackendError::Rejected(_)), "{refused}");
    assert!(refused.to_string().contains("in old"), "{refused}");
    let (asked, floor) = (claim(), new.floor());
    let between = acquired(&old, &asked).await;
    assert!(between.token > before.token);
    old.release(&asked).await.expect("held");
    old.leave().await;
    sleep(Duration::from_secs(3)).await;
    assert!(new.floor() > floor);
    let after = acquired(&new, &claim()).await;
    assert!(after.token > between.token, "{after:?} after {between:?}");
}

#[tokio::test(start_paused = true)]
async fn registering_anew() {
    a_registration_that_was_lost_is_begun_anew().await;
}

/// Nobody may enter the opposite phase while a lock of this one is believed to be held.
pub(super) async fn leaving_waits_for_locks() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    for release in [true, false] {
        let old = started(&nodes, Old).await;
        let locks = LockManager::builder(old.clone()).ttl(TTL).build().expect("a ttl");
        let guard = locks.lock(KEY).expect("a key").acquire().await.expect("free");
        sleep(Duration::from_secs(20)).await;
        let leaving = tokio::spawn(async move { old.leave().await });
        sleep(Duration::from_secs(1)).await;
        assert!(guard.is_valid() && !leaving.is_finished());
        start(&nodes, New).await.expect_err("a lock is held");
        if release {
            guard.release().await.expect("held");
            leaving.await.expect("no panic");
        } else {
            let (took, left) = elapsed(leaving).await;
            left.expect("no panic");
            assert!(took <= TTL, "{took:?}");
            assert!(!guard.is_valid());
            assert_eq!(guard.lost().await, LostReason::Expired);
        }
        let new = started(&nodes, New).await;
        let (took, ()) = elapsed(new.leave()).await;
        assert!(took < 20 * MS, "it has no locks to wait for: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn leaving() {
    leaving_waits_for_locks().await;
}

#[tokio::test(start_paused = true)]
async fn who_has_left_gives_no_leases() {
    for after in 0..30 {
        let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
        let switch = started(&nodes, New).await;
        // In the middle of registering anew.
        nodes[1].store.wipe();
        sleep(MAX_TTL - 5 * MS + after * MS).await;
        switch.leave().await;
        let error = switch.acquire(&claim()).await.expect_err("it has left");
        assert!(matches!(error, BackendError::Rejected(_)), "{error}");
        sleep(Duration::from_secs(10)).await;
        assert!(switch.status().await.expect("both are up").processes().is_empty());
        switch.acquire(&claim()).await.expect_err("it has left");
    }
}

/// Whenever a start is dropped, its registration goes; a ceiling that it looked at ends with its ttl.
#[tokio::test(start_paused = true)]
async fn a_start_that_is_dropped_leaves_nothing() {
    for phase in [Old, Both, New] {
        let mut ended = false;
        for after in (0..).step_by(if phase == Both { 1 } else { 9 }) {
            let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
            ended = timeout(after * MS, start(&nodes, phase)).await.is_ok();
            sleep(Duration::from_secs(5)).await;
            for node in &nodes {
                let all = node.store.list("", None, 99);
                let ceiling = |info: &lockcore::LeaseInfo| info.key.as_str().contains("/ceiling/");
                let registered: Vec<_> = all.iter().filter(|info| !ceiling(info)).collect();
                assert!(registered.is_empty(), "{registered:?}, {phase}, after {after} ms");
            }
            sleep(Duration::from_secs(2)).await;
            for node in &nodes {
                assert_eq!(node.store.list("", None, 10), [], "{phase}, after {after} ms");
            }
            if ended {
                break;
            }
        }
        assert!(ended);
    }
}

/// Whoever enters the opposite phase waits for what was promised, and not for what a store that
/// rounds up has granted.
pub(super) async fn no_lock_outlives_its_promise() {
    for phase in [Old, Both, New] {
        let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
        nodes.iter().for_each(|node| node.store.round_to(Duration::from_secs(4)));
        let switch = started(&nodes, phase).await;
        let locks = LockManager::builder(switch.clone()).ttl(TTL).build().expect("a ttl");
        let guard = locks.lock(KEY).expect("a key").acquire().await.expect("free");
        let mut asked = claim_on("another");
        asked.ttl = Duration::from_secs(5);
        assert_eq!(acquired(&switch, &asked).await.ttl, asked.ttl);
        let Ok(Renew::Renewed(renewed)) = switch.renew(&asked).await else { panic!("held") };
        assert_eq!(renewed.ttl, asked.ttl);
        switch.leave().await;
        assert!(!guard.is_valid(), "{phase}: it has left, and {:?} remain", guard.remaining());
    }
}

#[tokio::test(start_paused = true)]
async fn promises() {
    no_lock_outlives_its_promise().await;
}
