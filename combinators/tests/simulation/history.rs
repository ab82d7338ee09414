//! What happened, and whether it may have.

use std::sync::{Arc, Mutex};

use tokio::time::Instant;

/// A stretch of time in which somebody relied on a lock.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    #[expect(dead_code, reason = "read by Debug alone")]
    pub(crate) who: usize,
    pub(crate) key: &'static str,
    /// The token at the beginning, and the greatest until the end.
    pub(crate) tokens: (u64, u64),
    /// When it was there, and when it was last relied on.
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct History(Arc<Mutex<Vec<Stretch>>>);

impl History {
    pub(crate) fn add(&self, stretch: Stretch) {
        self.0.lock().expect("no panic while it is locked").push(stretch);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().expect("no panic while it is locked").len()
    }

    /// Nobody relied on a key while another did, and whoever came later has greater tokens.
    pub(crate) fn check(&self) -> Result<(), String> {
        let all = self.0.lock().expect("no panic while it is locked").clone();
        for (index, one) in all.iter().enumerate() {
            for two in all.iter().skip(index + 1).filter(|two| two.key == one.key) {
                if one.began < two.ended && two.began < one.ended {
                    return Err(format!("two at once: {one:?} and {two:?}"));
                }
                let (first, second) = if one.began <= two.began { (one, two) } else { (two, one) };
                if second.tokens.0 <= first.tokens.1 {
                    return Err(format!("tokens fell: {first:?} then {second:?}"));
                }
            }
        }
        Ok(())
    }
}
