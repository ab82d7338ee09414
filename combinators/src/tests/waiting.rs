//! Waiting, and looking.

use lockcore::LockManager;

use super::*;

/// A holder whose lease one store lacks looks like a split vote for ever; who waits for it must
/// not ask as often as after one.
#[tokio::test(start_paused = true)]
async fn a_waiter_calms_down() {
    let (quorum, nodes) = quorum(3).await;
    nodes[2].delays(0, 2, 2);
    let mut holder = claim().with_announcement();
    holder.ttl = MAX_TTL;
    nodes[0].store.acquire(&holder);
    nodes[1].store.acquire(&holder);
    let lock = LockManager::new(quorum).lock(KEY).expect("a key");
    let began = tokio::time::Instant::now();
    let waiting = tokio::spawn(async move { lock.acquire().await });
    sleep(Duration::from_secs(30)).await;
    let asked = nodes[0].calls("acquire");
    assert!(asked <= 40, "asked {asked} times in 30 s");
    nodes[0].store.release(&holder);
    nodes[1].store.release(&holder);
    let guard = waiting.await.expect("no panic").expect("free");
    assert!(began.elapsed() <= Duration::from_millis(30_100), "{:?}", began.elapsed());
    drop(guard);
}

pub(super) async fn a_release_wakes_other_processes() {
    let (quorum, nodes) = quorum(3).await;
    let other = over(&nodes);
    let guard = LockManager::new(quorum).lock(KEY).expect("a key").acquire().await.expect("free");
    // It looks by itself once a minute.
    let builder = LockManager::builder(other).poll_every(Duration::from_secs(60));
    let lock = builder.build().expect("settings").lock(KEY).expect("a key");
    let waiting = tokio::spawn(async move { lock.acquire().await });
    sleep(Duration::from_secs(1)).await;
    let (took, _) = elapsed(async {
        guard.release().await.expect("held");
        waiting.await.expect("no panic").expect("free")
    })
    .await;
    assert!(took <= 100 * MS, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_release_wakes() {
    a_release_wakes_other_processes().await;
}

#[tokio::test(start_paused = true)]
async fn a_hung_node_does_not_hide_what_the_others_show() {
    let (quorum, nodes) = quorum(3).await;
    let asked = claim();
    let lease = acquired(&quorum, &asked).await;
    sleep(LIMIT).await;
    nodes[0].be(Mood::Paused);
    let (took, info) = elapsed(quorum.inspect(&asked.key)).await;
    let info = info.expect("two of three").expect("held");
    assert_eq!((info.holder, info.token), (asked.holder, lease.token));
    // As long again as the others took.
    assert_eq!(took, 20 * MS);
    let free = LockKey::new("free").expect("a key");
    assert_eq!(quorum.inspect(&free).await.expect("two of three"), None);
    nodes[1].be(Mood::Paused);
    quorum.inspect(&free).await.expect_err("one of three");
}

/// A look that did not need the slowest store says nothing against it: later it is waited for.
pub(super) async fn a_store_that_was_not_needed_is_not_silent() {
    let (quorum, nodes) = quorum(3).await;
    nodes[2].delays(0, 30, 30);
    let asked = claim();
    assert_eq!(quorum.inspect(&asked.key).await.expect("free in two"), None);
    sleep(5 * LIMIT).await;
    nodes[0].store.acquire(&asked);
    assert_eq!(quorum.inspect(&asked.key).await.expect("three of three"), None);
}

#[tokio::test(start_paused = true)]
async fn looking_again() {
    a_store_that_was_not_needed_is_not_silent().await;
}

/// A store that has not heard of a renewal yet does not show the lease's old end, where another as
/// fast as it knows the new one.
#[tokio::test(start_paused = true)]
async fn inspect_shows_a_renewal_that_one_store_lacks() {
    let (quorum, nodes) = quorum(3).await;
    let mut asked = claim();
    acquired(&quorum, &asked).await;
    sleep(LIMIT).await;
    nodes[0].delays(0, 100, 100);
    asked.ttl = 4 * TTL;
    quorum.renew(&asked).await.expect("a majority");
    nodes[0].delays(0, 4, 4);
    let info = quorum.inspect(&asked.key).await.expect("all are well").expect("held");
    assert!(info.remaining > 3 * TTL, "{:?} are left", info.remaining);
}

/// With a store down, a key that the others disagree about is shown and hides no other key.
#[tokio::test(start_paused = true)]
async fn list_shows_what_is_in_doubt() {
    let (quorum, nodes) = quorum(3).await;
    let (held, doubt) = (claim_on("list/held"), claim_on("list/doubt"));
    acquired(&quorum, &held).await;
    sleep(LIMIT).await;
    nodes[1].store.acquire(&doubt);
    let keys = async || {
        let list = quorum.list("list/", None, 10).await.expect("a majority");
        list.into_iter().map(|info| info.key.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys().await, ["list/held"]);
    nodes[0].be(Mood::Down);
    assert_eq!(keys().await, ["list/doubt", "list/held"]);
    nodes[2].be(Mood::Down);
    quorum.list("list/", None, 10).await.expect_err("one of three");
}

/// Pages of different stores do not hide keys from each other.
#[tokio::test(start_paused = true)]
async fn pages_are_put_together() {
    let (quorum, nodes) = quorum(3).await;
    let mut expected = Vec::new();
    for n in 0..400 {
        let key = LockKey::new(format!("list/{n:03}")).expect("a key");
        let claim = Claim::new(key, HolderId::random(), MAX_TTL);
        // One store has much that the others have not.
        nodes[0].store.acquire(&claim);
        if n % 7 == 0 {
            nodes[1 + n % 2].store.acquire(&claim);
            expected.push(claim.key);
        }
    }
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = quorum.list("list/", after.as_ref(), 9).await.expect("all are well");
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        found.extend(page.into_iter().map(|info| info.key));
    }
    assert_eq!(found, expected);
    // However many are asked for, no store has to show all of them within its time.
    let before = nodes[0].calls("list");
    let all = quorum.list("list/", None, usize::MAX).await.expect("all are well");
    assert_eq!(all.into_iter().map(|info| info.key).collect::<Vec<_>>(), expected);
    assert_eq!(nodes[0].calls("list") - before, 5);
}

/// A program may end when its release was answered: no store is left to its ttl for being a
/// little later than the majority, and none that hangs is waited for.
#[tokio::test(start_paused = true)]
async fn a_release_waits_a_little_for_the_rest() {
    let (quorum, nodes) = quorum(3).await;
    nodes[2].delays(0, 8, 8);
    let asked = claim();
    acquired(&quorum, &asked).await;
    sleep(LIMIT).await;
    let (took, released) = elapsed(quorum.release(&asked)).await;
    released.expect("held");
    assert_eq!((took, holding(&nodes, &asked)), (16 * MS, 0));
    let asked = claim();
    acquired(&quorum, &asked).await;
    sleep(LIMIT).await;
    nodes[2].be(Mood::Paused);
    let (took, released) = elapsed(quorum.release(&asked)).await;
    released.expect("held");
    assert_eq!(took, 20 * MS);
}

/// A store that hangs costs a long list a second once, and not with each page.
#[tokio::test(start_paused = true)]
async fn a_long_list_does_not_wait_for_a_hung_node() {
    let (quorum, nodes) = quorum(5).await;
    for n in 0..350 {
        let mut asked = claim_on(&format!("k{n:03}"));
        asked.ttl = MAX_TTL;
        acquired(&quorum, &asked).await;
    }
    sleep(LIMIT).await;
    nodes[0].be(Mood::Paused);
    let (took, list) = elapsed(quorum.list("k", None, 1000)).await;
    assert_eq!(list.expect("four of five").len(), 350);
    assert!(took < Duration::from_millis(1_200), "{took:?}");
}
