//! In-memory inbox of the demo: it keeps sent messages so that they can be read. For demos only,
//! because anyone who can open the page can read the codes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use watchword_core::Channel;

/// Messages kept; older ones are dropped.
const KEPT: usize = 1_000;

/// A message as its recipient would have received it.
#[derive(Debug, Clone, Serialize)]
pub struct InboxMessage {
    /// The recipient.
    pub to: String,
    /// The message's channel.
    pub channel: Channel,
    /// The mail's subject; `None` for SMS.
    pub subject: Option<String>,
    /// The message text.
    pub body: String,
    /// Time of sending, RFC 3339.
    pub at: String,
}

/// The newest messages; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Inbox(Arc<Mutex<VecDeque<InboxMessage>>>);

impl Inbox {
    /// Adds a message and drops the oldest one if the inbox is full.
    pub fn push(&self, message: InboxMessage) {
        let mut messages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if messages.len() == KEPT {
            messages.pop_front();
        }
        messages.push_back(message);
    }

    /// Returns the messages to `to`, or all messages, oldest first.
    pub fn messages(&self, to: Option<&str>) -> Vec<InboxMessage> {
        let messages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        messages
            .iter()
            .filter(|message| to.is_none_or(|to| message.to == to))
            .cloned()
            .collect()
    }
}
