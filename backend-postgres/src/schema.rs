//! Whether the table of leases is there, and making it.

use lockcore::BackendError;
use tokio_postgres::types::Type;

use crate::error::{self, Failure};
use crate::route::Route;
use crate::statements::{Query, Statements};
use crate::table::Table;

/// How often the table is looked for while others make it.
const TRIES: usize = 5;

/// Whether the table is there. Looks only, and needs no right.
///
/// # Errors
///
/// What is there under its name cannot hold leases.
pub(crate) async fn is_there(table: &Table, route: &Route) -> Result<bool, BackendError> {
    let question = Query::rare(include_str!("sql/table.sql"), "");
    let params = [(&table.schema as _, Type::TEXT), (&table.name as _, Type::TEXT)];
    let rows = route.ask(&question, &params).await?;
    let Some(row) = rows.first() else { return Ok(false) };
    let (is_table, is_logged) = (row.try_get(0), row.try_get(1));
    match (is_table, is_logged) {
        (Ok(true), Ok(true)) => Ok(true),
        (Ok(true), Ok(false)) => Err(BackendError::rejected(Failure::new(format!(
            "the table {} is unlogged: a crash of the server would forget all leases",
            table.shown()
        )))),
        (Ok(false), Ok(_)) => Err(BackendError::rejected(Failure::new(format!(
            "{} is there, but is not a table: use another name",
            table.shown()
        )))),
        _ => Err(error::unexpected("a look for the table")),
    }
}

/// Makes the table unless it is there; any number of clients may do so at once.
pub(crate) async fn ensure(
    table: &Table,
    route: &Route,
    statements: &Statements,
) -> Result<(), BackendError> {
    for _ in 0..TRIES {
        // First a look: to ask for what is there takes the right to create as well.
        if is_there(table, route).await? {
            return Ok(());
        }
        match route.exchange(&statements.create, &[]).await? {
            Ok(_) => {}
            // Another client was faster, in the middle of our attempt.
            Err(refused) if error::is_made_twice(&refused) => {}
            Err(refused) => return Err(error::cannot_create(&table.shown(), refused)),
        }
    }
    Err(BackendError::unavailable(Failure::new(format!(
        "the table {} comes and goes",
        table.shown()
    ))))
}
