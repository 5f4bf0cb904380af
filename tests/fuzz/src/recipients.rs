//! Numbers and addresses: an accepted recipient follows the strict grammar, equals the input, and
//! is shown masked. The grammar is implemented a second time here, independently.

use watchword_core::{Channel, Recipient};

/// Parses one text as a number and as an address.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(recipient) = Recipient::parse(Channel::Sms, text) {
        assert_eq!(recipient.expose(), text, "a number was rewritten");
        assert!(is_number(text), "no E.164 number: {text:?}");
        let stars = "*".repeat(text.len() - 5);
        let masked = format!("{}{stars}{}", &text[..3], &text[text.len() - 2..]);
        assert_eq!(recipient.masked(), masked);
        assert_shown_masked(&recipient, text);
        if let Recipient::Sms(number) = &recipient {
            // Looking up the numbering plans must not panic for any accepted number.
            let (_, country) = (number.kind(), number.country());
            assert!(country.is_none_or(|country| country.len() <= 3));
        }
    }
    let address = Recipient::parse(Channel::Email, text);
    let text = text.trim();
    if text.is_ascii() {
        assert_eq!(
            address.is_ok(),
            is_address(text),
            "the grammar disagrees on {text:?}"
        );
    }
    if let Ok(recipient) = address {
        let sent = recipient.expose();
        assert!(is_address(sent), "no address: {sent:?}");
        let (local, domain) = sent.split_at(sent.find('@').unwrap_or_default());
        // Only an internationalized domain is rewritten (to ASCII).
        assert!(text.starts_with(local), "a local part was rewritten");
        assert!(sent == text || !text.is_ascii(), "an address was rewritten");
        let first = if local.len() > 1 { &local[..1] } else { "" };
        assert_eq!(recipient.masked(), format!("{first}***{domain}"));
        // A mailbox of stars looks like its own mask, also after a first letter.
        if !sent.starts_with('*') && recipient.masked() != sent {
            assert_shown_masked(&recipient, sent);
        }
    }
}

fn assert_shown_masked(recipient: &Recipient, text: &str) {
    let shown = format!("{recipient} {recipient:?}");
    assert!(!shown.contains(text), "{text:?} is shown as {shown}");
}

fn is_number(text: &str) -> bool {
    let bytes = text.as_bytes();
    (8..=16).contains(&bytes.len())
        && bytes[0] == b'+'
        && matches!(bytes[1], b'1'..=b'9')
        && bytes[2..].iter().all(u8::is_ascii_digit)
}

fn is_address(text: &str) -> bool {
    let parts: Vec<_> = text.split('@').collect();
    let [local, domain] = parts[..] else {
        return false;
    };
    let atoms_fit = local.split('.').all(|atom| {
        !atom.is_empty()
            && atom
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c))
    });
    let labels: Vec<_> = domain.split('.').collect();
    let labels_fit = labels.iter().all(|label| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        label.len() <= 63
            && label.chars().all(inner)
            && edge(label.chars().next())
            && edge(label.chars().last())
    });
    let is_numeric = labels[labels.len() - 1].chars().all(|c| c.is_ascii_digit());
    text.len() <= 254
        && local.len() <= 64
        && domain.len() <= 253
        && atoms_fit
        && labels_fit
        && labels.len() >= 2
        && !is_numeric
}
