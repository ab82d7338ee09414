//! The example `counter` on every store, counted by the example and by the server.

use std::process::Stdio;

use integration::on_every_store;
use integration::store::{Kind, Store};
use serde_json::Value;
use tokio::process::Command;

/// The most requests per acquisition: little more than is needed where the workers of one process
/// queue there, and some more where processes meet in the store.
const ALONE: f64 = 1.2;
const TOGETHER: f64 = 4.0;

/// What the example reports of a run on this server, and how many requests that took.
async fn counted(store: &Store, args: &[&str]) -> (Value, u64) {
    let before = store.requests().await;
    let mut counter = Command::new(env!("CARGO_BIN_EXE_counter"));
    counter.args(["--json", "--url", &store.url()]).args(args);
    let output = counter.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.expect("the example is built with this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = serde_json::from_slice(&output.stdout).expect("--json prints JSON");
    println!("counter {}: {report}", args.join(" "));
    let requests = store.requests().await - before;
    (report, requests)
}

fn nothing_is_lost(report: &Value) {
    assert_eq!((&report["workers"], &report["final"]), (&500.into(), &500.into()), "{report}");
    assert_eq!(report["lost"], 0, "{report}");
    // As many acquisitions, each with a token greater than the one before.
    let (first, last) = (report["first_token"].as_u64(), report["last_token"].as_u64());
    assert!(last >= first.map(|first| first + 499), "{report}");
}

fn few_requests(kind: Kind, requests: u64, at_most: f64) {
    let each = f64::from(u32::try_from(requests).expect("fewer")) / 500.0;
    println!("{kind:?}: {requests} requests, {each:.2} per acquisition");
    // One step from each worker to the next at least: else they are not counted.
    assert!(each >= 1.0, "{each} requests per acquisition");
    assert!(each <= at_most, "{each} requests per acquisition, at most {at_most}");
}

async fn in_one_process(kind: Kind) {
    let store = Store::start(kind).await;
    let (report, requests) = counted(&store, &[]).await;
    nothing_is_lost(&report);
    few_requests(kind, requests, ALONE);
    assert_eq!(store.leases().await, [""; 0]);
}

async fn in_four_processes(kind: Kind) {
    let store = Store::start(kind).await;
    let (report, requests) = counted(&store, &["--processes", "4"]).await;
    nothing_is_lost(&report);
    few_requests(kind, requests, TOGETHER);
    assert_eq!(store.leases().await, [""; 0]);
}

async fn without_the_lock_additions_are_lost(kind: Kind) {
    let store = Store::start(kind).await;
    let (report, requests) = counted(&store, &["--processes", "4", "--unprotected"]).await;
    assert!(report["lost"].as_u64() > Some(0), "{report}");
    assert_eq!(requests, 0);
}

on_every_store! { in_one_process, in_four_processes, without_the_lock_additions_are_lost }
