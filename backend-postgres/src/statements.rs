//! The statements, made out to one table.

use std::sync::{Arc, OnceLock};

use tokio_postgres::Statement;
use tokio_postgres::types::{ToSql, Type};

use crate::table::Table;

/// Microseconds since 1970, by the server's clock, when the expression is evaluated.
const NOW_US: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// A parameter with its type, so that a statement needs no round trip to be prepared.
pub(crate) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// A statement, and its place among those that a session keeps prepared.
pub(crate) struct Query {
    pub(crate) sql: String,
    slot: Option<usize>,
}

impl Query {
    /// A statement that is asked once in a while.
    pub(crate) fn rare(sql: &str, table: &str) -> Self {
        Self { sql: plain(sql, table), slot: None }
    }
}

/// All statements that name the table.
pub(crate) struct Statements {
    pub(crate) acquire: Query,
    pub(crate) renew: Query,
    pub(crate) release: Query,
    pub(crate) release_and_sweep: Query,
    pub(crate) inspect: Query,
    pub(crate) list: Query,
    pub(crate) create: Query,
}

impl Statements {
    pub(crate) fn of(table: &Table) -> Arc<Self> {
        let table = table.quoted();
        let release = include_str!("sql/release.sql");
        let with_memory = |sql: &str| sql.replace("{memory}", include_str!("sql/memory.sql"));
        let of = |slot, sql: &str| Query { slot: Some(slot), ..Query::rare(sql, &table) };
        Arc::new(Self {
            acquire: of(0, &with_memory(include_str!("sql/acquire.sql"))),
            renew: of(1, &with_memory(include_str!("sql/renew.sql"))),
            release: of(2, &release.replace("{sweep}", "")),
            release_and_sweep: of(5, &release.replace("{sweep}", include_str!("sql/sweep.sql"))),
            inspect: of(3, include_str!("sql/inspect.sql")),
            list: of(4, include_str!("sql/list.sql")),
            create: Query::rare(include_str!("sql/create.sql"), &table),
        })
    }
}

/// What a session of our own has prepared.
#[derive(Default)]
pub(crate) struct Prepared([OnceLock<Statement>; 6]);

impl Prepared {
    pub(crate) fn slot(&self, query: &Query) -> Option<&OnceLock<Statement>> {
        self.0.get(query.slot?)
    }
}

/// A statement as it is sent: on one line and without comments.
fn plain(sql: &str, table: &str) -> String {
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
        let releases = [&statements.release, &statements.release_and_sweep];
        for query in [&statements.acquire, &statements.renew].into_iter().chain(releases) {
            let sql = &query.sql;
            assert!(!sql.contains("--") && !sql.contains('{') && !sql.contains("  "), "{sql}");
            assert!(sql.contains(r#""public"."leaselock""#), "{sql}");
        }
    }

    #[test]
    fn the_documented_table_is_the_one_that_is_made() {
        let create = plain(include_str!("sql/create.sql"), "public.leaselock");
        let readme = plain(include_str!("../README.md"), "");
        assert!(readme.contains(&format!("{create};")), "{create}");
    }
}
