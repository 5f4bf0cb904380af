//! The binary record of a delivery, the same in both stores. All numbers are big-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 1 | version of this layout: 2 |
//! | 1 | channel · 16 + outcome |
//! | 4 | fence of the newest claim; 0 if never claimed |
//! | 2 | number of all attempts (stops at 65,535) |
//! | 6 | last change, ms since the epoch |
//! | 6 | end of the lease, ms since the epoch; only while the outcome is `sending` |
//! | 16 | trace id; zeros if there is none |
//! | 1 | the receipt's state, from 1; 0 if there is none |
//! | 6 | when the receipt was applied, ms since the epoch |
//! | 1, then that many | length and text of the service's name; empty until a worker claims it |
//! | rest | the newest attempts, oldest first |
//!
//! Each attempt:
//!
//! | bytes | content |
//! |---|---|
//! | 1 | outcome class |
//! | 6 | start of the call, ms since the epoch |
//! | 3 | duration of the call, ms |
//! | 1 | length of the provider's name |
//! | 2 | length of the provider's message id |
//! | rest | name, then message id |
//!
//! A delivery with one accepted attempt takes 51 bytes and its texts. Version 1, which had neither
//! trace, receipt nor service, can still be decoded. Bytes that do not fit the layout exactly are
//! corrupt.

use watchword_core::{
    AttemptClass, Channel, DeliveryId, DeliveryOutcome, ProviderName, ReceiptState, ServiceName,
    Timestamp, TraceId,
};

use crate::record::{Attempt, DeliveryRecord, Receipt};
use crate::state::Delivery;
use crate::store::{Fence, LedgerError};

/// Most attempts in a record.
pub(crate) const KEPT_ATTEMPTS: usize = 16;
/// The latest moment that can be stored: 2^48 - 1 ms, in the year 10889.
pub(crate) const LATEST: Timestamp = Timestamp::from_millis((1 << 48) - 1);
/// The longest duration that can be stored: 2^24 - 1 ms, about 4.6 hours.
pub(crate) const LONGEST_MS: u64 = (1 << 24) - 1;
/// Most characters of a provider's message id.
pub(crate) const MESSAGE_ID_CHARS: usize = 128;

/// Capacity for a delivery with one attempt.
const USUAL: usize = 128;

const VERSION: u8 = 2;
/// The first layout: without trace, receipt and service.
const VERSION_1: u8 = 1;

// The index in these lists is stored: only append. The scripts know the indices of some values.
const CHANNELS: [Channel; 2] = [Channel::Sms, Channel::Email];
const OUTCOMES: [DeliveryOutcome; 7] = [
    DeliveryOutcome::Queued,
    DeliveryOutcome::Sending,
    DeliveryOutcome::Accepted,
    DeliveryOutcome::Delivered,
    DeliveryOutcome::Failed,
    DeliveryOutcome::Expired,
    DeliveryOutcome::Parked,
];
const CLASSES: [AttemptClass; 9] = [
    AttemptClass::Accepted,
    AttemptClass::RecipientInvalid,
    AttemptClass::RecipientBlocked,
    AttemptClass::MessageRejected,
    AttemptClass::Transient,
    AttemptClass::ConfigFault,
    AttemptClass::UnknownOutcome,
    AttemptClass::DestinationRefused,
    AttemptClass::TextFault,
];

const RECEIPTS: [ReceiptState; 4] = [
    ReceiptState::InFlight,
    ReceiptState::Failed,
    ReceiptState::Expired,
    ReceiptState::Delivered,
];

fn number<T: PartialEq>(list: &[T], value: &T) -> u8 {
    let place = list.iter().position(|each| each == value);
    // A test checks that every value is in its list; no list has 256 entries.
    place
        .and_then(|place| u8::try_from(place).ok())
        .unwrap_or(u8::MAX)
}

pub(crate) fn channel_number(channel: Channel) -> u8 {
    number(&CHANNELS, &channel)
}

