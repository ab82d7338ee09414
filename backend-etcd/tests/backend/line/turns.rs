//! Who is told of its turn, by what, and how tokens rise.

use std::time::Duration;

use super::{behind, listens, waiter};
use crate::common::{
    acquired, claim, eventually, is_rejected, limited, names, server, start, value,
};
use etcd_client::PutOptions;
use lockcore::{Acquire, HandOver, LockBackend, Release};
use lockcore_conformance::proxy::Proxy;
use lockcore_conformance::servers::EtcdOptions;
use lockcore_etcd::{EtcdBackend, etcd_client};

#[tokio::test]
async fn a_release_that_knew_nobody_still_tells_the_first() {
    limited(async {
        let server = server().await;
        let [a, b, c] = [server.backend().await, server.backend().await, server.backend().await];
        let (holder, first, second) = (claim("k"), waiter("k"), waiter("k"));
        acquired(&a, &holder).await;
        let of_first = listens(&b, &first, 0).await;
        let of_second = listens(&c, &second, 1).await;
        let transactions = async || server.begun(&["Txn"]).await;
        let before = transactions().await;
        assert!(a.release(&holder).await.expect("held").is_released());
        // Nobody was in line when it had the key. So it looks, and then does it.
        assert_eq!(transactions().await - before, 2);
        of_first.await;
        acquired(&b, &first).await;
        let before = transactions().await;
        assert!(b.release(&first).await.expect("held").is_released());
        // The grant has told who is next.
        assert_eq!(transactions().await - before, 1);
        of_second.await;
        acquired(&c, &second).await;
    })
    .await;
}

/// The records of a line, byte for byte.
#[tokio::test]
async fn a_place_and_a_message_of_version_1() {
    limited(async {
        let server = server().await;
        let (raw, backend) = (server.raw().await, server.backend().await);
        let (holder, first) = (claim("a/b"), waiter("a/b"));
        acquired(&backend, &holder).await;
        let signal = listens(&backend, &first, 0).await;
        let place = format!("leaselock/line/a/b\0{}", first.holder);
        assert_eq!(names(&raw).await, ["leaselock/lease/a/b", &place, "leaselock/memory"]);
        let text = value(&raw, &place).await.expect("written");
        let fields: Vec<_> = text.split('|').collect();
        // A second longer than the wait.
        let ["1", "21", channel] = fields[..] else { panic!("{text}") };
        assert!(channel.len() == 32 && channel.bytes().all(|b| b.is_ascii_hexdigit()), "{text}");
        let found = raw.kv_client().get(place.as_str(), None).await.expect("a server");
        let lease = found.kvs()[0].lease();
        let told = raw.lease_client().time_to_live(lease, None).await.expect("a server");
        assert_eq!(told.granted_ttl(), 21);
        backend.release(&holder).await.expect("held");
        signal.await;
        let mail = format!("leaselock/mail/{channel}");
        assert_eq!(names(&raw).await, [&place, &mail, "leaselock/memory"]);
        assert_eq!(value(&raw, &mail).await, Some(format!("1|{}", first.holder)));
        let found = raw.kv_client().get(mail.as_str(), None).await.expect("a server");
        assert_eq!(found.kvs()[0].lease(), lease, "it goes with the place");
    })
    .await;
}

#[tokio::test]
async fn tokens_rise_over_many_hand_overs_and_after() {
    limited(async {
        let server = server().await;
        let (raw, backend) = (server.raw().await, server.backend().await);
        let mut from = claim("k");
        let mut last = acquired(&backend, &from).await.token;
        let floor = last + 1_000_000;
        for n in 0..200 {
            // Nothing else is written: revisions rise by one, as tokens do.
            let mut to = claim("k");
            if n == 100 {
                to = to.with_min_token(floor);
            }
            let answer = backend.hand_over(&from, &to, n % 2 == 0).await.expect("a server");
            let HandOver::Granted(lease) = answer else { panic!("{n}: {answer:?}") };
            assert!(lease.token > last, "{n}: {} after {last}", lease.token);
            assert_eq!(lease.token == floor, n == 100, "{n}: {lease:?}");
            let seen = backend.inspect(&to.key).await.expect("a server").expect("held");
            assert_eq!((seen.holder, seen.token), (to.holder, lease.token));
            (from, last) = (to, lease.token);
        }
        let found = raw.kv_client().get("leaselock/lease/k", None).await.expect("a server");
        assert_eq!(found.kvs()[0].version(), 201, "the key was put over and over");
        assert_eq!(backend.release(&from).await.expect("held"), Release::Released { token: last });
        for backend in [&backend, &server.backend().await] {
            let next = claim("k");
            let lease = acquired(backend, &next).await;
            assert!(lease.token > last, "{} after {last}", lease.token);
            last = lease.token;
            backend.release(&next).await.expect("held");
        }
    })
    .await;
}

