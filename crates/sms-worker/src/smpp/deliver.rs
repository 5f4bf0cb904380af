//! Parser for the parts of a `deliver_sm` that can hold a receipt (SMPP 3.4 section 4.6.1). It
//! accepts other fields of any length and content: some SMSCs exceed the standard's limits, and the
//! codec would reject the whole command.

/// TLVs of receipts (SMPP 3.4 section 5.3.2).
pub(super) const RECEIPTED_MESSAGE_ID: u16 = 0x001e;
pub(super) const NETWORK_ERROR_CODE: u16 = 0x0423;
pub(super) const MESSAGE_PAYLOAD: u16 = 0x0424;
pub(super) const MESSAGE_STATE: u16 = 0x0427;

/// Bits of `esm_class` that hold the message type, without mode and GSM features.
const TYPE_BITS: u8 = 0b0011_1100;
const RECEIPT: u8 = 0b0000_0100;
const INTERMEDIATE: u8 = 0b0010_0000;

/// Parts of a `deliver_sm`.
pub(super) struct Deliver<'a> {
    esm_class: u8,
    short_message: &'a [u8],
    tlvs: &'a [u8],
}

impl<'a> Deliver<'a> {
    /// Parses the body of a command; `None` if it is truncated.
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let mut rest = body;
        c_string(&mut rest)?; // service_type
        for _ in ["source", "destination"] {
            octets(&mut rest, 2)?; // type of number, numbering plan
            c_string(&mut rest)?;
        }
        let &[esm_class, _protocol_id, _priority] = octets(&mut rest, 3)? else {
            return None;
        };
        c_string(&mut rest)?; // schedule_delivery_time
        c_string(&mut rest)?; // validity_period
        let &[_registered, _replace, _coding, _default_id, length] = octets(&mut rest, 5)? else {
            return None;
        };
        Some(Self {
            esm_class,
            short_message: octets(&mut rest, usize::from(length))?,
            tlvs: rest,
        })
    }

    /// Whether the SMSC marks the message as a receipt. Its text is no evidence: a person can write
    /// one that looks like a receipt.
    pub(super) const fn is_receipt(&self) -> bool {
        matches!(self.esm_class & TYPE_BITS, RECEIPT | INTERMEDIATE)
    }

    /// Returns the text, which is in the payload TLV if `short_message` is empty.
    pub(super) fn text(&self) -> &'a [u8] {
        if self.short_message.is_empty() {
            self.tlv(MESSAGE_PAYLOAD).unwrap_or_default()
        } else {
            self.short_message
        }
    }

    /// Returns the value of the first TLV with this tag, truncated if its length exceeds the body.
    pub(super) fn tlv(&self, tag: u16) -> Option<&'a [u8]> {
        let mut rest = self.tlvs;
        loop {
            let &[t0, t1, l0, l1] = octets(&mut rest, 4)? else {
                return None;
            };
            let length = usize::from(u16::from_be_bytes([l0, l1])).min(rest.len());
            let value = octets(&mut rest, length)?;
            if u16::from_be_bytes([t0, t1]) == tag {
                return Some(value);
            }
        }
    }
}

fn octets<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn c_string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|octet| *octet == 0)?;
    octets(rest, end + 1)
}

/// Builds the body of a command for tests.
#[cfg(test)]
pub(super) fn body(esm_class: u8, text: &[u8], tlvs: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = vec![0, 1, 1];
    body.extend(b"4915112345678\0\x01\x01watchword\0");
    body.extend([esm_class, 0, 0, 0, 0, 0, 0, 0, 0]);
    body.push(u8::try_from(text.len()).unwrap());
    body.extend(text);
    for (tag, value) in tlvs {
        body.extend(tag.to_be_bytes());
        body.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(*value);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_tlvs_are_found_and_every_cut_is_survived() {
        let whole = body(4, b"id:7", &[(MESSAGE_STATE, &[2]), (0x1401, b"x")]);
        let deliver = Deliver::parse(&whole).unwrap();
        assert!(deliver.is_receipt());
        assert_eq!(deliver.text(), b"id:7");
        assert_eq!(deliver.tlv(MESSAGE_STATE), Some(&[2][..]));
        assert_eq!(deliver.tlv(RECEIPTED_MESSAGE_ID), None);
        for end in 0..whole.len() {
            if let Some(deliver) = Deliver::parse(&whole[..end]) {
                deliver.tlv(0x1401);
            }
        }
        let payload = body(4, b"", &[(MESSAGE_PAYLOAD, b"id:8")]);
        assert_eq!(Deliver::parse(&payload).unwrap().text(), b"id:8");
    }

    #[test]
    fn only_the_class_makes_a_receipt() {
        let is_receipt = |class| Deliver::parse(&body(class, b"", &[])).unwrap().is_receipt();
        for class in [0x04, 0x20, 0x07, 0x44, 0xc4] {
            assert!(is_receipt(class), "{class:#x}");
        }
        for class in [0x00, 0x03, 0x08, 0x10, 0x18, 0x40, 0xc0] {
            assert!(!is_receipt(class), "{class:#x}");
        }
    }

    #[test]
    fn addresses_of_any_length_are_taken() {
        let mut long = vec![0, 1, 1];
        long.extend([b'4'; 30]);
        long.extend(b"\0\x01\x01\0\x04\0\0\0\0\0\0\0\0\x02hi");
        assert_eq!(Deliver::parse(&long).unwrap().text(), b"hi");
    }
}
