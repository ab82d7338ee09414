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
    /// What tells the lease ids under this prefix from those under others.
    salt: u64,
}

impl Default for Names {
    fn default() -> Self {
        Self { prefix: DEFAULT_PREFIX.to_owned(), salt: 0 }
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
        let salt = if prefix == DEFAULT_PREFIX { 0 } else { hash(prefix) };
        Ok(Self { prefix: prefix.to_owned(), salt })
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

    pub(crate) fn memory(&self) -> String {
        format!("{}/memory", self.prefix)
    }

    pub(crate) fn raised(&self, shard: u16) -> String {
        format!("{}/raised/{shard:04x}", self.prefix)
    }

    /// The id of the etcd lease of a holder for a ttl: a lease's ttl cannot be changed, so a longer
    /// one is another lease. A holder may have leases under several prefixes of one cluster, and to
    /// end one must not end the others. Part of the format.
    pub(crate) fn lease_id(&self, holder: HolderId, seconds: u32) -> i64 {
        fold(holder.as_u128(), self.salt ^ u64::from(seconds))
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

/// The id of the etcd lease that tells a young memory by its time to live. Part of the format.
pub(crate) fn young_id(memory: u128) -> i64 {
    fold(memory, 0)
}

fn fold(bits: u128, with: u64) -> i64 {
    let [high, low] = [(bits >> 64) as u64, bits as u64];
    let id = (high ^ low ^ with) & (u64::MAX >> 1);
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
            for other in [names.memory(), names.raised(0), names.never()] {
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
        let names = |prefix| Names::new(prefix).expect("valid");
        for names in [Names::default(), names("leaselock")] {
            assert_eq!(names.lease_id(holder, 30), 0x7407_0658_16f2_d8e6);
            assert_eq!(names.lease_id(HolderId::from_u128(0), 0), 1);
        }
        assert_eq!(names("billing").lease_id(holder, 30), 0x3402_515a_835d_0aba);
        assert_eq!(young_id(holder.as_u128()), 0x7407_0658_16f2_d8f8);
    }

    #[test]
    fn lease_ids_differ_by_holder_and_ttl_and_prefix() {
        let mut ids = HashSet::new();
        let prefixes =
            ["leaselock", "a", "b", "aa"].map(|prefix| Names::new(prefix).expect("valid"));
        for _ in 0..1000 {
            let holder = HolderId::random();
            for seconds in [2, 3, 30, 86_400] {
                for names in &prefixes {
                    let id = names.lease_id(holder, seconds);
                    assert!(id > 0);
                    assert!(ids.insert(id));
                }
            }
        }
    }

    #[test]
    fn keys_spread_over_shards() {
        let shards: HashSet<u16> = (0..1000).map(|n| shard(&key(&format!("k/{n}")))).collect();
        assert!(shards.len() > 950, "{}", shards.len());
    }
}
