//! Dead-lettered messages of one queue in the table. Every statement requires `parked_reason`, so
//! that no other message can change.

use async_trait::async_trait;
use bytes::Bytes;
use watchword_events::Lane;
use watchword_storage::rusqlite::params;
use watchword_storage::{Sqlite, rusqlite};

use crate::parked::{ParkedError, ParkedLook, ParkedMessage};

pub(super) struct EmbeddedLook {
    sqlite: Sqlite,
    now_ms: i64,
    messages: Vec<ParkedMessage>,
    rows: Vec<i64>,
}

pub(super) async fn look(
    sqlite: Sqlite,
    lane: Lane,
    limit: usize,
    now_ms: i64,
) -> Result<EmbeddedLook, ParkedError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let read = move |connection: &rusqlite::Connection| {
        let mut statement = connection.prepare(
            "SELECT id, message_id, kind, body, retries, parked_reason, parked_at_ms
             FROM broker_message WHERE parked_reason IS NOT NULL AND lane = ?1
             ORDER BY parked_at_ms, id LIMIT ?2",
        )?;
        statement
            .query_map(params![lane.as_str(), limit], |row| {
                let message = ParkedMessage {
                    place: 0,
                    id: row.get(1)?,
                    kind: row.get(2)?,
                    body: Bytes::from(row.get::<_, Vec<u8>>(3)?),
                    retries: row.get(4)?,
                    reason: row.get(5)?,
                    parked_at_ms: row.get(6)?,
                };
                Ok((row.get::<_, i64>(0)?, message))
            })?
            .collect::<rusqlite::Result<Vec<_>>>()
    };
    let found = sqlite.read(read).await;
    let found = found.map_err(|_| ParkedError("the file cannot be read"))?;
    let (rows, mut messages): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    for (place, message) in messages.iter_mut().enumerate() {
        message.place = place;
    }
    Ok(EmbeddedLook {
        sqlite,
        now_ms,
        messages,
        rows,
    })
}

impl EmbeddedLook {
    async fn change(&self, place: usize, sql: &'static str) -> Result<(), ParkedError> {
        let row = *self
            .rows
            .get(place)
            .ok_or(ParkedError("no such message in this listing"))?;
        let now_ms = self.now_ms;
        let changed = self
            .sqlite
            .write(move |connection| connection.execute(sql, params![row, now_ms]))
            .await;
        match changed {
            Ok(1) => Ok(()),
            Ok(_) => Err(ParkedError("the message is no longer dead-lettered")),
            Err(_) => Err(ParkedError("the file cannot be written")),
        }
    }
}

#[async_trait]
impl ParkedLook for EmbeddedLook {
    fn messages(&self) -> &[ParkedMessage] {
        &self.messages
    }

    async fn replay(&mut self, place: usize) -> Result<(), ParkedError> {
        let sql =
            "UPDATE broker_message SET parked_reason = NULL, parked_at_ms = NULL, token = NULL,
                   handed_out = 0, due_ms = ?2 WHERE id = ?1 AND parked_reason IS NOT NULL";
        self.change(place, sql).await
    }

    async fn discard(&mut self, place: usize) -> Result<(), ParkedError> {
        let sql =
            "DELETE FROM broker_message WHERE id = ?1 AND parked_reason IS NOT NULL AND ?2 = ?2";
        self.change(place, sql).await
    }

    async fn close(self: Box<Self>) -> Result<(), ParkedError> {
        Ok(())
    }
}
