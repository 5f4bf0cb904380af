//! Receipts in a `deliver_sm`: in TLVs, or as `id:… stat:… err:…` in its text (SMPP 3.4 appendix
//! B). Only the id, the state and an error code are kept of the text.

use serde::Deserialize;
use watchword_core::ReceiptState;

use super::deliver::{Deliver, MESSAGE_STATE, NETWORK_ERROR_CODE, RECEIPTED_MESSAGE_ID};
use crate::http::plain_id;
use crate::receipt::{Unread, error_code};

/// Maximum number of octets of a text that are searched.
const MOST_OCTETS: usize = 1_024;
/// Names of fields. A word that begins with one is a field, so the field before it has no value.
const NAMES: [&str; 7] = ["id:", "sub:", "dlvrd:", "submit", "done", "stat:", "err:"];

/// Content of a receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Message id of the peer, normalized by [`MessageIds`].
    pub message_id: String,
    /// State of the message.
    pub state: ReceiptState,
    /// Error code, if the receipt has one.
    pub error: Option<String>,
}

/// How a peer writes the id of a message in its submit response and in its receipts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageIds {
    /// The same in both. If the id is a number, leading zeros and case are ignored.
    #[default]
    Same,
    /// Hexadecimal in the response, decimal in receipts.
    HexThenDecimal,
    /// Decimal in the response, hexadecimal in receipts.
    DecimalThenHex,
}

impl MessageIds {
    /// Normalizes the id of a submit response.
    pub(super) fn of_answer(self, id: String) -> Option<String> {
        let id = plain_id(id)?;
        Some(match self {
            Self::Same => without_case(id),
            Self::HexThenDecimal => number(id, 16),
            Self::DecimalThenHex => number(id, 10),
        })
    }

    /// Normalizes the id of a receipt to the same form.
    fn of_receipt(self, id: String) -> Option<String> {
        let id = plain_id(id)?;
        Some(match self {
            Self::Same => without_case(id),
            Self::HexThenDecimal => number(id, 10),
            Self::DecimalThenHex => number(id, 16),
        })
    }
}

/// Returns the number in decimal. An id that is not a number in this radix is only normalized by
/// [`without_case`].
fn number(id: String, radix: u32) -> String {
    // `from_str_radix` also accepts a sign.
    let is_number = id.chars().all(|c| c.is_digit(radix));
    match u128::from_str_radix(&id, radix) {
        Ok(number) if is_number => number.to_string(),
        _ => without_case(id),
    }
}

/// Returns a number in lower case without leading zeros. An id that is not a number is returned
/// unchanged.
fn without_case(id: String) -> String {
    if !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return id;
    }
    match id.trim_start_matches('0') {
        "" => "0".to_owned(),
        digits => digits.to_ascii_lowercase(),
    }
}

/// Reads the receipt in the body of a `deliver_sm`; `None` if the peer does not mark it as a
/// receipt.
pub fn read(body: &[u8], ids: MessageIds) -> Option<Result<Told, Unread>> {
    let Some(deliver) = Deliver::parse(body) else {
        return Some(Err(Unread::Unreadable));
    };
    deliver.is_receipt().then(|| told(&deliver, ids))
}

fn told(deliver: &Deliver<'_>, ids: MessageIds) -> Result<Told, Unread> {
    let text = text(deliver);
    let in_text = field(&text, "id:");
    let in_tlv = deliver.tlv(RECEIPTED_MESSAGE_ID).and_then(|value| {
        let id = value.split(|octet| *octet == 0).next()?;
        (!id.is_empty()).then(|| String::from_utf8_lossy(id).into_owned())
    });
    let message_id = match (in_tlv, in_text) {
        // A peer that uses another base in the text usually repeats the response's form in the TLV.
        (Some(tlv), Some(text)) => {
            let (answered, receipted) = (ids.of_answer(tlv.clone()), ids.of_receipt(text));
            answered
                .filter(|id| receipted.as_ref() == Some(id))
                .or_else(|| ids.of_receipt(tlv))
                .or(receipted)
        }
        (Some(id), None) | (None, Some(id)) => ids.of_receipt(id),
        (None, None) => None,
    };
    let message_id = message_id.ok_or(Unread::Unreadable)?;
    let state = deliver.tlv(MESSAGE_STATE).and_then(by_number);
    let state = state
        .or_else(|| by_word(&field(&text, "stat:")?))
        .ok_or(Unread::UnknownState)?;
    let network = || match *deliver.tlv(NETWORK_ERROR_CODE)? {
        [_network, high, low] => Some(u16::from_be_bytes([high, low]).to_string()),
        _ => None,
    };
    Ok(Told {
        message_id,
        state,
        error: field(&text, "err:").or_else(network).and_then(error_code),
    })
}

