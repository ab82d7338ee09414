//! The name of the table of leases.

use std::fmt::Write as _;

use lockcore::{InvalidInput, LockKey};

/// The server cuts longer names, and then two are one.
const MAX_NAME: usize = 63;

/// The name of the table, in a schema: never looked up along a search path, which may differ from
/// user to user.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) schema: String,
    pub(crate) name: String,
}

impl Default for Table {
    fn default() -> Self {
        Self { schema: Self::SCHEMA.to_owned(), name: Self::NAME.to_owned() }
    }
}

impl Table {
    /// What it is called unless something else is said.
    pub(crate) const SCHEMA: &str = "public";
    pub(crate) const NAME: &str = "leaselock";

    pub(crate) fn new(schema: &str, name: &str) -> Result<Self, InvalidInput> {
        for (what, word) in [("schema", schema), ("table", name)] {
            let fits = (1..=MAX_NAME).contains(&word.len());
            let plain = word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !fits || !plain || word.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(InvalidInput::new(format!(
                    "the name of a {what} has 1 to {MAX_NAME} letters A-Z and a-z, digits and \
                     `_`, and does not start with a digit"
                )));
            }
        }
        Ok(Self { schema: schema.to_owned(), name: name.to_owned() })
    }

    /// As statements name it. The names hold no quotes.
    pub(crate) fn quoted(&self) -> String {
        format!(r#""{}"."{}""#, self.schema, self.name)
    }

    /// As people name it.
    pub(crate) fn shown(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// Where releases of announced leases are told.
    pub(crate) fn channel(&self) -> &str {
        &self.name
    }

    /// What is told when an announced lease of a key is released. In hexadecimal: a payload is
    /// text in the encoding of the database, whatever that is. With the schema: tables of the same
    /// name in other schemas share the channel.
    pub(crate) fn payload(&self, key: &LockKey) -> String {
        let mut payload = format!("{}:", self.schema);
        for byte in key.as_str().bytes() {
            let _ = write!(payload, "{byte:02x}");
        }
        payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for name in ["leaselock", "_", "a9", "Locks", &"x".repeat(63)] {
            assert!(Table::new(name, name).is_ok(), "{name}");
        }
        for name in ["", "9a", "a-b", "a.b", "a b", "a\"b", "é", "a\0", &"x".repeat(64)] {
            assert!(Table::new("public", name).is_err(), "{name}");
            assert!(Table::new(name, "leaselock").is_err(), "{name}");
        }
        let table = Table::new("Locks", "t").expect("valid");
        assert_eq!(table.quoted(), r#""Locks"."t""#);
    }
}
