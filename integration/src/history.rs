//! Locks that were held, and whether they may have been.

use std::collections::BTreeMap;
use std::fmt;

/// A lock that somebody relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Whose it was.
    pub who: String,
    /// What was locked.
    pub key: String,
    /// The token at the beginning, and at the end.
    pub tokens: (u64, u64),
    /// Two moments at which it was valid, and so it was between them, by
    /// [`monotonic`](crate::monotonic).
    pub time: (u64, u64),
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { who, key, tokens, time } = self;
        write!(f, "{who} {key} {} {} {} {}", tokens.0, tokens.1, time.0, time.1)
    }
}

/// Nobody had a key while another had it, and whoever came later has greater tokens.
///
/// # Errors
///
/// The two that contradict that.
pub fn check<'a>(all: impl IntoIterator<Item = &'a Held>) -> Result<(), String> {
    let mut keys: BTreeMap<&str, Vec<&Held>> = BTreeMap::new();
    for held in all {
        keys.entry(&held.key).or_default().push(held);
    }
    for held in keys.values_mut() {
        held.sort_by_key(|held| held.time);
        for pair in held.windows(2) {
            let (former, later) = (pair[0], pair[1]);
            if later.time.0 <= former.time.1 {
                return Err(format!("two at once: `{former}` and `{later}`"));
            }
            if later.tokens.0 <= former.tokens.1 {
                return Err(format!("tokens fell: `{former}`, then `{later}`"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key, tokens, times.
    type Row = (&'static str, (u64, u64), (u64, u64));

    fn found(rows: &[Row]) -> Result<(), String> {
        let held = rows.iter().map(|&(key, tokens, time)| Held {
            who: "0".to_owned(),
            key: key.to_owned(),
            tokens,
            time,
        });
        check(&held.collect::<Vec<_>>())
    }

    #[test]
    fn what_must_not_be_is_found() {
        let rising = [("k", (7, 8), (30, 40)), ("k", (5, 6), (10, 20)), ("o", (1, 1), (15, 35))];
        assert_eq!(found(&rising), Ok(()));
        for at_once in [
            &[("k", (5, 5), (10, 21)), ("k", (7, 7), (20, 40))][..],
            &[("k", (5, 5), (10, 20)), ("k", (7, 7), (20, 40))],
            &[("k", (5, 5), (10, 40)), ("k", (6, 6), (20, 21)), ("k", (7, 7), (50, 60))],
        ] {
            assert!(found(at_once).is_err_and(|error| error.starts_with("two at once")));
        }
        for fallen in [6, 5] {
            let fallen = [("k", (5, 6), (10, 20)), ("k", (fallen, 9), (21, 30))];
            assert!(found(&fallen).is_err_and(|error| error.starts_with("tokens fell")));
        }
    }
}