/// Returns the text. It is read as UCS-2 if its first octet is zero and not by `data_coding`: many
/// SMSCs copy the `data_coding` of the message to an ASCII receipt.
fn text(deliver: &Deliver<'_>) -> String {
    let octets = deliver.text();
    let octets = octets.get(..MOST_OCTETS).unwrap_or(octets);
    if octets.first() == Some(&0) {
        let (pairs, _) = octets.as_chunks::<2>();
        let units = pairs.iter().map(|pair| u16::from_be_bytes(*pair));
        let chars = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER));
        return chars.collect();
    }
    String::from_utf8_lossy(octets).into_owned()
}

/// Returns the word after `name`. The name is matched in any case, but not inside another word.
fn field(text: &str, name: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let (at, _) = lower.match_indices(name).find(|(at, _)| {
        let before = text
            .get(..*at)
            .and_then(|before| before.chars().next_back());
        before.is_none_or(|c| !c.is_alphanumeric())
    })?;
    let is_end = |c: char| c.is_whitespace() || matches!(c, ',' | ';' | '\0');
    let word = text.get(at + name.len()..)?.trim_start();
    let word = word.split(is_end).next().filter(|word| !word.is_empty())?;
    let is_name = NAMES.iter().any(|name| {
        let start = word.get(..name.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(name))
    });
    (!is_name).then(|| word.to_owned())
}

/// Maps `message_state` (SMPP 3.4 section 5.2.28, SMPP 5.0 section 4.7.15).
fn by_number(value: &[u8]) -> Option<ReceiptState> {
    match value {
        [0 | 1 | 6] => Some(ReceiptState::InFlight),
        [2] => Some(ReceiptState::Delivered),
        [3] => Some(ReceiptState::Expired),
        [4 | 5 | 8 | 9] => Some(ReceiptState::Failed),
        _ => None,
    }
}

