//! An etcd cluster that loses members, as users see it: with a majority locks stand whoever leads,
//! and without one nobody is let in.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use integration::history::{Held, check};
use integration::store::etcd;
use integration::{SLACK, eventually, limited, monotonic};
use leaselock::{
    Acquire, Claim, ErrorKind, HolderId, LockBackend, LockKey, LockManager, LostReason,
};
use lockcore_conformance::Fault;
use lockcore_conformance::servers::EtcdCluster;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Several times as long as etcd takes to elect a leader: one to two seconds.
const TTL: Duration = Duration::from_secs(8);

/// What a lease lasts beyond its ttl: etcd counts in whole seconds, and looks twice in one.
const ROUNDING: Duration = Duration::from_secs(2);

async fn cluster() -> EtcdCluster {
    EtcdCluster::start(3).await.expect("a cluster")
}

async fn inflict(cluster: &EtcdCluster, member: usize, fault: Fault) {
    assert!(cluster.inflict(member, fault).await, "{fault}");
}

async fn leader(cluster: &EtcdCluster) -> usize {
    cluster.leader().await.expect("a leader")
}

/// The keys of the leases that stand, as the records in the cluster say.
async fn leases(cluster: &EtcdCluster) -> Vec<String> {
    let at = cluster.addrs()[leader(cluster).await];
    etcd::leases(&cluster.url_of(&[at])).await
}

async fn manager(url: &str) -> LockManager {
    let backend = leaselock::backend(url).await.expect("a server");
    LockManager::builder(backend).ttl(TTL).build().expect("settings")
}

fn claim(key: &str) -> Claim {
    Claim::new(LockKey::new(key).expect("a key"), HolderId::random(), TTL)
}

/// Who renews keeps the lock whoever leads, and who does not keeps it to its end. Where the clients
/// are connected is drawn: in some of these rounds it is the member that is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_stand_while_another_leader_is_elected() {
    limited(async {
        let cluster = cluster().await;
        let url = cluster.url();
        let (first, second) = tokio::join!(manager(&url), manager(&url));
        let guard = first.lock("k").expect("a key").acquire().await.expect("a server");
        let token = guard.fencing_token();
        let waiting = tokio::spawn({
            let lock = second.lock("k").expect("a key");
            async move { lock.acquire().await.expect("granted") }
        });
        let backend = leaselock::backend(&url).await.expect("a server");
        for round in 0..2 {
            // Of a process that dies.
            let left = claim(&format!("left/{round}"));
            let granted = Instant::now();
            let answer = backend.acquire(&left).await.expect("a server");
            let Acquire::Acquired(lease) = answer else { panic!("a free key: {answer:?}") };

            let gone = leader(&cluster).await;
            inflict(&cluster, gone, Fault::Kill).await;
            let killed = Instant::now();
            assert_ne!(leader(&cluster).await, gone);
            println!("round {round}: another leader after {:?}", killed.elapsed());

            let next = claim(left.key.as_str());
            let taken = loop {
                let asked = Instant::now();
                match backend.acquire(&next).await {
                    Ok(Acquire::Acquired(next)) => break next,
                    Ok(Acquire::Contended(_)) => {}
                    // A call on its way when the member went.
                    Err(error) => println!("round {round}: {error}"),
                }
                // It lasts a ttl from the election on.
                let most = TTL + ROUNDING + SLACK;
                assert!(asked < killed + most + Duration::from_secs(3), "it never ends");
                sleep(Duration::from_millis(50)).await;
            };
            assert!(granted.elapsed() >= TTL, "it ended after {:?}", granted.elapsed());
            assert!(taken.token > lease.token, "tokens fell: {taken:?} after {lease:?}");
            backend.release(&next).await.expect("a server");

            assert!(guard.is_valid() && guard.fencing_token() == token, "{guard:?}");
            assert!(!waiting.is_finished(), "two have it");
            assert_eq!(leases(&cluster).await, ["k"]);
            inflict(&cluster, gone, Fault::Restart).await;
        }
        guard.release().await.expect("held");
        let next = waiting.await.expect("no panic");
        assert!(next.fencing_token() > token);
        next.release().await.expect("held");
        first.drain().await;
        second.drain().await;
        assert_eq!(leases(&cluster).await, [""; 0]);
    })
    .await;
}

