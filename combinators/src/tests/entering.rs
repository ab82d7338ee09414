//! Whom a switch lets in, and what that costs the others.

use std::time::Duration;

use lockcore::ErrorKind;
use tokio::task::JoinSet;

use super::switchover::{STANDS, builder, pair, start, started};
use super::*;
use crate::Phase::{Both, New, Old};
use crate::Standing;

fn all_calls(node: &Node) -> usize {
    ["acquire", "renew", "release", "inspect", "list", "watch"]
        .into_iter()
        .map(|call| node.calls(call))
        .sum()
}

/// C4: whoever joins does not ask the store being left, and all are let in.
#[tokio::test(start_paused = true)]
async fn a_fleet_enters_at_once() {
    for together in [true, false] {
        let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
        let _both = started(&nodes, Both).await;
        sleep(2 * MAX_TTL).await;
        let first = if together { None } else { Some(builder(&nodes, New).start().await) };
        let before = nodes.each_ref().map(all_calls);
        let mut fleet = JoinSet::new();
        for _ in 0..100 {
            fleet.spawn(builder(&nodes, New).start());
        }
        let all: Vec<_> = fleet.join_all().await;
        assert!(
            all.iter().chain(&first).all(Result::is_ok),
            "{:?}",
            all.iter().find(|it| it.is_err())
        );
        let calls = [0, 1].map(|n| (all_calls(&nodes[n]) - before[n]) as f64 / 100.0);
        println!("together {together}: {calls:?} calls a process, old and new store");
        assert!(if together { calls[0] < 20.0 } else { calls[0] == 0.0 }, "{calls:?}");
        assert!(calls[1] < 20.0, "{calls:?}");
    }
}

/// C7: nobody may hold locks on the store being left that no switch knows of.
#[tokio::test(start_paused = true)]
async fn plain_processes_keep_new_out() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    let new = || builder(&nodes, New).start();
    let said = |error: lockcore::Error| {
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        error.to_string()
    };
    let error = said(new().await.expect_err("nobody is in both"));
    assert!(error.contains("nobody is registered in phase `both`"), "{error}");
    assert!(error.contains("`assume_alone`"), "{error}");
    let both = started(&nodes, Both).await;
    acquired(&both, &claim_on("ours")).await;
    let mut plain = claim_on("plain").with_label("cron-7");
    plain.ttl = STANDS * 9;
    nodes[0].store.acquire(&plain);
    for _ in 0..3 {
        let error = said(new().await.expect_err("a plain process"));
        assert!(error.contains("`plain` is held in the old store alone, by `cron-7`"), "{error}");
        // Those in both have seen it as well.
        sleep(STANDS).await;
    }
    assert_eq!(nodes[1].holder("leaselock.switchover/phase/new"), None, "without a trace");
    started(&nodes, New).await.leave().await;
    sleep(STANDS).await;
    nodes[0].store.release(&plain);
    new().await.expect("none is left");
    // And the other way round.
    sleep(STANDS).await;
    assert!(nodes[1].holder("leaselock.switchover/clean").is_some());
    nodes[1].store.acquire(&plain);
    let error = said(builder(&nodes, Old).start().await.expect_err("a plain process"));
    assert!(error.contains("in the new store alone"), "{error}");
}

/// C2: a store that does not show all of its locks hides those who hold them.
#[tokio::test(start_paused = true)]
async fn stores_show_all_of_their_locks() {
    for (blind, name) in [(0, "the old store"), (1, "the new store")] {
        let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
        let _both = started(&nodes, Both).await;
        sleep(MAX_TTL).await;
        nodes[blind].refuse("list");
        for phase in [Both, if blind == 0 { New } else { Old }] {
            let error = builder(&nodes, phase).start().await.expect_err("not seen");
            assert_eq!(error.kind(), ErrorKind::Rejected, "{phase}: {error}");
            assert!(error.to_string().contains(name), "{phase}: {error}");
            assert!(error.to_string().contains("list all of their locks"), "{phase}: {error}");
            let check = builder(&nodes, phase).check(&[]).await.expect("settings");
            let against = check.objections();
            assert!(against.iter().any(|why| why.contains("list all")), "{phase}: {against:?}");
        }
    }
}

/// C10: what those in both have seen need not be looked for.
#[tokio::test(start_paused = true)]
async fn a_fleet_in_both_has_looked() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    let _fleet = [started(&nodes, Both).await, started(&nodes, Both).await];
    sleep(MAX_TTL).await;
    let listed = nodes[0].calls("list");
    sleep(10 * MAX_TTL).await;
    let each = nodes[0].calls("list") - listed;
    assert!((8..=12).contains(&each), "one of them looks in a minute: {each}");
    nodes[0].hang("list");
    let (took, entered) = elapsed(builder(&nodes, New).start()).await;
    entered.expect("nobody in the way");
    assert!(took < 200 * MS, "{took:?}");
    // Without them, a store that cannot be looked through in time.
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    let _both = started(&nodes, Both).await;
    nodes[0].hang("list");
    let (took, error) = elapsed(builder(&nodes, New).start()).await;
    let error = error.expect_err("not seen");
    assert!(error.to_string().contains("whether others hold locks"), "{error}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// C12: settings that differ are told on both sides.
#[tokio::test(start_paused = true)]
async fn settings_are_alike() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    let _both = builder(&nodes, Both).settings("a to b").start().await.expect("nobody");
    for phase in [Both, New] {
        for wrong in [
            builder(&nodes, phase).settings("a to c"),
            builder(&nodes, phase).settings("a to b").max_ttl(MAX_TTL / 2),
        ] {
            let error = wrong.start().await.expect_err("they differ");
            assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
            assert!(error.to_string().contains("max_ttl=60s a to b"), "{error}");
        }
    }
    let _new = builder(&nodes, New).settings("a to b").start().await.expect("alike");
    let error = builder(&nodes, New).settings("a to c").start().await.expect_err("they differ");
    assert!(
        error.to_string().contains("a to c") && error.to_string().contains("a to b"),
        "{error}"
    );
}

