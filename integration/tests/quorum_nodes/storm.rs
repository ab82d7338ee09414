//! Five nodes, of which the same two fail in any way at any time, while clients in this process
//! and in others take locks.
//!
//! `LOCKCORE_TEST_STORM_SECONDS` makes it longer, `LOCKCORE_TEST_SEED` repeats what is done to
//! whom, though not what comes of it.

use std::process::Stdio;
use std::time::Instant;

use integration::SLACK;
use integration::storm::{History, KEYS, Note, Plan, contend};
use leaselock::LockManager;
use lockcore_conformance::servers::RedisOptions;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::*;
use crate::blows::{Kind, Storm};

/// So short that a node counts again within the storm.
const MAX_TTL: Duration = Duration::from_secs(5);
const TTL: Duration = Duration::from_secs(2);

/// How many clients are tasks of this process, and how many processes of their own.
const TASKS: u64 = 2;
const PROCESSES: u64 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_may_lose_its_data() {
    run(Kind::Losing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_may_be_wrong() {
    run(Kind::WrongClocks).await;
}

fn wished(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|wish| wish.parse().expect("a number"))
}

async fn run(kind: Kind) {
    let time = Duration::from_secs(wished("LOCKCORE_TEST_STORM_SECONDS").unwrap_or(15));
    let limit = 2 * time + Duration::from_secs(90);
    let _turn = turn().await;
    timeout(limit, run_for(kind, time)).await.expect("the test takes too long");
}

async fn run_for(kind: Kind, time: Duration) {
    let seed = wished("LOCKCORE_TEST_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut order = [0, 1, 2, 3, 4];
    random.shuffle(&mut order);
    let (failing, well) = order.split_at(2);
    println!("{kind:?}: seed {seed}, nodes {failing:?} fail for {time:?}");

    let durable = |n| kind == Kind::WrongClocks && failing.contains(&n);
    let options = |n| if durable(n) { RedisOptions::new().durable() } else { RedisOptions::new() };
    let nodes = Nodes::start((0..5).map(options)).await;
    nodes.opened(MAX_TTL).await;
    let well = well.iter().map(|&n| nodes.url(n)).collect::<Vec<_>>();
    let mut storm = Storm::new(kind, nodes, failing, random).await;

    let nodes = storm.urls();
    let plan = |who| {
        let (nodes, well) = (nodes.clone(), well.clone());
        Plan { who, seed, time, ttl: TTL, max_ttl: MAX_TTL, nodes, well }
    };
    let mut clients = JoinSet::new();
    for who in 0..TASKS + PROCESSES {
        let plan = plan(who);
        clients.spawn(async move {
            if who < TASKS { contend(plan).await } else { contend_apart(plan).await }
        });
    }
    let began = Instant::now();
    while began.elapsed() < time {
        storm.blow().await;
    }
    storm.calm().await;
    let mut history = History::default();
    while let Some(notes) = clients.join_next().await {
        history.add(notes.expect("no panic"));
    }
    report(kind, &storm, &history, time);
    history.check().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    judge(&storm, &history, time);
    is_well(storm.calm().await, &history).await;
}

/// A client in a process of its own.
async fn contend_apart(plan: Plan) -> Vec<Note> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_contender"));
    let millis = |duration: Duration| duration.as_millis().to_string();
    command.args([plan.who.to_string(), plan.seed.to_string()]);
    command.args([plan.time, plan.ttl, plan.max_ttl].map(millis));
    command.args(&plan.nodes).arg("--").args(&plan.well);
    command.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = command.output().await.expect("a process");
    assert!(output.status.success(), "{}", output.status);
    let lines = String::from_utf8(output.stdout).expect("text");
    lines.lines().map(|line| line.parse().expect("a note")).collect()
}

fn report(kind: Kind, storm: &Storm, history: &History, time: Duration) {
    let gave_up = history.count(|note| *note == Note::GaveUp);
    let contended = history.count(|note| *note == Note::Contended);
    let lost = history.count(|note| matches!(note, Note::Lost { .. }));
    println!(
        "{kind:?}: in {time:?} {} locks were held and {lost} of them lost; {gave_up} acquires were \
         given up, {contended} ended while others held it; {:?}",
        history.held(),
        storm.done
    );
    for note in history.accidents() {
        println!("{kind:?}: {note}");
    }
}

/// The storm was one, and only what may be lost was.
fn judge(storm: &Storm, history: &History, time: Duration) {
    for kind in &storm.kinds {
        assert!(storm.done.contains_key(kind), "no {kind:?}: {:?}", storm.done);
    }
    let seconds = usize::try_from(time.as_secs()).expect("a short time");
    let held = history.held();
    assert!(held >= 3 * seconds, "only {held} locks were held in {time:?}");
    assert!(history.count(|note| *note == Note::GaveUp) > 0, "nobody gave up");
    let accidents = history.count(|note| {
        matches!(note, Note::Lost { excused: false, .. } | Note::Failed { excused: false, .. })
    });
    assert_eq!(accidents, 0, "a majority is well");
    let lost = history.count(|note| matches!(note, Note::Lost { .. }));
    assert!(lost <= 1 + held / 50, "{lost} of {held} were lost");
}

/// When all has passed, every key can be had again, with greater tokens, and nothing is left.
async fn is_well(nodes: &Nodes, history: &History) {
    let quorum = nodes.quorum(MAX_TTL);
    let locks = LockManager::builder(quorum).ttl(TTL).build().expect("settings");
    for key in KEYS {
        let guard = locks.lock(key).expect("a key").acquire().await.expect("a majority is well");
        assert!(guard.fencing_token() > history.newest(key), "{key}: {guard:?}");
        guard.release().await.expect("held");
    }
    let (began, left) = (Instant::now(), async || {
        let mut left = Vec::new();
        for n in 0..nodes.count() {
            left.extend(nodes.leases(n).await);
        }
        left
    });
    while !left().await.is_empty() {
        assert!(began.elapsed() < TTL + SLACK, "left behind: {:?}", left().await);
        sleep(Duration::from_millis(20)).await;
    }
}
