//! `watchword.otp.send.v1`, the send order: deliver this code to this recipient before this
//! deadline. Recipient, code and template variables are sealed; a worker needs the other fields
//! before it opens the seal.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use watchword_core::{
    Aad, Channel, Code, DeliveryId, Locale, Recipient, SealError, Sealer, ServiceName, ShortTag,
    Timestamp, Variables, VerificationId,
};
use zeroize::{Zeroize, Zeroizing};

use crate::{CloudEvent, EventData};

const SOURCE: &str = "/watchword/issuer";

/// The data of the event. The event's id is the delivery id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtpSend {
    /// The service that requested the code.
    pub service: ServiceName,
    /// The channel, which selects the worker.
    pub channel: Channel,
    /// The verification that the code belongs to.
    pub verification_id: VerificationId,
    /// The time from which nothing is sent; RFC 3339.
    pub deadline: String,
    /// The id of the key that sealed it.
    pub key_id: String,
    /// Base64 of nonce and ciphertext of [`Order`]'s secret part.
    pub sealed: String,
}

impl EventData for OtpSend {
    const TYPE: &'static str = "watchword.otp.send.v1";
}

/// A send order in clear: the content of an [`OtpSend`].
#[derive(Debug, Clone)]
pub struct Order {
    /// The id of this send. It is also the event's id and the ledger's key.
    pub delivery_id: DeliveryId,
    /// The service that requested the code.
    pub service: ServiceName,
    /// The recipient of the message.
    pub recipient: Recipient,
    /// The code to send.
    pub code: Code,
    /// The time from which nothing is sent.
    pub deadline: Timestamp,
    /// The requested language, if any.
    pub locale: Option<Locale>,
    /// The caller's template variables.
    pub variables: Variables,
    /// The fallback step that follows this message, if the request has one. It is due at once if no
    /// provider accepts the message.
    pub next_step: Option<u8>,
    /// A keyed tag of the fallback that `next_step` belongs to. A request with another fallback
    /// cancels the step.
    pub details: Option<ShortTag>,
}

/// Error of opening a send order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// The seal did not open.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The seal opened, but a field is malformed.
    #[error("the order inside the seal is malformed")]
    Malformed,
}

/// The sealed part. Fields may only be added: orders wait in queues during a rolling upgrade.
#[derive(Serialize, Deserialize)]
struct Secret {
    to: String,
    code: String,
    /// The number's country, so that the worker need not look it up in the numbering plans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    country: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    locale: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    variables: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next_step: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    details: Option<ShortTag>,
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.to.zeroize();
        self.code.zeroize();
    }
}

impl Order {
    /// Seals the order into its event.
    pub fn seal(&self, sealer: &Sealer, now: Timestamp) -> Result<CloudEvent<OtpSend>, SealError> {
        let secret = Secret {
            to: self.recipient.expose().to_owned(),
            code: self.code.expose().to_owned(),
            country: self.recipient.country().map(str::to_owned),
            locale: self.locale.as_ref().map(ToString::to_string),
            variables: self.variables.as_map().clone(),
            next_step: self.next_step,
            details: self.details,
        };
        let plaintext = Zeroizing::new(serde_json::to_vec(&secret).map_err(|_| SealError::Broken)?);
        let deadline = self.deadline.to_rfc3339();
        let id = self.delivery_id.to_string();
        let aad = aad(&id, &self.service, self.recipient.channel(), &deadline);
        let data = OtpSend {
            service: self.service.clone(),
            channel: self.recipient.channel(),
            verification_id: self.delivery_id.verification().clone(),
            key_id: sealer.key_id().to_owned(),
            sealed: BASE64.encode(&sealer.seal(aad, &plaintext)?),
            deadline,
        };
        Ok(CloudEvent {
            id,
            source: SOURCE.to_owned(),
            time: now,
            data,
        })
    }

    /// Opens the event's seal. The seal covers the clear fields: it does not open unless the
    /// event's id, service, channel, deadline and key id are those it was sealed with.
    pub fn open(event: &CloudEvent<OtpSend>, sealer: &Sealer) -> Result<Self, OrderError> {
        let data = &event.data;
        let sealed = BASE64
            .decode(data.sealed.as_bytes())
            .map_err(|_| SealError::Broken)?;
        let aad = aad(&event.id, &data.service, data.channel, &data.deadline);
        let plaintext = sealer.open(&data.key_id, aad, &sealed)?;
        let secret: Secret =
            serde_json::from_slice(&plaintext).map_err(|_| OrderError::Malformed)?;
        let delivery_id: DeliveryId = event.id.parse().map_err(|_| OrderError::Malformed)?;
        if *delivery_id.verification() != data.verification_id {
            return Err(OrderError::Malformed);
        }
        let malformed = |_| OrderError::Malformed;
        Ok(Self {
            delivery_id,
            service: data.service.clone(),
            recipient: Recipient::known(data.channel, &secret.to, secret.country.as_deref())
                .map_err(malformed)?,
            code: secret.code.parse().map_err(malformed)?,
            deadline: Timestamp::from_rfc3339(&data.deadline).ok_or(OrderError::Malformed)?,
            locale: secret
                .locale
                .as_deref()
                .map(str::parse)
                .transpose()
                .map_err(malformed)?,
            variables: Variables::new(secret.variables.clone()).map_err(malformed)?,
            next_step: secret.next_step,
            details: secret.details,
        })
    }
}

fn aad(id: &str, service: &ServiceName, channel: Channel, deadline: &str) -> Aad {
    Aad::new(OtpSend::TYPE)
        .with(id)
        .with(service.as_str())
        .with(channel.as_str())
        .with(deadline)
}