/// Maps the words of appendix B and common variants of them.
fn by_word(word: &str) -> Option<ReceiptState> {
    match word.to_ascii_uppercase().as_str() {
        "DELIVRD" | "DELIVERD" | "DELIVERED" => Some(ReceiptState::Delivered),
        "EXPIRED" => Some(ReceiptState::Expired),
        "UNDELIV" | "UNDELIVRD" | "UNDELIVERED" | "UNDELIVERABLE" | "REJECTD" | "REJECTED"
        | "DELETED" | "FAILED" | "SKIPPED" => Some(ReceiptState::Failed),
        "ACCEPTD" | "ACCEPTED" | "ACKED" | "BUFFRED" | "BUFFERED" | "ENROUTE" | "SCHEDULED" => {
            Some(ReceiptState::InFlight)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smpp::deliver::{MESSAGE_PAYLOAD, body};

    fn read_text(text: &str) -> Result<Told, Unread> {
        read(&body(4, text.as_bytes(), &[]), MessageIds::Same).unwrap()
    }

    #[test]
    fn a_receipt_is_read_in_every_form_of_its_text() {
        let told = |id: &str, state, error: Option<&str>| Told {
            message_id: id.to_owned(),
            state,
            error: error.map(str::to_owned),
        };
        for (text, expected) in [
            (
                "id:A1f sub:001 dlvrd:001 submit date:2611241200 done date:2611241201 stat:DELIVRD err:000 text:Your",
                told("a1f", ReceiptState::Delivered, None),
            ),
            (
                "ID:7 SUB:001 Stat:UNDELIV ERR:0B7",
                told("7", ReceiptState::Failed, Some("0B7")),
            ),
            (
                "id: 77 stat:DELIVRD",
                told("77", ReceiptState::Delivered, None),
            ),
            (
                "valid:3 stat:DELIVRD,err:17;id:9\0",
                told("9", ReceiptState::Delivered, Some("17")),
            ),
            (
                "id:39f9-11 stat:delivered",
                told("39f9-11", ReceiptState::Delivered, None),
            ),
        ] {
            assert_eq!(read_text(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_receipt_in_ucs2_is_read() {
        let text: Vec<u8> = "id:7 stat:DELIVRD"
            .encode_utf16()
            .flat_map(u16::to_be_bytes)
            .collect();
        let told = read(&body(4, &text, &[]), MessageIds::Same).unwrap();
        assert_eq!(told.map(|told| told.message_id), Ok("7".to_owned()));
    }

    #[test]
    fn every_word_has_its_state() {
        use ReceiptState::{Delivered, Expired, Failed, InFlight};
        for (words, state) in [
            ("DELIVRD DELIVERED Delivered", Delivered),
            ("EXPIRED", Expired),
            (
                "UNDELIV UNDELIVERABLE REJECTD REJECTED DELETED FAILED",
                Failed,
            ),
            ("ACCEPTD ENROUTE BUFFRED BUFFERED ACKED", InFlight),
        ] {
            for word in words.split(' ') {
                let told = read_text(&format!("id:7 stat:{word}"));
                assert_eq!(told.map(|told| told.state), Ok(state), "{word}");
            }
        }
    }

    #[test]
    fn what_is_no_receipt_is_not_read_as_one() {
        for (text, why) in [
            ("", Unread::Unreadable),
            ("STOP", Unread::Unreadable),
            ("id: stat:DELIVRD", Unread::Unreadable),
            ("stat:DELIVRD", Unread::Unreadable),
            ("id:7 stat:UNKNOWN", Unread::UnknownState),
            ("id:7 stat:", Unread::UnknownState),
        ] {
            assert_eq!(read_text(text), Err(why), "{text}");
        }
        let mo = body(0, b"id:7 stat:DELIVRD", &[]);
        assert_eq!(read(&mo, MessageIds::Same), None);
        let cut = read(b"\0", MessageIds::Same);
        assert_eq!(cut, Some(Err(Unread::Unreadable)));
    }

    #[test]
    fn tlvs_come_before_the_text() {
        let receipt = |text: &str, tlvs: &[(u16, &[u8])]| {
            read(&body(4, text.as_bytes(), tlvs), MessageIds::Same).unwrap()
        };
        let alone = receipt(
            "",
            &[
                (RECEIPTED_MESSAGE_ID, b"A7\0"),
                (MESSAGE_STATE, &[5]),
                (NETWORK_ERROR_CODE, &[3, 0, 17]),
            ],
        );
        let failed = Told {
            message_id: "a7".to_owned(),
            state: ReceiptState::Failed,
            error: Some("17".to_owned()),
        };
        assert_eq!(alone, Ok(failed));
        let both = receipt(
            "id:1 stat:UNDELIV",
            &[(MESSAGE_STATE, &[2]), (RECEIPTED_MESSAGE_ID, b"2")],
        )
        .unwrap();
        assert_eq!(
            (both.message_id.as_str(), both.state),
            ("2", ReceiptState::Delivered)
        );
        let unknown = receipt("id:1 stat:DELIVRD", &[(MESSAGE_STATE, &[7])]);
        assert_eq!(unknown.map(|told| told.state), Ok(ReceiptState::Delivered));
        let payload = receipt("", &[(MESSAGE_PAYLOAD, b"id:5 stat:EXPIRED")]);
        assert_eq!(payload.map(|told| told.state), Ok(ReceiptState::Expired));
    }

    #[test]
    fn ids_of_both_bases_are_one() {
        use MessageIds::{DecimalThenHex, HexThenDecimal, Same};
        for (ids, answer, receipt) in [
            (Same, "smsc-1", "smsc-1"),
            (Same, "0A1F", "a1f"),
            (Same, "000", "0"),
            (HexThenDecimal, "39f9dd5b", "0972676443"),
            (HexThenDecimal, "0039F9DD5B", "972676443"),
            (DecimalThenHex, "972676443", "39F9DD5B"),
            (HexThenDecimal, "x-1", "x-1"),
        ] {
            let told = read(
                &body(4, format!("id:{receipt} stat:DELIVRD").as_bytes(), &[]),
                ids,
            );
            let told = told.unwrap().unwrap();
            assert_eq!(
                ids.of_answer(answer.to_owned()),
                Some(told.message_id),
                "{ids:?} {answer}"
            );
        }
        assert_eq!(Same.of_answer("000".into()).as_deref(), Some("0"));
        assert_eq!(Same.of_answer("0A1F".into()).as_deref(), Some("a1f"));
        // Case matters if the id is not a number.
        assert_ne!(Same.of_answer("Xa".into()), Same.of_answer("xA".into()));
        // The TLV has the form of the response, the text the other one.
        let tlvs: &[(u16, &[u8])] = &[(RECEIPTED_MESSAGE_ID, b"39f9dd5b\0")];
        let text = b"id:0972676443 stat:DELIVRD";
        let both = read(&body(4, text, tlvs), HexThenDecimal);
        assert_eq!(both.unwrap().unwrap().message_id, "972676443");
        let alone = read(
            &body(
                4,
                b"stat:DELIVRD",
                &[(RECEIPTED_MESSAGE_ID, b"972676443\0")],
            ),
            HexThenDecimal,
        );
        assert_eq!(alone.unwrap().unwrap().message_id, "972676443");
    }
}
