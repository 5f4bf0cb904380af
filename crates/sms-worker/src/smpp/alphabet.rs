//! Text encodings of SMPP: the GSM default alphabet (3GPP TS 23.038 section 6.2.1) with one septet
//! per octet, and UCS-2. The caller picks the encoding that `segments` reports.

/// Default alphabet, indexed by code. ESC is at 0x1B and is never a character.
const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\u{1b}ÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
const ESCAPE: u8 = 0x1b;
const EXTENDED: [(char, u8); 10] = [
    ('\u{c}', 0x0a),
    ('^', 0x14),
    ('{', 0x28),
    ('}', 0x29),
    ('\\', 0x2f),
    ('[', 0x3c),
    ('~', 0x3d),
    (']', 0x3e),
    ('|', 0x40),
    ('€', 0x65),
];

/// Encodes the text in the default alphabet; `None` if a character is not in it.
pub(super) fn gsm(text: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::new();
    for c in text.chars() {
        if let Some((_, code)) = EXTENDED.iter().find(|(known, _)| *known == c) {
            octets.extend([ESCAPE, *code]);
            continue;
        }
        let place = BASIC
            .chars()
            .position(|known| known == c && c != '\u{1b}')?;
        octets.push(u8::try_from(place).ok()?);
    }
    Some(octets)
}

/// Encodes the text in UTF-16, big-endian.
pub(super) fn ucs2(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_standard() {
        assert_eq!(BASIC.chars().count(), 128);
        assert_eq!(
            gsm("@A a€[").unwrap(),
            [0, 0x41, 0x20, 0x61, 0x1b, 0x65, 0x1b, 0x3c]
        );
        assert_eq!(gsm("äàß\n").unwrap(), [0x7b, 0x7f, 0x1e, 0x0a]);
        assert_eq!(gsm("ж"), None);
        assert_eq!(gsm("\u{1b}"), None);
        assert_eq!(ucs2("ж😀"), [0x04, 0x36, 0xd8, 0x3d, 0xde, 0x00]);
    }
}
