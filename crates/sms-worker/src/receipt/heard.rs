//! Publishes parsed receipts to the receipt queue, including those that arrive over SMPP.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use watchword_broker::{Outbound, Publisher, Route};
use watchword_core::{Clock, ProviderName, Timestamp};
use watchword_events::{CloudEvent, EventData, Lane, ReceiptReceived};

use super::ReceiptMetrics;

/// Below the 2 s after which the most impatient gateway (Telnyx) gives up and calls again.
const PUBLISH_DEADLINE: Duration = Duration::from_millis(1_500);

/// Reason for which a receipt is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// The receipt names no message, or cannot be read at all.
    Unreadable,
    /// The receipt names a message, but its state is an unknown word.
    UnknownState,
}

impl Unread {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::UnknownState => "unknown_state",
        }
    }
}

/// Receipt that arrived over an SMPP bind.
#[derive(Debug, Clone)]
pub struct HeardReceipt {
    /// Provider of the bind.
    pub provider: ProviderName,
    /// Parsed receipt.
    pub receipt: Result<ReceiptReceived, Unread>,
}

/// Publishes one receipt; `None` if the broker did not confirm it.
pub(super) async fn publish(
    publisher: &dyn Publisher,
    receipt: ReceiptReceived,
    now: Timestamp,
) -> Option<()> {
    let about = match (&receipt.delivery_id, &receipt.message_id) {
        (Some(id), _) => id.to_string(),
        (None, Some(id)) => id.clone(),
        (None, None) => return None,
    };
    let event = CloudEvent {
        id: format!("{}.{about}.{}", receipt.provider, receipt.state),
        source: "/watchword/sms-worker".to_owned(),
        time: now,
        data: receipt,
    };
    let outbound = Outbound {
        kind: ReceiptReceived::TYPE,
        route: Route::Lane(Lane::Receipts),
        body: event.encode().ok()?.into(),
        id: event.id,
        traceparent: None,
        ttl: None,
    };
    publisher.publish(outbound, PUBLISH_DEADLINE).await.ok()
}

/// Publishes the receipts of SMPP binds until the channel closes. A receipt that the broker does
/// not take is retried while the next ones wait. Receipts still waiting are lost when the process
/// ends; without a receipt the outcome stays unknown.
pub async fn queue_heard(
    mut heard: mpsc::Receiver<HeardReceipt>,
    publisher: Arc<dyn Publisher>,
    clock: Arc<dyn Clock>,
    metrics: ReceiptMetrics,
) {
    while let Some(HeardReceipt { provider, receipt }) = heard.recv().await {
        let receipt = match receipt {
            Ok(receipt) => receipt,
            Err(unread) => {
                metrics.count(&provider, unread.as_str());
                continue;
            }
        };
        while publish(publisher.as_ref(), receipt.clone(), clock.now())
            .await
            .is_none()
        {
            metrics.count(&provider, "unavailable");
            sleep(Duration::from_secs(1)).await;
        }
        metrics.count(&provider, "queued");
    }
}
