//! The names of records in the store. Together with the records' values they are the public
//! format, version 2: see the crate's documentation.

use lockcore::{InvalidInput, LockKey};

/// Where the prefix of all names is not set.
pub(crate) const DEFAULT_PREFIX: &str = "leaselock";

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
        // No braces: a hash tag in the prefix would decide the slot in place of the key's.
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

    /// The record of a key.
    pub(crate) fn record(&self, key: &LockKey) -> String {
        let mut name = self.stem();
        encode(key.as_str(), &mut name);
        name.push('}');
        name
    }

    /// The record of a key that begins and ends so, valid or not.
    pub(crate) fn stem_of(&self, prefix: &str, end: &str) -> String {
        let mut name = self.stem();
        encode(prefix, &mut name);
        name.push_str(end);
        name.push('}');
        name
    }

    pub(crate) fn incarnation(&self) -> String {
        format!("{}:incarnation", self.prefix)
    }

    /// The channel on which a process hears whose turn it is.
    pub(crate) fn channel(&self, process: &str) -> String {
        format!("{}:line:{process}", self.prefix)
    }

    /// The channel on which releases of a key are announced.
    pub(crate) fn released(&self, key: &LockKey) -> String {
        self.record(key) + ":released"
    }

    fn stem(&self) -> String {
        let mut stem = String::with_capacity(self.prefix.len() + 64);
        stem.push_str(&self.prefix);
        stem.push_str(":{");
        stem
    }

    /// The glob pattern of the records of all keys that start with `prefix`.
    pub(crate) fn record_pattern(&self, prefix: &str) -> String {
        let mut plain = self.stem();
        encode(prefix, &mut plain);
        let mut pattern = String::with_capacity(plain.len() + 2);
        for c in plain.chars() {
            if "*?[]\\".contains(c) {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        pattern.push_str("*}");
        pattern
    }

    /// The key whose record has this name; `None` if no key's has.
    pub(crate) fn key_of_record(&self, name: &[u8]) -> Option<LockKey> {
        let encoded =
            std::str::from_utf8(name).ok()?.strip_prefix(&self.stem())?.strip_suffix('}')?;
        LockKey::new(decode(encoded)?).ok()
    }
}

/// Escapes braces, so that the tag of a name is the whole key, and the escape itself. Character
/// by character: a prefix of a key encodes to a prefix of its name.
fn encode(key: &str, name: &mut String) {
    for c in key.chars() {
        match c {
            '%' => name.push_str("%25"),
            '{' => name.push_str("%7B"),
            '}' => name.push_str("%7D"),
            c => name.push(c),
        }
    }
}

/// Strictly the inverse: what `encode` cannot have written is refused.
fn decode(encoded: &str) -> Option<String> {
    let mut key = String::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some(at) = rest.find(['%', '{', '}']) {
        key.push_str(&rest[..at]);
        let escape = rest.get(at..at + 3)?;
        key.push(match escape {
            "%25" => '%',
            "%7B" => '{',
            "%7D" => '}',
            _ => return None,
        });
        rest = &rest[at + 3..];
    }
    key.push_str(rest);
    Some(key)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn names() -> Names {
        Names::new("p").expect("valid")
    }

    /// All texts of up to `len` characters of a small alphabet made of what the format uses.
    fn texts(len: usize) -> Vec<String> {
        let mut all = vec![String::new()];
        let mut from = 0;
        for _ in 0..len {
            let to = all.len();
            for n in from..to {
                for c in ["%", "{", "}", ":", "2", "5", "7", "B", "*", "é"] {
                    let longer = format!("{}{c}", all[n]);
                    all.push(longer);
                }
            }
            from = to;
        }
        all
    }

    #[test]
    fn no_two_records_share_a_name_and_every_name_reads_back() {
        let names = names();
        let mut seen = HashMap::new();
        for text in texts(4) {
            let Ok(key) = LockKey::new(&text) else {
                continue;
            };
            let name = names.record(&key);
            assert_eq!(names.key_of_record(name.as_bytes()), Some(key.clone()));
            // One pair of braces, around the whole key: one slot of a cluster.
            assert_eq!(name.matches('{').count(), 1, "{name}");
            assert_eq!(name.matches('}').count(), 1, "{name}");
            let before = seen.insert(name, text.clone());
            assert_eq!(before, None);
        }
        assert!(!seen.contains_key(&names.incarnation()));
    }

    #[test]
    fn what_encode_cannot_have_written_names_no_key() {
        for name in [
            "p:{}",
            "p:{%}",
            "p:{%2}",
            "p:{%7b}",
            "p:{%41}",
            "p:{a}b}",
            "p:{a{b}",
            "p:{a}:token",
            "q:{a}",
            "p:{%é}",
        ] {
            assert_eq!(names().key_of_record(name.as_bytes()), None, "{name}");
        }
        assert_eq!(names().key_of_record(b"p:{\xff}"), None);
    }

    #[test]
    fn prefixes_stay_prefixes_and_globs_are_escaped() {
        let names = names();
        for text in texts(3) {
            for (at, _) in text.char_indices() {
                let (mut whole, mut part) = (String::new(), String::new());
                encode(&text, &mut whole);
                encode(&text[..at], &mut part);
                assert!(whole.starts_with(&part));
            }
        }
        assert_eq!(names.record_pattern("a*{[?\\"), "p:{a\\*%7B\\[\\?\\\\*}");
    }

    #[test]
    fn prefixes_are_checked() {
        assert!(Names::new("team-a:prod_1.x").is_ok());
        for wrong in ["", "a b", "{a}", "é", "a*", &"x".repeat(65)] {
            assert!(Names::new(wrong).is_err(), "{wrong}");
        }
    }
}
