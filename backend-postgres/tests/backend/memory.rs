//! How long the table has forgotten nothing, as acquire and renew tell it.

use std::time::Duration;

use crate::common::{acquired, eventually, informed, limited, query, server};
use lockcore::{Claim, HolderId, Incarnation, LockBackend, Renew};
use lockcore_postgres::PostgresBackend;

/// Whether there is a born row.
const BORN: &str = "SELECT count(*) FROM leaselock WHERE key = ''";

/// What names the cluster and its timeline.
const LIFE: &str = "SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) || ':' || \
                    system_identifier FROM pg_control_system()";

async fn renewed(backend: &PostgresBackend, claim: &Claim) -> Option<Incarnation> {
    match backend.renew(claim).await {
        Ok(Renew::Renewed(lease)) => lease.incarnation,
        other => panic!("not renewed: {other:?}"),
    }
}

#[tokio::test]
async fn renewals_tell_the_memory_as_acquires_do() {
    limited(async {
        let server = server().await;
        for pooled in [false, true] {
            let backend = server.builder().pooler(pooled).connect().await.expect("a server");
            let mine = informed("k");
            let first = acquired(&backend, &mine).await.incarnation.expect("known");
            let second = renewed(&backend, &mine).await.expect("known");
            assert!(second.id == first.id && second.age > first.age, "{second:?} after {first:?}");
            // A late acquire of the same holder, after all was lost.
            server.sql("TRUNCATE leaselock").await;
            let third = acquired(&server.backend().await, &mine).await.incarnation.expect("known");
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
        let mine = informed("k");
        let first = acquired(&backend, &mine).await.incarnation.expect("known");
        server.sql("DELETE FROM leaselock WHERE key = ''").await;
        // Nobody's renewal changes nothing.
        assert!(matches!(backend.renew(&informed("k")).await, Ok(Renew::NotHeld)));
        assert_eq!(server.sql(BORN).await, ["0"]);
        let second = renewed(&backend, &mine).await.expect("known");
        assert!(second.id != first.id, "{second:?} after {first:?}");
        assert!(second.age < Duration::from_secs(1), "{second:?}");
        let third = acquired(&backend, &informed("other")).await.incarnation.expect("known");
        assert_eq!(third.id, second.id);
    })
    .await;
}

#[tokio::test]
async fn what_is_no_born_row_is_left_alone_and_nothing_is_known() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        let mine = informed("k");
        acquired(&backend, &mine).await;
        server.sql("UPDATE leaselock SET format = 1 WHERE key = ''").await;
        let row = "SELECT format, holder, token, xmin, xmax FROM leaselock WHERE key = ''";
        let before = server.sql(row).await;
        for told in [acquired(&backend, &mine).await.incarnation, renewed(&backend, &mine).await] {
            assert_eq!(told.expect("asked for").age, Duration::ZERO);
        }
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
        let held = informed("held");
        acquired(&backend, &held).await;
        for renewal in [false, true] {
            server.sql("DELETE FROM leaselock WHERE key = ''").await;
            let other = server.raw().await;
            let life = server.sql(LIFE).await.remove(0);
            let id = HolderId::random();
            let born = format!(
                "BEGIN; INSERT INTO leaselock \
                 VALUES ('', 2, '{id}', 1795344351792114, 'epoch', '{life}')"
            );
            query(&other, &born).await.expect("written");
            let call = async {
                if renewal {
                    renewed(&backend, &held).await
                } else {
                    acquired(&backend, &informed("k")).await.incarnation
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

/// Only claims that ask for it pay for it.
#[tokio::test]
async fn nothing_is_told_that_was_not_asked_for() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        let mine = crate::common::claim("k");
        assert_eq!(acquired(&backend, &mine).await.incarnation, None);
        assert_eq!(renewed(&backend, &mine).await, None);
        assert_eq!(server.sql(BORN).await, ["0"]);
    })
    .await;
}

/// A standby that was promoted, or a backup that was restored, has the row and another timeline.
#[tokio::test]
async fn another_timeline_is_another_incarnation() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        let first = acquired(&backend, &informed("k")).await.incarnation.expect("known");
        server.sql("UPDATE leaselock SET label = '00000000:1' WHERE key = ''").await;
        let second = acquired(&backend, &informed("k2")).await.incarnation.expect("known");
        assert_ne!(second.id, first.id);
        assert!(second.age < first.age + Duration::from_secs(1), "{second:?} after {first:?}");
        let third = acquired(&backend, &informed("k3")).await.incarnation.expect("known");
        assert_eq!(third.id, second.id);
    })
    .await;
}
