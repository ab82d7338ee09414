//! What the processes have said.

use std::collections::BTreeMap;

use integration::history::Held;

/// Reads what one process has said. A lock whose end was not said was held for a moment.
pub(crate) fn read(who: &str, lines: &[String], into: &mut Vec<Held>) {
    // One process may have several locks, and each key once at a time.
    let mut open: BTreeMap<String, usize> = BTreeMap::new();
    for line in lines {
        let words: Vec<_> = line.split(' ').collect();
        let [verb, key, token, time] = words[..] else { continue };
        // The last line of a process that was killed may be cut.
        let (Ok(token), Ok(time)) = (token.parse(), time.parse()) else { continue };
        match (verb, open.remove(key)) {
            ("got", _) => {
                open.insert(key.to_owned(), into.len());
                let (who, key) = (who.to_owned(), key.to_owned());
                into.push(Held { who, key, tokens: (token, token), time: (time, time) });
            }
            ("had", Some(index)) => {
                into[index].tokens.1 = token;
                into[index].time.1 = time;
            }
            _ => {}
        }
    }
}

#[test]
fn what_must_not_be_is_found() {
    use integration::history::check;

    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let verdict = |first: &str, second: &str| {
        let mut all = Vec::new();
        read("a", &lines(first), &mut all);
        read("b", &lines(second), &mut all);
        check(&all)
    };
    assert_eq!(verdict("got k 1 10\nhad k 1 20", "got k 2 21\nhad k 2 30"), Ok(()));
    assert_eq!(verdict("got k 1 10\nhad k 1 20", "got l 1 15\nhad l 1 17"), Ok(()));
    for (first, second, what) in [
        ("got k 1 10\nhad k 1 20", "got k 2 19\nhad k 2 30", "two at once"),
        ("got k 1 10\nhad k 1 20", "got k 2 12\nhad k 2 13", "two at once"),
        ("got k 2 10\nhad k 2 20", "got k 2 21", "tokens fell"),
        ("got k 1 10\nhad k 3 20", "got k 2 21", "tokens fell"),
        // Killed in the middle of a line.
        ("got k 5 10\nhad k 5", "got k 4 21\nhad", "tokens fell"),
    ] {
        let found = verdict(first, second).expect_err(what);
        assert!(found.starts_with(what), "{found}");
    }
}
