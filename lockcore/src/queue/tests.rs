use super::burst::SHORT_PAUSE;
use super::*;
use crate::claim::Claim;
use crate::key::HolderId;

fn key(n: usize) -> LockKey {
    LockKey::new(format!("k{n}")).expect("valid")
}

fn queue(has_line: bool) -> Arc<Queue> {
    Arc::new(Queue::new(has_line, Duration::from_secs(30), Box::new(|_| {})))
}

async fn enter(queue: &Arc<Queue>, n: usize) -> Turn {
    match queue.enter::<()>(&key(n), || None).await {
        Ok(turn) => turn,
        Err(()) => panic!("nobody gave up"),
    }
}

#[tokio::test]
async fn turns_go_round_in_order() {
    let queue = queue(true);
    let order = Arc::new(Mutex::new(Vec::new()));
    let first = enter(&queue, 0).await;
    let mut tasks = Vec::new();
    for n in 0..10 {
        let (queue, order) = (queue.clone(), order.clone());
        tasks.push(tokio::spawn(async move {
            let _turn = enter(&queue, 0).await;
            order.lock().expect("unpoisoned").push(n);
        }));
        tokio::task::yield_now().await;
    }
    drop(first);
    // Nobody jumps the queue.
    assert!(queue.try_enter(&key(0)).is_none());
    for task in tasks {
        task.await.expect("no panic");
    }
    assert_eq!(*order.lock().expect("unpoisoned"), (0..10).collect::<Vec<_>>());
    assert!(queue.try_enter(&key(0)).is_some());
}

#[tokio::test]
async fn a_cancelled_waiter_leaves_the_queue() {
    let queue = queue(true);
    let turn = enter(&queue, 0).await;
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { enter(&queue, 0).await }
    });
    tokio::task::yield_now().await;
    assert!(turn.ends());
    drop(turn);
    // Granted but never looked at, or still waiting: either way it must vanish.
    waiting.abort();
    drop(waiting.await);
    assert!(queue.try_enter(&key(0)).is_some());
}

#[tokio::test]
async fn keys_of_which_nobody_has_the_turn_are_forgotten() {
    let kept = queue(true);
    let turn = enter(&kept, 0).await;
    for n in 1..1000 {
        enter(&kept, n).await;
    }
    let keys = |queue: &Queue| -> usize { queue.lines().len() };
    assert_eq!(keys(&kept), 1);
    drop(turn);
    let remembering = queue(false);
    for n in 1..20_000 {
        enter(&remembering, n).await;
    }
    assert!(keys(&remembering) <= SWEEP_AT, "{}", keys(&remembering));
}

/// A task that has the turn and does not run keeps others out for no longer than its lease.
#[tokio::test(start_paused = true)]
async fn a_turn_ends_with_its_time() {
    let queue = queue(true);
    let stuck = enter(&queue, 0).await;
    stuck.lasts_until(Moment::now().after(Duration::from_secs(30)));
    let began = tokio::time::Instant::now();
    let next = enter(&queue, 0).await;
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(30) && waited <= Duration::from_secs(31), "{waited:?}");
    // What it gives back late is not the turn of another.
    drop(stuck);
    assert!(queue.try_enter(&key(0)).is_none());
    drop(next);
    assert!(queue.try_enter(&key(0)).is_some());
}

#[tokio::test(start_paused = true)]
async fn who_waits_may_give_up() {
    let queue = queue(true);
    let _turn = enter(&queue, 0).await;
    let gave_up = queue.enter(&key(0), || Some("no more")).await;
    assert_eq!(gave_up.err(), Some("no more"));
}

/// What goes with the turn comes to the next task. It comes back where there is none, and what a
/// task never took goes to the orphanage.
#[tokio::test]
async fn what_the_process_has_goes_with_the_turn() {
    let left = Arc::new(Mutex::new(0));
    let queue = Arc::new(Queue::new(true, Duration::from_secs(30), {
        let left = left.clone();
        Box::new(move |_| *left.lock().expect("unpoisoned") += 1)
    }));
    let claim = Claim::new(key(0), HolderId::from_u128(1), Duration::from_secs(1));
    let turn = enter(&queue, 0).await;
    let next = || {
        let queue = queue.clone();
        tokio::spawn(async move { enter(&queue, 0).await })
    };
    let is_mine =
        |baton: Option<Baton>| matches!(baton, Some(Baton::Place(passed)) if passed == claim);
    let waiting = next();
    tokio::task::yield_now().await;
    assert!(turn.pass(Baton::Place(claim.clone())).is_none());
    let mut turn = waiting.await.expect("no panic");
    assert!(is_mine(turn.take_baton()));

    let waiting = next();
    tokio::task::yield_now().await;
    assert!(turn.pass(Baton::Place(claim.clone())).is_none());
    assert_eq!(*left.lock().expect("unpoisoned"), 0);
    drop(waiting.await.expect("no panic"));
    assert_eq!(*left.lock().expect("unpoisoned"), 1);

    let turn = enter(&queue, 0).await;
    assert!(is_mine(turn.pass(Baton::Place(claim.clone()))));
    assert_eq!(*left.lock().expect("unpoisoned"), 1);
}

/// How long one burst of turns of a millisecond each lasts, and the pause after it.
async fn burst(queue: &Arc<Queue>) -> (u128, Duration) {
    let began = tokio::time::Instant::now();
    loop {
        let mut turn = enter(queue, 0).await;
        if let Some(pause) = turn.give_way() {
            return (began.elapsed().as_millis(), pause);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_head_gives_way_rarely_to_nobody_and_often_to_somebody() {
    let queue = queue(false);
    for length in [50, 100, 200, 200, 200] {
        assert_eq!(burst(&queue).await, (length, SHORT_PAUSE));
    }
    let mut turn = enter(&queue, 0).await;
    turn.answered(Duration::from_millis(30), true);
    drop(turn);
    // A task that comes back by itself lets those in that it had to wait for.
    assert_eq!(burst(&queue).await, (1, Duration::from_millis(60)));
    // And goes on as before where they do not come.
    assert_eq!(burst(&queue).await, (50, Duration::from_millis(60)));
}

/// Tasks of one process share what it had to wait for.
#[tokio::test(start_paused = true)]
async fn a_burst_of_several_tasks_goes_on_though_others_wait() {
    let queue = queue(false);
    let mut turn = enter(&queue, 0).await;
    turn.answered(Duration::from_millis(1), true);
    let began = tokio::time::Instant::now();
    loop {
        let next = tokio::spawn({
            let queue = queue.clone();
            async move { enter(&queue, 0).await }
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
        let pause = turn.give_way();
        drop(turn);
        turn = next.await.expect("no panic");
        if pause.is_some() {
            break;
        }
    }
    assert_eq!(began.elapsed().as_millis(), 51);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_free_for_a_while_needs_no_giving_way() {
    let queue = queue(false);
    for _ in 0..100 {
        let mut turn = enter(&queue, 0).await;
        assert_eq!(turn.give_way(), None);
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(turn);
        tokio::time::sleep(SHORT_PAUSE).await;
    }
}