pub(crate) fn outcome_number(outcome: DeliveryOutcome) -> u8 {
    number(&OUTCOMES, &outcome)
}

pub(crate) fn receipt_number(state: ReceiptState) -> u8 {
    number(&RECEIPTS, &state).saturating_add(1)
}

/// Returns the low `N` bytes of `value`, which the caller has bounded.
fn low<const N: usize>(value: u64) -> [u8; N] {
    let bytes = value.to_be_bytes();
    std::array::from_fn(|index| bytes[bytes.len() - N + index])
}

fn moment(at: Timestamp) -> [u8; 6] {
    low(at
        .clamp(Timestamp::from_millis(0), LATEST)
        .as_millis()
        .unsigned_abs())
}

/// Encodes an attempt whose texts and numbers [`crate::state::bounded`] has bounded.
pub(crate) fn encode_attempt(attempt: &Attempt) -> Vec<u8> {
    let provider = attempt.provider.as_ref().map_or("", ProviderName::as_str);
    let message_id = attempt.provider_message_id.as_deref().unwrap_or("");
    let mut bytes = Vec::with_capacity(13 + provider.len() + message_id.len());
    bytes.push(number(&CLASSES, &attempt.class));
    bytes.extend(moment(Timestamp::from_millis(attempt.at_ms)));
    bytes.extend(low::<3>(attempt.took_ms.min(LONGEST_MS)));
    bytes.extend(low::<1>(provider.len() as u64));
    bytes.extend(low::<2>(message_id.len() as u64));
    bytes.extend(provider.as_bytes());
    bytes.extend(message_id.as_bytes());
    bytes
}

/// Encodes a delivery.
pub(crate) fn encode(delivery: &Delivery) -> Vec<u8> {
    let record = &delivery.record;
    let mut bytes = Vec::with_capacity(USUAL);
    bytes.extend([
        VERSION,
        channel_number(record.channel) * 16 + outcome_number(record.outcome),
    ]);
    bytes.extend(low::<4>(delivery.fence.0));
    bytes.extend(low::<2>(u64::from(record.attempt_count)));
    bytes.extend(moment(record.updated_at));
    if record.outcome == DeliveryOutcome::Sending {
        bytes.extend(moment(delivery.lease_until));
    }
    bytes.extend(trace_bytes(record.trace_id));
    match record.receipt {
        Some(receipt) => {
            bytes.push(receipt_number(receipt.state));
            bytes.extend(moment(receipt.at));
        }
        None => bytes.extend([0; 7]),
    }
    let service = record.service.as_ref().map_or("", ServiceName::as_str);
    bytes.extend(low::<1>(service.len() as u64));
    bytes.extend(service.as_bytes());
    for attempt in &record.attempts {
        bytes.extend(encode_attempt(attempt));
    }
    bytes
}

