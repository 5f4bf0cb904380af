//! Number of parts of an SMS and its encoding (3GPP TS 23.038, 23.040).

/// Encoding of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// GSM 7-bit alphabet: 160 septets in a single part, 153 in each of several.
    Gsm7,
    /// UCS-2: 70 UTF-16 units in a single part, 67 in each of several.
    Ucs2,
}

/// Size of a text on the air.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    /// Encoding of all parts.
    pub encoding: Encoding,
    /// Number of parts; most providers bill each part.
    pub count: usize,
}

/// GSM default alphabet without the escape character.
const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
/// Characters of the extension table. Each takes two septets: the escape and a character.
const EXTENDED: &str = "^{}\\[~]|€\u{c}";

/// Septets of each ASCII character; 0 if it is in neither table.
static ASCII: [u8; 128] = {
    let mut costs = [0; 128];
    let (basic, extended) = (BASIC.as_bytes(), EXTENDED.as_bytes());
    let mut place = 0;
    while place < basic.len() {
        if basic[place].is_ascii() {
            costs[basic[place] as usize] = 1;
        }
        place += 1;
    }
    place = 0;
    while place < extended.len() {
        if extended[place].is_ascii() {
            costs[extended[place] as usize] = 2;
        }
        place += 1;
    }
    costs
};

/// Counts the parts of `text`. A character is never split between parts.
pub fn segments(text: &str) -> Segments {
    if text.chars().all(|c| septets(c) > 0) {
        Segments {
            encoding: Encoding::Gsm7,
            count: parts(text.chars().map(septets), 160, 153),
        }
    } else {
        Segments {
            encoding: Encoding::Ucs2,
            count: parts(text.chars().map(char::len_utf16), 70, 67),
        }
    }
}

fn septets(c: char) -> usize {
    match ASCII.get(c as usize) {
        Some(cost) => usize::from(*cost),
        None if BASIC.contains(c) => 1,
        None if EXTENDED.contains(c) => 2,
        None => 0,
    }
}

fn parts(costs: impl Iterator<Item = usize> + Clone, single: usize, each: usize) -> usize {
    if costs.clone().sum::<usize>() <= single {
        return 1;
    }
    let (mut parts, mut used) = (1, 0);
    for cost in costs {
        if used + cost > each {
            parts += 1;
            used = 0;
        }
        used += cost;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_standard() {
        let counted = |text: String| (segments(&text).encoding, segments(&text).count);
        let table = [
            (String::new(), Encoding::Gsm7, 1),
            ("a".repeat(160), Encoding::Gsm7, 1),
            ("a".repeat(161), Encoding::Gsm7, 2),
            ("a".repeat(306), Encoding::Gsm7, 2),
            ("a".repeat(307), Encoding::Gsm7, 3),
            ("€".repeat(80), Encoding::Gsm7, 1),
            ("€".repeat(81), Encoding::Gsm7, 2),
            // 152 septets fit with the escape; the 77th euro sign must not be split.
            ("€".repeat(153), Encoding::Gsm7, 3),
            (format!("{}😀", "a".repeat(68)), Encoding::Ucs2, 1),
            (format!("{}😀", "a".repeat(69)), Encoding::Ucs2, 2),
            ("ó".repeat(70), Encoding::Ucs2, 1),
            ("ó".repeat(71), Encoding::Ucs2, 2),
        ];
        for c in '\0'..='\u{ffff}' {
            let listed = usize::from(BASIC.contains(c)) + 2 * usize::from(EXTENDED.contains(c));
            assert_eq!(septets(c), listed, "{c:?}");
        }
        for (text, encoding, count) in table {
            assert_eq!(counted(text.clone()), (encoding, count), "{text}");
        }
    }
}
