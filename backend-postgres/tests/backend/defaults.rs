//! What the role, the database and the server have as defaults does not change what a lock is.

use std::time::Duration;

use crate::common::{PATIENT, Server, acquired, claim, connect, limited, query, server};
use lockcore::{Acquire, LockBackend, Release, Renew};
use lockcore_conformance::servers::PgBouncer;
use lockcore_postgres::PostgresBackend;
#[cfg(feature = "pool")]
use lockcore_postgres::{
    deadpool_postgres::{Manager, Pool},
    tokio_postgres::NoTls,
};
use tokio::time::timeout;

/// All that a role could bring along to spoil it. The functions that shadow the server's answer
/// nonsense.
const HOSTILE: &str = "
    CREATE ROLE spoiled LOGIN PASSWORD 'secret' SUPERUSER;
    CREATE SCHEMA evil;
    CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql
        AS 'SELECT ''1999-01-01''::timestamptz';
    CREATE FUNCTION evil.random() RETURNS float8 LANGUAGE sql AS 'SELECT 1/0.0::float8';
    CREATE FUNCTION evil.pg_notify(text, text) RETURNS void LANGUAGE sql AS 'SELECT 1/0';
    ALTER ROLE spoiled SET default_transaction_isolation = 'serializable';
    ALTER ROLE spoiled SET default_transaction_read_only = on;
    ALTER ROLE spoiled SET default_transaction_deferrable = on;
    ALTER ROLE spoiled SET synchronous_commit = off;
    ALTER ROLE spoiled SET search_path = evil, pg_catalog;
    ALTER ROLE spoiled SET statement_timeout = '1h';
    ALTER ROLE spoiled SET lock_timeout = '1h';
    ALTER ROLE spoiled SET timezone = 'Asia/Kathmandu';
    ALTER ROLE spoiled SET datestyle = 'SQL, DMY';
    ALTER ROLE spoiled SET intervalstyle = 'sql_standard';
    ALTER ROLE spoiled SET bytea_output = 'escape';
    ALTER ROLE spoiled SET standard_conforming_strings = off;
    ALTER ROLE spoiled SET client_encoding = 'LATIN1';
";

/// Every way to the server there is, as that role.
async fn ways(server: &Server) -> Vec<(&'static str, PostgresBackend)> {
    server.backend().await;
    for statement in HOSTILE.split_inclusive(";\n") {
        server.sql(statement).await;
    }
    let url = server.url_of("spoiled");
    let own = PostgresBackend::builder(&url).connect_timeout(PATIENT);
    let given = PostgresBackend::from_client(connect(&url).await);
    vec![
        ("own", own.connect().await.expect("a server")),
        ("shared", own_but_pooled(&url).connect().await.expect("a server")),
        ("given", given),
        #[cfg(feature = "pool")]
        ("pool", pooled(&url)),
    ]
}

#[cfg(feature = "pool")]
fn pooled(url: &str) -> PostgresBackend {
    let config = url.parse().expect("a URL");
    let manager = Manager::new(config, NoTls);
    let pool = Pool::builder(manager).max_size(2).build().expect("a pool");
    PostgresBackend::from_pool(pool)
}

fn own_but_pooled(url: &str) -> lockcore_postgres::PostgresBackendBuilder {
    PostgresBackend::builder(url).connect_timeout(PATIENT).pooler(true)
}

#[tokio::test]
async fn a_role_cannot_spoil_a_lock() {
    limited(async {
        let server = server().await;
        for (way, backend) in ways(&server).await {
            let (mine, yours) = (claim(way).with_incarnation(), claim(way));
            let first = acquired(&backend, &mine).await;
            let memory = first.incarnation.expect(way);
            assert!(memory.age < Duration::from_secs(60), "{way}: {memory:?}");
            let again = acquired(&backend, &mine).await;
            assert_eq!(again.token, first.token, "{way}");
            let answer = backend.acquire(&yours).await.expect(way);
            let Acquire::Contended(contention) = answer else { panic!("{way}: {answer:?}") };
            let left = contention.retry_after.expect(way);
            assert!(left > Duration::from_secs(5) && left <= mine.ttl, "{way}: {left:?}");
            assert!(matches!(backend.renew(&mine).await, Ok(Renew::Renewed(_))), "{way}");
            let info = backend.inspect(&mine.key).await.expect(way).expect(way);
            assert_eq!(info.holder, mine.holder, "{way}");
            assert_eq!(backend.list(way, None, 9).await.expect(way).len(), 1, "{way}");
            assert!(matches!(backend.release(&mine).await, Ok(Release::Released { .. })), "{way}");
            assert!(acquired(&backend, &yours).await.token > first.token, "{way}");
        }
    })
    .await;
}

