//! The in-memory fenced resource.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A value that only the latest holder of a lock may write: the reference for how a protected
/// thing checks fencing tokens.
///
/// A lock alone cannot stop a holder that was paused past its lease and writes on when it wakes.
/// The thing written to can: it keeps the largest token it has seen and refuses smaller ones. The
/// same check for SQL, Redis and object stores stands in `docs/guarantees.md`.
///
/// Register first, then read: the fence rejects an older holder only after a newer token has
/// reached it, so a new holder calls [`read`](FenceRegister::read) with its token (or writes)
/// before it relies on what it sees.
///
/// ```
/// use lockcore::FenceRegister;
///
/// let balance = FenceRegister::new(100);
/// assert_eq!(balance.read(34)?, 100); // the newer holder shows its token first
/// assert!(balance.write(33, 0).is_err()); // the older one, waking late, is refused
/// balance.write(34, 90)?;
/// balance.write(34, 80)?; // a holder may write as often as it likes
/// # Ok::<(), lockcore::StaleToken>(())
/// ```
pub struct FenceRegister<T> {
    inner: Mutex<Fenced<T>>,
}

struct Fenced<T> {
    token: u64,
    value: T,
}

/// A write or read with a smaller fencing token than one already seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stale fencing token: offered=`{offered}` seen=`{seen}`")]
#[non_exhaustive]
pub struct StaleToken {
    /// The token of the refused call.
    pub offered: u64,
    /// The largest token seen before.
    pub seen: u64,
}

impl<T> FenceRegister<T> {
    /// A register that has seen no token yet.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self { inner: Mutex::new(Fenced { token: 0, value }) }
    }

    /// Writes `value` for the holder of `token`.
    ///
    /// # Errors
    ///
    /// [`StaleToken`] when a larger token was seen; the value is unchanged.
    pub fn write(&self, token: u64, value: T) -> Result<(), StaleToken> {
        self.admit(token)?.value = value;
        Ok(())
    }

    /// Shows `token` to the register and reads the value.
    ///
    /// # Errors
    ///
    /// [`StaleToken`] when a larger token was seen.
    pub fn read(&self, token: u64) -> Result<T, StaleToken>
    where
        T: Clone,
    {
        Ok(self.admit(token)?.value.clone())
    }

    /// Replaces the value by what `change` makes of it, in one step.
    ///
    /// # Errors
    ///
    /// [`StaleToken`] when a larger token was seen; `change` is not called.
    pub fn update<R>(&self, token: u64, change: impl FnOnce(&mut T) -> R) -> Result<R, StaleToken> {
        Ok(change(&mut self.admit(token)?.value))
    }

    /// The largest token seen; 0 before the first.
    pub fn token(&self) -> u64 {
        self.lock().token
    }

    fn admit(&self, offered: u64) -> Result<MutexGuard<'_, Fenced<T>>, StaleToken> {
        let mut inner = self.lock();
        if offered < inner.token {
            return Err(StaleToken { offered, seen: inner.token });
        }
        inner.token = offered;
        Ok(inner)
    }

    fn lock(&self) -> MutexGuard<'_, Fenced<T>> {
        // A closure of `update` that panicked leaves its own half-made value, as in a `Cell`; the
        // token is right.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: fmt::Debug> fmt::Debug for FenceRegister<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        f.debug_struct("FenceRegister")
            .field("token", &inner.token)
            .field("value", &inner.value)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smaller_token_neither_reads_nor_writes() {
        let register = FenceRegister::new("old");
        register.write(5, "five").expect("first");
        let stale = StaleToken { offered: 4, seen: 5 };
        assert_eq!(register.write(4, "four"), Err(stale));
        assert_eq!(register.read(4), Err(stale));
        assert_eq!(register.update(4, |_| unreachable!()), Err::<(), _>(stale));
        assert_eq!(register.read(5), Ok("five"));
        assert_eq!(register.token(), 5);
    }

    #[test]
    fn reading_registers_the_token() {
        let register = FenceRegister::new(0);
        register.read(9).expect("newest");
        assert!(register.write(8, 1).is_err());
    }
}
