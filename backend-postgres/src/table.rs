//! The table of leases: its name, whether it is there, and making it.

use std::fmt::Write as _;

use lockcore::{BackendError, InvalidInput, LockKey};
use tokio_postgres::types::Type;

use crate::error::{self, Failure};
use crate::route::Route;
use crate::statements::{Query, Statements};

/// The server cuts longer names, and then two are one.
const MAX_NAME: usize = 63;

/// How often the table is looked for while others make it.
const TRIES: usize = 5;

/// The name of the table, in a schema: never looked up along a search path, which may differ from
/// user to user.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    schema: String,
    name: String,
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

    /// Where releases are told.
    pub(crate) fn channel(&self) -> &str {
        &self.name
    }

    /// What the payload of a release starts with: tables of the same name in other schemas share
    /// the channel.
    pub(crate) fn payload_start(&self) -> String {
        format!("{}:", self.schema)
    }

    /// What is told when a key is released. In hexadecimal: a payload is text in the encoding of
    /// the database, whatever that is.
    pub(crate) fn payload(&self, key: &LockKey) -> String {
        let mut payload = self.payload_start();
        for byte in key.as_str().bytes() {
            let _ = write!(payload, "{byte:02x}");
        }
        payload
    }

    /// Whether the table is there. Looks only, and needs no right.
    ///
    /// # Errors
    ///
    /// What is there under its name cannot hold leases.
    async fn is_there(&self, route: &Route) -> Result<bool, BackendError> {
        let question = Query::rare(include_str!("sql/table.sql"), "");
        let params = [(&self.schema as _, Type::TEXT), (&self.name as _, Type::TEXT)];
        let rows = route.ask(&question, &params).await?;
        let Some(row) = rows.first() else { return Ok(false) };
        let (is_table, is_logged) = (row.try_get(0), row.try_get(1));
        match (is_table, is_logged) {
            (Ok(true), Ok(true)) => Ok(true),
            (Ok(true), Ok(false)) => Err(BackendError::rejected(Failure::new(format!(
                "the table {} is unlogged: a crash of the server would forget all leases",
                self.shown()
            )))),
            (Ok(false), Ok(_)) => Err(BackendError::rejected(Failure::new(format!(
                "{} is there, but is not a table: use another name",
                self.shown()
            )))),
            _ => Err(error::unexpected("a look for the table")),
        }
    }

    /// Makes the table unless it is there; any number of clients may do so at once.
    pub(crate) async fn ensure(
        &self,
        route: &Route,
        statements: &Statements,
    ) -> Result<(), BackendError> {
        for _ in 0..TRIES {
            // First a look: to ask for what is there takes the right to create as well.
            if self.is_there(route).await? {
                return Ok(());
            }
            match route.exchange(&statements.create, &[]).await? {
                Ok(_) => {}
                // Another client was faster, in the middle of our attempt.
                Err(refused) if error::is_made_twice(&refused) => {}
                Err(refused) => return Err(error::cannot_create(&self.shown(), refused)),
            }
        }
        Err(BackendError::unavailable(Failure::new(format!(
            "the table {} comes and goes",
            self.shown()
        ))))
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
