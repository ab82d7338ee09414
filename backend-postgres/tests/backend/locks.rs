//! Locks of rows and tables, our own and those of strangers; the sweep; what a call costs.

use std::time::{Duration, Instant};

use crate::common::{
    self, PATIENT, Server, acquired, claim, connect, is_unavailable, key, limited, not_sweeping,
    query, server, start, sweeping,
};
use lockcore::{Acquire, LockBackend, Release, Renew};
use lockcore_conformance::servers::PostgresOptions;
use lockcore_postgres::{PostgresBackend, tokio_postgres::Client};
use tokio::time::{sleep, timeout};

/// A transaction of a stranger's that holds a lock on the rows of one key, until it ends.
async fn stranger(server: &Server, name: &str) -> Client {
    let raw = server.raw().await;
    query(&raw, "BEGIN").await.expect("BEGIN");
    let lock = format!("SELECT FROM leaselock WHERE key = '{name}' FOR UPDATE");
    query(&raw, &lock).await.expect("locked");
    raw
}

async fn ways(server: &Server) -> [PostgresBackend; 2] {
    [server.backend().await, server.builder().pooler(true).connect().await.expect("a server")]
}

/// The row of a free key, to be locked by others.
async fn used_before(backend: &PostgresBackend, name: &str) {
    let before = claim(name);
    acquired(backend, &before).await;
    assert!(backend.release(&before).await.expect("held").is_released());
}

#[tokio::test]
async fn a_locked_row_is_told_in_time() {
    limited(async {
        let server = server().await;
        for backend in ways(&server).await {
            used_before(&backend, "k").await;
            let held = claim("held");
            acquired(&backend, &held).await;
            let one = stranger(&server, "k").await;
            let two = stranger(&server, "held").await;
            for error in [
                backend.acquire(&claim("k")).await.expect_err("locked"),
                backend.renew(&held).await.expect_err("locked"),
                backend.release(&held).await.expect_err("locked"),
            ] {
                assert!(is_unavailable(&error), "{error:?}");
                assert!(error.to_string().contains("holds"), "{error}");
            }
            // What only looks, and who would be contended anyway, waits for nobody.
            let before = Instant::now();
            assert!(backend.inspect(&held.key).await.expect("seen").is_some());
            assert!(matches!(backend.acquire(&claim("held")).await, Ok(Acquire::Contended(_))));
            assert!(matches!(backend.renew(&claim("held")).await, Ok(Renew::NotHeld)));
            assert!(before.elapsed() < Duration::from_millis(700), "{:?}", before.elapsed());
            drop((one, two));
            assert!(matches!(backend.release(&held).await, Ok(Release::Released { .. })));
        }
    })
    .await;
}

#[tokio::test]
async fn a_locked_table_is_told_in_time() {
    limited(async {
        let server = server().await;
        for backend in ways(&server).await {
            let raw = server.raw().await;
            query(&raw, "BEGIN; LOCK TABLE leaselock").await.expect("locked");
            let error = backend.acquire(&claim("k")).await.expect_err("locked");
            assert!(is_unavailable(&error), "{error:?}");
            let error = backend.inspect(&key("k")).await.expect_err("locked");
            assert!(is_unavailable(&error), "{error:?}");
            query(&raw, "COMMIT").await.expect("COMMIT");
            let mine = claim("k");
            acquired(&backend, &mine).await;
            backend.release(&mine).await.expect("held");
        }
    })
    .await;
}

/// A lease that was granted after a wait stands for its whole ttl from then on.
#[tokio::test]
async fn a_lease_begins_after_the_wait_for_the_row() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        used_before(&backend, "k").await;
        let other = stranger(&server, "k").await;
        let mut mine = claim("k");
        // With a shorter one a row is not waited for as long as here.
        mine.ttl = Duration::from_secs(12);
        let wait = async {
            sleep(Duration::from_millis(500)).await;
            query(&other, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
                .await
                .expect("a clock")
        };
        let (lease, clock) = tokio::join!(acquired(&backend, &mine), async {
            let clock = wait.await;
            query(&other, "COMMIT").await.expect("COMMIT");
            clock[0].parse::<u64>().expect("microseconds")
        });
        assert!(lease.token > clock, "dated before the wait: {lease:?}, {clock}");
        let info = backend.inspect(&mine.key).await.expect("seen").expect("stands");
        // Dated before the wait, 11.5 s would be left at the most.
        assert!(info.remaining > Duration::from_millis(11_550), "{info:?}");
    })
    .await;
}

