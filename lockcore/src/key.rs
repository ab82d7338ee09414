//! What is locked, and who holds it.

use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use crate::input::InvalidInput;
use crate::seams;

/// The name of what is locked.
///
/// 1 to 512 bytes of UTF-8 without NUL, compared byte by byte: nothing is trimmed, folded or
/// normalised, and the same rules hold on every backend.
///
/// ```
/// use lockcore::LockKey;
///
/// assert!(LockKey::new("orders/42").is_ok());
/// assert!(LockKey::new("").is_err());
/// assert!(LockKey::new("a\0b").is_err());
/// assert!(LockKey::new("x".repeat(513)).is_err());
/// ```
#[derive(Clone, Eq, PartialOrd, Ord)]
pub struct LockKey(Arc<str>);

impl PartialEq for LockKey {
    fn eq(&self, other: &Self) -> bool {
        // Most keys that are compared are clones of each other.
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Hash for LockKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl LockKey {
    /// The longest key, in bytes.
    pub const MAX_LEN: usize = 512;

    /// Checks a key.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`] when the key is empty, longer than [`LockKey::MAX_LEN`] bytes or contains
    /// a NUL byte.
    pub fn new(key: impl AsRef<str>) -> Result<Self, InvalidInput> {
        let key = key.as_ref();
        if key.is_empty() {
            return Err(InvalidInput::new("a key must not be empty"));
        }
        if key.len() > Self::MAX_LEN {
            return Err(InvalidInput::new(format!(
                "a key has at most {} bytes, this one has {}",
                Self::MAX_LEN,
                key.len()
            )));
        }
        if key.contains('\0') {
            return Err(InvalidInput::new("a key must not contain a NUL byte"));
        }
        Ok(Self(key.into()))
    }

    /// To which of so many parts of all keys this one belongs: the same one in every run.
    pub(crate) fn part_of(&self, parts: usize) -> usize {
        // FNV-1a: keys are short, and this is asked with every request to the memory store.
        let hash = self.0.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        usize::try_from(hash >> 40).unwrap_or(0) % parts
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for LockKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for LockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Prints the key with control characters escaped, so that a key cannot forge a line of a log.
/// For the key itself, as to pass it on, use [`LockKey::as_str`].
impl fmt::Display for LockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            if c.is_control() { write!(f, "{}", c.escape_default()) } else { f.write_char(c) }
        })
    }
}

impl FromStr for LockKey {
    type Err = InvalidInput;

    fn from_str(key: &str) -> Result<Self, InvalidInput> {
        Self::new(key)
    }
}

/// The identity of one acquisition: a random uuid, drawn anew for each.
///
/// It proves ownership towards the store (renew and release match it) and lets a timed-out
/// acquire be asked again. It is not a fencing token: holders have no order.
///
/// ```
/// use lockcore::HolderId;
///
/// let holder = HolderId::random();
/// assert_eq!(holder.to_string().len(), 32);
/// assert_eq!(holder.to_string().parse::<HolderId>()?, holder);
/// # Ok::<(), lockcore::InvalidInput>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HolderId(u128);

impl HolderId {
    /// Draws a new random identity (uuid version 4, 122 random bits).
    #[must_use]
    pub fn random() -> Self {
        if let Some(bits) = seams::holder() {
            return Self(bits);
        }
        // The generator lives in this process's memory, and a fork copies it: the process id
        // keeps parent and child apart.
        let process = u128::from(std::process::id());
        Self(uuid::Uuid::new_v4().as_u128() ^ process)
    }

    /// The identity with these bits.
    #[must_use]
    pub const fn from_u128(bits: u128) -> Self {
        Self(bits)
    }

    /// The identity's bits.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.0
    }
}

/// Prints 32 lower-case hexadecimal digits, the form in which stores keep it.
impl fmt::Display for HolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for HolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for HolderId {
    type Err = InvalidInput;

    fn from_str(text: &str) -> Result<Self, InvalidInput> {
        let valid = text.len() == 32
            && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !valid {
            return Err(InvalidInput::new("a holder is 32 lower-case hexadecimal digits"));
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|error| InvalidInput::new(format!("a holder is hexadecimal: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bounded_and_compared_by_bytes() {
        assert!(LockKey::new("x".repeat(512)).is_ok());
        assert!(LockKey::new("x".repeat(513)).is_err());
        // 513 bytes in 171 characters: the limit counts bytes.
        assert!(LockKey::new("€".repeat(171)).is_err());
        assert!(LockKey::new("").is_err());
        assert!(LockKey::new("a\0").is_err());
        // NFC and NFD spell the same word with other bytes.
        assert_ne!(LockKey::new("\u{e9}"), LockKey::new("e\u{301}"));
        assert_ne!(LockKey::new("a"), LockKey::new("A"));
    }

    #[test]
    fn display_cannot_forge_a_log_line() {
        let key = LockKey::new("a\nERROR b").expect("valid");
        assert_eq!(key.to_string(), "a\\nERROR b");
        // And nothing else is changed.
        let key = LockKey::new("a\\b'\"c é").expect("valid");
        assert_eq!(key.to_string(), key.as_str());
    }

    #[test]
    fn holders_read_back_and_refuse_other_text() {
        let holder = HolderId::from_u128(7);
        assert_eq!(holder.to_string(), "00000000000000000000000000000007");
        assert_eq!(holder.to_string().parse(), Ok(holder));
        for wrong in ["", "7", "0000000000000000000000000000000G", &"+".repeat(32), &"A".repeat(32)]
        {
            assert!(wrong.parse::<HolderId>().is_err(), "{wrong}");
        }
    }
}
