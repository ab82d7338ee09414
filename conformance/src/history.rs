//! What happened, and whether it may have.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::case::{Failure, Outcome};

/// One stretch of time in which somebody relied on a lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    /// Shown in the report of a failure.
    #[expect(dead_code, reason = "read by Debug alone")]
    pub(crate) who: usize,
    pub(crate) token: u64,
    /// When it was asked for.
    pub(crate) asked: Instant,
    /// When the guard was there.
    pub(crate) began: Instant,
    /// When it was last relied on: before the release was sent, or the last time it was valid.
    pub(crate) ended: Instant,
}

/// Who relied on one lock when.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    stretches: Arc<Mutex<Vec<Stretch>>>,
}

impl History {
    pub(crate) fn add(&self, stretch: Stretch) {
        self.stretches.lock().unwrap_or_else(PoisonError::into_inner).push(stretch);
    }

    pub(crate) fn len(&self) -> usize {
        self.stretches.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Fails unless nobody relied on the lock while another did, every token is greater than
    /// those of all who came before, and a later asker got a greater token than whoever had been
    /// granted before it asked.
    pub(crate) fn check(&self) -> Outcome {
        let mut all = self.stretches.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.sort_by_key(|stretch| stretch.began);
        for pair in all.windows(2) {
            let [first, second] = pair else { continue };
            if second.began < first.ended {
                return Err(Failure::new(format!("two at once: {first:?} and {second:?}")));
            }
            if second.token <= first.token {
                return Err(Failure::new(format!("tokens fell: {first:?} then {second:?}")));
            }
        }
        // The order above is that of the grants' arrival; this one that of real time.
        for later in &all {
            for earlier in &all {
                if earlier.began < later.asked && earlier.token >= later.token {
                    return Err(Failure::new(format!("tokens fell: {earlier:?} then {later:?}")));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn history(stretches: &[(u64, u64, u64, u64)]) -> Outcome {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let history = History::default();
        for (who, &(token, asked, began, ended)) in stretches.iter().enumerate() {
            history.add(Stretch {
                who,
                token,
                asked: at(asked),
                began: at(began),
                ended: at(ended),
            });
        }
        history.check()
    }

    #[test]
    fn the_checker_knows_good_from_bad() {
        assert!(history(&[(1, 0, 1, 5), (2, 0, 6, 9), (3, 7, 9, 10)]).is_ok());
        assert!(history(&[(1, 0, 1, 5), (2, 0, 4, 9)]).is_err(), "an overlap");
        assert!(history(&[(2, 0, 1, 5), (1, 0, 6, 9)]).is_err(), "a falling token");
        assert!(history(&[(2, 0, 1, 5), (2, 6, 7, 9)]).is_err(), "the same token twice");
    }
}
