//! Sealed values in the store: the code, and the order (recipient, locale, variables, fallback)
//! that a resend repeats. Each seal is bound to its verification and opens for no other.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use watchword_core::{
    Aad, Channel, Code, Locale, Recipient, SealError, Sealer, Variables, VerificationId,
};
use zeroize::{Zeroize, Zeroizing};

/// The parts of a message except its code.
#[derive(Debug, Clone)]
pub struct OrderDetails {
    /// The original recipient.
    pub recipient: Recipient,
    /// The requested language.
    pub locale: Option<Locale>,
    /// The values for the templates.
    pub variables: Variables,
    /// The steps to take, in this order, if the code is not used in time.
    pub fallback: Vec<FallbackStep>,
}

/// A fallback step: another way to reach the same person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FallbackStep {
    /// The recipient of the step's message.
    pub recipient: Recipient,
    /// Delay after the previous message, in milliseconds.
    pub after_ms: u64,
}

/// An error of creating or reading sealed state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The seal did not open, or its key is no longer configured.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The seal opened, but the content is malformed.
    #[error("sealed state is malformed")]
    Malformed,
}

#[derive(Serialize, Deserialize)]
struct Plain {
    to: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    locale: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    variables: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fallback: Vec<PlainStep>,
}

#[derive(Serialize, Deserialize)]
struct PlainStep {
    channel: Channel,
    to: String,
    after_ms: u64,
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.to.zeroize();
        self.fallback.iter_mut().for_each(|step| step.to.zeroize());
    }
}

/// Seals `code` for `id` and encodes it as base64.
pub fn seal_code(sealer: &Sealer, id: &VerificationId, code: &Code) -> Result<String, VaultError> {
    Ok(BASE64.encode(&sealer.seal(code_aad(id), code.expose().as_bytes())?))
}

/// Opens the output of [`seal_code`].
pub fn open_code(
    sealer: &Sealer,
    id: &VerificationId,
    key_id: &str,
    sealed: &str,
) -> Result<Code, VaultError> {
    let plain = open(sealer, code_aad(id), key_id, sealed)?;
    std::str::from_utf8(&plain)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(VaultError::Malformed)
}

/// Seals `details` for `id` and encodes them as base64.
pub fn seal_order(
    sealer: &Sealer,
    id: &VerificationId,
    details: &OrderDetails,
) -> Result<String, VaultError> {
    let plain = Plain {
        to: details.recipient.expose().to_owned(),
        locale: details.locale.as_ref().map(ToString::to_string),
        variables: details.variables.as_map().clone(),
        fallback: details
            .fallback
            .iter()
            .map(|step| PlainStep {
                channel: step.recipient.channel(),
                to: step.recipient.expose().to_owned(),
                after_ms: step.after_ms,
            })
            .collect(),
    };
    let plain = Zeroizing::new(serde_json::to_vec(&plain).map_err(|_| VaultError::Malformed)?);
    let aad = order_aad(id, details.recipient.channel());
    Ok(BASE64.encode(&sealer.seal(aad, &plain)?))
}

/// Opens the output of [`seal_order`].
pub fn open_order(
    sealer: &Sealer,
    id: &VerificationId,
    channel: Channel,
    key_id: &str,
    sealed: &str,
) -> Result<OrderDetails, VaultError> {
    let plain = open(sealer, order_aad(id, channel), key_id, sealed)?;
    let plain: Plain = serde_json::from_slice(&plain).map_err(|_| VaultError::Malformed)?;
    let malformed = |_| VaultError::Malformed;
    Ok(OrderDetails {
        recipient: Recipient::parse(channel, &plain.to).map_err(malformed)?,
        locale: plain
            .locale
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(malformed)?,
        variables: Variables::new(plain.variables.clone()).map_err(malformed)?,
        fallback: plain
            .fallback
            .iter()
            .map(|step| {
                let recipient = Recipient::parse(step.channel, &step.to).map_err(malformed)?;
                Ok(FallbackStep {
                    recipient,
                    after_ms: step.after_ms,
                })
            })
            .collect::<Result<_, VaultError>>()?,
    })
}

fn open(
    sealer: &Sealer,
    aad: Aad,
    key_id: &str,
    sealed: &str,
) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let sealed = BASE64
        .decode(sealed.as_bytes())
        .map_err(|_| VaultError::Malformed)?;
    Ok(sealer.open(key_id, aad, &sealed)?)
}

fn code_aad(id: &VerificationId) -> Aad {
    Aad::new("watchword.state.code").with(id.as_str())
}

fn order_aad(id: &VerificationId, channel: Channel) -> Aad {
    Aad::new("watchword.state.order")
        .with(id.as_str())
        .with(channel.as_str())
}
