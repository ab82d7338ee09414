//! Moving from one store to another.

use lockcore::{Error, ErrorKind, LockManager, LostReason, Release};

use super::*;
use crate::Phase::{self, Both, New, Old};
use crate::{Switchover, SwitchoverBuilder};

pub(super) const KINDS: [Tokens; 4] =
    [Tokens::Clock(0), Tokens::Clock(-2000), Tokens::PerKey, Tokens::Revision];

/// An old store and a new one.
pub(super) fn pair(old: Tokens, new: Tokens) -> [Node; 2] {
    let nodes = [Node::new(old), Node::new(new)];
    for node in &nodes {
        node.delays(1, 1, 3);
    }
    nodes
}

/// How long a phase stands that nobody renews.
pub(super) const STANDS: Duration = Duration::from_secs(3 * 60);

pub(super) fn builder(nodes: &[Node; 2], phase: Phase) -> SwitchoverBuilder {
    let [old, new] = nodes.clone();
    Switchover::builder(old, new, phase).label(format!("in {phase}"))
}

/// Where nobody runs without a switch.
pub(super) async fn start(nodes: &[Node; 2], phase: Phase) -> Result<Switchover, Error> {
    builder(nodes, phase).assume_alone().start().await
}

pub(super) async fn started(nodes: &[Node; 2], phase: Phase) -> Switchover {
    start(nodes, phase).await.expect("nobody in the way")
}

/// Takes and releases a key in a phase; its token.
async fn once(nodes: &[Node; 2], phase: Phase, keys: &[&str]) -> Vec<u64> {
    let switch = started(nodes, phase).await;
    let mut tokens = Vec::new();
    for key in keys {
        let claim = claim_on(key);
        tokens.push(acquired(&switch, &claim).await.token);
        assert!(switch.release(&claim).await.expect("held").is_released());
    }
    switch.leave().await;
    sleep(STANDS).await;
    tokens
}

/// There and back, twice: tokens rise for keys that nobody took while both stores were used.
#[tokio::test(start_paused = true)]
async fn tokens_rise_for_idle_keys() {
    for old in KINDS {
        for new in KINDS {
            let nodes = pair(old, new);
            let mut last = (0, 0);
            for round in 0..8 {
                let phase = [Old, Both, New, Both][round % 4];
                let at = format!("{old:?} to {new:?}, round {round}, {phase}");
                let keys: &[&str] = if phase == Both { &["busy"] } else { &["busy", "idle"] };
                let tokens = once(&nodes, phase, keys).await;
                assert!(tokens[0] > last.0, "busy: {} after {}, {at}", tokens[0], last.0);
                last.0 = tokens[0];
                if let Some(idle) = tokens.get(1) {
                    assert!(*idle > last.1, "idle: {idle} after {}, {at}", last.1);
                    last.1 = *idle;
                }
                sleep(7 * MS).await;
            }
        }
    }
}

/// Keys that go from a neighbouring phase's process to one in both and back.
#[tokio::test(start_paused = true)]
async fn one_token_is_in_both_stores() {
    for old in KINDS {
        for new in KINDS {
            let nodes = pair(old, new);
            let mut last = 0;
            let (first, both) = (started(&nodes, Old).await, started(&nodes, Both).await);
            for _ in 0..5 {
                let (mine, yours) = (claim(), claim());
                let lease = acquired(&both, &mine).await;
                let key = LockKey::new(KEY).expect("a key");
                for node in &nodes {
                    let token = node.store.info(&key).expect("in both").token;
                    assert_eq!(token, lease.token, "{old:?} to {new:?}");
                }
                assert!(matches!(first.acquire(&yours).await, Ok(Acquire::Contended(_))));
                assert!(both.release(&mine).await.expect("held").is_released());
                assert_eq!(holding(&nodes, &mine), 0);
                let yours = claim();
                let next = acquired(&first, &yours).await;
                assert!(last < lease.token && lease.token < next.token, "{old:?} to {new:?}");
                last = next.token;
                assert!(matches!(both.acquire(&claim()).await, Ok(Acquire::Contended(_))));
                first.release(&yours).await.expect("held");
            }
        }
    }
}

