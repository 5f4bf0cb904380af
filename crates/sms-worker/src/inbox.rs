//! SMS provider of the demo: keeps messages in memory and shows them on the inbox page.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use watchword_core::{AttemptClass, Channel, Clock, ProviderName};
use watchword_delivery::{Attempted, Dispatch, Inbox, InboxMessage, Provider};

use crate::text::SmsText;

/// Provider that keeps messages in memory instead of sending them.
pub struct InboxProvider {
    pub(crate) name: ProviderName,
    pub(crate) text: SmsText,
    pub(crate) inbox: Inbox,
    pub(crate) clock: Arc<dyn Clock>,
}

#[async_trait]
impl Provider for InboxProvider {
    fn name(&self) -> &ProviderName {
        &self.name
    }

    fn attempt_limit(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn probe(&self) -> Result<&'static str, Attempted> {
        Ok("keeps messages in memory and sends none: for trying out only")
    }

    async fn attempt(&self, dispatch: &Dispatch) -> Attempted {
        let body = match self.text.render(dispatch) {
            Ok((body, _)) => body,
            Err(error) => return Attempted::without_text(&error),
        };
        self.inbox.push(InboxMessage {
            to: dispatch.recipient.expose().to_owned(),
            channel: Channel::Sms,
            subject: None,
            body,
            at: self.clock.now().to_rfc3339(),
        });
        Attempted::new(AttemptClass::Accepted, "kept")
    }
}