/// A lease that ends while its renewal waits for the row is not revived, nor counted as released.
#[tokio::test]
async fn a_lease_that_ends_during_the_wait_has_ended() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        let other_backend = server.backend().await;
        for renews in [true, false] {
            let mut mine = claim("k");
            mine.ttl = Duration::from_millis(300);
            acquired(&backend, &mine).await;
            // A statement about a short lease would not wait for the row until it has ended.
            mine.ttl = Duration::from_secs(12);
            let other = stranger(&server, "k").await;
            let call = async {
                if renews {
                    assert_eq!(backend.renew(&mine).await.expect("an answer"), Renew::NotHeld);
                } else {
                    let answer = backend.release(&mine).await.expect("an answer");
                    assert_eq!(answer, Release::NotHeld);
                }
            };
            let end = async {
                sleep(Duration::from_millis(500)).await;
                assert!(other_backend.inspect(&mine.key).await.expect("seen").is_none());
                query(&other, "COMMIT").await.expect("COMMIT");
            };
            tokio::join!(call, end);
            assert!(backend.inspect(&mine.key).await.expect("seen").is_none());
        }
    })
    .await;
}

/// An acquire whose caller has gone does not come true later, behind the lock of a stranger.
#[tokio::test]
async fn a_given_up_acquire_does_not_come_late() {
    limited(async {
        let server = server().await;
        for pooled in [false, true] {
            let backend = server.builder().pooler(pooled).connect().await.expect("a server");
            used_before(&backend, "k").await;
            let other = stranger(&server, "k").await;
            let mine = claim("k");
            let gone = timeout(Duration::from_millis(200), backend.acquire(&mine)).await;
            assert!(gone.is_err(), "{gone:?}");
            // The process ends; or it asks again, which ends what was under way.
            if pooled {
                drop(backend);
            } else {
                assert!(backend.inspect(&key("other")).await.expect("seen").is_none());
                let waiting =
                    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
                common::eventually(async || server.sql(waiting).await == ["0"]).await;
            }
            sleep(Duration::from_millis(1_000)).await;
            query(&other, "COMMIT").await.expect("COMMIT");
            sleep(Duration::from_millis(300)).await;
            let backend = server.backend().await;
            let seen = backend.inspect(&mine.key).await.expect("seen");
            assert!(seen.is_none(), "pooled {pooled}: {seen:?}");
        }
    })
    .await;
}

/// Contenders that meet at a key that has become free get their answers, all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_herd_is_answered() {
    limited(async {
        let server = server().await;
        let mut herd = Vec::new();
        for _ in 0..40 {
            herd.push(server.backend().await);
        }
        used_before(&herd[0], "k").await;
        let before = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for backend in herd {
            tasks.spawn(async move { backend.acquire(&claim("k")).await });
        }
        let answers = tasks.join_all().await;
        println!("40 contenders were answered within {:?}", before.elapsed());
        let won = answers
            .into_iter()
            .map(|answer| answer.expect("an answer"))
            .filter(|answer| matches!(answer, Acquire::Acquired(_)));
        assert_eq!(won.count(), 1);
    })
    .await;
}

/// Rows go when the clock has passed their token by the retention, and no others do.
#[tokio::test]
async fn a_sweep_takes_what_is_long_dead_and_nothing_else() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        let mine = sweeping("mine").with_incarnation();
        let first = acquired(&backend, &mine).await;
        let day = 86_400_000_000_u64 + 60_000_000;
        let old = first.token - day;
        for (key, format, holder, token, ends) in [
            ("dead", 2, "NULL", old, "now() - interval '1 day'"),
            ("dead, not released", 2, "gen_random_uuid()", old, "now() - interval '1 s'"),
            ("held for days", 2, "gen_random_uuid()", old, "now() + interval '1 h'"),
            ("ahead", 2, "NULL", first.token + day, "now() - interval '2 days'"),
            ("young", 2, "NULL", first.token - day / 2, "now() - interval '2 days'"),
            ("foreign", 1, "NULL", old, "now() - interval '2 days'"),
            ("locked", 2, "NULL", old, "now() - interval '2 days'"),
        ] {
            let row = format!("('{key}', {format}, {holder}, {token}, {ends}, '')");
            server.sql(&format!("INSERT INTO leaselock VALUES {row}")).await;
        }
        for (key, left) in [("left line", -1), ("waited for", 60)] {
            let ends = format!("now() + interval '{left} s'");
            let row = format!(
                "('{key}', 2, NULL, {old}, 'epoch', '', \
                               ARRAY[gen_random_uuid()], ARRAY[{ends}], ARRAY[0])"
            );
            server.sql(&format!("INSERT INTO leaselock VALUES {row}")).await;
        }
        let other = stranger(&server, "locked").await;
        assert!(backend.release(&mine).await.expect("held").is_released());
        let left = "SELECT convert_from(key, 'UTF8') FROM leaselock WHERE key <> '' ORDER BY key";
        let expected =
            ["ahead", "foreign", "held for days", "locked", "mine", "waited for", "young"];
        common::eventually(async || server.sql(left).await == expected).await;
        // The store's birth is old as well, and stays; so does its own old token.
        assert_eq!(server.sql("SELECT count(*) FROM leaselock WHERE key = ''").await, ["1"]);
        drop(other);
        let again = acquired(&backend, &claim("dead")).await;
        assert!(again.token > old);
        // A release that draws another lot sweeps nothing.
        sleep(Duration::from_millis(300)).await;
        let mut plain = claim("mine");
        plain.holder = lockcore::HolderId::from_u128(plain.holder.as_u128() | 1);
        acquired(&backend, &plain).await;
        backend.release(&plain).await.expect("held");
        sleep(Duration::from_millis(100)).await;
        assert!(server.sql(left).await.contains(&"locked".to_owned()));
    })
    .await;
}