/// Two settings: how far tokens are, and that the other store is gone.
#[tokio::test(start_paused = true)]
async fn a_floor_hides_no_store_and_what_is_gone_needs_one() {
    let nodes = pair(Tokens::Clock(0), Tokens::Revision);
    let floor = once(&nodes, New, &[KEY]).await[0];
    let idle = once(&nodes, Old, &["idle"]).await[0];
    let new = || builder(&nodes, New).assume_alone();
    let switch = new().floor(floor).start().await.expect("nobody in the way");
    assert!(acquired(&switch, &claim_on("idle")).await.token > idle);
    switch.leave().await;
    sleep(STANDS).await;
    let error = new().gone().start().await.expect_err("no floor");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let old = started(&nodes, Old).await;
    let error = new().floor(floor).gone().start().await.expect_err("it is there, and in use");
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    old.leave().await;
    for mood in [Mood::Down, Mood::Paused] {
        nodes[0].be(mood);
        sleep(STANDS).await;
        let error = new().floor(floor).start().await.expect_err("a floor alone");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("`gone` and `floor`"), "{error}");
        sleep(STANDS).await;
        let switch = new().floor(idle + 17).gone().start().await.expect("it is said to be gone");
        assert!(switch.floor() >= idle + 17);
        switch.leave().await;
    }
}

/// In a phase of one store the other is asked by who begins it, and by nobody else.
#[tokio::test(start_paused = true)]
async fn the_other_store_may_be_down() {
    for (phase, other) in [(Old, 1), (New, 0)] {
        let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
        let switch = started(&nodes, phase).await;
        nodes[other].be(Mood::Down);
        let joined = started(&nodes, phase).await;
        // For longer than a registration stands that is not renewed.
        for _ in 0..10 {
            for switch in [&switch, &joined] {
                let asked = claim();
                acquired(switch, &asked).await;
                assert!(matches!(switch.renew(&asked).await, Ok(lockcore::Renew::Renewed(_))));
                assert!(switch.release(&asked).await.expect("held").is_released());
            }
            sleep(MAX_TTL / 2).await;
        }
        assert!(switch.is_registered() && joined.is_registered());
        drop((switch, joined));
        sleep(STANDS).await;
        if phase == New {
            let error = start(&nodes, phase).await.expect_err("one is down");
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{phase}: {error}");
        }
    }
}

/// Whenever the caller stops waiting and releases, nothing is left behind in either store.
#[tokio::test(start_paused = true)]
async fn a_release_comes_after_the_acquire_that_it_undoes() {
    for after in 0..30 {
        let nodes = pair(Tokens::Clock(0), Tokens::Clock(5));
        let (switch, asked) = (started(&nodes, Both).await, claim());
        let _ = timeout(after * MS, switch.acquire(&asked)).await;
        let _ = switch.release(&asked).await;
        sleep(LIMIT).await;
        assert_eq!(holding(&nodes, &asked), 0, "dropped after {after} ms");
    }
}

/// A lease in either store is shown and keeps others out: a release that finds the one store empty
/// is not answered before the other has released too, and is in doubt if that does not answer.
#[tokio::test(start_paused = true)]
async fn a_release_in_both_is_one_in_each() {
    for lost in 0..2 {
        let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
        let (switch, asked) = (started(&nodes, Both).await, claim());
        acquired(&switch, &asked).await;
        sleep(LIMIT).await;
        nodes[lost].store.release(&asked);
        nodes[1 - lost].be(Mood::Paused);
        let error = switch.release(&asked).await.expect_err("one does not answer");
        assert!(matches!(error, BackendError::Ambiguous(_)), "{error}");
        nodes[1 - lost].be(Mood::Well);
        nodes[1 - lost].delays(0, 50, 50);
        let released = switch.release(&asked).await.expect("both are well");
        assert_eq!((released, holding(&nodes, &asked)), (Release::NotHeld, 0));
    }
}

