//! The names of records in the store, and the numbers drawn from what they are about. Together
//! with the records' values they are the public format, version 1: see the crate's documentation.

use lockcore::{HolderId, InvalidInput, LockKey};

/// Where the prefix of all names is not set.
const DEFAULT_PREFIX: &str = "leaselock";

const MAX_PREFIX: usize = 64;

/// Builds names that start with one prefix.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    prefix: String,
}

impl Default for Names {
    fn default() -> Self {
        Self { prefix: DEFAULT_PREFIX.to_owned() }
    }
}

impl Names {
    pub(crate) fn new(prefix: &str) -> Result<Self, InvalidInput> {
        let fits = (1..=MAX_PREFIX).contains(&prefix.len());
        // No slash: with one, the keys under a prefix could be records of another's.
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.:-".contains(&b);
        if !fits || !prefix.bytes().all(plain) {
            return Err(InvalidInput::new(format!(
                "a prefix has 1 to {MAX_PREFIX} bytes of A-Z, a-z, 0-9, `_`, `.`, `:` and `-`"
            )));
        }
        Ok(Self { prefix: prefix.to_owned() })
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The lease on a key: names of etcd are bytes, so the key stands in it as it is.
    pub(crate) fn lease(&self, key: &LockKey) -> String {
        self.leases(key.as_str())
    }

    /// What the names of all leases on keys that start with `prefix` start with.
    pub(crate) fn leases(&self, prefix: &str) -> String {
        format!("{}/lease/{prefix}", self.prefix)
    }

    /// The key whose lease has this name; `None` if no key's has.
    pub(crate) fn key_of_lease(&self, name: &[u8]) -> Option<LockKey> {
        let name = std::str::from_utf8(name).ok()?;
        LockKey::new(name.strip_prefix(&self.leases(""))?).ok()
    }

    /// What the names of all places in a key's line start with. Keys contain no NUL, so no other
    /// key's places do.
    pub(crate) fn line(&self, key: &LockKey) -> String {
        format!("{}/line/{}\0", self.prefix, key.as_str())
    }

    /// The first name behind all places in a key's line.
    pub(crate) fn line_end(&self, key: &LockKey) -> String {
        format!("{}/line/{}\x01", self.prefix, key.as_str())
    }

    /// A holder's place in a key's line.
    pub(crate) fn place(&self, key: &LockKey, holder: HolderId) -> String {
        format!("{}{holder}", self.line(key))
    }

    /// Where a process is told whose turn it is.
    pub(crate) fn mail(&self, channel: &str) -> String {
        format!("{}/mail/{channel}", self.prefix)
    }

    pub(crate) fn memory(&self) -> String {
        format!("{}/memory", self.prefix)
    }

    pub(crate) fn raised(&self, shard: u16) -> String {
        format!("{}/raised/{shard:04x}", self.prefix)
    }

    /// A name under which nothing is ever written.
    pub(crate) fn never(&self) -> String {
        format!("{}/never", self.prefix)
    }
}

/// The shard that a key's raised base is kept in: FNV-1a of 64 bits over the key's bytes, its four
/// parts of 16 bits xored. Part of the format.
pub(crate) fn shard(key: &LockKey) -> u16 {
    let [a, b, c, d, e, f, g, h] = hash(key.as_str()).to_be_bytes();
    [[a, b], [c, d], [e, f], [g, h]].into_iter().fold(0, |sum, part| sum ^ u16::from_be_bytes(part))
}

/// FNV-1a of 64 bits.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The id of the etcd lease that tells a young memory by its time to live: the id's two halves
/// xored, without the highest bit. Part of the format.
pub(crate) fn young_id(memory: u128) -> i64 {
    fold(memory)
}

/// The id of an etcd lease that nobody has used before. Each attempt of a holder has one of its
/// own, so that what ends the lease of one attempt ends no other (S1).
pub(crate) fn lease_id() -> i64 {
    fold(HolderId::random().as_u128())
}

fn fold(bits: u128) -> i64 {
    let [high, low] = [(bits >> 64) as u64, bits as u64];
    let id = (high ^ low) & (u64::MAX >> 1);
    // Zero asks the server to choose.
    i64::try_from(id).unwrap_or(i64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn key(text: &str) -> LockKey {
        LockKey::new(text).expect("valid")
    }

    #[test]
    fn names_read_back_and_records_do_not_meet() {
        let names = Names::new("p").expect("valid");
        for text in ["a", "a/b", "memory", "raised/0000", "/", "../memory", "é", "a\n"] {
            let name = names.lease(&key(text));
            assert_eq!(names.key_of_lease(name.as_bytes()), Some(key(text)));
            let others = [names.line(&key(text)), names.mail("a")];
            for other in [names.memory(), names.raised(0), names.never()].into_iter().chain(others)
            {
                assert_ne!(name, other);
                assert_eq!(names.key_of_lease(other.as_bytes()), None);
            }
        }
        for foreign in ["p/lease/", "q/lease/a", "p/lease", "p/lease/a\0"] {
            assert_eq!(names.key_of_lease(foreign.as_bytes()), None, "{foreign:?}");
        }
        assert_eq!(names.key_of_lease(b"p/lease/\xff"), None);
    }

    #[test]
    fn a_line_holds_the_places_of_its_key_alone() {
        let names = Names::new("p").expect("valid");
        let holder = HolderId::from_u128(7);
        for text in ["a", "a/b", "a\x01", "a\x01b", "a!", "aa"] {
            let (line, end) = (names.line(&key(text)), names.line_end(&key(text)));
            for other in ["a", "a/b", "a\x01", "a\x01b", "a!", "aa"] {
                let place = names.place(&key(other), holder);
                let inside = (line.as_str()..end.as_str()).contains(&place.as_str());
                assert_eq!(inside, text == other, "{text:?} {other:?}");
            }
        }
    }

    #[test]
    fn prefixes_are_plain() {
        for good in ["a", "A-b_c.d:9", &"x".repeat(64)] {
            assert!(Names::new(good).is_ok(), "{good}");
        }
        for wrong in ["", "a/b", "/a", "a b", "é", "a\0", &"x".repeat(65)] {
            assert!(Names::new(wrong).is_err(), "{wrong:?}");
        }
    }

    /// Other values would make releases that share a store believe in different bases and leases.
    #[test]
    fn the_numbers_of_version_1() {
        assert_eq!(shard(&key("orders/42")), 0x1163);
        assert_eq!(shard(&key("a")), 0x19a2);
        let holder: HolderId = "f3cd7dbea874462b87ca7be6be869ed3".parse().expect("valid");
        assert_eq!(young_id(holder.as_u128()), 0x7407_0658_16f2_d8f8);
    }

    #[test]
    fn no_lease_id_comes_twice() {
        let ids: HashSet<i64> = (0..10_000).map(|_| lease_id()).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|&id| id > 0));
    }

    #[test]
    fn keys_spread_over_shards() {
        let shards: HashSet<u16> = (0..1000).map(|n| shard(&key(&format!("k/{n}")))).collect();
        assert!(shards.len() > 950, "{}", shards.len());
    }
}