/// A table of keys that are used once does not grow without end, wherever the dead ones lie.
#[tokio::test]
async fn sweeps_reach_every_page() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        server
            .sql(
                "INSERT INTO leaselock SELECT convert_to('old/' || n, 'UTF8'), 2, NULL, 1, \
                 'epoch', '' FROM generate_series(1, 2000) AS n",
            )
            .await;
        let left = "SELECT count(*) FROM leaselock WHERE token = 1";
        let mut sweeps = 0;
        while server.sql(left).await[0].parse::<u64>().expect("a number") >= 200 {
            sweeps += 1;
            let mine = sweeping(&format!("new/{sweeps}"));
            acquired(&backend, &mine).await;
            backend.release(&mine).await.expect("held");
            sleep(Duration::from_millis(300)).await;
        }
        println!("{sweeps} sweeps left fewer than 200 of 2000 dead rows");
        let young = server.sql("SELECT count(*) FROM leaselock WHERE token > 1 AND key <> ''");
        assert_eq!(young.await, [sweeps.to_string()]);
    })
    .await;
}

/// Each verb is one statement, as the server counts.
#[tokio::test]
async fn a_verb_is_one_statement() {
    limited(async {
        let options = PostgresOptions::new()
            .setting("shared_preload_libraries", "pg_stat_statements")
            .setting("pg_stat_statements.track_utility", "on");
        let server = start(options).await;
        server.sql("CREATE EXTENSION pg_stat_statements").await;
        // A second session would have its own greeting, and a sweep follows some releases.
        let backend = server.builder().max_connections(1).connect().await.expect("a server");
        let (mine, yours) = (not_sweeping("k"), claim("k"));
        for _ in 0..3 {
            server.sql("SELECT pg_stat_statements_reset()").await;
            acquired(&backend, &mine).await;
            assert!(matches!(backend.acquire(&yours).await, Ok(Acquire::Contended(_))));
            assert!(matches!(backend.renew(&mine).await, Ok(Renew::Renewed(_))));
            assert!(matches!(backend.release(&mine).await, Ok(Release::Released { .. })));
            assert!(backend.inspect(&mine.key).await.expect("seen").is_none());
            let calls = "SELECT sum(calls) FROM pg_stat_statements WHERE query LIKE '%leaselock%' \
                         AND query NOT LIKE '%pg_stat_statements%'";
            assert_eq!(server.sql(calls).await, ["5"]);
        }
    })
    .await;
}

/// Who is contended writes nothing: no transaction is numbered, so the disk is not waited for.
#[tokio::test]
async fn to_be_contended_writes_nothing() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        acquired(&backend, &claim("k")).await;
        let url = server.url();
        let raw = connect(&url).await;
        let written =
            "SELECT pg_current_wal_insert_lsn(), txid_snapshot_xmax(txid_current_snapshot())";
        // Other processes of the server write now and then.
        for _ in 0..20 {
            let before = query(&raw, written).await.expect("a position");
            for _ in 0..20 {
                assert!(matches!(backend.acquire(&claim("k")).await, Ok(Acquire::Contended(_))));
            }
            if query(&raw, written).await.expect("a position") == before {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!("being contended writes");
    })
    .await;
}

#[tokio::test]
async fn the_limit_on_a_statement_can_be_set() {
    limited(async {
        let server = server().await;
        let builder = server.builder().statement_timeout(Duration::from_millis(200));
        let backend = builder.connect().await.expect("a server");
        used_before(&backend, "k").await;
        let _other = stranger(&server, "k").await;
        let before = Instant::now();
        let error = backend.acquire(&claim("k")).await.expect_err("locked");
        assert!(is_unavailable(&error), "{error:?}");
        assert!(before.elapsed() >= Duration::from_millis(75), "{:?}", before.elapsed());
        assert!(before.elapsed() < Duration::from_millis(700), "{:?}", before.elapsed());
        for wrong in [Duration::ZERO, Duration::from_micros(999), Duration::MAX] {
            let builder = PostgresBackend::builder(server.url()).statement_timeout(wrong);
            assert!(builder.connect_timeout(PATIENT).build().is_err(), "{wrong:?}");
        }
    })
    .await;
}