/// Who waits in both for a holder in one must not wake itself, and must wake when that releases.
#[tokio::test(start_paused = true)]
async fn a_waiter_does_not_wake_itself() {
    for (phase, store) in [(Old, 0), (New, 1)] {
        let nodes = pair(Tokens::Clock(0), Tokens::Clock(5));
        let (single, both) = (started(&nodes, phase).await, started(&nodes, Both).await);
        let mut held = claim();
        held.ttl = MAX_TTL;
        acquired(&single, &held).await;
        let info = both.inspect(&held.key).await.expect("both are up").expect("held in one");
        assert_eq!(info.holder, held.holder);
        let list = both.list("k", None, 9).await.expect("both are up");
        assert_eq!(list.iter().map(|info| info.holder).collect::<Vec<_>>(), [held.holder]);
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let lock = LockManager::new(both.clone()).lock(KEY).expect("a key");
                tokio::spawn(async move { lock.acquire().await?.release().await })
            })
            .collect();
        let before = nodes[0].calls("acquire");
        sleep(Duration::from_secs(20)).await;
        let asked = nodes[0].calls("acquire") - before;
        assert!(asked <= 60, "two of them asked {asked} times in 20 s");
        let seen = nodes[store].calls("inspect");
        assert!(seen <= 200, "and looked {seen} times");
        single.release(&held).await.expect("held");
        let (took, released) = elapsed(async {
            for waiting in waiting {
                waiting.await.expect("no panic").expect("held");
            }
        })
        .await;
        let () = released;
        assert!(took <= 200 * MS, "{phase}: woken after {took:?}");
    }
}

/// Losing it in one store is losing it, and what is left in the other ends with its ttl: until then
/// it keeps others out, for the guard may not know yet.
#[tokio::test(start_paused = true)]
async fn the_loss_of_either_is_the_loss_of_both() {
    for lost in 0..2 {
        let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
        let (switch, asked) = (started(&nodes, Both).await, claim());
        acquired(&switch, &asked).await;
        nodes[lost].store.release(&asked);
        assert_eq!(switch.renew(&asked).await.expect("both are up"), lockcore::Renew::NotHeld);
        sleep(LIMIT).await;
        assert_eq!(holding(&nodes, &asked), 1);
        sleep(TTL).await;
        assert_eq!(holding(&nodes, &asked), 0);
        nodes[lost].be(Mood::Down);
        let error = switch.acquire(&claim()).await.expect_err("one is down");
        let store = ["the old store", "the new store"][lost];
        assert!(
            error.to_string().contains(&format!("{store}: the store is unavailable")),
            "{error}"
        );
    }
}

/// Neither earlier, while it may be renewed, nor later.
#[tokio::test(start_paused = true)]
async fn a_lock_in_both_is_lost_at_its_deadline() {
    for down in 0..2 {
        let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
        let locks = LockManager::builder(started(&nodes, Both).await).ttl(TTL).build();
        let lock = locks.expect("settings").lock(KEY).expect("a key");
        let guard = lock.acquire().await.expect("both are up");
        nodes[down].be(Mood::Down);
        let left = guard.remaining();
        let (after, reason) = elapsed(guard.lost()).await;
        assert_eq!(reason, LostReason::Expired);
        assert!(after + MS >= left && after <= left + 2 * MS, "{left:?}, lost after {after:?}");
        assert!(!guard.is_valid());
    }
}

#[tokio::test(start_paused = true)]
async fn the_keys_of_the_switch_are_its_own() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    let switch = started(&nodes, Both).await;
    let error = switch.acquire(&claim_on("leaselock.switchover/x")).await.expect_err("its own");
    assert!(matches!(error, BackendError::InvalidInput(_)), "{error}");
}
