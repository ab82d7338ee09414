//! Histories that may have been, and such as may not.

use super::*;

const HEAD: &str = "history 1 seed=7 lag=0 slack=1000\n";

fn check(lines: &str) -> Result<(), Failure> {
    check_history(&format!("{HEAD}{lines}"))
}

#[track_caller]
fn good(lines: &str) {
    if let Err(failure) = check(lines) {
        panic!("{failure}");
    }
}

#[track_caller]
fn bad(what: &str, lines: &str) {
    let failure = check(lines).expect_err("this cannot have been").to_string();
    assert!(failure.contains(what), "{failure}");
}

#[test]
fn a_history_reads_back() {
    let text = format!(
        "{HEAD}0..10 c0 acquire k0 h0 ttl=1000000 floor=0 granted token=5 ttl=1000000\n\
         20.. c1 acquire k0 h1 ttl=1000000 floor=9 open\n\
         30..40 fault wipe\n\
         50..60 w3 relied k0 token=5 asked=0\n\
         70..80 c1 release k0 h1 ttl=1000000 floor=0 not-held\n\
         81..90 c1 acquire k0 h1 ttl=1000000 floor=0 wait=1500000 contended\n\
         91..95 c0 hand-over k0 h0 ttl=1000000 floor=0 released\n\
         92..96 c0 take-over k0 h2 ttl=1000000 floor=0 wait=9 granted token=6 ttl=1000000\n\
         97..99 c0 release k0 h2 ttl=1000000 floor=0 released token=6"
    );
    let log: Log = text.parse().expect("a history");
    assert_eq!((log.seed, log.slack, log.events.len()), (7, 1000, 9));
    assert_eq!(log.to_string(), text);
    let noted: Log = format!("{text}\n    a note\n# another\n").parse().expect("the same");
    assert_eq!(noted, log);
    for wrong in ["", "history 2 seed=1 lag=0 slack=0", "history 1 seed=x lag=0 slack=0"] {
        assert!(wrong.parse::<Log>().is_err(), "{wrong}");
    }
    assert!(check("0..1 c0 acquire k0 h0 ttl=1 floor=0 perhaps").is_err());
}

const FIRST: &str = "0..10 c0 acquire k0 h0 ttl=1000000 floor=0 granted token=5 ttl=1000000\n";

fn then(lines: &str) -> String {
    format!("{FIRST}{lines}")
}

#[test]
fn two_holders_are_found() {
    let second = "c1 acquire k0 h1 ttl=1000000 floor=0 granted token=6 ttl=1000000";
    bad("two holders at once", &then(&format!("20..30 {second}")));
    bad("two holders at once", &then("20..30 c1 renew k0 h1 ttl=9 floor=0 granted token=6 ttl=9"));
    // Its end, its release, on its way or done, and what is done to the server allow it.
    good(&then(&format!("1000000..1000010 {second}")));
    good(&then(&format!("15..30 c0 release k0 h0 ttl=1 floor=0 released\n20..25 {second}")));
    good(&then(&format!("15.. c0 release k0 h0 ttl=1 floor=0 open\n500..510 {second}")));
    good(&then(&format!("15..17 fault wipe\n20..30 {second}")));
    // Another key, the same holder, and a call that began before the first was known.
    good(&then(&format!("20..30 {}", second.replace("k0", "k1"))));
    good(&then(&format!("20..30 {}", second.replace("h1", "h0"))));
    good(&then(&format!("5..30 {second}")));
    // A renewal makes it stand for longer, and a release that came before it does not count.
    let renewed = "900000..900010 c0 renew k0 h0 ttl=1000000 floor=0 granted token=5 ttl=1000000\n";
    bad("two holders at once", &then(&format!("{renewed}1500000..1500010 {second}")));
}

