//! What calls cost the store: requests, and writes to its log.

use crate::common::{Server, acquired, claim, limited, server};
use lockcore::{Acquire, Claim, LockBackend, Renew};

const CALLS: [&str; 7] =
    ["Txn", "Range", "Put", "LeaseGrant", "LeaseRevoke", "LeaseTimeToLive", "Watch"];

struct Costs<'a> {
    server: &'a Server,
    last: (u64, u64, u64),
}

impl<'a> Costs<'a> {
    async fn new(server: &'a Server) -> Self {
        let mut costs = Self { server, last: (0, 0, 0) };
        costs.since().await;
        costs
    }

    /// Calls, keep-alives and proposals since this was last asked.
    async fn since(&mut self) -> (u64, u64, u64) {
        let calls = self.server.begun(&CALLS).await;
        let kept = self.server.received(&["LeaseKeepAlive"]).await;
        let now = (calls, kept, self.server.proposals().await);
        let last = std::mem::replace(&mut self.last, now);
        (now.0 - last.0, now.1 - last.1, now.2 - last.2)
    }
}

#[tokio::test]
async fn round_trips() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        // The first acquire of a store writes its memory record. It also opens a stream.
        let first = claim("first");
        acquired(&backend, &first).await;
        backend.renew(&first).await.expect("held");
        let mine = claim("k");
        let mut costs = Costs::new(&server).await;
        acquired(&backend, &mine).await;
        assert_eq!(costs.since().await, (2, 0, 2), "acquire");
        let other = claim("k");
        assert!(matches!(backend.acquire(&other).await, Ok(Acquire::Contended(_))));
        assert_eq!(costs.since().await, (2, 0, 2), "acquire of a held key");
        assert!(matches!(backend.acquire(&claim("k")).await, Ok(Acquire::Contended(_))));
        assert_eq!(costs.since().await, (1, 0, 1), "again, with the lease that it left");
        let signal = backend.watch(&mine).await.expect("armed");
        assert_eq!(costs.since().await, (1, 0, 0), "watch");
        assert!(matches!(backend.acquire(&claim("k")).await, Ok(Acquire::Contended(_))));
        assert_eq!(costs.since().await, (1, 0, 0), "acquire of a held key that is watched");
        backend.release(&mine).await.expect("held");
        assert_eq!(costs.since().await, (1, 0, 1), "release");
        signal.await;
    })
    .await;
}

#[tokio::test]
async fn a_renewal_is_a_keep_alive_and_a_proof() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        let mine = claim("k");
        acquired(&backend, &mine).await;
        for n in 0..3 {
            backend.renew(&mine).await.expect("held");
            let mut costs = Costs::new(&server).await;
            backend.renew(&mine).await.expect("held");
            assert_eq!(costs.since().await, (1, 1, 1), "{n}");
            acquired(&backend, &mine).await;
            assert_eq!(costs.since().await, (1, 1, 1), "{n}: acquire by the same holder");
        }
        let other = server.backend().await;
        let mut costs = Costs::new(&server).await;
        other.renew(&mine).await.expect("held");
        // It looks for the lease first. The driver's first keep-alive on a stream is one more.
        assert_eq!(costs.since().await, (2, 2, 2), "by another process");
        other.renew(&mine).await.expect("held");
        assert_eq!(costs.since().await, (1, 1, 1), "by the same");
        let asks = mine.clone().with_incarnation();
        backend.renew(&asks).await.expect("held");
        costs.since().await;
        backend.renew(&asks).await.expect("held");
        assert_eq!(costs.since().await, (1, 1, 1), "with the incarnation");
    })
    .await;
}

/// A lock that is taken and released again and again costs two writes and two calls each time.
#[tokio::test]
async fn a_pair_is_two_proposals() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        acquired(&backend, &claim("first")).await;
        let mut costs = Costs::new(&server).await;
        let pairs = 200;
        for n in 0..pairs {
            let mine = claim(&format!("k{}", n % 7));
            let lease = acquired(&backend, &mine).await;
            assert!(lease.ttl >= mine.ttl, "{lease:?}");
            backend.release(&mine).await.expect("held");
        }
        let (calls, kept, proposals) = costs.since().await;
        assert!(calls <= 2 * pairs + 2, "{calls} calls");
        assert!(proposals <= 2 * pairs + 2, "{proposals} proposals");
        // Now and then the lease is kept alive before it is used again.
        assert!(kept <= pairs / 4, "{kept} keep-alives");
    })
    .await;
}

#[tokio::test]
async fn a_hundred_renewals_are_one_proposal() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        let claims: Vec<Claim> = (0..100).map(|n| claim(&format!("k{n}"))).collect();
        for claim in &claims {
            acquired(&backend, claim).await;
        }
        backend.renew_many(&claims).await;
        let mut costs = Costs::new(&server).await;
        for answer in backend.renew_many(&claims).await {
            assert!(matches!(answer, Ok(Renew::Renewed(_))), "{answer:?}");
        }
        assert_eq!(costs.since().await, (1, 100, 1));
        assert!(server.begun(&["LeaseKeepAlive"]).await <= 4, "streams");
        let asking: Vec<_> = claims.iter().map(|claim| claim.clone().with_incarnation()).collect();
        backend.renew_many(&asking).await;
        costs.since().await;
        for answer in backend.renew_many(&asking).await {
            let Ok(Renew::Renewed(lease)) = answer else { panic!("held") };
            assert!(lease.incarnation.is_some());
        }
        assert_eq!(costs.since().await, (1, 100, 1), "with the incarnation");
    })
    .await;
}
