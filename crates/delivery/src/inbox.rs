//! The demo's mailbox and message box in one: what was sent stays in memory to be read. Refuses
//! to be used outside the demo, where codes are read by anyone who looks.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use watchword_core::Channel;

/// Messages that are kept; older ones are dropped.
const KEPT: usize = 1_000;

/// One message as a person would have got it.
#[derive(Debug, Clone, Serialize)]
pub struct InboxMessage {
    /// Who got it.
    pub to: String,
    /// By which channel.
    pub channel: Channel,
    /// The mail's subject.
    pub subject: Option<String>,
    /// The text.
    pub body: String,
    /// When; RFC 3339.
    pub at: String,
}

/// The newest messages; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Inbox(Arc<Mutex<VecDeque<InboxMessage>>>);

impl Inbox {
    /// Adds a message.
    pub fn push(&self, message: InboxMessage) {
        let mut messages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if messages.len() == KEPT {
            messages.pop_front();
        }
        messages.push_back(message);
    }

    /// The messages to `to`, or all, oldest first.
    pub fn messages(&self, to: Option<&str>) -> Vec<InboxMessage> {
        let messages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        messages
            .iter()
            .filter(|message| to.is_none_or(|to| message.to == to))
            .cloned()
            .collect()
    }
}
