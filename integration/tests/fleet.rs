//! What a fleet that moves meets, as its operators do, on real servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use integration::store::{Kind, Store};
use integration::{eventually, limited};
use leaselock::{
    ErrorKind, LockBackend, LockManager, Phase, Standing, Switchover, SwitchoverBuilder,
};
use lockcore_conformance::Fault;
use tokio::task::JoinSet;
use tokio::time::sleep;

const MAX_TTL: Duration = Duration::from_secs(2);

/// How long a phase stands that nobody renews.
const STANDS: Duration = Duration::from_secs(6);

struct Stores {
    old: Store,
    new: Store,
}

impl Stores {
    async fn start() -> Self {
        let stores = tokio::join!(Store::start(Kind::Redis), Store::start(Kind::Postgres));
        Self { old: stores.0, new: stores.1 }
    }

    async fn builder(&self, phase: Phase) -> SwitchoverBuilder {
        builder(backend(&self.old).await, backend(&self.new).await, phase)
    }

    async fn enter(&self, phase: Phase) -> Switchover {
        self.builder(phase).await.start().await.expect("nobody in the way")
    }

    async fn refused(&self, builder: SwitchoverBuilder) -> String {
        let error = builder.start().await.expect_err("it must not be let in");
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        println!("refused: {error}");
        error.to_string()
    }
}

fn builder(
    old: Arc<dyn LockBackend>,
    new: Arc<dyn LockBackend>,
    phase: Phase,
) -> SwitchoverBuilder {
    Switchover::builder(old, new, phase).max_ttl(MAX_TTL).settings("redis to postgres")
}

async fn backend(store: &Store) -> Arc<dyn LockBackend> {
    leaselock::backend(&store.url()).await.expect("a server")
}

/// C7: while a plain process holds a lock in the old store, or nobody is in both, `New` is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_processes_keep_the_new_phase_out() {
    limited(async {
        let stores = Stores::start().await;
        let said = stores.refused(stores.builder(Phase::New).await).await;
        assert!(said.contains("nobody is registered in phase `both`"), "{said}");
        let both = stores.enter(Phase::Both).await;
        let plain = LockManager::new(backend(&stores.old).await);
        let guard = plain.lock("cron").expect("a key").acquire().await.expect("free");
        let said = stores.refused(stores.builder(Phase::New).await).await;
        assert!(said.contains("`cron` is held in the old store alone, by `"), "{said}");
        guard.release().await.expect("held");
        let new = stores.enter(Phase::New).await;
        assert!(new.is_registered() && both.is_registered());
    })
    .await;
}

/// C8: who was refused, or away for too long, stays out while the fleet moves on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_away_stays_out() {
    limited(async {
        let stores = Stores::start().await;
        let old = stores.builder(Phase::Old).await.max_absence(STANDS).start().await;
        let old = old.expect("nobody in the way");
        // Its store hangs for longer than that.
        stores.old.inflict(Fault::Pause).await;
        sleep(2 * STANDS).await;
        stores.old.inflict(Fault::Resume).await;
        eventually(async || matches!(old.standing(), Standing::Out(_))).await;
        println!("away: {:?}", old.standing());
        sleep(STANDS).await;
        let new = stores.builder(Phase::New).await.assume_alone().start().await;
        let new = LockManager::new(new.expect("nobody in the way"));
        let _held = new.lock("k").expect("a key").acquire().await.expect("free");
        let locks = LockManager::new(old);
        let error = locks.lock("k").expect("a key").try_acquire().await.expect_err("out");
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    })
    .await;
}

/// C9: a floor is no licence to be alone; and C12: settings that differ, and stores that are swapped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_told_apart() {
    limited(async {
        let stores = Stores::start().await;
        let old = stores.enter(Phase::Old).await;
        let said = stores.refused(stores.builder(Phase::New).await.floor(1 << 51)).await;
        assert!(said.contains("while phase `old` stands"), "{said}");
        let floored = stores.builder(Phase::New).await.floor(1 << 51);
        stores.old.inflict(Fault::Pause).await;
        let error = floored.start().await.expect_err("it does not answer");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("`gone` and `floor`"), "{error}");
        stores.old.inflict(Fault::Resume).await;
        sleep(STANDS / 2).await;
        assert!(old.is_registered());
        let other = stores.builder(Phase::Old).await.settings("redis to another postgres");
        let said = stores.refused(other).await;
        assert!(
            said.contains("redis to another postgres") && said.contains("max_ttl=2s redis to p")
        );
        let swapped = builder(backend(&stores.new).await, backend(&stores.old).await, Phase::Both);
        let said = stores.refused(swapped).await;
        assert!(said.contains("are swapped"), "{said}");
    })
    .await;
}

