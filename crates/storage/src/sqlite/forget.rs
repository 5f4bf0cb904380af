//! Rows whose time is over. Refuses to choose them.

use rusqlite::types::Value;
use rusqlite::{Connection, Params, Result, params_from_iter};

/// Runs `delete` once for each row of `which`, with the row's columns as its parameters. A `DELETE`
/// with the choice inside it makes and drops a table for it at each use, also when there is nothing
/// to delete.
pub fn forget(
    connection: &Connection,
    which: &str,
    bound: impl Params,
    delete: &str,
) -> Result<()> {
    let mut chosen = connection.prepare_cached(which)?;
    let columns = chosen.column_count();
    let rows = chosen
        .query_map(bound, |row| {
            (0..columns)
                .map(|column| row.get(column))
                .collect::<Result<Vec<Value>>>()
        })?
        .collect::<Result<Vec<_>>>()?;
    for row in rows {
        connection
            .prepare_cached(delete)?
            .execute(params_from_iter(row))?;
    }
    Ok(())
}
