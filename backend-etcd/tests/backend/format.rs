//! The records of format version 1, byte for byte: all releases of one major version must
//! exclude each other, so these texts change with the next major version only.

use std::time::Duration;

use crate::common::{self, acquired, is_rejected, key, leases, limited, names, server, value};
use etcd_client::PutOptions;
use lockcore::{Acquire, Claim, HolderId, LockBackend, Renew};
use lockcore_etcd::{EtcdBackend, etcd_client};

const HOLDER: u128 = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;
/// Any lease of etcd's.
const LEASE: i64 = 0x0132_6754_cdfe_ab86;

fn golden() -> Claim {
    let key = key("orders/{42} 100% é|x");
    let claim = Claim::new(key, HolderId::from_u128(HOLDER), Duration::from_secs(30));
    claim.with_label("host|7").with_incarnation()
}

#[tokio::test]
async fn version_1() {
    limited(async {
        let server = server().await;
        let raw = server.raw().await;
        let builder = EtcdBackend::builder(server.url()).prefix("golden.1");
        let backend = builder.connect().await.expect("a server");
        let claim = golden().with_min_token(4_000_000_000_000_000);
        let lease = acquired(&backend, &claim).await;
        assert_eq!(lease.token, 4_000_000_000_000_000);

        let name = "golden.1/lease/orders/{42} 100% é|x";
        let raised = "golden.1/raised/89b0";
        assert_eq!(names(&raw).await, [name, "golden.1/memory", raised]);

        let memory = value(&raw, "golden.1/memory").await.expect("written");
        let fields: Vec<_> = memory.split('|').collect();
        let [version, cluster, id, base] = fields[..] else { panic!("{memory}") };
        let found = raw.kv_client().get(name, None).await.expect("a server");
        let header = found.header().expect("a header");
        assert_eq!((version, cluster), ("1", &*format!("{:016x}", header.cluster_id())));
        let id: HolderId = id.parse().expect("32 digits");
        let started: u64 = base.parse().expect("microseconds");
        assert!((1_700_000_000_000_000..4_000_000_000_000_000).contains(&started));

        let lease = &found.kvs()[0];
        // A second longer than claimed.
        let text = format!("1|{:032x}|31|{base}|4000000000000000|host|7", HOLDER);
        assert_eq!(lease.value_str().expect("text"), text);
        let told = raw.lease_client().time_to_live(lease.lease(), None).await.expect("a server");
        assert_eq!(told.granted_ttl(), 31);

        // What is created after the lease has a token above its floor.
        let base: i64 = value(&raw, raised).await.expect("raised").parse().expect("a number");
        let above = base + lease.create_revision() - 4_000_000_000_000_000;
        assert!((0..10).contains(&above), "{above}");

        let young = (id.as_u128() >> 64) as i64 ^ id.as_u128() as i64;
        let young = raw.lease_client().time_to_live(young & i64::MAX, None).await;
        let young = young.expect("a server");
        assert_eq!(young.granted_ttl(), 90_000);
        assert!(young.ttl() > 89_000, "{young:?}");
    })
    .await;
}

/// As in a switch from one prefix to another: what ends under one stands under the other.
#[tokio::test]
async fn one_holder_under_two_prefixes_has_two_leases() {
    limited(async {
        let server = server().await;
        let under = async |prefix: &str| {
            let builder = EtcdBackend::builder(server.url()).prefix(prefix);
            builder.connect().await.expect("a server")
        };
        let (one, two, three) = (under("leaselock").await, under("a").await, under("b").await);
        let mine = golden();
        for backend in [&one, &two, &three] {
            acquired(backend, &mine).await;
        }
        let stands = async |backend: &EtcdBackend| {
            backend.inspect(&mine.key).await.expect("a server").is_some()
        };
        let all = leases(&server.raw().await).await.len();
        assert!(one.release(&mine).await.expect("held").is_released());
        assert!(two.release(&mine).await.expect("held").is_released());
        // A lease that a key was released from is ready for the next one.
        assert_eq!(leases(&server.raw().await).await.len(), all);
        assert!(!stands(&one).await && !stands(&two).await && stands(&three).await);
        assert!(matches!(three.renew(&mine).await, Ok(Renew::Renewed(_))));
    })
    .await;
}

