//! Where the calls are cut whose connections break in the middle.
//!
//! A call of a few hundred bytes is cut behind every one of them. One of more, as HTTP/2 and
//! Postgres have, is cut at the ends of its messages and next to them, at places that are spread
//! evenly, and at some that the seed chooses.

use std::collections::BTreeSet;
use std::time::Duration;

use super::over::Wire;
use crate::case::{Failure, Outcome};
use crate::proxy::{Direction, Proxy};

/// Calls of no more bytes are cut behind each.
const SMALL: u64 = 400;

/// Places in a call of more, besides the ends of messages.
const EVEN: u64 = 48;
const CHOSEN: u64 = 24;

/// Messages of one call at whose ends it is cut, at most, over all the stores of a combination.
const MESSAGES: usize = 12;

/// For how long nothing goes over the wire before a call that is to be cut.
pub(super) const QUIET: Duration = Duration::from_millis(5);

/// Where to cut a call of so many bytes: what must be tried, and what is tried besides.
fn places(
    bytes: u64,
    ends: &BTreeSet<u64>,
    messages: usize,
    random: &mut fastrand::Rng,
) -> (Vec<u64>, Vec<u64>) {
    if bytes == 0 {
        return (Vec::new(), Vec::new());
    }
    let mut first = BTreeSet::from([0, bytes]);
    let step = ends.len().div_ceil(messages.max(1)).max(1);
    for &end in ends.iter().step_by(step) {
        first.extend([end.saturating_sub(1), end.min(bytes), (end + 1).min(bytes)]);
    }
    let mut more: BTreeSet<u64> = if bytes <= SMALL {
        (0..=bytes).collect()
    } else {
        let even = (0..EVEN).map(|n| n * bytes / EVEN);
        even.chain((0..CHOSEN).map(|_| random.u64(..bytes))).collect()
    };
    more.retain(|place| !first.contains(place));
    let mut more: Vec<_> = more.into_iter().collect();
    random.shuffle(&mut more);
    (first.into_iter().collect(), more)
}

/// Where the connection to each endpoint is cut in one round.
pub(super) type Cuts = Vec<Option<u64>>;

/// What a whole call is worth on each wire, and where it is cut.
pub(super) struct Plan {
    direction: Direction,
    pub(super) bytes: Vec<u64>,
    /// What must be tried, and what is tried besides.
    pub(super) first: Vec<Cuts>,
    pub(super) more: Vec<Cuts>,
}

impl Plan {
    /// Makes a call that nothing happens to.
    pub(super) async fn new(
        wire: &Wire,
        direction: Direction,
        random: &mut fastrand::Rng,
        call: impl Future<Output = Outcome>,
    ) -> Result<Self, Failure> {
        let delivered = |proxy: &Proxy| proxy.delivered(direction);
        wire.until_quiet(QUIET).await?;
        let before: Vec<_> = wire.proxies.iter().map(delivered).collect();
        call.await?;
        if before.len() > 1 {
            // Enough stores have answered, and the rest does behind it.
            wire.until_quiet(QUIET).await?;
        }
        let (mut bytes, mut all) = (Vec::new(), Vec::new());
        for (proxy, before) in wire.proxies.iter().zip(before) {
            bytes.push(delivered(proxy) - before);
            let ends = proxy.chunk_ends(direction);
            let ends = ends.iter().filter_map(|end| end.checked_sub(before)).collect();
            let of_each = MESSAGES / wire.proxies.len();
            all.push(places(bytes[bytes.len() - 1], &ends, of_each, random));
        }
        let (first, more): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        // One store may not be asked once the one before it has failed: so each is cut alone,
        // and then all of them at once.
        let count = first.len();
        let alone = |of: &[Vec<u64>]| {
            let places = of.iter().enumerate();
            let places = places.flat_map(|(n, places)| places.iter().map(move |at| (n, *at)));
            places
                .map(|(n, at)| (0..count).map(|other| (other == n).then_some(at)).collect())
                .collect::<Vec<Cuts>>()
        };
        let most = if count > 1 { first.iter().map(Vec::len).max().unwrap_or(0) } else { 0 };
        let together = (0..most).map(|round| {
            first.iter().map(|places| places.get(round).or(places.last()).copied()).collect()
        });
        let mut within = alone(&more);
        random.shuffle(&mut within);
        let more = together.chain(within).collect();
        Ok(Self { direction, bytes, first: alone(&first), more })
    }

    /// Prepares the cuts of one round.
    pub(super) fn set(&self, wire: &Wire, cuts: &Cuts) {
        for (proxy, cut) in wire.proxies.iter().zip(cuts) {
            if let Some(after) = cut {
                proxy.cut_after(self.direction, *after);
            }
        }
    }

    /// Which round it was.
    pub(super) fn at(&self, cuts: &Cuts) -> String {
        let places = cuts.iter().zip(&self.bytes).map(|(cut, bytes)| match cut {
            Some(after) => format!("at {after} of {bytes}"),
            None => "not at all".to_owned(),
        });
        format!("{:?} cut {}", self.direction, places.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_calls_are_cut_behind_every_byte() {
        let mut random = fastrand::Rng::with_seed(1);
        let (first, more) = places(40, &BTreeSet::from([30, 40]), MESSAGES, &mut random);
        assert_eq!(first, [0, 29, 30, 31, 39, 40]);
        let all: BTreeSet<_> = first.into_iter().chain(more).collect();
        assert_eq!(all, (0..=40).collect());
    }

    #[test]
    fn large_calls_are_cut_here_and_there() {
        let places = |seed| {
            places(
                10_000,
                &(1..=100).map(|n| n * 100).collect(),
                MESSAGES,
                &mut fastrand::Rng::with_seed(seed),
            )
        };
        let (first, more) = places(1);
        assert!(first.len() <= 2 + 3 * MESSAGES && first.contains(&10_000), "{first:?}");
        assert!((48..=72).contains(&more.len()), "{}", more.len());
        assert_eq!(places(1), (first, more.clone()));
        assert_ne!(places(2).1, more);
    }
}
