//! Puts a parsed receipt into the queue of receipts.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use watchword_broker::{Outbound, Publisher, Route};
use watchword_core::{Clock, ProviderName, Timestamp};
use watchword_events::{CloudEvent, EventData, Lane, ReceiptReceived};

use super::ReceiptMetrics;

/// Gateways give up after 2 s (Telnyx), and then call again.
const PUBLISH_DEADLINE: Duration = Duration::from_millis(1_500);

/// Why a receipt changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// The receipt names no message, or cannot be read at all.
    Unreadable,
    /// The receipt names a message, but its state has no known word.
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

/// A receipt that an SMPP bind brought.
#[derive(Debug, Clone)]
pub struct HeardReceipt {
    /// The provider whose bind it is.
    pub provider: ProviderName,
    /// The content of the receipt.
    pub receipt: Result<ReceiptReceived, Unread>,
}

/// Queues one receipt; `None` if the broker did not take it.
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

/// Queues the receipts of SMPP binds until the channel closes. A receipt that the broker refuses is
/// retried while the next ones wait; it is lost with the process, as receipts may be.
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
