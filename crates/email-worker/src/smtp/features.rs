//! SMTP extensions from the reply to EHLO. Old forms are accepted: `AUTH=LOGIN`, lower-case names.

use super::reply::Reply;

#[expect(clippy::struct_excessive_bools, reason = "a relay offers each or not")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Features {
    pub(super) starttls: bool,
    pub(super) eight_bit_mime: bool,
    pub(super) plain: bool,
    pub(super) login: bool,
}

impl Features {
    /// Parses all lines but the first, which holds the relay's name.
    pub(super) fn of(reply: &Reply) -> Self {
        let mut features = Self::default();
        for line in reply.lines().skip(1) {
            let mut words = line.split([' ', '\t', '=']).filter(|word| !word.is_empty());
            let keyword = words.next().unwrap_or_default();
            if keyword.eq_ignore_ascii_case("STARTTLS") {
                features.starttls = true;
            } else if keyword.eq_ignore_ascii_case("8BITMIME") {
                features.eight_bit_mime = true;
            } else if keyword.eq_ignore_ascii_case("AUTH") {
                for mechanism in words {
                    features.plain |= mechanism.eq_ignore_ascii_case("PLAIN");
                    features.login |= mechanism.eq_ignore_ascii_case("LOGIN");
                }
            }
        }
        features
    }
}

#[cfg(test)]
mod tests {
    use super::super::reply::Parsed;
    use super::*;

    fn features(text: &str) -> Features {
        match Reply::parse(text.as_bytes()) {
            Parsed::Whole(reply, _) => Features::of(&reply),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn old_and_odd_forms_are_read() {
        let both = Features {
            plain: true,
            login: true,
            ..Features::default()
        };
        let login = Features {
            login: true,
            ..Features::default()
        };
        let table = [
            ("250-x\r\n250 AUTH PLAIN LOGIN\r\n", both),
            ("250-x\n250 AUTH LOGIN PLAIN CRAM-MD5\n", both),
            ("250-x\r\n250 AUTH=LOGIN\r\n", login),
            ("250-x\r\n250-AUTH=LOGIN\r\n250 AUTH PLAIN\r\n", both),
            ("250-x\r\n250 AUTH=PLAIN LOGIN\r\n", both),
            ("250-x\r\n250 auth plain login \r\n", both),
            (
                "250-x\r\n250 AUTH CRAM-MD5 PLAINTEXT\r\n",
                Features::default(),
            ),
            (
                "250-x\r\n250- \r\n250-\r\n250 X-AUTH PLAIN\r\n",
                Features::default(),
            ),
            ("250 AUTH PLAIN\r\n", Features::default()),
        ];
        for (text, expected) in table {
            assert_eq!(features(text), expected, "{text:?}");
        }
        let all = features("250-x\r\n250-starttls\r\n250-8bitmime\r\n250 SIZE 1\r\n");
        assert!(all.starttls && all.eight_bit_mime);
    }
}
