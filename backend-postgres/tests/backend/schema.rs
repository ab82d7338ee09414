//! The table: made once, found again, refused if it is something else; and the rights it takes.

use crate::common::{
    self, PATIENT, Server, acquired, all_text, claim, is_rejected, key, limited, server,
};
use lockcore::{BackendError, Claim, LockBackend};
use lockcore_postgres::PostgresBackend;

/// The grants of the documentation, without the one that sweeping takes.
const GRANTS: [&str; 4] =
    ["USAGE ON SCHEMA public", "SELECT ON leaselock", "INSERT ON leaselock", "UPDATE ON leaselock"];

async fn all_calls(backend: &PostgresBackend, claim: &Claim) -> Result<(), BackendError> {
    backend.acquire(claim).await?;
    backend.renew(claim).await?;
    let signal = backend.watch(claim).await?;
    backend.inspect(&claim.key).await?;
    backend.list("", None, 9).await?;
    backend.release(claim).await?;
    signal.await;
    Ok(())
}

async fn as_user(server: &Server, user: &str) -> PostgresBackend {
    let builder = PostgresBackend::builder(server.url_of(user)).connect_timeout(PATIENT);
    builder.connect().await.expect("a server")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_clients_may_make_it_at_once() {
    limited(async {
        let server = server().await;
        let mut backends = Vec::new();
        for _ in 0..20 {
            let builder = server.builder().create_table(false);
            backends.push(builder.connect().await.expect("a server"));
        }
        for _ in 0..5 {
            let mut tasks = tokio::task::JoinSet::new();
            for backend in backends.clone() {
                tasks.spawn(async move { backend.ensure_schema().await });
            }
            for done in tasks.join_all().await {
                done.expect("made or found");
            }
            acquired(&backends[7], &claim("k")).await;
            server.sql("DROP TABLE leaselock").await;
        }
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let builder = server.builder();
            tasks.spawn(builder.connect());
        }
        for done in tasks.join_all().await {
            done.expect("connected");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_there_is_left_alone() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        let first = acquired(&backend, &claim("k")).await;
        backend.ensure_schema().await.expect("found");
        let other = server.backend().await;
        let info = other.inspect(&key("k")).await.expect("seen").expect("stands");
        assert_eq!(info.token, first.token);
    })
    .await;
}

#[tokio::test]
async fn a_missing_table_is_told_with_what_to_do() {
    limited(async {
        let server = server().await;
        let backend = server.builder().create_table(false).connect().await.expect("a server");
        let mine = common::announced("k");
        for error in [
            backend.acquire(&mine).await.map(drop).expect_err("missing"),
            backend.renew(&mine).await.map(drop).expect_err("missing"),
            backend.release(&mine).await.map(drop).expect_err("missing"),
            backend.inspect(&mine.key).await.map(drop).expect_err("missing"),
        ] {
            assert!(is_rejected(&error), "{error:?}");
            assert!(all_text(&error).contains("ensure_schema"), "{error}");
        }
        backend.ensure_schema().await.expect("made");
        all_calls(&backend, &mine).await.expect("works");
        // Made anew under a backend at work, whose statements are prepared for the old one.
        server.sql("DROP TABLE leaselock").await;
        assert!(is_rejected(&backend.acquire(&mine).await.expect_err("missing")));
        backend.ensure_schema().await.expect("made");
        all_calls(&backend, &mine).await.expect("works");
    })
    .await;
}

#[tokio::test]
async fn the_documented_rights_are_enough_and_each_is_needed() {
    limited(async {
        let server = server().await;
        server.backend().await;
        server.user("least").await;
        server.sql("REVOKE ALL ON SCHEMA public FROM PUBLIC").await;
        for grant in GRANTS {
            server.sql(&format!("GRANT {grant} TO least")).await;
        }
        let backend = as_user(&server, "least").await;
        all_calls(&backend, &common::sweeping("k").with_announcement()).await.expect("enough");
        for grant in GRANTS {
            server.sql(&format!("REVOKE {grant} FROM least")).await;
            let backend = as_user(&server, "least").await;
            let error = all_calls(&backend, &common::sweeping(grant).with_announcement())
                .await
                .expect_err(grant);
            assert!(is_rejected(&error), "{grant}: {error:?}");
            assert!(error.to_string().contains("right"), "{grant}: {error}");
            server.sql(&format!("GRANT {grant} TO least")).await;
        }
        // Rows are swept with one more.
        let row = "('old', 2, NULL, 1, 'epoch', '')";
        server.sql(&format!("INSERT INTO leaselock VALUES {row}")).await;
        server.sql("GRANT DELETE ON leaselock TO least").await;
        let swept = "SELECT count(*) FROM leaselock WHERE token = 1";
        common::eventually(async || {
            let mine = common::sweeping("k");
            acquired(&backend, &mine).await;
            backend.release(&mine).await.expect("held");
            server.sql(swept).await == ["0"]
        })
        .await;
        let readme = include_str!("../../README.md");
        for sql in [
            "GRANT USAGE ON SCHEMA public TO app;",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON public.leaselock TO app;",
        ] {
            assert!(readme.contains(sql), "not documented: {sql}");
        }
    })
    .await;
}

#[tokio::test]
async fn who_may_not_create_is_told_what_to_do() {
    limited(async {
        let server = server().await;
        server.user("least").await;
        server.sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
        let builder = PostgresBackend::builder(server.url_of("least")).connect_timeout(PATIENT);
        let error = builder.connect().await.expect_err("may not");
        assert!(is_rejected(&error), "{error:?}");
        assert!(error.to_string().contains("create it as"), "{error}");
        let builder = server.builder().schema("nowhere");
        let error = builder.connect().await.expect_err("no such schema");
        assert!(is_rejected(&error), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn something_else_under_the_name_is_refused() {
    limited(async {
        let server = server().await;
        for (make, unmake) in [
            ("CREATE VIEW leaselock AS SELECT 1 AS key", "DROP VIEW leaselock"),
            ("CREATE SEQUENCE leaselock", "DROP SEQUENCE leaselock"),
        ] {
            server.sql(make).await;
            let error = server.builder().connect().await.expect_err(make);
            assert!(is_rejected(&error), "{error:?}");
            server.sql(unmake).await;
        }
        server.sql("CREATE TABLE leaselock(key text PRIMARY KEY, value text)").await;
        let backend = server.backend().await;
        let error = backend.acquire(&claim("k")).await.expect_err("another's table");
        assert!(is_rejected(&error), "{error:?}");
        assert_eq!(server.sql("SELECT count(*) FROM leaselock").await, ["0"]);
        server.sql("DROP TABLE leaselock").await;
        // A crash would empty it.
        server.backend().await;
        server.sql("ALTER TABLE leaselock SET UNLOGGED").await;
        for create in [true, false] {
            let error = server.builder().create_table(create).connect().await;
            let error = error.expect_err("unlogged");
            assert!(is_rejected(&error) && error.to_string().contains("unlogged"), "{error:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn other_tables_and_schemas_are_other_stores() {
    limited(async {
        let server = server().await;
        server.sql("CREATE SCHEMA \"Other\"").await;
        let longest = "x".repeat(63);
        let url = server.url();
        let by_url = format!("{url}?schema=Other&table=leaselock");
        let by_url = PostgresBackend::builder(by_url).connect_timeout(PATIENT);
        let mut backends = vec![server.backend().await, by_url.connect().await.expect("a server")];
        for table in ["Leaselock", "select", &longest] {
            let builder = server.builder().table(table);
            backends.push(builder.connect().await.expect(table));
        }
        // The name of one is the channel of both, and still each hears of its own only.
        let signal = backends[0].watch(&claim("k")).await.expect("armed");
        for backend in &backends {
            let mine = claim("k");
            acquired(backend, &mine).await;
            assert_eq!(backend.list("", None, 9).await.expect("seen").len(), 1);
        }
        let theirs = backends[1].list("", None, 1).await.expect("seen").remove(0);
        let theirs = Claim::new(theirs.key, theirs.holder, std::time::Duration::from_secs(9))
            .with_announcement();
        backends[1].release(&theirs).await.expect("held");
        let heard = tokio::time::timeout(std::time::Duration::from_millis(200), signal).await;
        assert!(heard.is_err(), "woken by another table");
    })
    .await;
}

/// Keys and labels are bytes to the database, whatever its encoding is.
#[tokio::test]
async fn the_encoding_of_the_database_does_not_matter() {
    limited(async {
        let server = server().await;
        for encoding in ["LATIN1", "SQL_ASCII", "UTF8"] {
            server
                .sql(&format!(
                    "CREATE DATABASE db_{encoding} ENCODING '{encoding}' LOCALE 'C' \
                     TEMPLATE template0"
                ))
                .await;
            let url = server.url();
            let (before, _) = url.rsplit_once('/').expect("a path");
            let url = format!("{before}/db_{}", encoding.to_lowercase());
            let builder = PostgresBackend::builder(url).connect_timeout(PATIENT);
            let backend = builder.connect().await.expect("a server");
            let names = ["€", "é", "e\u{301}", "\\x00", "\u{10ffff}", "%_\\"];
            for name in names {
                let mine = common::announced(name).with_label("läbel €");
                acquired(&backend, &mine).await;
                let info = backend.inspect(&mine.key).await.expect("seen").expect("stands");
                assert_eq!((info.key, info.label.as_str()), (mine.key.clone(), &*mine.label));
                let signal = backend.watch(&claim(name)).await.expect("armed");
                let listed = backend.list(name, None, 9).await.expect("seen");
                assert_eq!(listed.len(), 1, "{encoding}: {name}");
                backend.release(&mine).await.expect("held");
                signal.await;
            }
        }
    })
    .await;
}
