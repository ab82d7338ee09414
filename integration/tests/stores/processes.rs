//! Processes that are killed, stopped, or end early while they hold a lock.

use std::time::{Duration, Instant};

use integration::fence::Fence;
use integration::program::Program;
use integration::store::{Kind, Store};
use integration::{SLACK, eventually, on_every_store};

const TTL: Duration = Duration::from_secs(2);

async fn holder(store: &Store) -> Program {
    let mut holder = Program::start(env!("CARGO_BIN_EXE_holder"));
    let connect = format!("connect {} {}", store.url(), TTL.as_millis());
    assert_eq!(holder.ask(&connect).await, "connected");
    holder
}

fn token(answer: &str) -> u64 {
    let token = answer.strip_prefix("token ").and_then(|token| token.parse().ok());
    token.unwrap_or_else(|| panic!("no token: {answer}"))
}

/// A holder of `k`, and another that waits for it.
async fn holder_and_waiter(store: &Store) -> (Program, u64, Program) {
    let (mut first, mut second) = tokio::join!(holder(store), holder(store));
    let first_token = token(&first.ask("acquire k").await);
    second.tell("acquire k").await;
    eventually(async || store.is_watched("k").await).await;
    (first, first_token, second)
}

async fn a_killed_holder_is_followed_within_its_ttl(kind: Kind) {
    let store = Store::start(kind).await;
    let (first, first_token, mut second) = holder_and_waiter(&store).await;
    first.kill().await;
    let killed = Instant::now();
    let second_token = token(&second.hear().await);
    let after = killed.elapsed();
    println!("killed holder: followed {after:?} later, ttl {TTL:?}");
    assert!(after < TTL + Duration::from_secs(1) + SLACK, "{after:?}");
    assert!(second_token > first_token);
    assert_eq!(second.ask("check").await, "valid");
}

async fn a_stopped_holder_wakes_without_the_lock_and_is_fenced_off(kind: Kind) {
    let store = Store::start(kind).await;
    let (mut first, first_token, mut second) = holder_and_waiter(&store).await;
    assert_eq!(first.ask("check").await, "valid");
    assert_eq!(first.ask("write fence first").await, "written");

    first.stop().await.expect("stopped");
    let stopped = Instant::now();
    let second_token = token(&second.hear().await);
    let after = stopped.elapsed();
    println!("stopped holder: followed {after:?} later, ttl {TTL:?}");
    assert!(after < TTL + Duration::from_secs(1) + SLACK, "{after:?}");
    assert!(second_token > first_token);
    assert_eq!(second.ask("write fence second").await, "written");

    // It reads this first when it goes on.
    first.tell("check").await;
    first.go_on().expect("goes on");
    assert_eq!(first.hear().await, "not valid");
    let went_on = Instant::now();
    let lost = first.ask("lost").await;
    println!("stopped holder: told {:?} after it went on: {lost}", went_on.elapsed());
    assert!(lost.starts_with("lost: ") && !lost.contains("released"), "{lost}");
    assert!(went_on.elapsed() < Duration::from_secs(1), "{:?}", went_on.elapsed());
    assert_eq!(first.ask("write fence late").await, "stale");
    assert_eq!(first.ask("drop").await, "dropped");
    assert_eq!(first.ask("drain").await, "drained");

    // Nothing of this touched the other.
    assert_eq!(second.ask("check").await, "valid");
    assert_eq!(second.ask("write fence again").await, "written");
    let fence = Fence::new(&store.url(), "fence");
    assert!(!fence.write(first_token, "late").await);
    assert!(fence.write(second_token, "last").await);
}

async fn a_program_that_drains_leaves_nothing(kind: Kind) {
    let store = Store::start(kind).await;
    let mut program = holder(&store).await;
    let first_token = token(&program.ask("acquire k").await);
    assert_eq!(store.leases().await, ["k"]);
    assert_eq!(program.ask("drop").await, "dropped");
    assert_eq!(program.ask("drain").await, "drained");
    assert!(program.end().await.success());
    assert_eq!(store.leases().await, [""; 0]);

    let locks = leaselock::connect(&store.url()).await.expect("a server");
    let next = locks.lock("k").expect("a key").try_acquire().await.expect("a server");
    assert!(next.expect("free").fencing_token() > first_token);
}

async fn a_program_that_does_not_drain_leaves_its_key_for_its_ttl(kind: Kind) {
    let store = Store::start(kind).await;
    let mut program = holder(&store).await;
    let first_token = token(&program.ask("acquire k").await);
    program.tell("leave").await;
    assert!(program.end().await.success());
    let ended = Instant::now();
    // Otherwise this shows nothing.
    assert_eq!(store.leases().await, ["k"]);

    let locks = leaselock::connect(&store.url()).await.expect("a server");
    let next = locks.lock("k").expect("a key").acquire().await.expect("a server");
    let after = ended.elapsed();
    println!("ended without draining: the key was free {after:?} later, ttl {TTL:?}");
    assert!(after < TTL + SLACK, "{after:?}");
    assert!(next.fencing_token() > first_token);
}

on_every_store! {
    a_killed_holder_is_followed_within_its_ttl,
    a_stopped_holder_wakes_without_the_lock_and_is_fenced_off,
    a_program_that_drains_leaves_nothing,
    a_program_that_does_not_drain_leaves_its_key_for_its_ttl,
}