#[tokio::test]
async fn records_of_version_1_are_understood() {
    limited(async {
        let server = server().await;
        let raw = server.raw().await;
        let cluster = raw.kv_client().get("x", None).await.expect("a server");
        let cluster = cluster.header().expect("a header").cluster_id();
        let put = async |name: &str, value: String, options: Option<PutOptions>| {
            raw.kv_client().put(name, value, options).await.expect("written");
        };
        let memory = format!("1|{cluster:016x}|0f0c2f6f6d2f4f0f9f5a6a1d1c3e7b21|1795340000000000");
        put("leaselock/memory", memory.clone(), None).await;
        put("leaselock/raised/89b0", "1795340000001000".to_owned(), None).await;
        raw.lease_client()
            .grant(30, Some(etcd_client::LeaseGrantOptions::new().with_id(LEASE)))
            .await
            .expect("granted");
        let options = PutOptions::new().with_lease(LEASE);
        let lease = format!("1|{HOLDER:032x}|30|1795340000000500|7|a|b");
        let name = "leaselock/lease/orders/{42} 100% é|x";
        put(name, lease, Some(options)).await;

        let backend = server.backend().await;
        let mine = golden();
        let info = backend.inspect(&mine.key).await.expect("a server").expect("it stands");
        let found = raw.kv_client().get(name, None).await.expect("a server");
        let created = u64::try_from(found.kvs()[0].create_revision()).expect("positive");
        assert_eq!((info.holder, info.label.as_str()), (mine.holder, "a|b"));
        assert_eq!(info.token, 1_795_340_000_000_500 + created);
        let again = acquired(&backend, &mine).await;
        assert_eq!(again.token, info.token);
        let memory_id = again.incarnation.expect("known").id;
        assert_eq!(memory_id, 0x0f0c_2f6f_6d2f_4f0f_9f5a_6a1d_1c3e_7b21);
        // Its young lease has gone, so it is older than that.
        assert!(again.incarnation.expect("known").age >= Duration::from_secs(90_000));
        let other = common::claim(mine.key.as_str());
        assert!(matches!(backend.acquire(&other).await, Ok(Acquire::Contended(_))));
        assert!(backend.release(&mine).await.expect("a server").is_released());
        // From the raised base.
        let next = acquired(&backend, &common::claim(mine.key.as_str())).await;
        assert!((1_795_340_000_001_000..1_795_340_000_001_100).contains(&next.token), "{next:?}");
        assert_eq!(value(&raw, "leaselock/memory").await, Some(memory));
    })
    .await;
}

#[tokio::test]
async fn foreign_values_are_refused_and_left_alone() {
    limited(async {
        let server = server().await;
        let (raw, backend) = (server.raw().await, server.backend().await);
        acquired(&backend, &common::claim("good")).await;
        let granted = raw.lease_client().grant(600, None).await.expect("granted").id();
        let leased = Some(PutOptions::new().with_lease(granted));
        let whole = format!("1|{HOLDER:032x}|30|1|0|");
        let next = format!("2|{HOLDER:032x}|30|1|0|");
        let before = leases(&raw).await.len();
        for (n, (value, options)) in [
            ("somebody's", leased.clone()),
            ("", leased.clone()),
            // Of a version to come.
            (&*next, leased),
            // Without an end.
            (&*whole, None),
        ]
        .into_iter()
        .enumerate()
        {
            let mine = common::claim(&format!("k{n}"));
            let name = format!("leaselock/lease/k{n}");
            raw.kv_client().put(name.as_str(), value, options).await.expect("written");
            for error in [
                backend.acquire(&mine).await.err(),
                backend.renew(&mine).await.err(),
                backend.release(&mine).await.err(),
                backend.inspect(&mine.key).await.err(),
            ] {
                let error = error.unwrap_or_else(|| panic!("{value:?} was taken for a lease"));
                assert!(is_rejected(&error), "{error:?}");
                assert!(error.to_string().contains(&name), "{error}");
            }
            assert_eq!(common::value(&raw, &name).await.as_deref(), Some(value));
        }
        let list = backend.list("", None, 10).await.expect("a server");
        assert_eq!(list.len(), 1, "{list:?}");
        // Refused four times, on one lease that is ready for the next key.
        common::eventually(async || leases(&raw).await.len() <= before + 1).await;
    })
    .await;
}

#[tokio::test]
async fn a_foreign_memory_is_refused_and_left_alone() {
    limited(async {
        let server = server().await;
        let raw = server.raw().await;
        raw.kv_client().put("leaselock/memory", "2|what", None).await.expect("written");
        let backend = server.backend().await;
        let error = backend.acquire(&common::claim("k")).await.expect_err("foreign");
        assert!(is_rejected(&error), "{error:?}");
        assert!(error.to_string().contains("leaselock/memory"), "{error}");
        assert_eq!(value(&raw, "leaselock/memory").await.as_deref(), Some("2|what"));
    })
    .await;
}
