//! The line of a key on a real server: what it costs, who is signalled, who is passed over.

use std::time::Duration;

use crate::common::{
    Server, acquired, announced, claim, eventually, limited, query, server, start, waiting,
};
use lockcore::{Acquire, Claim, HandOver, LockBackend, Release, ReleaseSignal, Renew};
use lockcore_conformance::servers::PostgresOptions;
use lockcore_postgres::PostgresBackend;
use tokio::time::timeout;

const SHORT: Duration = Duration::from_millis(150);

/// Takes a place, listening, and answers how many are ahead.
async fn joined(backend: &PostgresBackend, claim: &Claim) -> (Option<u32>, ReleaseSignal) {
    let signal = backend.watch(claim).await.expect("armed");
    match backend.acquire(claim).await.expect("an answer") {
        Acquire::Contended(contention) => (contention.ahead, signal),
        other => panic!("not contended: {other:?}"),
    }
}

async fn counting() -> Server {
    let options = PostgresOptions::new()
        .setting("shared_preload_libraries", "pg_stat_statements")
        .setting("pg_stat_statements.track_utility", "on");
    let server = start(options).await;
    server.sql("CREATE EXTENSION pg_stat_statements").await;
    server
}

async fn statements(server: &Server) -> f64 {
    let calls = "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements \
                 WHERE query NOT LIKE '%pg_stat_statements%'";
    server.sql(calls).await[0].parse().expect("a number")
}

/// Joining, releasing, signalling and asking: four, however many wait.
#[tokio::test]
async fn a_hand_over_between_processes_is_four_statements() {
    limited(async {
        let server = counting().await;
        for processes in [2, 16] {
            let mut backends = Vec::new();
            for _ in 0..=processes {
                backends.push(server.backend().await);
            }
            let key = format!("k{processes}");
            let mut held = claim(&key);
            acquired(&backends[0], &held).await;
            let mut line = std::collections::VecDeque::new();
            for (at, backend) in backends.iter().enumerate().skip(1) {
                let mine = waiting(&key);
                let (ahead, signal) = joined(backend, &mine).await;
                assert_eq!(ahead, Some(at as u32 - 1));
                line.push_back((at, mine, signal));
            }
            let mut at = 0;
            server.sql("SELECT pg_stat_statements_reset()").await;
            let (rounds, began) = (100, std::time::Instant::now());
            for _ in 0..rounds {
                assert!(backends[at].release(&held).await.expect("held").is_released());
                let mine = waiting(&key);
                let (next, theirs, signal) = line.pop_front().expect("they wait");
                signal.await;
                acquired(&backends[next], &theirs).await;
                let (_, signal) = joined(&backends[at], &mine).await;
                line.push_back((at, mine, signal));
                (at, held) = (next, theirs);
            }
            let took = began.elapsed() / rounds;
            let each = statements(&server).await / f64::from(rounds);
            println!("{processes} processes wait: {each:.2} statements, {took:?} a hand-over");
            // A listening session that begins or ends is counted too.
            assert!(each <= 4.3, "{each} statements");
        }
    })
    .await;
}

#[tokio::test]
async fn a_hundred_renewals_are_one_statement() {
    limited(async {
        let server = counting().await;
        let backend = server.backend().await;
        let mut claims: Vec<_> = (0..100).map(|n| claim(&format!("k{n}"))).collect();
        for claim in &claims {
            acquired(&backend, claim).await;
        }
        // Two that have none, and one that nobody may ask for.
        claims[7].holder = lockcore::HolderId::random();
        claims[9].ttl = Duration::from_secs(1_000_000);
        server.sql("SELECT pg_stat_statements_reset()").await;
        let began = std::time::Instant::now();
        let answers = backend.renew_many(&claims).await;
        println!("100 renewals: {:?}", began.elapsed());
        assert_eq!(statements(&server).await, 1.0);
        for (at, answer) in answers.iter().enumerate() {
            match (at, answer) {
                (7, Ok(Renew::NotHeld)) => {}
                (9, Err(lockcore::BackendError::InvalidInput(_))) => {}
                (_, Ok(Renew::Renewed(_))) => {}
                other => panic!("{other:?}"),
            }
        }
        // Inside a process a lease passes on by one statement as well.
        server.sql("SELECT pg_stat_statements_reset()").await;
        let next = claim("k0");
        let answer = backend.hand_over(&claims[0], &next, true).await;
        assert!(matches!(answer, Ok(HandOver::Granted(_))), "{answer:?}");
        assert_eq!(statements(&server).await, 1.0);
    })
    .await;
}

