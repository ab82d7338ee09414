//! The statements, made out to one table.

use std::sync::{Arc, OnceLock};

use tokio_postgres::Statement;

use crate::params::Param;
use crate::table::Table;

/// Microseconds since 1970, by the server's clock, when the expression is evaluated.
const NOW_US: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// The same by the clock that a statement has read after it locked the row.
const DECIDED_US: &str = "(extract(epoch FROM decided.now) * 1000000)::bigint";

/// The most places in a key's line (W11): what fits into a row with the longest key and label.
const MAX_PLACES: &str = "64";

/// How many statements a session keeps prepared.
const SLOTS: usize = 14;

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

/// A statement that grants leases, without and with the store's incarnation in its answer.
pub(crate) struct Granting([Query; 2]);

impl Granting {
    /// The statement, with its parameters. The last of them is the id of a new incarnation.
    pub(crate) fn pick<'a, 'b>(
        &'a self,
        incarnation: bool,
        params: &'b [Param<'b>],
    ) -> (&'a Query, &'b [Param<'b>]) {
        let [without, with] = &self.0;
        if incarnation {
            (with, params)
        } else {
            (without, &params[..params.len().saturating_sub(1)])
        }
    }
}

/// All statements that name the table.
pub(crate) struct Statements {
    pub(crate) acquire: Granting,
    pub(crate) ask: Granting,
    pub(crate) renew: Granting,
    pub(crate) hand_over: Granting,
    pub(crate) release: Query,
    pub(crate) leave: Query,
    pub(crate) pass: Query,
    pub(crate) inspect: Query,
    pub(crate) list: Query,
    pub(crate) sweep: Query,
    pub(crate) notify: Query,
    pub(crate) create: Query,
}

impl Statements {
    pub(crate) fn new(table: &Table) -> Arc<Self> {
        let table = table.quoted();
        let of = |slot, sql: &str| Query { slot: Some(slot), ..Query::rare(sql, &table) };
        let granting = |slot, sql: &str, new_id: &str| {
            let columns = ", (SELECT holder FROM incarnation) AS born, \
                           (SELECT {now_us} - token FROM incarnation) AS age_us";
            let with = sql
                .replace("{incarnation}", include_str!("sql/incarnation.sql"))
                .replace("{incarnation_columns}", columns)
                .replace("{new_id}", new_id);
            let without = sql.replace("{incarnation}", "").replace("{incarnation_columns}", "");
            Granting([of(slot, &without), of(slot + 1, &with)])
        };
        Arc::new(Self {
            acquire: granting(0, include_str!("sql/acquire.sql"), "$6"),
            ask: granting(2, &in_line(include_str!("sql/ask.sql"), "$7"), "$8"),
            renew: granting(4, include_str!("sql/renew.sql"), "$5"),
            hand_over: granting(6, &in_line(include_str!("sql/hand_over.sql"), "$9"), "$11"),
            release: of(8, &in_line(include_str!("sql/release.sql"), "$3")),
            leave: of(9, &in_line(include_str!("sql/leave.sql"), "$3")),
            pass: of(10, &in_line(include_str!("sql/pass.sql"), "$3")),
            inspect: of(11, include_str!("sql/inspect.sql")),
            list: of(12, include_str!("sql/list.sql")),
            sweep: of(13, include_str!("sql/sweep.sql")),
            notify: Query::rare(include_str!("sql/notify.sql"), &table),
            create: Query::rare(include_str!("sql/create.sql"), &table),
        })
    }
}

/// A statement with its parts about the line. `me`: the parameter with the process's listener.
fn in_line(sql: &str, me: &str) -> String {
    sql.replace("{line}", include_str!("sql/places.sql"))
        .replace("{hears}", &without_comments(include_str!("sql/hears.sql")))
        .replace("{me}", me)
        .replace("{places}", MAX_PLACES)
}

/// What a session of our own has prepared.
#[derive(Default)]
pub(crate) struct Prepared([OnceLock<Statement>; SLOTS]);

impl Prepared {
    pub(crate) fn slot(&self, query: &Query) -> Option<&OnceLock<Statement>> {
        self.0.get(query.slot?)
    }
}

/// On one line and without comments.
fn without_comments(sql: &str) -> String {
    let lines = sql.lines().map(str::trim).filter(|line| !line.starts_with("--"));
    let words: Vec<_> = lines.flat_map(str::split_whitespace).collect();
    words.join(" ")
}

/// A statement as it is sent.
fn plain(sql: &str, table: &str) -> String {
    without_comments(sql)
        .replace("{now_us}", NOW_US)
        .replace("{decided_us}", DECIDED_US)
        .replace("{table}", table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_short_and_complete() {
        let table = Table::new("public", "leaselock").expect("valid");
        let all = Statements::new(&table);
        let granting = [&all.acquire, &all.ask, &all.renew, &all.hand_over];
        let rest = [&all.release, &all.leave, &all.pass, &all.sweep, &all.inspect, &all.list];
        for query in granting.iter().flat_map(|granting| &granting.0).chain(rest) {
            let sql = &query.sql;
            let has_hole = sql.replace("line_listeners[", "").contains('{');
            assert!(!sql.contains("--") && !has_hole && !sql.contains("  "), "{sql}");
            assert!(sql.contains(r#""public"."leaselock""#), "{sql}");
            assert!(query.slot.is_some_and(|slot| slot < SLOTS), "{sql}");
        }
    }

    #[test]
    fn the_documented_table_is_the_one_that_is_made() {
        let create = plain(include_str!("sql/create.sql"), "public.leaselock");
        let readme = plain(include_str!("../README.md"), "");
        assert!(readme.contains(&format!("{create};")), "{create}");
    }
}