#[test]
fn tokens_that_fall_are_found() {
    let release = "20..30 c0 release k0 h0 ttl=1 floor=0 released\n";
    let second = |token: u64| {
        format!("40..50 c1 acquire k0 h1 ttl=1 floor=0 granted token={token} ttl=1000000\n")
    };
    good(&then(&format!("{release}{}", second(6))));
    bad("tokens fell", &then(&format!("{release}{}", second(5))));
    bad("tokens fell", &then(&format!("{release}{}", second(4))));
    // Over a wipe they rise too, unless one was raised ahead of the clock.
    bad("tokens fell", &then(&format!("35..36 fault wipe\n{}", second(4))));
    let raised = "12..13 c0 renew k0 h0 ttl=1000000 floor=9 granted token=9 ttl=1000000\n";
    good(&then(&format!("{raised}35..36 fault wipe\n{}", second(6))));
    // At the same time any order will do, but not the same token.
    let beside = |token: u64| {
        format!("5..50 c1 acquire k0 h1 ttl=1 floor=0 granted token={token} ttl=1000000\n")
    };
    good(&then(&beside(4)));
    bad("tokens fell", &then(&beside(5)));
}

#[test]
fn a_contended_answer_needs_a_reason() {
    let contended = |time: &str| format!("{time} c1 acquire k0 h1 ttl=1000000 floor=0 contended\n");
    good(&then(&contended("20..30")));
    good(&then(&contended("1000900..1000950")));
    bad("nobody can have it", &then(&contended("1002000..1002010")));
    bad("nobody can have it", &contended("20..30"));
    let release = "40..50 c0 release k0 h0 ttl=1 floor=0 released\n";
    bad("nobody can have it", &then(&format!("{release}{}", contended("60..70"))));
    good(&then(&format!("{release}{}", contended("45..70"))));
    // Whoever asks a combination again may be told what its first attempt came to.
    let again =
        format!("{release}45.. c1 acquire k0 h1 ttl=1 floor=0 open\n{}", contended("60..70"));
    bad("nobody can have it", &then(&again));
    let combined = HEAD.replace("1000\n", "1000 combined\n");
    check_history(&format!("{combined}{FIRST}{again}")).expect("it was so when it first asked");
    // Of stores made of several: what was rolled back, and whoever asked meanwhile.
    for excuse in [
        "45..55 c1 acquire k0 h2 ttl=1000000 floor=0 unavailable\n",
        "45..65 c1 acquire k0 h2 ttl=1000000 floor=0 contended\n",
        "45..55 c1 acquire k0 h2 ttl=1000000 floor=0 contended\n",
    ] {
        let beside = format!("{release}{excuse}{}", contended("60..70"));
        bad("nobody can have it", &then(&beside));
        check_history(&format!("{combined}{FIRST}{beside}")).expect("one of several stores had it");
    }
    // For no longer than its lag.
    let long_ago = "45..55 c1 acquire k0 h2 ttl=1000000 floor=0 contended\n";
    let later = format!("{combined}{FIRST}{release}{long_ago}{}", contended("2000..2010"));
    check_history(&later).expect_err("it has been taken back");
    // What has no answer may arrive at any time, whatever was released meanwhile.
    for doubt in [
        "20.. c0 acquire k0 h2 ttl=1 floor=0 open\n",
        "20..30 c0 acquire k0 h2 ttl=1 floor=0 ambiguous\n",
    ] {
        good(&then(&format!("{doubt}{release}{}", contended("60..70"))));
    }
    // A doubtful release frees nothing for sure; an older lease may be kept over a restart.
    good(&then(&format!("40.. c0 release k0 h0 ttl=1 floor=0 open\n{}", contended("60..70"))));
    good(&then(&format!("40..50 fault restart\n{}", contended("1002000..1002010"))));
}

#[test]
fn a_place_in_line_is_a_reason() {
    let release = "40..50 c0 release k0 h0 ttl=1 floor=0 released token=5\n";
    let contended = "2000000..2000010 c1 acquire k0 h1 ttl=1 floor=0 contended\n";
    let place = "20..30 c2 acquire k0 h2 ttl=1 floor=0 wait=3000000 contended\n";
    bad("nobody can have it", &then(&format!("{release}{contended}")));
    good(&then(&format!("{place}{release}{contended}")));
    // Not for longer than it lasts, nor after its holder left.
    bad(
        "nobody can have it",
        &then(&format!("{}{release}{contended}", place.replace("3000000", "300000"))),
    );
    let left = "60..70 c2 release k0 h2 ttl=1 floor=0 not-held\n";
    bad("nobody can have it", &then(&format!("{place}{release}{left}{contended}")));
}