/// C12: the two stores in the wrong order.
#[tokio::test(start_paused = true)]
async fn swapped_stores_are_refused() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    let swapped = [nodes[1].clone(), nodes[0].clone()];
    let old = started(&nodes, Old).await;
    for phase in [New, Both] {
        let error = start(&swapped, phase).await.expect_err("the wrong way round");
        assert!(error.to_string().contains("are swapped"), "{error}");
    }
    old.leave().await;
    sleep(STANDS).await;
    let _new = started(&nodes, New).await;
    let error = start(&swapped, Old).await.expect_err("the wrong way round");
    assert!(error.to_string().contains("are swapped"), "{error}");
}

/// C6: the new store goes down or hangs while locks are in both. The way back needs it no more.
#[tokio::test(start_paused = true)]
async fn the_old_store_is_gone_back_to_without_the_new_one() {
    for mood in [Mood::Down, Mood::Paused] {
        let nodes = pair(Tokens::Clock(0), Tokens::Revision);
        let both = started(&nodes, Both).await;
        let held = claim();
        let before = acquired(&both, &held).await;
        nodes[1].be(mood);
        both.acquire(&claim_on("other")).await.expect_err("one is down");
        let (took, old) = elapsed(builder(&nodes, Old).start()).await;
        let old = old.expect("nobody ran in the new store alone");
        assert!(took < Duration::from_secs(60), "{took:?}");
        if took < LIMIT {
            assert!(
                matches!(old.acquire(&claim()).await, Ok(Acquire::Contended(_))),
                "a neighbour"
            );
            sleep(TTL).await;
        }
        let after = acquired(&old, &claim()).await;
        assert!(after.token > before.token);
    }
}

/// C6: where somebody ran in it alone within a day, the way back is another.
#[tokio::test(start_paused = true)]
async fn a_mark_closes_the_way_back() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    let new = started(&nodes, New).await;
    let both = started(&nodes, Both).await;
    let before = acquired(&new, &claim()).await;
    nodes[1].be(Mood::Down);
    let error = builder(&nodes, Old).start().await.expect_err("it may run in new");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("`gone` and `floor`"), "{error}");
    let floor = new.floor() + 60_000_000;
    drop((new, both));
    sleep(STANDS).await;
    let old = builder(&nodes, Old).gone().floor(floor).start().await.expect("all have stopped");
    assert!(acquired(&old, &claim()).await.token > before.token);
}

/// C6: a new store that hangs costs those in the old one nothing, and each lock one probe at a time.
#[tokio::test(start_paused = true)]
async fn a_hung_store_does_not_keep_the_other() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    let (old, both) = (started(&nodes, Old).await, started(&nodes, Both).await);
    acquired(&old, &claim_on("so that there is a ceiling")).await;
    nodes[1].be(Mood::Paused);
    both.acquire(&claim()).await.expect_err("one is hung");
    let before = nodes[0].calls("acquire");
    let mut failing = JoinSet::new();
    for _ in 0..9 {
        let both = both.clone();
        failing.spawn(async move { elapsed(both.acquire(&claim())).await });
    }
    sleep(MS * 10).await;
    acquired(&old, &claim()).await;
    let all = failing.join_all().await;
    assert!(all.iter().all(|(_, answer)| answer.is_err()));
    let fast = all.iter().filter(|(took, _)| *took < 20 * MS).count();
    assert_eq!(fast, 8, "one asks, and the others fail at once");
    assert_eq!(nodes[0].calls("acquire") - before, 1, "nobody took the old store's key for it");
    nodes[1].be(Mood::Well);
    sleep(TTL).await;
    acquired(&both, &claim_on("again")).await;
    acquired(&both, &claim_on("and again")).await;
}

/// The end of a process that has lost its phase is told to who waits for it.
#[tokio::test(start_paused = true)]
async fn changes_are_told() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    let switch = started(&nodes, Old).await;
    assert!(switch.is_registered() && switch.standing() == Standing::In);
    nodes[0].store.wipe();
    nodes[1].be(Mood::Down);
    let (took, next) = elapsed(switch.changed(&Standing::In)).await;
    assert_eq!(next, Standing::Lost);
    assert!(took <= MAX_TTL, "{took:?}");
    switch.leave().await;
    assert_eq!(switch.changed(&Standing::Lost).await, Standing::Left);
}
