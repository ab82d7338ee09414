//! What a store that is left knows of its greatest token.

use lockcore::{HolderId, Renew};

use super::switchover::{KINDS, STANDS, pair, started};
use super::*;
use crate::Phase::{Both, New, Old};
use crate::Switchover;

const CEILING: &str = "leaselock.switchover/ceiling";

/// Many leases of one key, and raises, put its counter far ahead of all others; whoever leaves the
/// store knows of it all the same, whenever that is.
#[tokio::test(start_paused = true)]
async fn no_token_is_answered_above_the_ceiling() {
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
                let own = nodes[store].store.list(CEILING, None, 1);
                let ceiling = own.first().expect("it stands").token;
                assert!(ceiling > raised.token, "{kind:?}, {phase}: {ceiling} {raised:?}");
                switch.release(&claim).await.expect("held");
                claim.holder = HolderId::random();
            }
        }
    }
}

/// A store is asked for its ceiling once, and no more while tokens stay below it.
#[tokio::test(start_paused = true)]
async fn a_ceiling_is_seldom_raised() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    let switch = started(&nodes, Old).await;
    acquired(&switch, &claim_on("first")).await;
    let (before, renewed) = (nodes[0].calls("acquire"), nodes[0].calls("renew"));
    for n in 0..20 {
        sleep(100 * MS).await;
        acquired(&switch, &claim_on(&format!("k{n}"))).await;
    }
    assert_eq!(nodes[0].calls("acquire") - before, 20);
    assert_eq!(nodes[0].calls("renew"), renewed);
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
            sleep(STANDS).await;
        }
        // What the store's clock says: a key of its own has no other token.
        let now = acquired(&nodes[0], &claim_on(&format!("clock/{way}"))).await.token;
        let ahead = floors.iter().max().expect("some").saturating_sub(now);
        assert!(ahead < 13_000_000, "way {way}: {ahead} us ahead");
        for last in fleet {
            last.leave().await;
        }
        sleep(STANDS).await;
    }
}

/// Without a ceiling there is no lease: it might have a token that nobody knows of later.
#[tokio::test(start_paused = true)]
async fn a_ceiling_that_cannot_be_raised_is_told_as_ambiguous() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    let switch = started(&nodes, New).await;
    let mut stranger = claim_on(CEILING);
    stranger.ttl = MAX_TTL;
    nodes[1].store.acquire(&stranger);
    let (took, answer) = elapsed(switch.acquire(&claim_on("another"))).await;
    let error = answer.expect_err("somebody keeps it");
    assert!(matches!(error, BackendError::Ambiguous(_)), "{error:?}");
    assert!(took < Duration::from_secs(12), "{took:?}");
    // However many there are: they share the answer.
    let mut asking = tokio::task::JoinSet::new();
    for n in 0..9 {
        let (switch, other) = (switch.clone(), claim_on(&format!("other/{n}")));
        asking.spawn(async move { switch.acquire(&other).await });
    }
    let (took, answers) = elapsed(asking.join_all()).await;
    assert!(answers.iter().all(|answer| matches!(answer, Err(BackendError::Ambiguous(_)))));
    assert!(took < Duration::from_secs(12), "{took:?}");
}

/// Law: register, look, ceiling, confirm, in this order; a ceiling that another raises meanwhile is
/// met.
#[tokio::test(start_paused = true)]
async fn the_ceiling_comes_after_the_look() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    let old = started(&nodes, Old).await;
    let mut last = 0;
    // Whoever enters does so while somebody in the opposite phase still raises it, and ends.
    for _ in 0..3 {
        let asked = claim();
        let lease = acquired(&old, &asked).await;
        last = lease.token + 7_000_000;
        old.renew(&asked.clone().with_min_token(last)).await.expect("held");
        old.release(&asked).await.expect("held");
    }
    old.leave().await;
    sleep(STANDS).await;
    let new = started(&nodes, New).await;
    assert!(new.floor() > last, "{} {last}", new.floor());
    let joined = started(&nodes, New).await;
    assert_eq!(joined.floor(), new.floor(), "who joins has the floor of who began");
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
        let switch =
            switch.max_ttl(MAX_TTL / 3).assume_alone().start().await.expect("nobody in the way");
        let asked = claim();
        acquired(&switch, &asked).await;
        switch.release(&asked).await.expect("held");
        switch.leave().await;
        sleep(MAX_TTL).await;
    }
}
