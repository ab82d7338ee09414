//! The line of a key: who hears, who is passed over, and what a hand-over costs.

use std::time::{Duration, Instant};

use crate::common::{acquired, ahead, calls, claim, eventually, limited, raw, server, waiting};
use lockcore::{Acquire, HandOver, LockBackend, LockManager, Release, Renew};
use lockcore_redis::RedisBackend;
use lockcore_redis::redis::aio::MultiplexedConnection;
use tokio::time::timeout;

/// All that the server was asked for by the backends, in commands.
async fn asked(redis: &mut MultiplexedConnection) -> u64 {
    calls(redis, "evalsha").await + calls(redis, "subscribe").await
}

#[tokio::test]
async fn one_subscription_a_process_and_the_first_alone_is_signalled() {
    limited(async {
        let server = server(&[]).await;
        let mut redis = server.raw().await;
        let (one, two) = (server.backend().await, server.backend().await);
        let mine = waiting("k");
        acquired(&one, &mine).await;
        let mut turns = Vec::new();
        for n in 0..6 {
            let (backend, next) = (if n % 2 == 0 { &one } else { &two }, waiting("k"));
            let turn = backend.watch(&next).await.expect("armed");
            assert_eq!(ahead(backend, &next).await, Some(n));
            turns.push((backend, next, turn));
        }
        assert_eq!(calls(&mut redis, "subscribe").await, 2);
        let mut last = (&one, mine);
        for n in 0..turns.len() {
            assert!(last.0.release(&last.1).await.expect("held").is_released());
            assert_eq!(calls(&mut redis, "publish").await, n as u64 + 1);
            let (backend, next, turn) = turns.remove(0);
            turn.await;
            for (_, _, other) in &mut turns {
                assert!(timeout(Duration::from_millis(1), other).await.is_err(), "not its turn");
            }
            // W3: nobody goes before it.
            assert_eq!(ahead(&one, &claim("k")).await, None);
            acquired(backend, &next).await;
            last = (backend, next);
        }
        // Nobody waits: nobody is told.
        assert!(last.0.release(&last.1).await.expect("held").is_released());
        assert_eq!(calls(&mut redis, "publish").await, 6);
        assert_eq!(calls(&mut redis, "subscribe").await, 2);
    })
    .await;
}

#[tokio::test]
async fn a_listener_that_is_gone_is_passed_over_and_comes_back() {
    limited(async {
        let server = server(&[]).await;
        let mut redis = server.raw().await;
        let (one, gone, two) =
            (server.backend().await, server.backend().await, server.backend().await);
        let (mine, first, second) = (waiting("k"), waiting("k"), waiting("k"));
        acquired(&one, &mine).await;
        let lost = gone.watch(&first).await.expect("armed");
        assert_eq!(ahead(&gone, &first).await, Some(0));
        let turn = two.watch(&second).await.expect("armed");
        assert_eq!(ahead(&two, &second).await, Some(1));
        drop((lost, gone));
        eventually(async || {
            let clients = raw::<String>(&mut redis.clone(), &["CLIENT", "LIST"]).await;
            clients.expect("LIST").matches(" sub=1 ").count() == 1
        })
        .await;
        let began = Instant::now();
        assert!(one.release(&mine).await.expect("held").is_released());
        turn.await;
        acquired(&two, &second).await;
        assert!(began.elapsed() < Duration::from_secs(4), "waited for who is gone");
        // It keeps its position: the next time it is first again.
        let third = waiting("k");
        assert_eq!(ahead(&one, &third).await, Some(1));
        assert_eq!(ahead(&one, &first).await, Some(0));
        two.release(&second).await.expect("held");
        assert_eq!(ahead(&one, &third).await, Some(1));
        acquired(&one, &first).await;
        let _: () = raw(&mut redis, &["FLUSHALL"]).await.expect("FLUSHALL");
    })
    .await;
}

#[tokio::test]
async fn pollers_have_their_turn_and_are_never_taken_for_gone() {
    limited(async {
        let server = server(&[]).await;
        let mut redis = server.raw().await;
        let own = server.backend().await;
        let lent = RedisBackend::from_connection(server.raw().await);
        let old = RedisBackend::connect(server.url() + "?protocol=resp2").await.expect("a server");
        let mine = waiting("k");
        acquired(&own, &mine).await;
        let places = [(&lent, waiting("k")), (&old, waiting("k")), (&own, waiting("k"))];
        let turn = own.watch(&places[2].1).await.expect("armed");
        for (n, (backend, next)) in (0..).zip(&places) {
            if n < 2 {
                assert!(backend.watch(next).await.expect("polls").is_never());
            }
            assert_eq!(ahead(*backend, next).await, Some(n));
        }
        assert!(own.release(&mine).await.expect("held").is_released());
        for (backend, next) in &places[..2] {
            assert_eq!(calls(&mut redis, "publish").await, 0);
            assert!(matches!(own.acquire(&places[2].1).await, Ok(Acquire::Contended(_))));
            acquired(*backend, next).await;
            assert!(backend.release(next).await.expect("held").is_released());
        }
        turn.await;
        acquired(&own, &places[2].1).await;
    })
    .await;
}

