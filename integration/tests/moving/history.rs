//! What the processes have said, and whether it may have been so.

use std::collections::BTreeMap;

/// A lock that somebody had.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// Which process, and in which phase.
    pub(crate) who: String,
    pub(crate) key: String,
    /// The token, at first and at last.
    pub(crate) tokens: (u64, u64),
    /// Two moments at which it was valid, and so it was between them.
    pub(crate) from: u128,
    pub(crate) to: u128,
}

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
                into.push(Held { who, key, tokens: (token, token), from: time, to: time });
            }
            ("had", Some(index)) => {
                into[index].tokens.1 = token;
                into[index].to = time;
            }
            _ => {}
        }
    }
}

/// Nobody had a key while another had it, and whoever came later had greater tokens.
pub(crate) fn check(all: &[Held]) -> Result<(), String> {
    let mut by_key: BTreeMap<&str, Vec<&Held>> = BTreeMap::new();
    for held in all {
        by_key.entry(&held.key).or_default().push(held);
    }
    for mut of_key in by_key.into_values() {
        of_key.sort_by_key(|held| held.from);
        for pair in of_key.windows(2) {
            if pair[1].from <= pair[0].to {
                return Err(format!("two at once: {:?} and {:?}", pair[0], pair[1]));
            }
            if pair[1].tokens.0 <= pair[0].tokens.1 {
                return Err(format!("tokens fell: {:?} then {:?}", pair[0], pair[1]));
            }
        }
    }
    Ok(())
}

#[test]
fn what_must_not_be_is_found() {
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