/// Returns the 16 bytes of the trace id, zeros for `None`.
pub(crate) fn trace_bytes(trace_id: Option<TraceId>) -> [u8; 16] {
    trace_id.map_or([0; 16], |id| *id.as_bytes())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], LedgerError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(LedgerError::Corrupt)?;
        self.0 = rest;
        Ok(head)
    }

    fn number(&mut self, bytes: usize) -> Result<u64, LedgerError> {
        let value = self.take(bytes)?;
        Ok(value
            .iter()
            .fold(0, |sum, &byte| (sum << 8) | u64::from(byte)))
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> Result<T, LedgerError> {
        pick(list, self.number(1)?)
    }

    fn moment(&mut self) -> Result<Timestamp, LedgerError> {
        Ok(Timestamp::from_millis(
            self.number(6)?.try_into().unwrap_or(i64::MAX),
        ))
    }

    fn text(&mut self, bytes: u64) -> Result<Option<&'a str>, LedgerError> {
        let count = usize::try_from(bytes).map_err(|_| LedgerError::Corrupt)?;
        let text = std::str::from_utf8(self.take(count)?).map_err(|_| LedgerError::Corrupt)?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    fn trace_id(&mut self) -> Result<Option<TraceId>, LedgerError> {
        let bytes: [u8; 16] = self
            .take(16)?
            .try_into()
            .map_err(|_| LedgerError::Corrupt)?;
        Ok(TraceId::new(bytes))
    }

    fn service(&mut self) -> Result<Option<ServiceName>, LedgerError> {
        let length = self.number(1)?;
        let service = self.text(length)?.map(str::parse).transpose();
        service.map_err(|_| LedgerError::Corrupt)
    }

    fn receipt(&mut self) -> Result<Option<Receipt>, LedgerError> {
        let (place, at) = (self.number(1)?, self.moment()?);
        match place.checked_sub(1) {
            Some(place) => Ok(Some(Receipt {
                state: pick(&RECEIPTS, place)?,
                at,
            })),
            None if at == Timestamp::from_millis(0) => Ok(None),
            None => Err(LedgerError::Corrupt),
        }
    }

    fn attempt(&mut self) -> Result<Attempt, LedgerError> {
        let class = self.of(&CLASSES)?;
        let at_ms = self.moment()?.as_millis();
        let took_ms = self.number(3)?;
        let (provider_len, id_len) = (self.number(1)?, self.number(2)?);
        let provider = self.text(provider_len)?.map(str::parse).transpose();
        Ok(Attempt {
            provider: provider.map_err(|_| LedgerError::Corrupt)?,
            class,
            provider_message_id: self.text(id_len)?.map(str::to_owned),
            at_ms,
            took_ms,
        })
    }
}

fn pick<T: Copy>(list: &[T], place: u64) -> Result<T, LedgerError> {
    let place = usize::try_from(place).map_err(|_| LedgerError::Corrupt)?;
    list.get(place).copied().ok_or(LedgerError::Corrupt)
}

