//! The records of format version 2: all releases of one major version must exclude each other, so
//! these change with the next major version only.

use std::time::Duration;

use crate::common::{acquired, claim, is_rejected, limited, server};
use lockcore::{Acquire, Claim, HolderId, LockBackend, LockKey};
use lockcore_postgres::tokio_postgres::{AsyncMessage, Config, NoTls};
use tokio::sync::mpsc;

/// The columns of a row in the order of the table.
const ROW: &str = "SELECT encode(key, 'hex'), format, holder, token, \
                   convert_from(label, 'UTF8'), line, line_listeners FROM leaselock \
                   WHERE key <> ''";

/// What is told on some channels.
async fn heard(url: &str, channels: &str) -> mpsc::UnboundedReceiver<(String, String)> {
    let config = url.parse::<Config>().expect("a URL");
    let (client, mut connection) = config.connect(NoTls).await.expect("a server");
    let (told, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) =
            std::future::poll_fn(|context| connection.poll_message(context)).await
        {
            if let AsyncMessage::Notification(message) = message {
                let _ = told.send((message.channel().to_owned(), message.payload().to_owned()));
            }
        }
    });
    client.batch_execute(channels).await.expect("listening");
    // It listens as long as the test's runtime lives.
    tokio::spawn(async move {
        let _client = client;
        std::future::pending::<()>().await;
    });
    heard
}

#[tokio::test]
async fn version_2() {
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
            "line|ARRAY|YES",
            "line_ends|ARRAY|YES",
            "line_listeners|ARRAY|YES",
        ];
        assert_eq!(server.sql(columns).await, expected);

        let holder = HolderId::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let key = LockKey::new("orders/42 é").expect("a key");
        let claim = Claim::new(key.clone(), holder, Duration::from_secs(30))
            .with_min_token(4_000_000_000_000_000)
            .with_label("host|7")
            .with_announcement()
            .with_incarnation();
        acquired(&backend, &claim).await;
        let hex = "6f72646572732f343220c3a9";
        let row = format!("{hex}|2|01234567-89ab-cdef-0123-456789abcdef|4000000000000000|host|7||");
        assert_eq!(server.sql(ROW).await, [row]);
        let left = "SELECT round(extract(epoch FROM expires_at - clock_timestamp()) / 10) \
                    FROM leaselock WHERE key <> ''";
        assert_eq!(server.sql(left).await, ["3"]);
        let born = "SELECT format, holder IS NOT NULL, expires_at = 'epoch', \
                    convert_from(label, 'UTF8') ~ '^[0-9A-F]{8}:[0-9]+$', \
                    token BETWEEN 1700000000000000 AND 4000000000000000 \
                    FROM leaselock WHERE key = ''";
        assert_eq!(server.sql(born).await, ["2|t|t|t|t"]);

        // A place, of a holder that another client would signal.
        let second = Claim::new(key, HolderId::from_u128(7), Duration::from_secs(30))
            .with_wait(Some(Duration::from_secs(40)));
        assert!(matches!(backend.acquire(&second).await, Ok(Acquire::Contended(_))));
        let seven = "00000000-0000-0000-0000-000000000007";
        let row = format!(
            "{hex}|2|01234567-89ab-cdef-0123-456789abcdef|4000000000000000|host|7|{{{seven}}}|{{0}}"
        );
        assert_eq!(server.sql(ROW).await, [row]);
        let stands = "SELECT round(extract(epoch FROM line_ends[1] - clock_timestamp()) / 10) \
                      FROM leaselock WHERE key <> ''";
        assert_eq!(server.sql(stands).await, ["4"]);
        let stranger = server.raw().await;
        stranger.batch_execute("SELECT pg_advisory_lock(41)").await.expect("locked");
        server.sql("UPDATE leaselock SET line_listeners = '{41}' WHERE key <> ''").await;

        let mut heard = heard(&server.url(), "LISTEN leaselock; LISTEN leaselock_41").await;
        backend.release(&claim).await.expect("held");
        let turn = format!("00000000000000000000000000000007:{hex}");
        let told = heard.recv().await.expect("told");
        assert_eq!(told, ("leaselock_41".to_owned(), turn));
        let told = heard.recv().await.expect("told");
        assert_eq!(told, ("leaselock".to_owned(), format!("public:{hex}")));
        // The row stays, and keeps its token.
        let row = format!("{hex}|2||4000000000000000||{{{seven}}}|{{41}}");
        assert_eq!(server.sql(ROW).await, [row]);
    })
    .await;
}

#[tokio::test]
async fn records_of_version_2_are_understood() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        server
            .sql(
                "INSERT INTO leaselock VALUES ('a%', 2, '00000000-0000-0000-0000-000000000007', \
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
            let row = format!("('{name}', 1, {holder}, 41, {ends}, 'theirs')");
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
                 2, '00000000-0000-0000-0000-000000000007', 41, now() + interval '1 min', '' \
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
