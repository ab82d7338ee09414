//! Moving from one store to another.

use lockcore::{Error, ErrorKind, LockManager, LostReason, Release};

use super::*;
use crate::Phase::{self, Both, New, Old};
use crate::Switchover;

const KINDS: [Tokens; 4] =
    [Tokens::Clock(0), Tokens::Clock(-2000), Tokens::PerKey, Tokens::Revision];

/// An old store and a new one.
fn pair(old: Tokens, new: Tokens) -> [Node; 2] {
    let nodes = [Node::new(old), Node::new(new)];
    for node in &nodes {
        node.delays(1, 1, 3);
    }
    nodes
}

async fn start(nodes: &[Node; 2], phase: Phase) -> Result<Switchover, Error> {
    let [old, new] = nodes.clone();
    Switchover::builder(old, new, phase).label(format!("in {phase}")).start().await
}

async fn started(nodes: &[Node; 2], phase: Phase) -> Switchover {
    start(nodes, phase).await.expect("nobody in the way")
}

/// Takes and releases a key in a phase; its token.
async fn once(nodes: &[Node; 2], phase: Phase, keys: &[&str]) -> Vec<u64> {
    let switch = started(nodes, phase).await;
    let mut tokens = Vec::new();
    for key in keys {
        let claim = claim_on(key);
        tokens.push(acquired(&switch, &claim).await.token);
        assert_eq!(switch.release(&claim).await.expect("held"), Release::Released);
    }
    switch.leave().await;
    tokens
}

/// There and back, twice: tokens rise for keys that nobody took while both stores were used.
pub(super) async fn tokens_rise_for_idle_keys() {
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

#[tokio::test(start_paused = true)]
async fn idle_keys() {
    tokens_rise_for_idle_keys().await;
}

/// Many leases of one key, and raises, put its counter far ahead of all others; whoever leaves the
/// store knows of it all the same, whenever that is.
pub(super) async fn no_token_is_answered_above_the_ceiling() {
    for kind in KINDS {
        for (phase, store) in [(Old, 0), (New, 1)] {
            let nodes = pair(kind, kind);
            let switch = started(&nodes, phase).await;
            let mut claim = claim();
            for raise in [0, 1, 7_000_000, 90_000_000_000] {
                let lease = acquired(&switch, &claim).await;
                claim.min_token = lease.token + raise;
                let Ok(lockcore::Renew::Renewed(raised)) = switch.renew(&claim).await else {
                    panic!("{phase}: held");
                };
                assert!(raised.token >= claim.min_token);
                let tokens = ceilings(TTL).map(|probe| {
                    let Acquire::Acquired(probed) = nodes[store].store.acquire(&probe) else {
                        panic!("{phase}: its ceiling is still being raised");
                    };
                    nodes[store].store.release(&probe);
                    probed.token
                });
                let ceiling = tokens.max().expect("some");
                assert!(ceiling > raised.token, "{kind:?}, {phase}: {ceiling} {raised:?}");
                switch.release(&claim).await.expect("held");
                claim.holder = HolderId::random();
            }
        }
    }
}

/// Claims for the keys that remember the ceiling.
fn ceilings(ttl: Duration) -> impl Iterator<Item = Claim> {
    (0..16).map(move |n| {
        let mut claim = claim_on(&format!("leaselock.switchover/ceiling/{n}"));
        claim.ttl = ttl;
        claim
    })
}

#[tokio::test(start_paused = true)]
async fn tokens_below_ceilings() {
    no_token_is_answered_above_the_ceiling().await;
}

/// A store is asked for its ceiling once, and no more while tokens stay below it.
#[tokio::test(start_paused = true)]
async fn a_ceiling_is_seldom_raised() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    let switch = started(&nodes, Old).await;
    acquired(&switch, &claim_on("first")).await;
    let before = nodes[0].calls("acquire");
    for n in 0..20 {
        sleep(100 * MS).await;
        acquired(&switch, &claim_on(&format!("k{n}"))).await;
    }
    assert_eq!(nodes[0].calls("acquire") - before, 20);
}

/// However many processes go from store to store, floors follow the clocks.
#[tokio::test(start_paused = true)]
async fn a_fleet_does_not_drive_its_floors_ahead() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    for way in 0..4 {
        let mut fleet = Vec::new();
        let mut floors = Vec::new();
        for phase in [[Old, Both, New], [New, Both, Old]][way % 2] {
            let mut next = Vec::new();
            for process in 0..16 {
                let switch = started(&nodes, phase).await;
                let asked = claim_on(&format!("k{process}"));
                acquired(&switch, &asked).await;
                switch.release(&asked).await.expect("held");
                floors.push(switch.floor());
                next.push(switch);
                if let Some(last) = fleet.pop() {
                    Switchover::leave(&last).await;
                }
            }
            fleet = next;
        }
        // What the store's clock says: a key of its own has no other token.
        let now = acquired(&nodes[0], &claim_on(&format!("clock/{way}"))).await.token;
        let ahead = floors.iter().max().expect("some").saturating_sub(now);
        assert!(ahead < 13_000_000, "way {way}: {ahead} us ahead");
        for last in fleet {
            last.leave().await;
        }
        sleep(Duration::from_secs(6)).await;
    }
}

