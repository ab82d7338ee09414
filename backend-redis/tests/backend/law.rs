//! The scripts beside the law: whatever the memory backend answers, Redis answers.

use std::collections::HashMap;
use std::time::Duration;

use crate::common::{key, limited, raw, server};
use lockcore::{
    Acquire, Claim, HandOver, HolderId, LockBackend, MemoryBackend, Release, ReleaseSignal, Renew,
};
use tokio::time::timeout;

/// An answer without what differs from store to store: times and tokens.
fn acquired(answer: Acquire) -> String {
    match answer {
        Acquire::Acquired(_) => "acquired".to_owned(),
        Acquire::Contended(contention) => format!("contended, ahead: {:?}", contention.ahead),
    }
}

fn handed_over(answer: HandOver) -> String {
    match answer {
        HandOver::Granted(_) => "granted".to_owned(),
        HandOver::Yielded(contention) => format!("yielded, ahead: {:?}", contention.ahead),
        HandOver::NotHeld => "not held".to_owned(),
    }
}

async fn resolved(signal: &mut ReleaseSignal, within: u64) -> bool {
    timeout(Duration::from_millis(within), signal).await.is_ok()
}

/// Long leases and waits: nothing ends by itself while the test runs.
fn claims(random: &mut fastrand::Rng) -> Vec<Claim> {
    let claim = |_| {
        let wait =
            random.choice([None, Some(Duration::from_secs(50)), Some(Duration::from_secs(40))]);
        Claim::new(key("k"), HolderId::random(), Duration::from_secs(3_600))
            .with_wait(wait.flatten())
    };
    (0..7).map(claim).collect()
}

#[tokio::test]
async fn scripts_answer_as_the_memory_backend_does() {
    limited(async {
        let (seed, server) = (fastrand::u64(..), server(&[]).await);
        let (redis, mut raw_redis) = (server.backend().await, server.raw().await);
        let mut random = fastrand::Rng::with_seed(seed);
        for round in 0..30 {
            let (memory, claims) = (MemoryBackend::new(), claims(&mut random));
            let _: () = raw(&mut raw_redis, &["FLUSHALL"]).await.expect("FLUSHALL");
            let mut signals: HashMap<HolderId, [ReleaseSignal; 2]> = HashMap::new();
            let mut last = 0;
            for step in 0..60 {
                let mine = &claims[random.usize(..claims.len())];
                let other = &claims[random.usize(..claims.len())];
                let place = format!("seed {seed}, round {round}, step {step}");
                let stands = memory.inspect(&mine.key).await.expect("memory");
                let from = stands.as_ref().map(|info| info.holder);
                let from = claims.iter().find(|it| Some(it.holder) == from).unwrap_or(other);
                let (expected, answer) = match random.u8(..11) {
                    0..4 => (
                        acquired(memory.acquire(mine).await.expect("memory")),
                        acquired(redis.acquire(mine).await.expect("redis")),
                    ),
                    4 => {
                        let held = |answer| matches!(answer, Ok(Renew::Renewed(_))).to_string();
                        (held(memory.renew(mine).await), held(redis.renew(mine).await))
                    }
                    5..7 => {
                        let mine = if random.bool() { from } else { mine };
                        let held = |answer: Release| answer.is_released().to_string();
                        (
                            held(memory.release(mine).await.expect("memory")),
                            held(redis.release(mine).await.expect("redis")),
                        )
                    }
                    7..9 if mine.wait.is_some() && from.holder != mine.holder => {
                        let over = random.bool();
                        (
                            handed_over(memory.hand_over(from, mine, over).await.expect("memory")),
                            handed_over(redis.hand_over(from, mine, over).await.expect("redis")),
                        )
                    }
                    _ if mine.wait.is_some() => {
                        let armed = [
                            memory.watch(mine).await.expect("memory"),
                            redis.watch(mine).await.expect("redis"),
                        ];
                        signals.insert(mine.holder, armed);
                        continue;
                    }
                    _ => continue,
                };
                assert_eq!(answer, expected, "{place}: {mine:?}, {from:?}");
                let sights = [
                    memory.inspect(&mine.key).await.expect("memory"),
                    redis.inspect(&mine.key).await.expect("redis"),
                ];
                let holders = sights.each_ref().map(|it| it.as_ref().map(|info| info.holder));
                assert_eq!(holders[0], holders[1], "{place}");
                if let Some(info) = &sights[1] {
                    assert!(info.token >= last, "{place}: {} after {last}", info.token);
                    last = info.token;
                }
                let mut heard = Vec::new();
                for (holder, [expected, signal]) in &mut signals {
                    let told = resolved(expected, 0).await;
                    assert_eq!(
                        resolved(signal, if told { 5_000 } else { 0 }).await,
                        told,
                        "{place}"
                    );
                    if told {
                        heard.push(*holder);
                    }
                }
                signals.retain(|holder, _| !heard.contains(holder));
            }
        }
    })
    .await;
}
