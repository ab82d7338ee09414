//! The examples do what they say, on the memory store.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

/// An example as `cargo test` has built it, beside the folder of this test.
fn example(name: &str, args: &[&str]) -> Output {
    let mut path = std::env::current_exe().expect("a test has a path");
    path.pop();
    path.pop();
    let path: PathBuf =
        path.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    Command::new(&path).args(args).output().unwrap_or_else(|error| {
        panic!("{}: {error}; `cargo build --examples` builds it", path.display())
    })
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn counted(args: &[&str]) -> Value {
    let output = example("counter", args);
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).expect("--json prints JSON")
}

#[test]
fn counter_loses_nothing_under_the_lock() {
    let report = counted(&["--json"]);
    assert_eq!(report["workers"], 500);
    assert_eq!(report["final"], 500);
    assert_eq!(report["lost"], 0);
    // One acquire, a hand-over from each worker to the next, and one release. A worker that asks
    // when nobody has the lock costs an acquire of its own, and the one before it a release.
    let calls = report["backend_calls"].as_u64().expect("a number");
    assert!((501..=1_000).contains(&calls), "{calls}");
    let (first, last) = (&report["first_token"], &report["last_token"]);
    assert!(last.as_u64() >= first.as_u64().map(|first| first + 499));
    let names: Vec<_> = report.as_object().expect("an object").keys().collect();
    assert_eq!(
        names,
        [
            "backend_calls",
            "final",
            "first_token",
            "last_token",
            "lost",
            "wait_p50_us",
            "wait_p99_us",
            "wall_ms",
            "workers"
        ]
    );
}

#[test]
fn counter_loses_additions_without_the_lock() {
    for processes in ["1", "2"] {
        let report = counted(&["--json", "--unprotected", "--processes", processes]);
        assert!(report["lost"].as_u64() > Some(0), "{report}");
        assert_eq!(report["backend_calls"], 0);
    }
}

#[test]
fn counter_refuses_what_it_cannot_do() {
    for (args, why) in [
        (&["--processes", "2"][..], "a memory store is in one process"),
        (&["--workers", "0"], "--workers takes a number"),
        (&["--workers=many"], "--workers takes a number"),
        (&["--workers"], "--workers needs a value"),
        (&["--workers", "2", "--processes=3"], "cannot be more than"),
        (&["--json=yes"], "--json takes no value"),
        (&["--fast"], "no flag `--fast`"),
        (&["500"], "other than flags"),
    ] {
        let output = example("counter", args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(why), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn counter_is_called_wrongly_with_a_url_of_no_store() {
    let output = example("counter", &["--url", "memory://a/b"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("memory://NAME"));
}

#[test]
fn counter_fails_without_its_store() {
    // Nothing listens on the port of the TCP multiplexer.
    let output = example("counter", &["--url", "redis://127.0.0.1:1"]);
    let (code, why) =
        if cfg!(feature = "redis") { (1, "unavailable") } else { (2, "feature `redis`") };
    assert_eq!(output.status.code(), Some(code));
    assert!(stderr(&output).contains(why), "{}", stderr(&output));
}

#[test]
fn counter_prints_a_table() {
    let output = example("counter", &["--workers", "3"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let lines: Vec<_> = stdout(&output).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 9);
    assert!(lines[1].starts_with("final") && lines[1].ends_with(" 3"));
}

#[test]
fn switchover_moves_there_and_back_on_memory() {
    let output = example("switchover", &["--json", "--back", "--stay", "1"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("--json prints JSON");
    assert_eq!(report["phases"], serde_json::json!(["old", "both", "new", "both", "old"]));
    assert_eq!((&report["processes"], &report["overlaps"]), (&8.into(), &0.into()));
    assert_eq!(report["tokens_fallen"], 0);
    for phase in ["old", "both", "new"] {
        assert!(report[format!("acquired_in_{phase}")].as_u64() > Some(20), "{report}");
    }
    let idle = report["idle_key_tokens"].as_array().expect("an array");
    assert_eq!(idle.len(), 3, "old, new, old: {report}");
    assert!(idle.is_sorted_by_key(|token| token.as_u64().expect("a token")));
}

#[test]
fn switchover_says_what_is_safe() {
    let output = example("switchover", &["--processes", "3", "--stay", "1"]);
    assert!(output.status.success(), "{}", stderr(&output));
    for said in [
        "Before the step to `both`:\nphase old: 3 processes",
        "phase new cannot be entered: phase old stands, for ",
        "phase `new` must not run while phase `old` stands, for ",
        "Before the step to `new`:\nphase old: 0 processes\nphase both: 3 processes, stands for ",
        "phase old can be entered\nphase both can be entered\nphase new can be entered",
        "Arrived:\nphase old: 0 processes\nphase both: 0 processes",
        "\nphase new: 3 processes, stands for ",
        "\noverlaps              0\n",
    ] {
        assert!(stdout(&output).contains(said), "{said:?} in {}", stdout(&output));
    }
}

#[test]
fn switchover_refuses_what_it_cannot_do() {
    let redis = "redis://:secret@127.0.0.1:1";
    for (args, why) in [
        (&["--old", redis][..], "name both stores"),
        (&["--status"], "name both stores"),
        (&["--expect", "both"], "--expect is PHASE=N"),
        (&["--before", "soon"], "a phase is `old`, `both` or `new`"),
        (&["--old", redis, "--new", "memory://new"], "a memory store is in one process"),
        (&["--processes", "1"], "--processes takes a number"),
        (&["--stay", "0"], "--stay takes a number"),
        (&["--back=yes"], "--back takes no value"),
        (&["--old"], "--old needs a value"),
        (&["--fast"], "no flag `--fast`"),
        (&[redis], "other than flags"),
    ] {
        let output = example("switchover", args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(why), "{args:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("secret"), "{}", stderr(&output));
    }
}

#[test]
fn switchover_fails_without_its_stores() {
    // Nothing listens on the port of the TCP multiplexer.
    let url = "redis://127.0.0.1:1";
    let (code, why) =
        if cfg!(feature = "redis") { (1, "unavailable") } else { (2, "feature `redis`") };
    for args in [&["--old", url, "--new", url][..], &["--status", "--old", url, "--new", url]] {
        let output = example("switchover", args);
        assert_eq!(output.status.code(), Some(code));
        assert!(stderr(&output).contains(why), "{}", stderr(&output));
    }
}

#[test]
fn quickstart_comes_to_its_end() {
    let output = example("quickstart", &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("ended with `contended`"));
}

#[test]
fn lost_stops_the_work() {
    let output = example("lost", &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("the work was stopped"));
    assert!(stdout(&output).contains("is the guard valid? false"));
}

#[test]
fn fencing_refuses_the_late_write() {
    let output = example("fencing", &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("the balance is 70"));
}
