//! The records of format version 1, byte for byte: all releases of one major version must
//! exclude each other, so these texts change with the next major version only.

mod common;

use std::time::Duration;

use common::{acquired, limited, raw, server};
use lockcore::{Claim, HolderId, LockBackend, LockKey};
use lockcore_redis::{RedisBackend, redis};

#[tokio::test]
async fn version_1() {
    limited(async {
        let server = server(&[]).await;
        let builder = RedisBackend::builder(server.url()).prefix("golden:1");
        let backend = builder.connect().await.expect("a server");
        let mut redis = server.raw().await;
        let holder = HolderId::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let key = LockKey::new("orders/{42} 100% é:x").expect("a key");
        let claim = Claim::new(key, holder, Duration::from_secs(30))
            .with_min_token(4_000_000_000_000_000)
            .with_label("host|7");
        acquired(&backend, &claim).await;

        let mut names: Vec<String> = raw(&mut redis, &["KEYS", "*"]).await.expect("KEYS");
        names.sort_unstable();
        let tag = "golden:1:{orders/%7B42%7D 100%25 é:x}";
        let (lease, counter) = (format!("{tag}:lease"), format!("{tag}:token"));
        assert_eq!(names, ["golden:1:born", &*lease, &*counter]);

        let value: String = raw(&mut redis, &["GET", &lease]).await.expect("GET");
        let expected = "1|0123456789abcdef0123456789abcdef|4000000000000000|host|7";
        assert_eq!(value, expected);
        let value: String = raw(&mut redis, &["GET", &counter]).await.expect("GET");
        assert_eq!(value, "4000000000000000");
        let born: String = raw(&mut redis, &["GET", "golden:1:born"]).await.expect("GET");
        let (id, since) = born.split_once('|').expect("two fields");
        assert!(id.parse::<HolderId>().is_ok(), "{born}");
        let since: u64 = since.parse().expect("microseconds");
        assert!((1_700_000_000_000_000..4_000_000_000_000_000).contains(&since));

        let ends: i64 = raw(&mut redis, &["PTTL", &lease]).await.expect("PTTL");
        assert!((25_000..=30_000).contains(&ends), "{ends}");
        let ends: i64 = raw(&mut redis, &["PTTL", "golden:1:born"]).await.expect("PTTL");
        assert_eq!(ends, -1, "the store's birth does not expire");

        let channel = format!("{tag}:released");
        let client = redis::Client::open(server.url()).expect("a URL");
        let (mut sink, stream) = client.get_async_pubsub().await.expect("a server").split();
        sink.subscribe(&channel).await.expect("subscribed");
        backend.release(&claim).await.expect("held");
        let mut stream = stream;
        let message = common::next(&mut stream).await.expect("a message");
        assert_eq!(message.get_payload::<String>().expect("text"), "4000000000000000");
    })
    .await;
}

#[tokio::test]
async fn records_of_version_1_are_understood() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let words = [
            "SET",
            "leaselock:{a%25}:lease",
            "1|00000000000000000000000000000007|41|x|y\n",
            "PX",
            "60000",
        ];
        let _: () = raw(&mut redis, &words).await.expect("SET");
        let key = LockKey::new("a%").expect("a key");
        let info = backend.inspect(&key).await.expect("redis").expect("stands");
        assert_eq!((info.holder.as_u128(), info.token), (7, 41));
        assert_eq!(info.label, "x|y\n");
        assert_eq!(backend.list("", None, 9).await.expect("redis").len(), 1);
        let mine = Claim::new(key, HolderId::from_u128(7), Duration::from_secs(1));
        assert_eq!(acquired(&backend, &mine).await.token, 41);
    })
    .await;
}
