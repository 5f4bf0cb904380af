//! Seal of an order: made by the issuer, opened by a worker.

use watchword_core::Channel;
use watchword_events::Order;

use crate::operation::Operation;
use crate::samples::{NOW, order, sealer};

pub fn operations() -> anyhow::Result<Vec<Operation>> {
    let mut operations = Vec::new();
    for (channel, seal, open) in [
        (Channel::Sms, "order: seal, sms", "order: open, sms"),
        (Channel::Email, "order: seal, email", "order: open, email"),
    ] {
        let (order, sealer) = (order(channel)?, sealer()?);
        let event = order.seal(&sealer, NOW)?;
        let opener = sealer.clone();
        operations.extend([
            Operation::new(seal, move || order.seal(&sealer, NOW).ok()),
            Operation::new(open, move || Order::open(&event, &opener).ok()),
        ]);
    }
    Ok(operations)
}
