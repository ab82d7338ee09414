//! How long the table has forgotten nothing, as acquire and renew tell it.

mod common;

use std::time::Duration;

use common::{acquired, claim, eventually, limited, query, server};
use lockcore::{Claim, HolderId, LockBackend, Renew, StoreMemory};
use lockcore_postgres::PostgresBackend;

/// Whether there is a born row.
const BORN: &str = "SELECT count(*) FROM leaselock WHERE key = ''";

async fn renewed(backend: &PostgresBackend, claim: &Claim) -> Option<StoreMemory> {
    match backend.renew(claim).await {
        Ok(Renew::Renewed(lease)) => lease.memory,
        other => panic!("not renewed: {other:?}"),
    }
}

#[tokio::test]
async fn renewals_tell_the_memory_as_acquires_do() {
    limited(async {
        let server = server().await;
        for pooled in [false, true] {
            let backend = server.builder().pooler(pooled).connect().await.expect("a server");
            let mine = claim("k");
            let first = acquired(&backend, &mine).await.memory.expect("known");
            let second = renewed(&backend, &mine).await.expect("known");
            assert!(second.id == first.id && second.age > first.age, "{second:?} after {first:?}");
            // A late acquire of the same holder, after all was lost.
            server.sql("TRUNCATE leaselock").await;
            let third = acquired(&server.backend().await, &mine).await.memory.expect("known");
            let fourth = renewed(&backend, &mine).await.expect("known");
            assert_ne!(third.id, first.id);
            assert!(fourth.id == third.id && fourth.age > third.age, "{fourth:?} after {third:?}");
            server.sql("TRUNCATE leaselock").await;
        }
    })
    .await;
}

/// It was deleted by hand: nobody knows what else was.
#[tokio::test]
async fn a_renewal_that_finds_no_born_row_begins_one() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        let mine = claim("k");
        let first = acquired(&backend, &mine).await.memory.expect("known");
        server.sql("DELETE FROM leaselock WHERE key = ''").await;
        // Nobody's renewal changes nothing.
        assert!(matches!(backend.renew(&claim("k")).await, Ok(Renew::NotHeld)));
        assert_eq!(server.sql(BORN).await, ["0"]);
        let second = renewed(&backend, &mine).await.expect("known");
        assert!(second.id != first.id, "{second:?} after {first:?}");
        assert!(second.age < Duration::from_secs(1), "{second:?}");
        let third = acquired(&backend, &claim("other")).await.memory.expect("known");
        assert_eq!(third.id, second.id);
    })
    .await;
}

#[tokio::test]
async fn what_is_no_born_row_is_left_alone_and_leaves_nothing_known() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        let mine = claim("k");
        acquired(&backend, &mine).await;
        server.sql("UPDATE leaselock SET format = 2 WHERE key = ''").await;
        let row = "SELECT format, holder, token, xmin, xmax FROM leaselock WHERE key = ''";
        let before = server.sql(row).await;
        assert_eq!(acquired(&backend, &mine).await.memory, None);
        assert_eq!(renewed(&backend, &mine).await, None);
        assert_eq!(server.sql(row).await, before);
    })
    .await;
}

/// The row that another writes in the same moment is not yet there when the statement begins.
#[tokio::test]
async fn two_first_calls_at_once_both_tell_the_one_memory() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        let held = claim("held");
        acquired(&backend, &held).await;
        for renewal in [false, true] {
            server.sql("DELETE FROM leaselock WHERE key = ''").await;
            let other = server.raw().await;
            let id = HolderId::random();
            let born = format!(
                "BEGIN; INSERT INTO leaselock \
                 VALUES ('', 1, '{id}', 1795344351792114, 'epoch', '')"
            );
            query(&other, &born).await.expect("written");
            let call = async {
                if renewal {
                    renewed(&backend, &held).await
                } else {
                    acquired(&backend, &claim("k")).await.memory
                }
            };
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                           AND application_name = 'leaselock'";
            let commit = async {
                eventually(async || server.sql(waiting).await == ["1"]).await;
                query(&other, "COMMIT").await.expect("COMMIT");
            };
            let (memory, ()) = tokio::join!(call, commit);
            assert_eq!(memory.expect("known").id, id.as_u128(), "{renewal}");
        }
    })
    .await;
}
