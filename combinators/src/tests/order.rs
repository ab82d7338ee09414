//! Calls that are dropped, late or doubled.

use lockcore::Renew;

use super::*;

/// Whenever the caller stops waiting and releases, nothing is left behind that nobody holds.
pub(super) async fn a_release_comes_after_the_acquire_that_it_undoes() {
    for after in 0..60 {
        let (quorum, nodes) = quorum(3).await;
        for (n, node) in (after.into()..).zip(&nodes) {
            node.delays(n, 0, 20);
        }
        let (claim, asked) = (claim(), claim());
        let _ = timeout(after * MS, quorum.acquire(&asked)).await;
        let _ = quorum.release(&asked).await;
        sleep(LIMIT).await;
        assert_eq!(holding(&nodes, &asked), 0, "dropped after {after} ms");
        assert_eq!(quorum.0.calls.holders_known(), 0, "dropped after {after} ms");
        acquired(&quorum, &claim).await;
    }
}

#[tokio::test(start_paused = true)]
async fn undoing() {
    a_release_comes_after_the_acquire_that_it_undoes().await;
}

/// Dropped before it has run, an acquire must not come behind its own release.
#[tokio::test(start_paused = true)]
async fn a_release_comes_after_an_acquire_that_was_only_begun() {
    let (quorum, nodes) = quorum(3).await;
    let asked = claim();
    tokio::select! {
        biased;
        _ = quorum.acquire(&asked) => panic!("at once?"),
        () = std::future::ready(()) => {}
    }
    let _ = quorum.release(&asked).await;
    sleep(LIMIT).await;
    assert_eq!(holding(&nodes, &asked), 0);
}

