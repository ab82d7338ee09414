//! Who may run at once, and until when.

use lockcore::{ErrorKind, LockManager, LostReason, Renew};

use super::switchover::{STANDS, builder, pair, start, started};
use super::*;
use crate::Phase::{self, Both, New, Old};
use crate::Standing;

const PHASE: &str = "leaselock.switchover/phase/";

fn stands(node: &Node, phase: Phase) -> bool {
    node.holder(&format!("{PHASE}{phase}")).is_some()
}

/// However two starts interleave, never do both succeed; and one of two in turn does.
#[tokio::test(start_paused = true)]
async fn opposite_phases_never_run_at_once() {
    let mut outcomes = [0; 4];
    for seed in 0..60 {
        let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
        for (n, node) in (0..).zip(&nodes) {
            node.delays(2 * seed + n, 0, 40);
        }
        let late = Duration::from_millis(fastrand::Rng::with_seed(seed).u64(..160));
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

/// Law: no path gives a phase back: others may have joined. It ends when nobody renews it.
#[tokio::test(start_paused = true)]
async fn nobody_releases_a_phase() {
    for (phase, own) in [(Old, 0), (New, 1)] {
        let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
        let switch = started(&nodes, phase).await;
        let opposite = if phase == Old { New } else { Old };
        start(&nodes, opposite).await.expect_err("refused at the first look");
        assert!(!stands(&nodes[1 - own], opposite), "without a trace");
        let released = nodes.each_ref().map(|node| node.calls("release"));
        switch.leave().await;
        assert!(stands(&nodes[own], phase));
        // That it is not shown any more is all that is said.
        assert_eq!(nodes[own].calls("release") - released[own], 1);
        sleep(STANDS - MAX_TTL - Duration::from_secs(1)).await;
        start(&nodes, opposite).await.expect_err("it stands");
        sleep(MAX_TTL + Duration::from_secs(1)).await;
        started(&nodes, opposite).await;
    }
}

/// Whenever a start is dropped, what it began ends by itself, and another in the phase goes on.
#[tokio::test(start_paused = true)]
async fn a_start_that_is_dropped_takes_nothing_back() {
    for phase in [Old, Both, New] {
        let mut ended = false;
        for after in (0..).step_by(3) {
            let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
            ended = timeout(after * MS, start(&nodes, phase)).await.is_ok();
            let switch = started(&nodes, phase).await;
            sleep(2 * STANDS).await;
            assert!(switch.is_registered(), "{phase}, after {after} ms");
            switch.leave().await;
            sleep(2 * STANDS).await;
            for node in &nodes {
                let left = node.store.list("", None, 10);
                let mark = |info: &lockcore::LeaseInfo| info.key.as_str().ends_with("open/new");
                assert!(left.iter().all(mark), "{phase}, after {after} ms: {left:?}");
            }
            if ended {
                break;
            }
        }
        assert!(ended);
    }
}

/// Law: a renewal proves the phase only with the same token, and a phase alone proves nothing.
#[tokio::test(start_paused = true)]
async fn another_run_of_the_phase_is_not_this_one() {
    for lost in ["phase/new", "in/new/"] {
        let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
        let switch = started(&nodes, New).await;
        let own = &nodes[1].store;
        let all = own.list("leaselock.switchover/", None, 9);
        let info = all.iter().find(|info| info.key.as_str().contains(lost)).expect("it stands");
        let claim = Claim::new(info.key.clone(), info.holder, STANDS).with_label(&*info.label);
        own.release(&claim);
        if lost == "phase/new" {
            // A late double of an old acquire revives it.
            sleep(MS).await;
            own.acquire(&claim);
        }
        nodes[0].be(Mood::Down);
        sleep(MAX_TTL + Duration::from_secs(1)).await;
        assert_eq!(switch.standing(), Standing::Lost, "{lost}");
        switch.acquire(&self::claim()).await.expect_err("not registered");
        // Neither may be joined without a look.
        let error = start(&nodes, New).await.expect_err("one is down");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        nodes[0].be(Mood::Well);
        assert_eq!(switch.changed(&Standing::Lost).await, Standing::In);
        acquired(&switch, &self::claim()).await;
    }
}

/// Law: belief counts from the beginning of a call, and no lease outlives it.
#[tokio::test(start_paused = true)]
async fn no_lease_outlives_the_phase() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    let switch = started(&nodes, New).await;
    // From now on nothing comes through that renews it.
    nodes[1].be(Mood::Paused);
    let mut given = 0;
    for _ in 0..200 {
        sleep(Duration::from_secs(1)).await;
        nodes[1].be(Mood::Well);
        let phase = nodes[1].store.list(PHASE, None, 1);
        let remaining = phase.first().map_or(Duration::ZERO, |info| info.remaining);
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

/// A slow answer proves the phase for less.
#[tokio::test(start_paused = true)]
async fn a_slow_renewal_counts_from_its_beginning() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    let switch = started(&nodes, New).await;
    sleep(MAX_TTL - Duration::from_secs(1)).await;
    nodes[1].delays(0, 0, 1);
    sleep(Duration::from_secs(2)).await;
    let renewed = tokio::time::Instant::now();
    nodes[1].be(Mood::Down);
    let mut asked = claim();
    asked.ttl = MAX_TTL;
    sleep(2 * MAX_TTL - Duration::from_secs(4)).await;
    let error = switch.acquire(&asked).await.expect_err("down");
    assert!(error.to_string().contains("refused"), "{error}");
    sleep(Duration::from_secs(4)).await;
    let error = switch.acquire(&asked).await.expect_err("it would outlive the phase");
    assert!(error.to_string().contains("not registered"), "{error} {:?}", renewed.elapsed());
}

/// While it was not in its phase others may have been in the opposite one: who was refused stays out
/// until it is started anew.
#[tokio::test(start_paused = true)]
async fn who_was_refused_stays_out() {
    let nodes = pair(Tokens::Clock(0), Tokens::Revision);
    let new = started(&nodes, New).await;
    let before = acquired(&new, &claim()).await;
    nodes[1].store.wipe();
    let old = started(&nodes, Old).await;
    // It finds out when it renews, and is refused.
    sleep(MAX_TTL + Duration::from_secs(1)).await;
    assert!(!new.is_registered());
    let Standing::Out(why) = new.standing() else { panic!("{:?}", new.standing()) };
    assert!(why.contains("while phase `old` stands") && why.contains("start"), "{why}");
    let refused = new.acquire(&claim()).await.expect_err("others are in the opposite phase");
    assert!(matches!(refused, BackendError::Rejected(_)), "{refused}");
    let asked = claim();
    let between = acquired(&old, &asked).await;
    assert!(between.token > before.token);
    old.release(&asked).await.expect("held");
    old.leave().await;
    sleep(2 * STANDS).await;
    new.acquire(&claim()).await.expect_err("it stays out");
    let anew = started(&nodes, New).await;
    let after = acquired(&anew, &claim()).await;
    assert!(after.token > between.token, "{after:?} after {between:?}");
}

/// A store that lost its data is entered anew where nobody is in the way.
#[tokio::test(start_paused = true)]
async fn what_was_lost_is_entered_anew() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    let new = started(&nodes, New).await;
    let before = acquired(&new, &claim()).await;
    nodes[1].store.wipe();
    sleep(MAX_TTL + Duration::from_secs(1)).await;
    assert!(new.is_registered());
    assert!(acquired(&new, &claim()).await.token > before.token);
}

/// Law: how long it was out is looked at before it comes back, and when it is back.
#[tokio::test(start_paused = true)]
async fn who_was_out_for_long_stays_out() {
    let hour = Duration::from_secs(3600);
    for (hang, stays) in [(hour / 2, false), (hour + MAX_TTL, true)] {
        let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
        let switch = started(&nodes, New).await;
        nodes[1].be(Mood::Paused);
        sleep(hang).await;
        nodes[1].be(Mood::Well);
        sleep(MAX_TTL).await;
        assert_eq!(switch.is_registered(), !stays, "{hang:?}");
        if stays {
            let error = switch.acquire(&claim()).await.expect_err("it stays out");
            assert!(error.to_string().contains("out of phase `new` for more than"), "{error}");
        }
    }
    // Coming back ends after an hour, and began before it.
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    let switch = builder(&nodes, New).assume_alone().max_absence(Duration::from_secs(300));
    let switch = switch.start().await.expect("nobody in the way");
    nodes[1].store.wipe();
    nodes[0].be(Mood::Down);
    sleep(Duration::from_secs(295)).await;
    nodes[0].be(Mood::Well);
    nodes[1].delays(0, 900, 901);
    sleep(Duration::from_secs(20)).await;
    assert!(matches!(switch.standing(), Standing::Out(_)), "{:?}", switch.standing());
}

/// Nothing is granted after it, and it waits for what is held.
#[tokio::test(start_paused = true)]
async fn leaving_waits_for_locks() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    for release in [true, false] {
        let old = started(&nodes, Old).await;
        let locks = LockManager::builder(old.clone()).ttl(TTL).build().expect("a ttl");
        let guard = locks.lock(KEY).expect("a key").acquire().await.expect("free");
        sleep(Duration::from_secs(20)).await;
        let leaving = tokio::spawn(async move { old.leave().await });
        sleep(Duration::from_secs(1)).await;
        assert!(guard.is_valid() && !leaving.is_finished());
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
        sleep(STANDS).await;
        let new = started(&nodes, New).await;
        let (took, ()) = elapsed(new.leave()).await;
        assert!(took < 20 * MS, "it has no locks to wait for: {took:?}");
        sleep(STANDS).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_left_gives_no_leases() {
    for after in 0..30 {
        let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
        let switch = started(&nodes, New).await;
        // In the middle of entering anew.
        nodes[1].store.wipe();
        sleep(MAX_TTL - 5 * MS + after * MS).await;
        switch.leave().await;
        let error = switch.acquire(&claim()).await.expect_err("it has left");
        assert!(matches!(error, BackendError::Rejected(_)), "{error}");
        sleep(Duration::from_secs(10)).await;
        assert_eq!(switch.status().await.expect("both are up").processes().count(), 0);
        assert_eq!(switch.standing(), Standing::Left);
        switch.acquire(&claim()).await.expect_err("it has left");
    }
}

/// Whoever enters the opposite phase waits for what was promised, and not for what a store that
/// rounds up has granted.
#[tokio::test(start_paused = true)]
async fn no_lock_outlives_its_promise() {
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
