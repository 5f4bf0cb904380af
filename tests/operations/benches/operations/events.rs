//! Documents that cross the broker: an order and the outcome of a delivery.

use watchword_core::{AttemptClass, Channel, DeliveryOutcome};
use watchword_events::{CloudEvent, DeliveryUpdated, EventData, OtpSend};

use crate::operation::Operation;
use crate::samples::{NOW, delivery_id, order, sealer, service, verification_id};

pub fn operations() -> anyhow::Result<Vec<Operation>> {
    let send = order(Channel::Sms)?.seal(&sealer()?, NOW)?;
    let updated = CloudEvent {
        id: format!("{}-accepted", delivery_id()?),
        source: "/watchword/sms-worker".to_owned(),
        time: NOW,
        data: DeliveryUpdated {
            delivery_id: delivery_id()?,
            verification_id: verification_id()?,
            service: service()?,
            channel: Channel::Sms,
            outcome: DeliveryOutcome::Accepted,
            attempts: 1,
            provider: Some("twilio".parse()?),
            class: Some(AttemptClass::Accepted),
            receipt: None,
            trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
        },
    };
    let (send_document, updated_document) = (send.encode()?, updated.encode()?);
    Ok(vec![
        encode("event: encode otp.send", send),
        decode::<OtpSend>("event: decode otp.send", send_document),
        encode("event: encode delivery.updated", updated),
        decode::<DeliveryUpdated>("event: decode delivery.updated", updated_document),
    ])
}

fn encode<T: EventData + 'static>(name: &'static str, event: CloudEvent<T>) -> Operation {
    Operation::new(name, move || event.encode().ok())
}

fn decode<T: EventData + 'static>(name: &'static str, document: Vec<u8>) -> Operation {
    Operation::new(name, move || CloudEvent::<T>::decode(&document).ok())
}
