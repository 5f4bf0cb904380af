//! What the store keeps under seal: the code, and the order (recipient, locale, variables) that a
//! resend repeats. Bound to the verification it belongs to. Refuses to open another's.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use watchword_core::{Channel, Code, Locale, Recipient, Variables, VerificationId};
use watchword_events::{Aad, SealError, Sealer};
use zeroize::{Zeroize, Zeroizing};

/// What a message is made of besides its code.
#[derive(Debug, Clone)]
pub struct OrderDetails {
    /// Who gets it.
    pub recipient: Recipient,
    /// In which language.
    pub locale: Option<Locale>,
    /// With which values.
    pub variables: Variables,
    /// What is tried when the code was not used in time, in this order.
    pub fallback: Vec<FallbackStep>,
}

/// Another way to the same person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FallbackStep {
    /// Who gets it then.
    pub recipient: Recipient,
    /// How long after the message before it, in milliseconds.
    pub after_ms: u64,
}

/// Why sealed state could not be made or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The seal did not open, or the key is no longer in use.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// It opened, but its content is malformed.
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

/// Seals `code` for `id`; base64.
pub fn seal_code(sealer: &Sealer, id: &VerificationId, code: &Code) -> Result<String, VaultError> {
    Ok(BASE64.encode(&sealer.seal(code_aad(id), code.expose().as_bytes())?))
}

/// Opens what [`seal_code`] gave.
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

/// Seals `details` for `id`; base64.
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

/// Opens what [`seal_order`] gave.
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