/// C4: 400 processes enter the exclusive phase at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_fleet_enters_at_once() {
    const PROCESSES: u64 = 400;
    limited(async {
        let stores = Stores::start().await;
        let both = stores.enter(Phase::Both).await;
        // Each has backends of its own; those of a hundred share connections here.
        let mut backends = Vec::new();
        for _ in 0..8 {
            backends.push((backend(&stores.old).await, backend(&stores.new).await));
        }
        sleep(STANDS / 2).await;
        let (before, began) = (stores.old.requests().await, Instant::now());
        let mut fleet = JoinSet::new();
        for n in 0..PROCESSES {
            let (old, new) = backends[n as usize % backends.len()].clone();
            let entering = Switchover::builder(old, new, Phase::New)
                .max_ttl(Duration::from_secs(20))
                .settings("redis to postgres")
                .assume_alone();
            fleet.spawn(entering.start());
        }
        let all = fleet.join_all().await;
        let took = began.elapsed();
        let calls = (stores.old.requests().await - before) / PROCESSES;
        let failed = all.iter().filter_map(|started| started.as_ref().err()).next();
        println!("{PROCESSES} processes entered in {took:?}, {calls} calls each to the old store");
        assert!(failed.is_none(), "{failed:?}");
        assert!(calls < 20, "{calls}");
        assert!(took < Duration::from_secs(10), "{took:?}");
        drop(both);
    })
    .await;
}

/// C5: ten in both and one in new want one hot key: each has a third of its share at least.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_and_new_share_a_hot_key() {
    limited(async {
        let stores = Stores::start().await;
        let mut switches = vec![stores.enter(Phase::Both).await];
        sleep(STANDS / 2).await;
        let new = stores.enter(Phase::New).await;
        for _ in 0..9 {
            switches.push(stores.enter(Phase::Both).await);
        }
        // The first of them finds its neighbour out when it renews.
        sleep(STANDS / 2).await;
        switches.push(new);
        let (counts, mut working) = (Arc::new([const { AtomicU64::new(0) }; 11]), JoinSet::new());
        let end = Instant::now() + Duration::from_secs(15);
        for (n, switch) in switches.into_iter().enumerate() {
            let (locks, counts) =
                (LockManager::builder(switch).ttl(MAX_TTL).build(), counts.clone());
            let lock = locks.expect("settings").lock("hot").expect("a key");
            working.spawn(async move {
                while Instant::now() < end {
                    if let Ok(guard) = lock.acquire_timeout(MAX_TTL).await {
                        sleep(Duration::from_millis(5)).await;
                        if guard.release().await.is_ok() {
                            counts[n].fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
        working.join_all().await;
        let counts: Vec<_> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let share = counts.iter().sum::<u64>() / 11;
        println!("ten in both and one in new: {counts:?}, a share is {share}");
        assert!(counts.iter().all(|count| 3 * count >= share), "{counts:?}");
    })
    .await;
}

/// C6: the new store goes down, or hangs, while all are in both: back to the old one without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_are_back_without_the_new_store() {
    for fault in [Fault::Kill, Fault::Pause] {
        limited(async {
            let stores = Stores::start().await;
            let both = stores.enter(Phase::Both).await;
            let locks = LockManager::builder(both.clone()).ttl(MAX_TTL).build().expect("settings");
            let guard = locks.lock("k").expect("a key").acquire().await.expect("free");
            let token = guard.fencing_token();
            let [old, new] = [backend(&stores.old).await, backend(&stores.new).await];
            stores.new.inflict(fault).await;
            let began = Instant::now();
            let status = leaselock::Status::of(&*old, &*new).await.expect("one is up").to_string();
            assert!(status.contains("phase old can be entered"), "{status}");
            let back =
                builder(old, new, Phase::Old).start().await.expect("nobody ran in new alone");
            let locks = LockManager::builder(back).ttl(MAX_TTL).build().expect("settings");
            let next = locks.lock("k").expect("a key").acquire().await.expect("the old one is up");
            println!("{fault}: held again after {:?}", began.elapsed());
            assert!(!guard.is_valid() && next.fencing_token() > token);
            assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
        })
        .await;
    }
}