/// A place of a dead process costs the wait it asked for, once, and the record outlives the line.
#[tokio::test]
async fn places_end() {
    limited(async {
        let server = server(&[]).await;
        let backend = server.backend().await;
        let brief = Some(Duration::from_millis(300));
        let mut mine = claim("k");
        mine.ttl = Duration::from_millis(50);
        acquired(&backend, &mine).await;
        for n in 0..3 {
            assert_eq!(ahead(&backend, &claim("k").with_wait(brief)).await, Some(n));
        }
        let began = Instant::now();
        let next = waiting("k");
        assert_eq!(ahead(&backend, &next).await, Some(3));
        eventually(async || matches!(backend.acquire(&next).await, Ok(Acquire::Acquired(_)))).await;
        let took = began.elapsed();
        assert!(took > Duration::from_millis(200) && took < Duration::from_secs(3), "{took:?}");
        assert_eq!(ahead(&backend, &waiting("k")).await, Some(0));
    })
    .await;
}

#[tokio::test]
async fn a_full_line_still_answers_and_places_that_ended_make_room() {
    limited(async {
        let server = server(&[]).await;
        let backend = server.backend().await;
        acquired(&backend, &claim("k")).await;
        let began = Instant::now();
        let brief = Some(Duration::from_secs(8));
        for n in 0..256 {
            assert_eq!(ahead(&backend, &claim("k").with_wait(brief)).await, Some(n));
        }
        if began.elapsed() < Duration::from_secs(7) {
            assert_eq!(ahead(&backend, &waiting("k")).await, None);
        }
        eventually(async || ahead(&backend, &waiting("k")).await.is_some()).await;
    })
    .await;
}

/// W9 and W10, as the record shows them.
#[tokio::test]
async fn a_hand_over_is_one_step_and_yields_to_the_line() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let (from, to) = (waiting("k"), waiting("k"));
        let before = acquired(&backend, &from).await;
        for _ in 0..2 {
            // Repeated while the lease of `to` stands: the same.
            let Ok(HandOver::Granted(lease)) = backend.hand_over(&from, &to, true).await else {
                panic!("nobody waits")
            };
            assert!(lease.token > before.token);
            assert_eq!(
                backend.inspect(&to.key).await.expect("redis").map(|it| it.token),
                Some(lease.token)
            );
        }
        assert_eq!(backend.release(&from).await.expect("redis"), Release::NotHeld);
        assert_eq!(
            backend.hand_over(&from, &claim("k"), false).await.expect("redis"),
            HandOver::NotHeld
        );
        let next = waiting("k");
        let turn = backend.watch(&next).await.expect("armed");
        assert_eq!(ahead(&backend, &next).await, Some(0));
        // Within the burst the line waits.
        let (mine, last) = (waiting("k"), waiting("k"));
        assert!(matches!(backend.hand_over(&to, &mine, false).await, Ok(HandOver::Granted(_))));
        let Ok(HandOver::Yielded(contention)) = backend.hand_over(&mine, &last, true).await else {
            panic!("over")
        };
        assert_eq!(contention.ahead, Some(1));
        turn.await;
        assert_eq!(backend.inspect(&mine.key).await.expect("redis"), None);
        let token = acquired(&backend, &next).await.token;
        // A late one hands nothing over.
        assert_eq!(
            backend.hand_over(&mine, &claim("k"), true).await.expect("redis"),
            HandOver::NotHeld
        );
        backend.release(&next).await.expect("held");
        assert!(acquired(&backend, &last).await.token > token);
        assert_eq!(asked(&mut redis).await, calls(&mut redis, "evalsha").await + 1);
    })
    .await;
}

#[tokio::test]
async fn leaving_the_line_signals_the_next_of_a_free_key() {
    limited(async {
        let server = server(&[]).await;
        let backend = server.backend().await;
        let (mine, first, second) = (waiting("k"), waiting("k"), waiting("k"));
        acquired(&backend, &mine).await;
        let turns = (
            backend.watch(&first).await.expect("armed"),
            backend.watch(&second).await.expect("armed"),
        );
        assert_eq!(ahead(&backend, &first).await, Some(0));
        assert_eq!(ahead(&backend, &second).await, Some(1));
        backend.release(&mine).await.expect("held");
        turns.0.await;
        assert_eq!(backend.release(&first).await.expect("redis"), Release::NotHeld);
        turns.1.await;
        acquired(&backend, &second).await;
    })
    .await;
}