#[test]
fn a_hand_over_is_a_release_and_a_grant() {
    let over = |token: u64| {
        format!(
            "20..30 c0 hand-over k0 h0 ttl=1 floor=0 released\n\
             21..31 c0 take-over k0 h1 ttl=1000000 floor=0 granted token={token} ttl=1000000\n"
        )
    };
    good(&then(&over(6)));
    bad("tokens fell", &then(&over(5)));
    let third = "40..50 c1 acquire k0 h2 ttl=1000000 floor=0 granted token=7 ttl=1000000\n";
    bad("two holders at once", &then(&format!("{}{third}", over(6))));
    let renewed = "40..50 c0 renew k0 h0 ttl=1000000 floor=0 granted token=5 ttl=1000000\n";
    bad("two holders at once", &then(&format!("{}{renewed}", over(6))));
    // It may be repeated, and may yield.
    let again = over(6).replace("20..30", "40..50").replace("21..31", "41..51");
    good(&then(&format!("{}{again}", over(6))));
    let yielded = "20..30 c0 hand-over k0 h0 ttl=1 floor=0 released\n\
                   21..31 c0 take-over k0 h1 ttl=1 floor=0 wait=1000000 contended\n\
                   40..50 c1 acquire k0 h2 ttl=1000000 floor=0 granted token=7 ttl=1000000\n";
    good(&then(yielded));
}

#[test]
fn a_release_tells_its_token() {
    let release =
        |token: u64| format!("20..30 c0 release k0 h0 ttl=1 floor=0 released token={token}\n");
    good(&then(&release(5)));
    bad("was not granted", &then(&release(6)));
    // Unless it may have been.
    let open = "12.. c0 acquire k0 h0 ttl=1000000 floor=0 open\n";
    good(&then(&format!("{open}{}", release(6))));
    let raised = "12..13 c0 renew k0 h0 ttl=1000000 floor=9 granted token=9 ttl=1000000\n";
    good(&then(&format!("{raised}{}", release(9))));
    bad("was not granted", &then(&format!("{raised}{}", release(8))));
}

#[test]
fn what_was_released_is_over() {
    let release = "20..30 c0 release k0 h0 ttl=1 floor=0 released\n";
    let renewed = "40..50 c0 renew k0 h0 ttl=1000000 floor=0 granted token=5 ttl=1000000\n";
    bad("renewed after its release", &then(&format!("{release}{renewed}")));
    bad("released twice", &then(&format!("{release}{}", release.replace("20..30", "40..50"))));
    // Unless it asked again, or may have.
    let again = "32..35 c0 acquire k0 h0 ttl=1000000 floor=0 granted token=6 ttl=1000000\n";
    good(&then(&format!("{release}{again}{}", renewed.replace("token=5", "token=6"))));
    let open = "12.. c0 acquire k0 h0 ttl=1000000 floor=0 open\n";
    good(&then(&format!("{open}{release}{renewed}")));
    let late = "40..50 c0 release k0 h0 ttl=1 floor=0 not-held\n";
    good(&then(&format!("{release}{late}")));
}

#[test]
fn those_who_rely_on_it_take_turns() {
    let relied = |times: &str, token: u64, asked: u64| {
        format!("{times} w0 relied k0 token={token} asked={asked}\n")
    };
    let first = relied("1..5", 1, 0);
    good(&format!("{first}{}{}", relied("6..9", 2, 0), relied("9..10", 3, 7)));
    bad("relied on it at once", &format!("{first}{}", relied("4..9", 2, 0)));
    bad("tokens fell", &format!("{}{}", relied("1..5", 2, 0), relied("6..9", 1, 0)));
    bad("tokens fell", &format!("{}{}", relied("1..5", 2, 0), relied("7..9", 2, 6)));
}