/// Renewals of the same leases in opposite orders, and single calls between them, end well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_do_not_wait_for_each_other_in_a_circle() {
    limited(async {
        let server = server().await;
        let (one, two) = (server.backend().await, server.backend().await);
        let claims: Vec<_> = (0..100).map(|n| claim(&format!("k{n}"))).collect();
        for claim in &claims {
            acquired(&one, claim).await;
        }
        let mut tasks = tokio::task::JoinSet::new();
        for (backend, turned) in [(one.clone(), false), (two.clone(), true), (one, true)] {
            let mut claims = claims.clone();
            if turned {
                claims.reverse();
            }
            tasks.spawn(async move {
                for _ in 0..20 {
                    for answer in backend.renew_many(&claims).await {
                        assert!(matches!(answer, Ok(Renew::Renewed(_))), "{answer:?}");
                    }
                }
            });
        }
        tasks.spawn(async move {
            for claim in &claims {
                acquired(&two, claim).await;
            }
        });
        while let Some(done) = tasks.join_next().await {
            done.expect("no panic");
        }
    })
    .await;
}

/// The first in line is the only one that is told, and nobody else is where nobody waits.
#[tokio::test]
async fn the_first_in_line_is_signalled_alone() {
    limited(async {
        let server = server().await;
        let (one, two, three) =
            (server.backend().await, server.backend().await, server.backend().await);
        let (held, second, third) = (claim("k"), waiting("k"), waiting("k"));
        acquired(&one, &held).await;
        let (_, first_signal) = joined(&two, &second).await;
        let (ahead, mut second_signal) = joined(&three, &third).await;
        assert_eq!(ahead, Some(1));
        one.release(&held).await.expect("held");
        first_signal.await;
        assert!(timeout(SHORT, &mut second_signal).await.is_err());
        // A newcomer waits its turn, and one that does not wait leaves nothing.
        let newcomer = one.acquire(&claim("k")).await;
        assert!(matches!(newcomer, Ok(Acquire::Contended(_))), "{newcomer:?}");
        assert!(matches!(three.acquire(&third).await, Ok(Acquire::Contended(_))));
        acquired(&two, &second).await;
        two.release(&second).await.expect("held");
        second_signal.await;
        acquired(&three, &third).await;
        three.release(&third).await.expect("held");
        acquired(&one, &claim("k")).await;
    })
    .await;
}

/// A process that is gone keeps nobody waiting: its session's lock tells.
#[tokio::test]
async fn a_process_that_is_gone_is_passed_over() {
    limited(async {
        let server = server().await;
        let (one, two, three) =
            (server.backend().await, server.backend().await, server.backend().await);
        let (held, second, third) = (claim("k"), waiting("k"), waiting("k"));
        acquired(&one, &held).await;
        let (_, gone) = joined(&two, &second).await;
        let (_, signal) = joined(&three, &third).await;
        drop((gone, two));
        let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'leaselock'";
        eventually(async || server.sql(ours).await == ["2"]).await;
        one.release(&held).await.expect("held");
        timeout(Duration::from_secs(2), signal).await.expect("signalled at once");
        acquired(&three, &third).await;
    })
    .await;
}

/// A holder that nobody watches for any more gives way, and keeps its position (W8).
#[tokio::test]
async fn a_holder_that_does_not_hear_is_passed_over_and_comes_back() {
    limited(async {
        let server = server().await;
        let (one, two) = (server.backend().await, server.backend().await);
        for (first, then) in [(&two, &one), (&one, &two)] {
            let (held, second, third) = (claim("k"), waiting("k"), waiting("k"));
            acquired(&one, &held).await;
            let (_, gone) = joined(first, &second).await;
            let (_, signal) = joined(then, &third).await;
            drop(gone);
            one.release(&held).await.expect("held");
            timeout(Duration::from_secs(2), signal).await.expect("signalled at once");
            let signal = first.watch(&second).await.expect("armed");
            acquired(first, &second).await;
            drop(signal);
            assert!(matches!(then.acquire(&third).await, Ok(Acquire::Contended(_))));
            first.release(&second).await.expect("held");
            acquired(then, &third).await;
            then.release(&third).await.expect("held");
        }
    })
    .await;
}

