//! Receipts as SMPP carries them: `id:… stat:… err:…` in the text of a `deliver_sm` (SMPP 3.4
//! appendix B). Refuses to keep anything else of that text.

use watchword_core::ReceiptState;

use crate::receipt::error_code;

/// What a receipt says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The peer's id for the message.
    pub message_id: String,
    /// What became of it.
    pub state: ReceiptState,
    /// An error code, if it told one.
    pub error: Option<String>,
}

/// Reads a receipt's text; `None` if it is none.
pub fn read(text: &[u8]) -> Option<Told> {
    let text = String::from_utf8_lossy(text.get(..text.len().min(255))?);
    let field = |name: &str| {
        let start = text.find(name)? + name.len();
        let rest = text.get(start..)?;
        let word = rest.split_whitespace().next()?;
        let plain = word.len() <= 65 && word.bytes().all(|byte| byte.is_ascii_graphic());
        plain.then(|| word.to_owned())
    };
    let state = match field("stat:")?.to_ascii_uppercase().as_str() {
        "DELIVRD" => ReceiptState::Delivered,
        "EXPIRED" => ReceiptState::Expired,
        "UNDELIV" | "REJECTD" | "DELETED" => ReceiptState::Failed,
        "ACCEPTD" | "ENROUTE" => ReceiptState::InFlight,
        _ => return None,
    };
    Some(Told {
        message_id: field("id:")?,
        state,
        error: field("err:").and_then(error_code),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_receipts_are_read() {
        let text = b"id:A1f sub:001 dlvrd:001 submit date:2611241200 done date:2611241201 stat:DELIVRD err:000 text:Your";
        let told = read(text).unwrap();
        assert_eq!(
            (told.message_id.as_str(), told.state, told.error),
            ("A1f", ReceiptState::Delivered, None)
        );
        let failed = read(b"id:7 stat:UNDELIV err:0B7").unwrap();
        assert_eq!(
            (failed.state, failed.error.as_deref()),
            (ReceiptState::Failed, Some("0B7"))
        );
        for other in [
            &b""[..],
            b"STOP",
            b"id: stat:",
            b"stat:DELIVRD",
            b"id:7 stat:UNKNOWN",
            &[0xff; 300],
        ] {
            assert_eq!(read(other), None);
        }
    }
}