#[tokio::test]
async fn a_hand_over_inside_a_process_is_one_write() {
    limited(async {
        let server = server().await;
        let (raw, backend) = (server.raw().await, server.backend().await);
        let mut from = claim("k");
        acquired(&backend, &from).await;
        // The second of two leases that take turns.
        for n in 0..20 {
            let to = claim("k");
            let before = (server.begun(&["Txn", "LeaseGrant"]).await, server.proposals().await);
            let answer = backend.hand_over(&from, &to, true).await;
            assert!(matches!(answer, Ok(HandOver::Granted(_))), "{n}: {answer:?}");
            let after = (server.begun(&["Txn", "LeaseGrant"]).await, server.proposals().await);
            if n > 0 {
                assert_eq!((after.0 - before.0, after.1 - before.1), (1, 1), "{n}");
            }
            from = to;
        }
        assert_eq!(names(&raw).await, ["leaselock/lease/k", "leaselock/memory"]);
        assert_eq!(server.begun(&["LeaseRevoke"]).await, 0);
    })
    .await;
}

/// Processes that know nothing of each other's holders.
#[tokio::test]
async fn another_process_hands_over_and_yields() {
    limited(async {
        let server = server().await;
        let [a, b] = [server.backend().await, server.backend().await];
        let (from, to, next) = (claim("k"), waiter("k"), waiter("k"));
        let first = acquired(&a, &from).await;
        behind(&a, &to, 0).await;
        let answer = b.hand_over(&from, &to, true).await.expect("a server");
        let HandOver::Granted(lease) = answer else { panic!("{answer:?}") };
        assert!(lease.token > first.token);
        // The one that waits for it finds it, and the one that had it does not.
        assert_eq!(acquired(&a, &to).await.token, lease.token);
        assert_eq!(a.release(&from).await.expect("a server"), Release::NotHeld);
        let other = waiter("k");
        let signal = listens(&b, &other, 0).await;
        behind(&a, &next, 1).await;
        let answer = b.hand_over(&to, &next, true).await.expect("a server");
        let HandOver::Yielded(contention) = answer else { panic!("{answer:?}") };
        assert_eq!(contention.ahead, Some(1));
        signal.await;
        acquired(&b, &other).await;
        // It has been handed over again since: nothing is changed.
        let again = a.hand_over(&from, &claim("k"), false).await.expect("a server");
        assert_eq!(again, HandOver::NotHeld);
        assert!(b.release(&other).await.expect("held").is_released());
        acquired(&a, &next).await;
    })
    .await;
}

/// W9: who gives up the key has a place even in a full line, and keeps it.
#[tokio::test]
async fn who_yields_keeps_its_place_in_a_full_line() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        let (from, to) = (claim("k"), waiter("k"));
        acquired(&backend, &from).await;
        for ahead in 0..256 {
            behind(&backend, &waiter("k"), ahead).await;
        }
        let Ok(Acquire::Contended(full)) = backend.acquire(&waiter("k")).await else {
            panic!("held")
        };
        assert_eq!(full.ahead, None);
        let answer = backend.hand_over(&from, &to, true).await.expect("a server");
        let HandOver::Yielded(contention) = answer else { panic!("{answer:?}") };
        assert_eq!(contention.ahead, Some(256));
        for _ in 0..3 {
            behind(&backend, &to, 256).await;
        }
    })
    .await;
}

