//! The records of format version 2, byte for byte: all releases of one major version must
//! exclude each other, so these texts change with the next major version only.

use std::time::Duration;

use crate::common::{self, acquired, ahead, limited, raw, server};
use lockcore::{Claim, HolderId, LockBackend, LockKey};
use lockcore_redis::{RedisBackend, redis};

#[tokio::test]
async fn version_2() {
    limited(async {
        let server = server(&[]).await;
        let builder = RedisBackend::builder(server.url()).prefix("golden:1");
        let backend = builder.connect().await.expect("a server");
        let mut redis = server.raw().await;
        let holder = HolderId::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let key = LockKey::new("orders/{42} 100% é:x").expect("a key");
        let claim = Claim::new(key.clone(), holder, Duration::from_secs(30))
            .with_min_token(4_000_000_000_000_000)
            .with_label("host|7")
            .with_incarnation()
            .with_announcement();
        acquired(&backend, &claim).await;

        let mut names: Vec<String> = raw(&mut redis, &["KEYS", "*"]).await.expect("KEYS");
        names.sort_unstable();
        let record = "golden:1:{orders/%7B42%7D 100%25 é:x}";
        assert_eq!(names, ["golden:1:incarnation", record]);

        let value: String = raw(&mut redis, &["GET", record]).await.expect("GET");
        let head = "2|0123456789abcdef0123456789abcdef|4000000000000000|";
        let keep = value.strip_prefix(head).expect(&value).split_once('|').expect(&value);
        assert_eq!((keep.0.len(), keep.1), (13, "000|host|7"));
        // The token is far ahead of the clock: it is kept until an hour after it.
        let keep: i64 = keep.0.parse().expect("ms");
        let (s, us): (i64, i64) = raw(&mut redis, &["TIME"]).await.expect("TIME");
        let from_now = (4_000_000_000_000_000 - s * 1_000_000 - us) / 1000 + 3_600_000;
        assert!((from_now..from_now + 5_000).contains(&keep), "{keep} {from_now}");
        let pttl: i64 = raw(&mut redis, &["PTTL", record]).await.expect("PTTL");
        assert!((25_000..=30_001).contains(&(pttl - keep)), "{pttl} {keep}");

        let born: String = raw(&mut redis, &["GET", "golden:1:incarnation"]).await.expect("GET");
        let fields: Vec<_> = born.split('|').collect();
        assert_eq!(fields.iter().map(|field| field.len()).collect::<Vec<_>>(), [1, 32, 16, 40]);
        assert!(fields[0] == "2" && fields[1].parse::<HolderId>().is_ok(), "{born}");
        let since: i64 = fields[2].parse().expect("microseconds");
        assert!(since <= s * 1_000_000 + us && since > (s - 60) * 1_000_000);
        let ends: i64 = raw(&mut redis, &["PTTL", "golden:1:incarnation"]).await.expect("PTTL");
        assert_eq!(ends, -1, "it does not expire");

        // A place in the line.
        let next = Claim::new(key, HolderId::from_u128(7), Duration::from_secs(30))
            .with_wait(Some(Duration::from_secs(5)));
        let turn = backend.watch(&next).await.expect("armed");
        assert_eq!(ahead(&backend, &next).await, Some(0));
        let value: String = raw(&mut redis, &["GET", record]).await.expect("GET");
        let (_, line) = value.split_once("|001|").expect(&value);
        let (place, label) = line.split_at(64);
        assert_eq!(label, "host|7");
        assert_eq!(&place[..33], "00000000000000000000000000000007|");
        let ends: i64 = place[33..46].parse().expect("ms");
        assert!((s * 1000 + 5_000..s * 1000 + 20_000).contains(&ends), "{place}");
        let (process, kind) = place[47..].split_at(16);
        assert_eq!((&place[46..47], kind), ("|", "p"));

        let client = redis::Client::open(server.url()).expect("a URL");
        let (mut sink, stream) = client.get_async_pubsub().await.expect("a server").split();
        sink.subscribe(format!("golden:1:line:{process}")).await.expect("subscribed");
        sink.subscribe(format!("{record}:released")).await.expect("subscribed");
        backend.release(&claim).await.expect("held");
        turn.await;
        let mut stream = stream;
        for expected in ["00000000000000000000000000000007", "4000000000000000"] {
            let message = common::next(&mut stream).await.expect("a message");
            assert_eq!(message.get_payload::<String>().expect("text"), expected);
        }
        let value: String = raw(&mut redis, &["GET", record]).await.expect("GET");
        let nobody = "2|00000000000000000000000000000000|4000000000000000|";
        assert!(value.starts_with(nobody) && value.len() == 70 + 64, "{value}");
        assert_eq!(acquired(&backend, &next).await.token, 4_000_000_000_000_001);
        backend.release(&next).await.expect("held");
        let value: String = raw(&mut redis, &["GET", record]).await.expect("GET");
        assert_eq!(value, "4000000000000001");
    })
    .await;
}

#[tokio::test]
async fn records_of_version_2_are_understood() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let value = "2|00000000000000000000000000000007|1795344351792114|0000000060000|000|x|y\n";
        let words = ["SET", "leaselock:{a%25}", value, "PX", "90000"];
        let _: () = raw(&mut redis, &words).await.expect("SET");
        let key = LockKey::new("a%").expect("a key");
        let info = backend.inspect(&key).await.expect("redis").expect("stands");
        assert_eq!((info.holder.as_u128(), info.token), (7, 1_795_344_351_792_114));
        assert!(
            info.remaining > Duration::from_secs(25) && info.remaining < Duration::from_secs(30)
        );
        assert_eq!(info.label, "x|y\n");
        assert_eq!(backend.list("", None, 9).await.expect("redis").len(), 1);
        let mine = Claim::new(key, HolderId::from_u128(7), Duration::from_secs(1));
        assert_eq!(acquired(&backend, &mine).await.token, 1_795_344_351_792_114);
        // A token alone, far ahead of the clock.
        let words = ["SET", "leaselock:{b}", "4000000000000000", "PX", "90000"];
        let _: () = raw(&mut redis, &words).await.expect("SET");
        assert_eq!(acquired(&backend, &common::claim("b")).await.token, 4_000_000_000_000_001);
    })
    .await;
}
