//! Locks that move from one real server to another: by the example `switchover`, with processes
//! of its own, and by URL.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use integration::program::Program;
use integration::store::{Kind, Store, redis};
use integration::{SLACK, eventually, limited};
use leaselock::{
    ErrorKind, LockBackend, LockGuard, LockKey, LockManager, Phase, Status, Switchover,
};
use lockcore_conformance::Fault;
use serde_json::{Value, json};
use tokio::process::Command;

const MAX_TTL: Duration = Duration::from_secs(2);

struct Stores {
    old: Store,
    new: Store,
}

impl Stores {
    async fn start(old: Kind, new: Kind) -> Self {
        let (old, new) = tokio::join!(Store::start(old), Store::start(new));
        Self { old, new }
    }

    /// What a process is configured with. A step changes the phase, and nothing else.
    fn url(&self, phase: Phase) -> String {
        let (old, new) = (escaped(&self.old.url()), escaped(&self.new.url()));
        let seconds = MAX_TTL.as_secs();
        format!("switchover:?old={old}&new={new}&phase={phase}&max_ttl_seconds={seconds}")
    }

    async fn connect(&self, phase: Phase) -> Result<LockManager, leaselock::Error> {
        leaselock::connect(&self.url(phase)).await
    }

    /// A process in a phase, which can leave it.
    async fn enter(&self, phase: Phase) -> (Switchover, LockManager) {
        let [old, new] = [backend(&self.old).await, backend(&self.new).await];
        let builder = Switchover::builder(old, new, phase).max_ttl(MAX_TTL).assume_alone();
        let switch = builder.start().await.expect("nobody in the way");
        (switch.clone(), LockManager::new(switch))
    }

    /// A process that takes a key once in a phase; its token.
    async fn once(&self, phase: Phase, key: &str) -> u64 {
        let (switch, locks) = self.enter(phase).await;
        let guard = take(&locks, key).await;
        let token = guard.fencing_token();
        guard.release().await.expect("held");
        switch.leave().await;
        // Nobody takes back a phase: the store ends it, which etcd does up to seconds late.
        eventually(async || self.status().await.stands(phase).is_none()).await;
        token
    }

    async fn status(&self) -> Status {
        let [old, new] = [backend(&self.old).await, backend(&self.new).await];
        Status::of(&*old, &*new).await.expect("both are up")
    }

    async fn example(&self, args: &[&str]) -> String {
        let mut example = Command::new(env!("CARGO_BIN_EXE_switchover"));
        example.args(["--old", &self.old.url(), "--new", &self.new.url()]).args(args);
        let output = example.stdin(Stdio::null()).kill_on_drop(true).output().await;
        let output = output.expect("the example is built with this test");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}\n{why}");
        said
    }
}

/// Nothing but letters and digits as it is.
fn escaped(url: &str) -> String {
    let escape = |byte: u8| match byte {
        plain if plain.is_ascii_alphanumeric() => char::from(plain).to_string(),
        other => format!("%{other:02X}"),
    };
    url.bytes().map(escape).collect()
}

async fn backend(store: &Store) -> Arc<dyn LockBackend> {
    leaselock::backend(&store.url()).await.expect("a server")
}

/// A process that knows nothing of a move.
async fn plain(store: &Store) -> LockManager {
    LockManager::new(backend(store).await)
}

async fn take(locks: &LockManager, key: &str) -> LockGuard {
    locks.lock(key).expect("a key").acquire().await.expect("a server")
}