/// Decodes the delivery `id` from `bytes`.
pub(crate) fn decode(id: DeliveryId, bytes: &[u8]) -> Result<Delivery, LedgerError> {
    let mut reader = Reader(bytes);
    let version = reader.number(1)?;
    if version != u64::from(VERSION) && version != u64::from(VERSION_1) {
        return Err(LedgerError::Corrupt);
    }
    let kind = reader.number(1)?;
    let channel = pick(&CHANNELS, kind / 16)?;
    let outcome = pick(&OUTCOMES, kind % 16)?;
    let fence = reader.number(4)?;
    let count = reader.number(2)?;
    let updated_at = reader.moment()?;
    let lease_until = if outcome == DeliveryOutcome::Sending {
        reader.moment()?
    } else {
        Timestamp::from_millis(0)
    };
    let (trace_id, receipt, service) = if version == u64::from(VERSION_1) {
        (None, None, None)
    } else {
        (reader.trace_id()?, reader.receipt()?, reader.service()?)
    };
    let mut attempts = Vec::new();
    while !reader.0.is_empty() {
        attempts.push(reader.attempt()?);
    }
    // A claim must be able to increment the fence, so the largest one is corrupt.
    if fence == u64::from(u32::MAX)
        || attempts.len() > KEPT_ATTEMPTS
        || attempts.len() as u64 > count
    {
        return Err(LedgerError::Corrupt);
    }
    Ok(Delivery {
        fence: Fence(fence),
        lease_until,
        record: DeliveryRecord {
            id,
            channel,
            outcome,
            attempts,
            attempt_count: u32::try_from(count).map_err(|_| LedgerError::Corrupt)?,
            trace_id,
            receipt,
            service,
            updated_at,
        },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id() -> DeliveryId {
        format!("{}-1", "a".repeat(32)).parse().unwrap()
    }

    fn sample(outcome: DeliveryOutcome, attempts: Vec<Attempt>) -> Delivery {
        Delivery {
            fence: Fence(3),
            lease_until: Timestamp::from_millis(if outcome == DeliveryOutcome::Sending {
                1_800_000_000_999
            } else {
                0
            }),
            record: DeliveryRecord {
                id: id(),
                channel: Channel::Email,
                outcome,
                attempt_count: 20,
                attempts,
                trace_id: TraceId::new([7; 16]),
                receipt: Some(Receipt {
                    state: ReceiptState::Expired,
                    at: Timestamp::from_millis(1_800_000_000_456),
                }),
                service: Some("jira".parse().unwrap()),
                updated_at: Timestamp::from_millis(1_800_000_000_123),
            },
        }
    }

    fn attempt(class: AttemptClass) -> Attempt {
        Attempt {
            provider: Some("gateway".parse().unwrap()),
            class,
            provider_message_id: Some("SM-é1".into()),
            at_ms: 1_800_000_000_000,
            took_ms: 321,
        }
    }

    #[test]
    fn every_word_has_its_own_number() {
        assert_eq!(CHANNELS, Channel::ALL);
        assert_eq!(OUTCOMES, *DeliveryOutcome::ALL);
        // Numbers are fixed, whatever the order of the variants.
        assert_eq!(CLASSES.len(), AttemptClass::ALL.len());
        assert!(
            AttemptClass::ALL
                .iter()
                .all(|class| CLASSES.contains(class))
        );
        let script = include_str!("lua/record.lua");
        let last = format!("LAST_CLASS = 0, 6, {}\n", CLASSES.len() - 1);
        assert!(script.contains(&last), "the script refuses a class");
        assert_eq!(RECEIPTS, *ReceiptState::ALL);
    }

    #[test]
    fn deliveries_round_trip() {
        for &outcome in DeliveryOutcome::ALL {
            let attempts = CLASSES.map(attempt).to_vec();
            let delivery = sample(outcome, attempts);
            assert_eq!(decode(id(), &encode(&delivery)), Ok(delivery));
        }
    }

    const ATTEMPT_HEX: &str = "0001a3185c500000014107000667617465776179534d2dc3a931";

    /// The layout is a contract between versions: every later release must decode these bytes.
    #[test]
    fn both_versions_stay_as_they_are() {
        let delivery = sample(
            DeliveryOutcome::Accepted,
            vec![attempt(AttemptClass::Accepted)],
        );
        let bytes = encode(&delivery);
        let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex.concat(),
            format!(
                "021200000003001401a3185c507b{}0301a3185c51c8046a697261{ATTEMPT_HEX}",
                "07".repeat(16)
            )
        );
        let first = format!("011200000003001401a3185c507b{ATTEMPT_HEX}");
        let first: Vec<u8> = (0..first.len() / 2)
            .map(|at| u8::from_str_radix(&first[at * 2..at * 2 + 2], 16).unwrap())
            .collect();
        let mut bare = delivery;
        (bare.record.trace_id, bare.record.receipt) = (None, None);
        bare.record.service = None;
        assert_eq!(decode(id(), &first), Ok(bare));
    }

    #[test]
    fn every_cut_and_every_surplus_is_corrupt() {
        let whole = encode(&sample(
            DeliveryOutcome::Sending,
            vec![attempt(AttemptClass::Transient)],
        ));
        for cut in 0..whole.len() {
            // A cut between the header and the attempts leaves a complete record with fewer
            // attempts.
            if cut != 48 {
                assert_eq!(
                    decode(id(), &whole[..cut]),
                    Err(LedgerError::Corrupt),
                    "{cut}"
                );
            }
        }
        assert_eq!(
            decode(id(), &[whole, vec![0]].concat()),
            Err(LedgerError::Corrupt)
        );
    }

    proptest! {
        /// Decoding arbitrary bytes does not panic, and a record that decodes is encoded to the
        /// same bytes.
        #[test]
        fn hostile_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), fix in any::<bool>()) {
            if fix && bytes.len() > 2 {
                bytes[0] = 2;
                bytes[1] %= 7;
            }
            if let Ok(delivery) = decode(id(), &bytes)
                && bytes[0] == VERSION
            {
                prop_assert_eq!(encode(&delivery), bytes);
            }
        }
    }
}
