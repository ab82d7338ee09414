//! The records of format version 1: all releases of one major version must exclude each other, so
//! these change with the next major version only.

mod common;

use std::time::Duration;

use common::{acquired, claim, is_rejected, limited, server};
use lockcore::{Claim, HolderId, LockBackend, LockKey};
use lockcore_postgres::tokio_postgres::{AsyncMessage, Config, NoTls};

/// The columns of a row in the order of the table.
const ROW: &str = "SELECT encode(key, 'hex'), format, holder, token, \
                   round(extract(epoch FROM expires_at - clock_timestamp()) / 10), \
                   convert_from(label, 'UTF8') FROM leaselock WHERE key <> ''";

#[tokio::test]
async fn version_1() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        let columns = "SELECT column_name, data_type, is_nullable FROM information_schema.columns \
                       WHERE table_name = 'leaselock' ORDER BY ordinal_position";
        let expected = [
            "key|bytea|NO",
            "format|smallint|NO",
            "holder|uuid|YES",
            "token|bigint|NO",
            "expires_at|timestamp with time zone|NO",
            "label|bytea|NO",
        ];
        assert_eq!(server.sql(columns).await, expected);

        let holder = HolderId::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let key = LockKey::new("orders/42 é").expect("a key");
        let claim = Claim::new(key, holder, Duration::from_secs(30))
            .with_min_token(4_000_000_000_000_000)
            .with_label("host|7");
        acquired(&backend, &claim).await;
        let hex = "6f72646572732f343220c3a9";
        let row = format!("{hex}|1|01234567-89ab-cdef-0123-456789abcdef|4000000000000000|3|host|7");
        assert_eq!(server.sql(ROW).await, [row]);
        let born = "SELECT format, holder IS NOT NULL, expires_at = 'epoch', label, \
                    token BETWEEN 1700000000000000 AND 4000000000000000 \
                    FROM leaselock WHERE key = ''";
        assert_eq!(server.sql(born).await, ["1|t|t|\\x|t"]);

        let config = server.url().parse::<Config>();
        let config = config.expect("a URL");
        let (client, mut connection) = config.connect(NoTls).await.expect("a server");
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) =
                std::future::poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notification(message) = message {
                    let _ = told.send((message.channel().to_owned(), message.payload().to_owned()));
                }
            }
        });
        client.batch_execute("LISTEN leaselock").await.expect("listening");
        backend.release(&claim).await.expect("held");
        let (channel, payload) = heard.recv().await.expect("told");
        assert_eq!((channel, payload), ("leaselock".to_owned(), format!("public:{hex}")));
        // The row stays, and keeps its token.
        assert_eq!(server.sql(ROW).await, [format!("{hex}|1||4000000000000000|0|")]);
    })
    .await;
}

#[tokio::test]
async fn records_of_version_1_are_understood() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        server
            .sql(
                "INSERT INTO leaselock VALUES ('a%', 1, '00000000-0000-0000-0000-000000000007', \
                 41, now() + interval '1 min', 'x|y')",
            )
            .await;
        let key = LockKey::new("a%").expect("a key");
        let info = backend.inspect(&key).await.expect("seen").expect("stands");
        assert_eq!((info.holder.as_u128(), info.token), (7, 41));
        assert_eq!(info.label, "x|y");
        assert_eq!(backend.list("", None, 9).await.expect("seen").len(), 1);
        let mine = Claim::new(key, HolderId::from_u128(7), Duration::from_secs(1));
        assert_eq!(acquired(&backend, &mine).await.token, 41);
    })
    .await;
}

#[tokio::test]
async fn foreign_records_are_refused_and_left_alone() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        for (name, holder, ends) in [
            ("free", "NULL", "now()"),
            ("held", "'00000000-0000-0000-0000-000000000007'", "now() + interval '1 min'"),
        ] {
            let row = format!("('{name}', 2, {holder}, 41, {ends}, 'theirs')");
            server.sql(&format!("INSERT INTO leaselock VALUES {row}")).await;
        }
        let all = "SELECT *, xmin FROM leaselock ORDER BY key";
        let before = server.sql(all).await;
        for name in ["free", "held"] {
            for holder in [HolderId::from_u128(7), HolderId::random()] {
                let mut mine = claim(name);
                mine.holder = holder;
                for error in [
                    backend.acquire(&mine).await.map(drop).expect_err(name),
                    backend.renew(&mine).await.map(drop).expect_err(name),
                    backend.release(&mine).await.map(drop).expect_err(name),
                    backend.inspect(&mine.key).await.map(drop).expect_err(name),
                ] {
                    assert!(is_rejected(&error), "{name}: {error:?}");
                }
            }
        }
        assert!(backend.list("", None, 9).await.expect("seen").is_empty());
        assert_eq!(server.sql(all).await, before);
        // A key that is none of ours is not shown, and hides nobody's.
        server
            .sql(
                "INSERT INTO leaselock SELECT '\\x61ff00'::bytea || decode(to_hex(n + 256), 'hex'), \
                 1, '00000000-0000-0000-0000-000000000007', 41, now() + interval '1 min', '' \
                 FROM generate_series(3840, 3850) AS n",
            )
            .await;
        let mine = claim("b");
        acquired(&backend, &mine).await;
        let listed = backend.list("", None, 1).await.expect("seen");
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].key, mine.key);
    })
    .await;
}