async fn is_free(locks: &LockManager, key: &str) -> bool {
    locks.lock(key).expect("a key").try_acquire().await.expect("a server").is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_processes_move_from_redis_to_postgres_and_back() {
    limited(async {
        let stores = Stores::start(Kind::Redis, Kind::Postgres).await;
        let said = stores.example(&["--json", "--back", "--stay", "1"]).await;
        println!("switchover: {said}");
        let report: Value = serde_json::from_str(&said).expect("--json prints JSON");
        assert_eq!(report["phases"], json!(["old", "both", "new", "both", "old"]));
        assert_eq!(report["processes"], 8);
        assert_eq!((&report["overlaps"], &report["tokens_fallen"]), (&json!(0), &json!(0)));
        for phase in ["old", "both", "new"] {
            assert!(report[format!("acquired_in_{phase}")].as_u64() > Some(20), "{report}");
        }
        let idle = report["idle_key_tokens"].as_array().expect("an array");
        assert_eq!(idle.len(), 3, "old, new, old: {report}");
        assert!(idle.is_sorted_by_key(|token| token.as_u64().expect("a token")));
        // All have left their phases and released their locks.
        for store in [&stores.old, &stores.new] {
            let mut left = store.leases().await;
            left.retain(|key| !key.starts_with("leaselock.switchover/"));
            assert_eq!(left, [""; 0]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_who_is_in_the_way() {
    limited(async {
        let stores = Stores::start(Kind::Redis, Kind::Postgres).await;
        let locks = stores.connect(Phase::Both).await.expect("nobody in the way");
        let guard = take(&locks, "k").await;
        let said = stores.example(&["--status"]).await;
        for line in ["phase both: 1 process, ", "0 keys in the old store alone, 1 in both"] {
            assert!(said.contains(line), "{line:?} in {said}");
        }
        guard.release().await.expect("held");
    })
    .await;
}

/// A process that crashed holds up the step to the opposite phase, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_is_waited_for() {
    limited(async {
        let stores = Stores::start(Kind::Redis, Kind::Postgres).await;
        let mut killed = Program::start(env!("CARGO_BIN_EXE_holder"));
        let connect = format!("connect {} {}", stores.url(Phase::Old), MAX_TTL.as_millis());
        assert_eq!(killed.ask(&connect).await, "connected");
        let said = killed.ask("acquire k").await;
        let token: u64 = said.trim_start_matches("token ").parse().expect("a token");
        killed.kill().await;
        let began = Instant::now();

        let both = stores.connect(Phase::Both).await.expect("a neighbour is never in the way");
        let refusal = stores.connect(Phase::New).await.expect_err("its phase stands");
        assert_eq!(refusal.kind(), ErrorKind::Rejected);
        let in_the_way = "while phase `old` stands, for ";
        assert!(refusal.to_string().contains(in_the_way), "{refusal}");

        while let Err(refusal) = stores.connect(Phase::New).await {
            assert_eq!(refusal.kind(), ErrorKind::Rejected, "{refusal}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let after = began.elapsed();
        println!("killed process: the next phase was entered {after:?} later");
        // It is renewed when a third of its ttl has passed.
        assert!(after > 2 * MAX_TTL - SLACK / 2, "{after:?}");
        assert!(after < 3 * MAX_TTL + 2 * SLACK, "{after:?}");
        assert!(take(&both, "k").await.fencing_token() > token);
    })
    .await;
}

/// What is connected by URL cannot leave: it is shown until it is dropped, and its phase ends by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_connection_leaves_its_phase() {
    limited(async {
        let stores = Stores::start(Kind::Redis, Kind::Postgres).await;
        let locks = stores.connect(Phase::Old).await.expect("nobody in the way");
        let guard = take(&locks, "k").await;
        drop(locks);
        tokio::time::sleep(4 * MAX_TTL).await;
        let alone = format!("{}&assume=alone", stores.url(Phase::New));
        leaselock::connect(&alone).await.expect_err("its guard is there");
        drop(guard);
        eventually(async || stores.status().await.processes().count() == 0).await;
        let began = Instant::now();
        eventually(async || leaselock::connect(&alone).await.is_ok()).await;
        println!("dropped connection: its phase ended {:?} later", began.elapsed());
        assert!(began.elapsed() < 3 * MAX_TTL + SLACK, "{:?}", began.elapsed());
    })
    .await;
}

/// Plain processes share the keys of their store, and are not registered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_processes_exclude_and_are_seen_by_what_they_hold() {
    limited(async {
        let stores = Stores::start(Kind::Redis, Kind::Postgres).await;
        for (store, phase) in [(&stores.old, Phase::Old), (&stores.new, Phase::New)] {
            let plain = plain(store).await;
            let guard = take(&plain, "k").await;
            for phase in [phase, Phase::Both] {
                let (switch, moving) = stores.enter(phase).await;
                assert!(!is_free(&moving, "k").await, "plain and {phase}");
                let mine = take(&moving, "mine").await;
                assert!(!is_free(&plain, "mine").await, "{phase} and plain");
                mine.release().await.expect("held");
                switch.leave().await;
            }
            // What they hold is all that shows them.
            let opposite = if phase == Phase::Old { Phase::New } else { Phase::Old };
            tokio::time::sleep(4 * MAX_TTL).await;
            let against = stores.status().await.objections(opposite, &[]);
            assert!(against.iter().any(|why| why.starts_with("`k` is held in")), "{against:?}");
            guard.release().await.expect("held");
        }
    })
    .await;
}

/// C10: a million keys of others in the store being left, four million by `cargo xtask test --full`.
/// Nobody who enters looks through them, and those who are in both look for nobody in a hurry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_others_do_not_delay_who_enters() {
    limited(async {
        let stores = Stores::start(Kind::Redis, Kind::Postgres).await;
        let millions = if std::env::var_os("LOCKCORE_TEST_FULL").is_some() { 4 } else { 1 };
        let mut raw = redis::connection(&stores.old.url()).await;
        let fill = "for n = 1, 100000 do redis.call('SET', ARGV[1] .. ':' .. n, n) end";
        for part in 0..10 * millions {
            let words = ["EVAL", fill, "0", &part.to_string()];
            redis::ask::<()>(&mut raw, &words).await.expect("room");
        }
        let (both, _) = stores.enter(Phase::Both).await;
        let clean = LockKey::new("leaselock.switchover/clean").expect("a key");
        let old = backend(&stores.old).await;
        eventually(async || old.inspect(&clean).await.expect("a server").is_some()).await;
        let began = Instant::now();
        old.list("", None, 100).await.expect("a server");
        let whole = began.elapsed();

        // Not alone: whoever holds locks outside of the switch is looked for.
        let [a, b] = [old, backend(&stores.new).await];
        let began = Instant::now();
        let entered = Switchover::builder(a, b, Phase::New).max_ttl(MAX_TTL).start().await;
        let took = began.elapsed();
        println!("{millions} million keys: seen in {whole:?}, entered in {took:?}");
        let new = entered.expect("nobody in the way");
        assert!(took < whole / 2, "{took:?} where a look takes {whole:?}");
        new.leave().await;
        both.leave().await;
    })
    .await;
}

/// The last step: plain processes on the new store, once its clock has passed the floor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_postgres_goes_on_above_the_floor() {
    limited(async {
        let stores = Stores::start(Kind::Redis, Kind::Postgres).await;
        let idle = stores.once(Phase::Old, "idle").await;
        stores.once(Phase::Both, "busy").await;
        // At least the floor, or the clock where that is further.
        let seen = stores.once(Phase::New, "check").await;
        assert!(seen > idle);
        let plain = plain(&stores.new).await;
        let began = Instant::now();
        // A key that is new has the clock's token.
        while take(&plain, &format!("clock/{:?}", began.elapsed())).await.fencing_token() <= seen {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("plain: the clock was past the floor {:?} later", began.elapsed());
        assert!(take(&plain, "idle").await.fencing_token() > seen);
        assert!(take(&plain, "check").await.fencing_token() > seen);
    })
    .await;
}

/// An etcd counts writes: its clock does not reach the floor, and the floor is to be kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_etcd_the_floor_is_kept() {
    limited(async {
        let stores = Stores::start(Kind::Redis, Kind::Etcd).await;
        // The etcd's tokens begin here.
        take(&plain(&stores.new).await, "first").await.release().await.expect("held");
        let idle = stores.once(Phase::Old, "idle").await;
        let taken = stores.once(Phase::New, "taken").await;
        stores.old.inflict(Fault::Kill).await;

        // Each key that was taken once in the new phase goes on above that.
        let plain = plain(&stores.new).await;
        assert!(take(&plain, "taken").await.fencing_token() > taken);
        let fell = take(&plain, "idle").await;
        assert!(fell.fencing_token() < idle, "{} and {idle}", fell.fencing_token());
        fell.release().await.expect("held");

        let url = format!("{}&gone=yes&floor={taken}", stores.url(Phase::New));
        let locks = leaselock::connect(&url).await.expect("the old store is said to be gone");
        assert!(take(&locks, "idle").await.fencing_token() >= taken);
        assert!(taken > idle);
    })
    .await;
}