/// What was told while nobody heard is found by asking.
#[tokio::test]
async fn a_lost_connection_wakes_who_listens_and_the_next_one_tells() {
    limited(async {
        let server = server().await;
        let proxy = Proxy::start(server.addr()).await.expect("a port");
        let url = format!("etcd://{}", proxy.addr());
        let waiting = EtcdBackend::connect(url).await.expect("a server");
        let backend = server.backend().await;
        let (holder, first) = (claim("k"), waiter("k"));
        acquired(&backend, &holder).await;
        for _ in 0..5 {
            let signal = waiting.watch(&first).await.expect("armed");
            proxy.cut();
            signal.await;
            // It may take a call to find out.
            eventually(async || waiting.inspect(&first.key).await.is_ok()).await;
        }
        let signal = listens(&waiting, &first, 0).await;
        backend.release(&holder).await.expect("held");
        signal.await;
        acquired(&waiting, &first).await;
    })
    .await;
}

#[tokio::test]
async fn many_that_wait_share_one_mailbox() {
    limited(async {
        let server = server().await;
        let (holder, backend) = (server.backend().await, server.backend().await);
        let mut waiting = Vec::new();
        for n in 0..100 {
            let (mine, first) = (claim(&format!("k{n}")), waiter(&format!("k{n}")));
            acquired(&holder, &mine).await;
            let signal = listens(&backend, &first, 0).await;
            waiting.push((mine, first, signal));
        }
        assert_eq!((server.begun(&["Watch"]).await, server.watchers().await), (1, 1));
        for (mine, first, signal) in waiting {
            assert!(holder.release(&mine).await.expect("held").is_released());
            signal.await;
            acquired(&backend, &first).await;
        }
    })
    .await;
}

/// What somebody else has put into a line is left alone, and holds up nobody's release.
#[tokio::test]
async fn foreign_places_are_refused_and_left_alone() {
    limited(async {
        let server = server().await;
        let (raw, backend) = (server.raw().await, server.backend().await);
        let granted = raw.lease_client().grant(600, None).await.expect("granted").id();
        let leased = Some(PutOptions::new().with_lease(granted));
        let (holder, channel) = (claim("x").holder, claim("x").holder);
        let good = format!("1|21|{channel}");
        for (n, (name, value, options)) in [
            ("somebody".to_owned(), good.clone(), leased.clone()),
            (holder.to_string(), "somebody's".to_owned(), leased),
            // Without an end.
            (holder.to_string(), good, None),
        ]
        .into_iter()
        .enumerate()
        {
            let (key, mine) = (format!("k{n}"), claim(&format!("k{n}")));
            acquired(&backend, &mine).await;
            let name = format!("leaselock/line/{key}\0{name}");
            raw.kv_client().put(name.as_str(), value.as_str(), options).await.expect("written");
            let error = backend.acquire(&waiter(&key)).await.expect_err("foreign");
            assert!(is_rejected(&error), "{error:?}");
            assert!(backend.release(&mine).await.expect("held").is_released());
            let error = backend.acquire(&claim(&key)).await.expect_err("foreign");
            assert!(is_rejected(&error), "{error:?}");
            assert_eq!(crate::common::value(&raw, &name).await, Some(value));
        }
    })
    .await;
}

/// The documented rights are enough for a line.
#[tokio::test]
async fn a_user_with_the_documented_rights_waits_and_hands_over() {
    limited(async {
        let options = EtcdOptions::new().root("toor").user("locker", "hush", "leaselock/");
        let server = start(options).await;
        let url = format!("etcd://locker:hush@{}", server.addr());
        let backend = EtcdBackend::connect(url).await.expect("a server");
        let (holder, to, first) = (claim("k"), waiter("k"), waiter("k"));
        acquired(&backend, &holder).await;
        let answer = backend.hand_over(&holder, &to, true).await.expect("rights");
        assert!(matches!(answer, HandOver::Granted(_)), "{answer:?}");
        let signal = listens(&backend, &first, 0).await;
        let next = waiter("k");
        let answer = backend.hand_over(&to, &next, true).await.expect("rights");
        assert!(matches!(answer, HandOver::Yielded(_)), "{answer:?}");
        signal.await;
        acquired(&backend, &first).await;
        behind(&backend, &next, 0).await;
        assert_eq!(backend.release(&next).await.expect("rights"), Release::NotHeld);
        let passer = backend.acquire(&claim("k")).await.expect("rights");
        assert!(matches!(passer, Acquire::Contended(_)));
        assert!(backend.release(&first).await.expect("held").is_released());
        tokio::time::sleep(Duration::from_millis(1)).await;
    })
    .await;
}
