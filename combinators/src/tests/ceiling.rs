//! What a store that is left knows of its greatest token.

use lockcore::{HolderId, Renew};

use super::switchover::{KINDS, pair, started};
use super::*;
use crate::Phase::{Both, New, Old};
use crate::Switchover;

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
                let Ok(Renew::Renewed(raised)) = switch.renew(&claim).await else {
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
    // However many there are: they share the answer.
    hold(MAX_TTL);
    let others: Vec<_> = (0..9).map(|n| claim_on(&format!("other/{n}"))).collect();
    let mut asking = tokio::task::JoinSet::new();
    for other in others {
        let switch = switch.clone();
        asking.spawn(async move { switch.acquire(&other).await });
    }
    let (took, answers) = elapsed(asking.join_all()).await;
    assert!(answers.iter().all(|answer| matches!(answer, Err(BackendError::Ambiguous(_)))));
    assert!(took < Duration::from_secs(12), "{took:?}");
}

/// A store of a quorum has a twelfth of a ttl to answer, and a ceiling must not ask for less than
/// locks do.
#[tokio::test(start_paused = true)]
async fn a_slow_quorum_has_a_ceiling() {
    let ((old, _), (new, slow)) = (quorum(3).await, quorum(3).await);
    for node in &slow {
        node.delays(0, 200, 200);
    }
    for phase in [New, Both, Old, Both, New] {
        let switch = Switchover::builder(old.clone(), new.clone(), phase);
        let switch = switch.max_ttl(MAX_TTL / 3).start().await.expect("nobody in the way");
        let asked = claim();
        acquired(&switch, &asked).await;
        switch.release(&asked).await.expect("held");
        switch.leave().await;
    }
}
