//! The statements, made out to one table.

use std::sync::Arc;

use tokio_postgres::types::{ToSql, Type};

use crate::table::Table;

/// Microseconds since 1970, by the server's clock, when the expression is evaluated.
const NOW_US: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// A parameter with its type, so that a statement needs no round trip to be prepared.
pub(crate) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// All statements that name the table.
#[derive(Clone)]
pub(crate) struct Statements {
    pub(crate) acquire: Arc<str>,
    pub(crate) renew: Arc<str>,
    pub(crate) release: Arc<str>,
    pub(crate) inspect: Arc<str>,
    pub(crate) list: Arc<str>,
    pub(crate) create: Arc<str>,
}

impl Statements {
    pub(crate) fn of(table: &Table) -> Self {
        let of = |sql| Arc::from(plain(sql, &table.quoted()));
        Self {
            acquire: of(include_str!("sql/acquire.sql")),
            renew: of(include_str!("sql/renew.sql")),
            release: of(include_str!("sql/release.sql")),
            inspect: of(include_str!("sql/inspect.sql")),
            list: of(include_str!("sql/list.sql")),
            create: of(include_str!("sql/create.sql")),
        }
    }
}

/// A statement as it is sent: on one line and without comments, for it is sent with each call.
pub(crate) fn plain(sql: &str, table: &str) -> String {
    let lines = sql.lines().map(str::trim).filter(|line| !line.starts_with("--"));
    let words: Vec<_> = lines.flat_map(str::split_whitespace).collect();
    words.join(" ").replace("{now_us}", NOW_US).replace("{table}", table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_short_and_complete() {
        let table = Table::new("public", "leaselock").expect("valid");
        let statements = Statements::of(&table);
        for sql in [&statements.acquire, &statements.renew, &statements.release] {
            assert!(!sql.contains("--") && !sql.contains('{') && !sql.contains("  "), "{sql}");
            assert!(sql.contains(r#""public"."leaselock""#), "{sql}");
        }
        assert!(statements.acquire.len() < 1_800, "{}", statements.acquire.len());
    }
}
