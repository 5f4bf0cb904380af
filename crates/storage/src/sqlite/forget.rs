//! Deletes expired rows that a query selects.

use rusqlite::types::Value;
use rusqlite::{Connection, Params, Result, params_from_iter};

/// Runs `delete` once for each row of `which`, with the row's columns as parameters.
///
/// A `DELETE` with a subquery creates and drops a temporary table at each use, even if there is
/// nothing to delete.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_chosen_rows_go() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE t (name TEXT, part BLOB, at INTEGER);
                 INSERT INTO t VALUES ('a', x'00', 1), ('a', x'01', 2), ('b', x'00', 3), ('c', x'00', 9);",
            )
            .unwrap();
        let left = || {
            let count = "SELECT group_concat(at, ' ') FROM (SELECT at FROM t ORDER BY at)";
            connection.query_row(count, [], |row| row.get::<_, Option<String>>(0))
        };
        let which = "SELECT name, part FROM t WHERE at <= ?1 ORDER BY at LIMIT ?2";
        let delete = "DELETE FROM t WHERE name = ?1 AND part = ?2";
        forget(&connection, which, [3, 2], delete).unwrap();
        assert_eq!(left().unwrap().as_deref(), Some("3 9"));
        forget(&connection, which, [3, 2], delete).unwrap();
        forget(&connection, which, [3, 2], delete).unwrap();
        assert_eq!(left().unwrap().as_deref(), Some("9"));
        // The query has too few columns for the statement.
        assert!(forget(&connection, "SELECT name FROM t", [], delete).is_err());
    }
}