/// Takes, holds for a moment, and gives back, for as long as it is told to.
async fn work(who: usize, locks: LockManager, notes: Arc<Mutex<Vec<Held>>>) {
    let lock = locks.lock("k").expect("a key");
    loop {
        let guard = match lock.acquire_timeout(Duration::from_secs(1)).await {
            Ok(guard) => guard,
            Err(error) => {
                let kind = error.kind();
                assert!(!matches!(kind, ErrorKind::InvalidInput | ErrorKind::Rejected), "{error}");
                continue;
            }
        };
        let (began, first) = (monotonic(), guard.fencing_token());
        sleep(Duration::from_millis(5)).await;
        let ended = monotonic();
        // Looked at afterwards, so that it was valid then.
        if guard.is_valid() {
            let (who, key) = (who.to_string(), "k".to_owned());
            let tokens = (first, guard.fencing_token());
            notes.lock().expect("no panic").push(Held { who, key, tokens, time: (began, ended) });
        }
        if let Err(error) = guard.release().await {
            let kind = error.kind();
            assert!(!matches!(kind, ErrorKind::InvalidInput | ErrorKind::Rejected), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_restart_in_turn_under_a_crowd() {
    limited(async {
        let cluster = cluster().await;
        let notes = Arc::<Mutex<Vec<Held>>>::default();
        let mut workers = JoinSet::new();
        for who in 0..6 {
            workers.spawn(work(who, manager(&cluster.url()).await, notes.clone()));
        }
        let held = || notes.lock().expect("no panic").len();
        let some_more = async |what: String| {
            let (before, began) = (held(), Instant::now());
            eventually(async || held() >= before + 20).await;
            println!("{what}: 20 more after {:?}", began.elapsed());
        };
        some_more("whole".to_owned()).await;
        for _ in 0..2 {
            for member in 0..3 {
                inflict(&cluster, member, Fault::Kill).await;
                some_more(format!("without {member}")).await;
                inflict(&cluster, member, Fault::Restart).await;
                some_more(format!("with {member} again")).await;
            }
        }
        workers.shutdown().await;
        let notes = notes.lock().expect("no panic");
        println!("{} times held", notes.len());
        check(&*notes).expect("one at a time, and rising tokens");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nobody_is_let_in() {
    limited(async {
        let cluster = cluster().await;
        let leader = leader(&cluster).await;
        // One is connected to the member that stays, and hears from it that nobody leads.
        let (all, alone) = (cluster.url(), cluster.url_of(&[cluster.addrs()[leader]]));
        let first = manager(&all).await;
        let backend = leaselock::backend(&alone).await.expect("a server");
        // It does not give up as long as this lasts.
        let second = LockManager::builder(backend).ttl(TTL).retry_for(Duration::from_secs(60));
        let second = second.build().expect("settings");
        let guard = first.lock("k").expect("a key").acquire().await.expect("a server");
        let token = guard.fencing_token();
        let waiting = tokio::spawn({
            let lock = second.lock("k").expect("a key");
            async move { lock.acquire().await.expect("granted") }
        });
        let mut impatient = Vec::new();
        for url in [&all, &alone] {
            let backend = leaselock::backend(url).await.expect("a server");
            let locks = LockManager::builder(backend).ttl(TTL);
            let locks = locks.retry_for(Duration::from_millis(500)).build().expect("settings");
            impatient.push(locks);
        }
        let followers = (0..3).filter(|&member| member != leader);
        for member in followers.clone() {
            inflict(&cluster, member, Fault::Pause).await;
        }
        for (n, locks) in impatient.iter().enumerate() {
            let asked = Instant::now();
            let lock = locks.lock(format!("other/{n}")).expect("a key");
            let answer = lock.try_acquire().await;
            let kind = answer.expect_err("no majority").kind();
            assert!(matches!(kind, ErrorKind::Unavailable | ErrorKind::Ambiguous), "{kind}");
            println!("no majority: told `{kind}` after {:?}", asked.elapsed());
            assert!(asked.elapsed() < TTL / 2 + SLACK, "{:?}", asked.elapsed());
        }
        let left = guard.remaining();
        let reason = guard.lost().await;
        assert_eq!(reason, LostReason::Expired, "with {left:?} left");
        assert!(!waiting.is_finished(), "nobody can grant it");
        for member in followers {
            inflict(&cluster, member, Fault::Resume).await;
        }
        let next = waiting.await.expect("no panic");
        assert!(!guard.is_valid() && next.fencing_token() > token);
        assert_eq!(guard.release().await.expect_err("lost").kind(), ErrorKind::Lost);
        assert!(next.is_valid(), "the first's release has touched the second");
        next.release().await.expect("held");
        for locks in impatient.iter().chain([&first, &second]) {
            locks.drain().await;
        }
        // Of what was given up while nobody led, and carried out afterwards.
        let end = Instant::now() + TTL + ROUNDING + SLACK;
        while !leases(&cluster).await.is_empty() {
            assert!(Instant::now() < end, "left behind");
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