/// A trigger writes down the settings that are in force while a statement runs.
async fn note_settings(server: &Server) {
    for statement in [
        "CREATE TABLE seen(way text, name text, value text)",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO public.seen
            SELECT convert_from(NEW.key, 'UTF8'), name, setting FROM pg_settings
            WHERE name IN ('transaction_isolation', 'transaction_read_only',
                'synchronous_commit', 'statement_timeout', 'lock_timeout', 'search_path',
                'idle_in_transaction_session_timeout');
            RETURN NEW; END $$",
        "CREATE TRIGGER note BEFORE INSERT ON leaselock FOR EACH ROW
            WHEN (NEW.key <> '') EXECUTE FUNCTION note()",
    ] {
        server.sql(statement).await;
    }
}

/// The settings in force while a statement runs, as the statement sees them.
#[tokio::test]
async fn the_settings_that_matter_are_in_force() {
    limited(async {
        let server = server().await;
        let ways = ways(&server).await;
        note_settings(&server).await;
        for (way, backend) in &ways {
            // A statement about a short lease takes less, and the next one is not held to that.
            for (name, ttl, statement, lock) in
                [("", 20, 2_000, 750), ("/short", 9, 1_500, 562), ("/again", 20, 2_000, 750)]
            {
                let mut mine = claim(&format!("{way}{name}"));
                mine.ttl = Duration::from_secs(ttl);
                acquired(backend, &mine).await;
                let seen =
                    format!("SELECT name, value FROM seen WHERE way = '{way}{name}' ORDER BY 1");
                let expected = [
                    "idle_in_transaction_session_timeout|8000",
                    &format!("lock_timeout|{lock}"),
                    "search_path|pg_catalog",
                    &format!("statement_timeout|{statement}"),
                    "synchronous_commit|on",
                    "transaction_isolation|read committed",
                    "transaction_read_only|off",
                ];
                assert_eq!(server.sql(&seen).await, expected, "{way}{name}");
            }
        }
    })
    .await;
}

/// On one session, from several threads, each statement has the limits of its own call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_do_not_get_the_limits_of_others() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        note_settings(&server).await;
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..300 {
            let backend = backend.clone();
            tasks.spawn(async move {
                let (name, ttl) = [("long", 20), ("middle", 9), ("short", 6)][n % 3];
                let mut mine = claim(&format!("{name}/{n}"));
                mine.ttl = Duration::from_secs(ttl);
                acquired(&backend, &mine).await;
            });
        }
        tasks.join_all().await;
        let seen = "SELECT split_part(way, '/', 1), value, count(*) FROM seen
            WHERE name = 'statement_timeout' GROUP BY 1, 2 ORDER BY 1, 2";
        assert_eq!(server.sql(seen).await, ["long|2000|100", "middle|1500|100", "short|1000|100"]);
    })
    .await;
}

/// On a serializable default, contenders that meet would get errors in place of answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contenders_get_answers_and_no_errors() {
    limited(async {
        let server = server().await;
        for (way, backend) in ways(&server).await {
            let other = own_but_pooled(&server.url_of("spoiled")).connect().await.expect(way);
            for n in 0..20 {
                let name = format!("{way}/{n}");
                let mut tasks = tokio::task::JoinSet::new();
                for store in [&backend, &other, &backend, &other, &backend, &other] {
                    let (store, claim) = (store.clone(), claim(&name));
                    tasks.spawn(async move { store.acquire(&claim).await });
                }
                let answers = tasks.join_all().await;
                let won = answers
                    .into_iter()
                    .map(|answer| answer.expect("an answer"))
                    .filter(|answer| matches!(answer, Acquire::Acquired(_)));
                assert_eq!(won.count(), 1, "{name}");
            }
        }
    })
    .await;
}

/// A pooler that refuses startup options, or leaves them out, is noticed.
#[tokio::test]
async fn a_pooler_is_noticed() {
    limited(async {
        let server = server().await;
        let bouncer = PgBouncer::start(&server.0).await.expect("a pooler");
        let builder = PostgresBackend::builder(bouncer.url()).connect_timeout(PATIENT);
        let backend = builder.connect().await.expect("a pooler");
        let mine = claim("k");
        acquired(&backend, &mine).await;
        // It polls: to listen through the pooler would arm nothing.
        let signal = backend.watch(&claim("k")).await.expect("armed");
        assert!(matches!(backend.release(&mine).await, Ok(Release::Released { .. })));
        assert!(timeout(Duration::from_millis(200), signal).await.is_err());
        let listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
        assert_eq!(server.sql(listening).await, ["0"]);
        // Nor is a transaction left open for those who get the session next.
        let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'";
        assert_eq!(server.sql(open).await, ["0"]);
        // What others get is as they left it.
        let raw = connect(&bouncer.url()).await;
        for _ in 0..10 {
            assert_eq!(query(&raw, "SHOW lock_timeout").await.expect("SHOW"), ["0"]);
        }
    })
    .await;
}
