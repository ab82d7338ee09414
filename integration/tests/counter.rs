//! The example `counter` on a real Redis, counted by the example and by Redis.

use std::process::Stdio;

use integration::{limited, store};
use lockcore_conformance::servers::RedisServer;
use serde_json::Value;
use tokio::process::Command;

/// The most scripts per acquisition: an acquire and a release where the workers of one process
/// queue there, and some more where processes meet in the store.
const ALONE: f64 = 2.2;
const TOGETHER: f64 = 8.0;

/// What the example reports of a run on this server, and how many scripts that took.
async fn counted(server: &RedisServer, args: &[&str]) -> (Value, u64) {
    let mut redis = store::connection(server).await;
    let before = store::scripts(&mut redis).await;
    let mut counter = Command::new(env!("CARGO_BIN_EXE_counter"));
    counter.args(["--json", "--url", &server.url()]).args(args);
    let output = counter.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.expect("the example is built with this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = serde_json::from_slice(&output.stdout).expect("--json prints JSON");
    println!("counter {}: {report}", args.join(" "));
    let scripts = store::scripts(&mut redis).await - before;
    assert_eq!(store::leases(&mut redis).await, [""; 0]);
    (report, scripts)
}

fn nothing_is_lost(report: &Value) {
    assert_eq!((&report["workers"], &report["final"]), (&500.into(), &500.into()), "{report}");
    assert_eq!(report["lost"], 0, "{report}");
    // As many acquisitions, each with a token greater than the one before.
    let (first, last) = (report["first_token"].as_u64(), report["last_token"].as_u64());
    assert!(last >= first.map(|first| first + 499), "{report}");
}

fn scripts_per_acquisition(scripts: u64, at_most: f64) {
    let each = f64::from(u32::try_from(scripts).expect("fewer")) / 500.0;
    println!("{scripts} scripts, {each:.2} per acquisition");
    assert!(each <= at_most, "{each} scripts per acquisition, at most {at_most}");
}

#[tokio::test]
async fn in_one_process() {
    limited(async {
        let server = store::server().await;
        let (report, scripts) = counted(&server, &[]).await;
        nothing_is_lost(&report);
        scripts_per_acquisition(scripts, ALONE);
    })
    .await;
}

#[tokio::test]
async fn in_four_processes() {
    limited(async {
        let server = store::server().await;
        let (report, scripts) = counted(&server, &["--processes", "4"]).await;
        nothing_is_lost(&report);
        scripts_per_acquisition(scripts, TOGETHER);
    })
    .await;
}

#[tokio::test]
async fn without_the_lock_additions_are_lost() {
    limited(async {
        let server = store::server().await;
        let args = ["--processes", "4", "--unprotected"];
        let (report, scripts) = counted(&server, &args).await;
        assert!(report["lost"].as_u64() > Some(0), "{report}");
        assert_eq!(scripts, 0);
    })
    .await;
}