/// The first attempt fails after its caller has gone; by then the same holder asked again, and
/// what it is granted must not be taken back behind its back.
pub(super) async fn an_attempt_does_not_undo_the_one_after_it() {
    for after in 1..LIMIT.as_millis() / 20 {
        let after = MS * 20 * u32::try_from(after).expect("small");
        let (quorum, nodes) = quorum(3).await;
        let asked = claim();
        nodes[0].lose("acquire");
        nodes[1].lose("acquire");
        assert!(timeout(after, quorum.acquire(&asked)).await.is_err());
        acquired(&quorum, &asked).await;
        sleep(LIMIT).await;
        assert_eq!(holding(&nodes, &asked), 3, "asked again after {after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn asking_again() {
    an_attempt_does_not_undo_the_one_after_it().await;
}

/// A lease that was granted stands, although the holder asks again and too few answer.
pub(super) async fn asking_again_takes_nothing_back() {
    let (quorum, nodes) = quorum(3).await;
    let asked = claim();
    let lease = acquired(&quorum, &asked).await;
    sleep(LIMIT).await;
    nodes[0].lose("acquire");
    nodes[1].lose("acquire");
    let error = quorum.acquire(&asked).await.expect_err("one of three");
    assert!(matches!(error, BackendError::Ambiguous(_)), "{error}");
    sleep(LIMIT).await;
    assert_eq!(holding(&nodes, &asked), 3);
    assert_eq!(acquired(&quorum, &asked).await.token, lease.token);
    // What is another's is not asked for again.
    quorum.release(&asked).await.expect("all are well");
    let (mine, other) = (claim(), claim());
    acquired(&quorum, &mine).await;
    sleep(LIMIT).await;
    for node in &nodes[..2] {
        node.store.release(&mine);
        node.store.acquire(&other);
    }
    let answer = quorum.acquire(&mine).await.expect("all are well");
    assert!(matches!(answer, Acquire::Contended(_)), "{answer:?}");
    sleep(LIMIT).await;
    assert_eq!((holding(&nodes, &mine), holding(&nodes, &other)), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn standing() {
    asking_again_takes_nothing_back().await;
}

/// Dropped while it takes back what it was granted: the same holder gets no lease any more.
pub(super) async fn a_holder_that_was_taken_back_is_spent() {
    for after in 0..60 {
        let (quorum, nodes) = quorum(3).await;
        let (other, asked) = (claim(), claim());
        nodes[0].store.acquire(&other);
        nodes[1].store.acquire(&other);
        let dropped = timeout(after * MS, quorum.acquire(&asked)).await.is_err();
        nodes[0].store.release(&other);
        nodes[1].store.release(&other);
        if let Ok(Acquire::Acquired(_)) = quorum.acquire(&asked).await {
            assert!(dropped, "asked again after a definite answer");
            sleep(LIMIT).await;
            assert!(holding(&nodes, &asked) >= 2, "dropped after {after} ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn spent() {
    a_holder_that_was_taken_back_is_spent().await;
}

/// What failed is taken back where the answer got lost, too.
pub(super) async fn a_loser_releases_everywhere() {
    let (quorum, nodes) = quorum(3).await;
    let (other, asked) = (claim(), claim());
    nodes[0].store.acquire(&other);
    nodes[1].be(Mood::Down);
    nodes[2].lose("acquire");
    quorum.acquire(&asked).await.expect_err("no majority");
    sleep(LIMIT).await;
    assert_eq!(holding(&nodes, &asked), 0);
}

#[tokio::test(start_paused = true)]
async fn losing() {
    a_loser_releases_everywhere().await;
}

/// Nor are the emptied stores given it again by what goes on behind the renewal before.
#[tokio::test(start_paused = true)]
async fn what_a_renewal_has_found_gone_is_not_renewed() {
    let (quorum, nodes) = quorum(5).await;
    let asked = claim();
    acquired(&quorum, &asked).await;
    sleep(LIMIT).await;
    for node in &nodes[..3] {
        node.store.wipe();
    }
    nodes[3].delays(0, 50, 50);
    nodes[4].delays(0, 50, 50);
    assert_eq!(quorum.renew(&asked).await.expect("three answers"), Renew::NotHeld);
    sleep(LIMIT).await;
    assert_eq!(holding(&nodes, &asked), 2);
    assert_eq!(quorum.renew(&asked).await.expect("spent"), Renew::NotHeld);
    sleep(TTL).await;
    assert_eq!(holding(&nodes, &asked), 0);
}

/// What is known about holders goes when they do.
#[tokio::test(start_paused = true)]
async fn holders_are_forgotten() {
    let (quorum, nodes) = quorum(3).await;
    for _ in 0..300 {
        let (winner, loser) = (claim(), claim());
        acquired(&quorum, &winner).await;
        let _ = quorum.acquire(&loser).await;
        quorum.release(&winner).await.expect("held");
    }
    sleep(LIMIT).await;
    assert_eq!(quorum.0.calls.holders_known(), 0);
    // Those whose caller went without a word are forgotten with time.
    for _ in 0..300 {
        let _ = timeout(MS, quorum.acquire(&claim())).await;
        sleep(MAX_TTL).await;
    }
    assert!(quorum.0.calls.holders_known() < 130, "{}", quorum.0.calls.holders_known());
    drop(nodes);
}

/// On a runtime that has ended nothing runs, and nothing hangs.
#[test]
fn a_runtime_that_has_ended_does_not_hang_anybody() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("one");
    let (handle, nodes) = {
        let _entered = runtime.enter();
        (runtime.handle().clone(), nodes(3))
    };
    let (quorum, asked) = (over(&nodes), claim());
    drop(runtime);
    let _entered = handle.enter();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    for _ in 0..2 {
        let acquire = std::pin::pin!(quorum.acquire(&asked)).poll(&mut context);
        assert!(matches!(acquire, std::task::Poll::Ready(Err(BackendError::Ambiguous(_)))));
        let renew = std::pin::pin!(quorum.renew(&asked)).poll(&mut context);
        assert!(matches!(renew, std::task::Poll::Ready(Err(BackendError::Ambiguous(_)))));
    }
    let release = std::pin::pin!(quorum.release(&asked)).poll(&mut context);
    assert!(matches!(release, std::task::Poll::Ready(Err(_))), "{release:?}");
    assert_eq!(quorum.0.calls.holders_known(), 0);
}

/// Whoever stopped waiting for an attempt that failed is told why when it asks again.
pub(super) async fn asking_again_after_a_roll_back_tells_why() {
    for after in [LIMIT / 2, LIMIT + 5 * MS, LIMIT * 4] {
        let (quorum, nodes) = quorum(3).await;
        nodes[0].be(Mood::Paused);
        nodes[1].be(Mood::Paused);
        let asked = claim();
        let waited = timeout(after.min(LIMIT + 5 * MS), quorum.acquire(&asked)).await;
        assert!(waited.is_err(), "after {after:?}");
        sleep(after.saturating_sub(LIMIT + 5 * MS)).await;
        let error = quorum.acquire(&asked).await.expect_err("two of three are paused");
        assert!(matches!(error, BackendError::Unavailable(_)), "{error:?}");
        assert!(said(&error).contains("n0: the outcome is unknown"), "{error}");
        let released = quorum.release(&asked).await;
        assert!(released.is_err(), "{released:?}");
        nodes[0].be(Mood::Well);
        nodes[1].be(Mood::Well);
        sleep(LIMIT).await;
        assert_eq!(quorum.0.calls.holders_known(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn asking_again_after_a_roll_back() {
    asking_again_after_a_roll_back_tells_why().await;
}

/// A store that another had at first is given the lease as well, and not for longer than that lasts.
pub(super) async fn a_store_is_joined_for_what_is_left() {
    let (quorum, nodes) = quorum(3).await;
    let (mut other, asked) = (claim(), claim());
    other.ttl = TTL - 2 * LIMIT;
    nodes[2].store.acquire(&other);
    let end = tokio::time::Instant::now() + TTL;
    acquired(&quorum, &asked).await;
    while nodes[2].holder(KEY) != Some(asked.holder) {
        sleep(5 * MS).await;
        assert!(tokio::time::Instant::now() < end, "never joined");
    }
    let joined = nodes[2].store.info(&asked.key).expect("joined").remaining;
    let left = end.saturating_duration_since(tokio::time::Instant::now());
    assert!(joined <= left + 10 * MS, "joined for {joined:?}, and {left:?} were left");
}

#[tokio::test(start_paused = true)]
async fn joining() {
    a_store_is_joined_for_what_is_left().await;
}

/// Two attempts of one holder at once: the first is not told that the program is ending.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_overtaken_is_told() {
    let (quorum, nodes) = quorum(3).await;
    let asked = claim();
    nodes[0].be(Mood::Paused);
    nodes[1].be(Mood::Paused);
    let again = async {
        sleep(LIMIT / 2).await;
        quorum.acquire(&asked).await
    };
    let (first, again) = tokio::join!(quorum.acquire(&asked), again);
    let (first, again) = (first.expect_err("overtaken"), again.expect_err("two are paused"));
    assert!(matches!(first, BackendError::Ambiguous(_)), "{first:?}");
    assert!(
        std::error::Error::source(&first).expect("a source").to_string().contains("asked again")
    );
    assert!(matches!(again, BackendError::Unavailable(_)), "{again:?}");
}