#[tokio::test]
async fn a_hundred_renewals_are_one_command() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let mut all: Vec<_> = (0..100).map(|n| claim(&format!("k{n}"))).collect();
        for mine in &mut all {
            // As the core asks: for the token that the lease has.
            mine.min_token = acquired(&backend, mine).await.token;
        }
        all[7] = claim("k7");
        let _: u64 = raw(&mut redis, &["DEL", "leaselock:{k8}"]).await.expect("DEL");
        let _: () = raw(&mut redis, &["SET", "leaselock:{k9}", "?"]).await.expect("SET");
        let _: u64 = raw(&mut redis, &["DEL", "leaselock:{k10}"]).await.expect("DEL");
        let _: u64 = raw(&mut redis, &["RPUSH", "leaselock:{k10}", "?"]).await.expect("RPUSH");
        let mut before = 0;
        for round in 0..2 {
            let renewed = backend.renew_many(&all).await;
            assert_eq!(renewed.len(), 100);
            for (n, renewed) in renewed.iter().enumerate() {
                match n {
                    7 | 8 => assert!(matches!(renewed, Ok(Renew::NotHeld)), "{n}: {renewed:?}"),
                    9 | 10 => {
                        let error = renewed.as_ref().expect_err("another record");
                        assert!(
                            error.to_string().contains(&format!("leaselock:{{k{n}}}")),
                            "{error}"
                        );
                    }
                    _ => assert!(matches!(renewed, Ok(Renew::Renewed(_))), "{n}: {renewed:?}"),
                }
            }
            if round == 1 {
                assert_eq!(asked(&mut redis).await - before, 1);
            }
            before = asked(&mut redis).await;
        }
        // One demands a greater token, in the same command.
        all.truncate(5);
        let raised = all[0].min_token + 1_000_000_000;
        all[0].min_token = raised;
        let before = asked(&mut redis).await;
        let renewed = backend.renew_many(&all).await;
        assert_eq!(asked(&mut redis).await - before, 1);
        let tokens = renewed.into_iter().zip(&all).map(|(renewed, claim)| match renewed {
            Ok(Renew::Renewed(lease)) => lease.token == claim.min_token,
            other => panic!("held: {other:?}"),
        });
        assert!(tokens.collect::<Vec<_>>().iter().all(|same| *same));
        assert_eq!(acquired(&backend, &all[0]).await.token, raised);
    })
    .await;
}

/// However many wait: joining, the release, and the grant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_between_processes_costs_the_same_however_many_wait() {
    let mut report = Vec::new();
    for processes in [2_u32, 16] {
        limited(async {
            let server = server(&[]).await;
            let mut redis = server.raw().await;
            let turns = 240 / processes;
            let mut tasks = tokio::task::JoinSet::new();
            let all_wait = std::sync::Arc::new(tokio::sync::Barrier::new(processes as usize));
            for _ in 0..processes {
                let locks = LockManager::new(server.backend().await);
                let all_wait = all_wait.clone();
                tasks.spawn(async move {
                    let lock = locks.lock("hot").expect("a key");
                    // Everyone has met contention, and listens.
                    lock.acquire().await.expect("redis").release().await.expect("held");
                    all_wait.wait().await;
                    let began = Instant::now();
                    for _ in 0..turns {
                        let guard = lock.acquire().await.expect("redis");
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        guard.release().await.expect("held");
                    }
                    began.elapsed()
                });
            }
            eventually(async || calls(&mut redis.clone(), "evalsha").await > 0).await;
            let _: () = raw(&mut redis, &["CONFIG", "RESETSTAT"]).await.expect("CONFIG");
            let mut took = Duration::ZERO;
            while let Some(done) = tasks.join_next().await {
                took = took.max(done.expect("no panic"));
            }
            let grants = f64::from(turns * processes);
            let each = asked(&mut redis).await as f64 / grants;
            report.push(format!(
                "{processes} wait: {each:.2} commands a grant, {took:?} for {grants}"
            ));
            assert!(each <= 4.0, "{report:?}");
        })
        .await;
    }
    println!("{report:?}");
}

/// A server that stops and goes on, and one that is killed, with holders that wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_outlives_a_pause_and_begins_anew_after_a_kill() {
    limited(async {
        let server = server(&[]).await;
        let mut tasks = tokio::task::JoinSet::new();
        let inside = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let until = Instant::now() + Duration::from_secs(6);
        for _ in 0..4 {
            let builder = LockManager::builder(server.backend().await);
            let locks = builder.ttl(Duration::from_secs(2)).retry_for(Duration::from_secs(20));
            let locks = locks.build().expect("settings");
            let inside = inside.clone();
            tasks.spawn(async move {
                let (lock, mut turns) = (locks.lock("hot").expect("a key"), 0);
                while Instant::now() < until {
                    let guard = lock.acquire().await.expect("within the limit");
                    if guard.is_valid() {
                        let others = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        // A server that was killed has forgotten who held the lock.
                        assert!(others <= 1);
                    }
                    let _ = guard.release().await;
                    turns += 1;
                }
                turns
            });
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        server.pause().await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.resume().await;
        tokio::time::sleep(Duration::from_millis(1000)).await;
        server.kill().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.start_again().await;
        while let Some(turns) = tasks.join_next().await {
            let turns: u32 = turns.expect("no panic");
            assert!(turns > 5, "{turns}");
        }
    })
    .await;
}
