//! What people who look are told.

use super::switchover::{STANDS, builder, pair, started};
use super::*;
use crate::Phase::{Both, New, Old};
use crate::Status;

async fn status(nodes: &[Node; 2]) -> Status {
    Status::of(&nodes[0], &nodes[1]).await.expect("one is up")
}

#[tokio::test(start_paused = true)]
async fn status_says_who_is_where() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    let (old, both) = (started(&nodes, Old).await, started(&nodes, Both).await);
    acquired(&old, &claim_on("in/old")).await;
    acquired(&both, &claim_on("in/both")).await;
    let status = both.status().await.expect("both are up");
    let there: Vec<_> =
        status.processes().map(|process| (process.phase, &*process.label)).collect();
    assert_eq!(there, [(Old, "in old"), (Both, "in both")]);
    let held: Vec<_> = status
        .held()
        .map(|held| (held.key.as_str(), held.old.is_some(), held.new.is_some()))
        .collect();
    assert_eq!(held, [("in/both", true, true), ("in/old", true, false)]);
    let stands = status.stands(Old).expect("somebody is in it");
    assert!(stands.floor == Some(old.floor()) && stands.settings.contains("max_ttl=60s"));
    assert_eq!(status.objections(Old, &[(Old, 1), (Both, 1)]), [""; 0]);
    let against = status.objections(New, &[(Both, 2)]);
    assert_eq!(against[0], "1 process is seen in phase both, and 2 are expected");
    assert!(against[1].starts_with("phase old stands, for "), "{against:?}");
    assert!(against[2].starts_with("`in/old` is held in the other store alone"), "{against:?}");
    let text = status.to_string();
    for line in [
        "phase old: 1 process, stands for 180s (",
        "held: 1 key in the old store alone, 1 in both, 0 in the new store alone",
        "phase old can be entered",
        "phase new cannot be entered: phase old stands, for 180s at least",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    let json = status.to_json();
    for part in [
        r#"{"unreached":[],"stands":[{"phase":"old","token":"#,
        r#""processes":[{"phase":"old","label":"in old","remaining_ms":"#,
        r#""held":{"old":1,"both":1,"new":0},"objections":{"old":[],"both":[],"new":["phase old "#,
    ] {
        assert!(json.contains(part), "{part} in {json}");
    }
    old.leave().await;
    both.leave().await;
    assert_eq!(self::status(&nodes).await.processes().count(), 0);
    assert!(self::status(&nodes).await.stands(Old).is_some(), "nobody releases it");
    sleep(STANDS).await;
    assert!(self::status(&nodes).await.stands(Old).is_none());
}

/// One of a store that is down or hung says what can be done without it.
#[tokio::test(start_paused = true)]
async fn status_shows_the_exits() {
    for mood in [Mood::Down, Mood::Paused] {
        let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
        let _both = started(&nodes, Both).await;
        nodes[1].be(mood);
        let (took, seen) = elapsed(status(&nodes)).await;
        assert!(took <= Duration::from_secs(11), "{took:?}");
        let text = seen.to_string();
        assert!(text.contains("phase old can be entered\n"), "{text}");
        assert!(text.contains("phase both cannot be entered: a store that it needs"), "{text}");
        nodes[1].be(Mood::Well);
        sleep(STANDS).await;
        let _new = started(&nodes, New).await;
        nodes[1].be(mood);
        let text = status(&nodes).await.to_string();
        let needs =
            "phase old cannot be entered: without the other store it needs `gone` and `floor`";
        assert!(text.contains(needs), "{text}");
        nodes[0].be(mood);
        Status::of(&nodes[0], &nodes[1]).await.expect_err("neither is reached");
    }
}

/// One that is just taken or released in both stores is in one for a moment.
#[tokio::test(start_paused = true)]
async fn what_passes_is_no_objection() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(0));
    let _both = started(&nodes, Both).await;
    let plain = claim();
    nodes[0].store.acquire(&plain);
    let against = status(&nodes).await.objections(New, &[]);
    assert_eq!(against, ["`k` is held in the other store alone, by ``"]);
    let (store, passing) = (nodes[0].store.clone(), plain.clone());
    tokio::spawn(async move {
        sleep(100 * MS).await;
        store.release(&passing);
    });
    assert_eq!(status(&nodes).await.objections(New, &[]), [""; 0]);
}

/// A dry run leaves nothing behind.
#[tokio::test(start_paused = true)]
async fn a_check_says_what_a_start_would() {
    let nodes = pair(Tokens::Clock(0), Tokens::Clock(40));
    let check = async |phase| {
        let check = builder(&nodes, phase).check(&[]).await.expect("settings");
        (check.objections().to_vec(), check.to_json())
    };
    assert_eq!(check(Old).await.0, [""; 0]);
    assert_eq!(check(New).await.0, ["nobody is registered in phase both"]);
    assert_eq!(nodes[0].store.list("", None, 9), []);
    let _both = started(&nodes, Both).await;
    let (against, json) = check(New).await;
    assert_eq!(against, [""; 0]);
    assert!(json.starts_with(r#"{"objections":[],"tokens_apart":4"#), "{json}");
    let other = builder(&nodes, Both).settings("another").check(&[]).await.expect("settings");
    assert!(other.objections()[0].contains("not "), "{other}");
    nodes[1].be(Mood::Sour);
    let against = check(New).await.0;
    assert!(against[0].starts_with("the new store cannot be used"), "{against:?}");
}