/// One that polls is never taken for gone, behind a pooler or before it listens.
#[tokio::test]
async fn a_poller_is_not_taken_for_gone() {
    limited(async {
        let server = server().await;
        let one = server.backend().await;
        let pooled = server.builder().pooler(true).connect().await.expect("a server");
        let (held, second, third) = (claim("k"), waiting("k"), waiting("k"));
        acquired(&one, &held).await;
        assert!(pooled.watch(&second).await.expect("armed").is_never());
        assert!(matches!(pooled.acquire(&second).await, Ok(Acquire::Contended(_))));
        let (_, mut signal) = joined(&one, &third).await;
        one.release(&held).await.expect("held");
        assert!(timeout(SHORT, &mut signal).await.is_err());
        assert!(matches!(one.acquire(&third).await, Ok(Acquire::Contended(_))));
        acquired(&pooled, &second).await;
        pooled.release(&second).await.expect("held");
        signal.await;
        acquired(&one, &third).await;
    })
    .await;
}

/// Losers of a race, and those beyond a full line, do not make the holder wait for the disk: they
/// write no row (S10).
#[tokio::test]
async fn a_full_line_still_answers_and_is_not_written() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        acquired(&backend, &claim("k")).await;
        for at in 0..64 {
            let Ok(Acquire::Contended(contention)) = backend.acquire(&waiting("k")).await else {
                panic!("held")
            };
            assert_eq!(contention.ahead, Some(at));
        }
        let row = "SELECT ctid, xmin, xmax FROM leaselock";
        let before = server.sql(row).await;
        for _ in 0..20 {
            let Ok(Acquire::Contended(contention)) = backend.acquire(&waiting("k")).await else {
                panic!("held")
            };
            assert_eq!(contention.ahead, None);
            assert!(contention.retry_after.is_some());
        }
        assert_eq!(server.sql(row).await, before);
        // The line stays inside its row.
        let outside = "SELECT pg_relation_size(reltoastrelid) FROM pg_class \
                       WHERE relname = 'leaselock'";
        assert_eq!(server.sql(outside).await, ["0"]);
    })
    .await;
}

/// A listener that is long in a transaction fills the queue of notifications, and another's
/// transaction may hold its lock for long: no release is refused for either (S9).
#[tokio::test]
async fn a_release_does_not_depend_on_its_notification() {
    limited(async {
        let server = server().await;
        server.user("mute").await;
        let one = server.backend().await;
        server.sql("GRANT SELECT, INSERT, UPDATE, DELETE ON leaselock TO mute").await;
        server.sql("REVOKE EXECUTE ON FUNCTION pg_notify FROM PUBLIC").await;
        let builder = PostgresBackend::builder(server.url_of("mute"));
        let mute = builder.connect_timeout(crate::common::PATIENT).connect().await;
        let mute = mute.expect("a server");
        let (held, second) = (announced("k"), waiting("k"));
        acquired(&mute, &held).await;
        let (_, mut signal) = joined(&one, &second).await;
        assert!(mute.release(&held).await.expect("held").is_released());
        assert!(timeout(SHORT, &mut signal).await.is_err(), "not told");
        acquired(&one, &second).await;
        let _ = query(&server.raw().await, "SELECT 1").await;
    })
    .await;
}

#[tokio::test]
async fn a_hand_over_yields_to_the_line() {
    limited(async {
        let server = server().await;
        let (one, two) = (server.backend().await, server.backend().await);
        let (held, within, after, theirs) = (claim("k"), waiting("k"), waiting("k"), waiting("k"));
        let first = acquired(&one, &held).await;
        let (_, signal) = joined(&two, &theirs).await;
        let Ok(HandOver::Granted(lease)) = one.hand_over(&held, &within, false).await else {
            panic!("within the burst")
        };
        assert!(lease.token > first.token);
        let again = one.hand_over(&held, &within, false).await;
        assert_eq!(again.expect("an answer"), HandOver::Granted(lease));
        assert_eq!(one.release(&held).await.expect("an answer"), Release::NotHeld);
        let Ok(HandOver::Yielded(contention)) = one.hand_over(&within, &after, true).await else {
            panic!("over")
        };
        assert_eq!(contention.ahead, Some(1));
        signal.await;
        let theirs_lease = acquired(&two, &theirs).await;
        assert!(theirs_lease.token > lease.token);
        assert_eq!(
            one.hand_over(&within, &claim("k"), false).await.expect("an answer"),
            HandOver::NotHeld
        );
        two.release(&theirs).await.expect("held");
        acquired(&one, &after).await;
    })
    .await;
}