/// Without a ceiling there is no lease: it might have a token that nobody knows of later.
#[tokio::test(start_paused = true)]
async fn a_ceiling_that_cannot_be_raised_is_told_as_ambiguous() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    let switch = started(&nodes, New).await;
    let hold = |ttl| {
        for other in ceilings(ttl) {
            nodes[1].store.acquire(&other);
        }
    };
    hold(TTL);
    let (took, answer) = elapsed(switch.acquire(&claim())).await;
    answer.expect("they are free when their ttl is over");
    assert!(took >= TTL - 100 * MS, "{took:?}");
    hold(MAX_TTL);
    sleep(Duration::from_secs(20)).await;
    let (took, answer) = elapsed(switch.acquire(&claim_on("another"))).await;
    let error = answer.expect_err("somebody keeps all of them");
    assert!(matches!(error, BackendError::Ambiguous(_)), "{error:?}");
    assert!(took < Duration::from_secs(12), "{took:?}");
}

/// Keys that go from a neighbouring phase's process to one in both and back.
pub(super) async fn one_token_is_in_both_stores() {
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
                assert_eq!(both.release(&mine).await.expect("held"), Release::Released);
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

#[tokio::test(start_paused = true)]
async fn both() {
    one_token_is_in_both_stores().await;
}

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

/// A floor that is given is for a store that is gone; one that is there has gone on since.
#[tokio::test(start_paused = true)]
async fn a_given_floor_does_not_hide_the_store() {
    let nodes = pair(Tokens::Clock(0), Tokens::Revision);
    let floor = once(&nodes, New, &[KEY]).await[0];
    let idle = once(&nodes, Old, &["idle"]).await[0];
    let begin = |floor| {
        let [old, new] = nodes.clone();
        Switchover::builder(old, new, New).floor(floor).start()
    };
    let switch = begin(floor).await.expect("nobody in the way");
    assert!(acquired(&switch, &claim_on("idle")).await.token > idle);
    drop(switch);
    nodes[0].be(Mood::Down);
    assert_eq!(start(&nodes, New).await.expect_err("no floor").kind(), ErrorKind::Unavailable);
    let switch = begin(idle + 17).await.expect("it is said to be gone");
    assert_eq!(switch.floor(), idle + 17);
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

/// Whenever a start is dropped, its registration goes.
#[tokio::test(start_paused = true)]
async fn a_start_that_is_dropped_leaves_nothing() {
    for phase in [Old, Both, New] {
        let mut ended = false;
        for after in (0..).step_by(if phase == Both { 1 } else { 9 }) {
            let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
            ended = timeout(after * MS, start(&nodes, phase)).await.is_ok();
            sleep(Duration::from_secs(5)).await;
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
pub(super) async fn a_waiter_does_not_wake_itself() {
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

#[tokio::test(start_paused = true)]
async fn waiting() {
    a_waiter_does_not_wake_itself().await;
}

/// Losing it in one store is losing it, and what is left in the other is taken back.
#[tokio::test(start_paused = true)]
async fn the_loss_of_either_is_the_loss_of_both() {
    for lost in 0..2 {
        let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
        let (switch, asked) = (started(&nodes, Both).await, claim());
        acquired(&switch, &asked).await;
        nodes[lost].store.release(&asked);
        assert_eq!(switch.renew(&asked).await.expect("both are up"), lockcore::Renew::NotHeld);
        sleep(LIMIT).await;
        assert_eq!(holding(&nodes, &asked), 0);
        nodes[lost].be(Mood::Down);
        let error = switch.acquire(&claim()).await.expect_err("one is down");
        let store = ["the old store", "the new store"][lost];
        assert!(said(&error).contains(&format!("{store}: the store is unavailable")), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn status_says_who_is_where() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    let (old, both) = (started(&nodes, Old).await, started(&nodes, Both).await);
    acquired(&old, &claim_on("in/old")).await;
    acquired(&both, &claim_on("in/both")).await;
    let status = both.status().await.expect("both are up");
    let there: Vec<_> =
        status.processes().iter().map(|process| (process.phase, &*process.label)).collect();
    assert_eq!(there, [(Old, "in old"), (Both, "in both")]);
    let held: Vec<_> = status
        .held()
        .iter()
        .map(|held| (held.key.as_str(), held.old.is_some(), held.new.is_some()))
        .collect();
    assert_eq!(held, [("in/both", true, true), ("in/old", true, false)]);
    assert_eq!(status.in_the_way_of(New).count(), 1);
    assert_eq!(status.in_the_way_of(Old).count() + status.in_the_way_of(Both).count(), 0);
    let text = status.to_string();
    for line in [
        "phase old: 1 process\n",
        "held: 1 key in the old store alone, 1 in both, 0 in the new store alone",
        "phase old can be entered",
        "phase new cannot be entered: 1 in the way",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_keys_of_the_switch_are_its_own() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    let switch = started(&nodes, Both).await;
    let error = switch.acquire(&claim_on("leaselock.switchover/x")).await.expect_err("its own");
    assert!(matches!(error, BackendError::InvalidInput(_)), "{error}");
}
