//! The figures of all repeats.

use std::collections::BTreeMap;
use std::fmt;

/// The place of a figure: its row, store, setup and contender, and its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    pub(crate) row: &'static str,
    pub(crate) store: &'static str,
    pub(crate) setup: String,
    pub(crate) contender: String,
    pub(crate) name: String,
}

impl Id {
    pub(crate) fn new(
        row: &'static str,
        store: &'static str,
        setup: &str,
        contender: &str,
        name: &str,
    ) -> Self {
        let [setup, contender, name] = [setup, contender, name].map(str::to_owned);
        Self { row, store, setup, contender, name }
    }
}

/// Every figure, in the order of its repeats; a repeat that failed has none (NaN).
#[derive(Debug, Default)]
pub(crate) struct Results {
    figures: BTreeMap<Id, Vec<f64>>,
    /// In the order in which they were first seen, for tables.
    order: Vec<Id>,
    missing: Vec<Missing>,
}

/// A place without a figure, and why.
#[derive(Clone, Debug)]
pub(crate) struct Missing {
    pub(crate) row: &'static str,
    pub(crate) store: &'static str,
    pub(crate) setup: String,
    pub(crate) contender: String,
    pub(crate) why: String,
    /// Every machine should have this figure.
    pub(crate) is_failure: bool,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { row, store, setup, contender, why, .. } = self;
        write!(f, "{row}, {store}, {setup}, {contender}: {}", why.trim().replace('\n', " "))
    }
}

impl Results {
    pub(crate) fn add(&mut self, id: Id, repeat: usize, figure: f64) {
        let figures = self.figures.entry(id.clone()).or_insert_with(|| {
            self.order.push(id);
            Vec::new()
        });
        figures.resize(figures.len().max(repeat), f64::NAN);
        figures.push(figure);
    }

    pub(crate) fn miss(&mut self, missing: Missing) {
        self.missing.push(missing);
    }

    pub(crate) fn missing(&self) -> &[Missing] {
        &self.missing
    }

    pub(crate) fn failures(&self) -> usize {
        self.missing.iter().filter(|missing| missing.is_failure).count()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&Id, &[f64])> {
        self.order.iter().map(|id| (id, self.of(id)))
    }

    pub(crate) fn of(&self, id: &Id) -> &[f64] {
        self.figures.get(id).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn median(&self, id: &Id) -> Option<f64> {
        some(median(self.of(id)))
    }

    pub(crate) fn worst(&self, id: &Id) -> Option<f64> {
        self.of(id).iter().copied().filter(|figure| !figure.is_nan()).reduce(f64::max)
    }

    /// The ratio of two figures, repeat by repeat: its median, least and greatest.
    pub(crate) fn ratio(&self, id: &Id, over: &Id) -> Option<[f64; 3]> {
        let pairs = self.of(id).iter().zip(self.of(over));
        let mut ratios: Vec<_> = pairs.map(|(a, b)| a / b).filter(|r| r.is_finite()).collect();
        ratios.sort_by(f64::total_cmp);
        Some([some(median(&ratios))?, *ratios.first()?, *ratios.last()?])
    }
}

fn some(figure: f64) -> Option<f64> {
    Some(figure).filter(|figure| !figure.is_nan())
}

/// NaN where there is no figure.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut figures: Vec<_> = figures.iter().copied().filter(|figure| !figure.is_nan()).collect();
    at(&mut figures, 0.5)
}

/// The figure below which this share of them lies.
pub(crate) fn at(figures: &mut [f64], share: f64) -> f64 {
    figures.sort_by(f64::total_cmp);
    let place = (figures.len() as f64 * share) as usize;
    figures.get(place.min(figures.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(contender: &str) -> Id {
        Id::new("row", "store", "setup", contender, "p50")
    }

    #[test]
    fn ratios_are_taken_within_a_repeat() {
        let mut results = Results::default();
        for (repeat, (ours, raw)) in [(2.0, 1.0), (30.0, 10.0), (4.0, 4.0)].into_iter().enumerate()
        {
            results.add(id("ours"), repeat, ours);
            results.add(id("raw"), repeat, raw);
        }
        assert_eq!(results.ratio(&id("ours"), &id("raw")), Some([2.0, 1.0, 3.0]));
        assert_eq!(results.median(&id("ours")), Some(4.0));
        assert_eq!(results.worst(&id("ours")), Some(30.0));
    }

    #[test]
    fn a_repeat_that_failed_leaves_a_gap() {
        let mut results = Results::default();
        results.add(id("ours"), 1, 6.0);
        results.add(id("raw"), 0, 1.0);
        results.add(id("raw"), 1, 3.0);
        assert_eq!(results.ratio(&id("ours"), &id("raw")), Some([2.0, 2.0, 2.0]));
        assert_eq!(results.median(&id("nobody")), None);
    }
}
