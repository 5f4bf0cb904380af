//! The mailbox behind an email address, used to count messages. Mail providers deliver several
//! spellings of an address to one mailbox, so a limit per spelling could be evaded with `+1`.
//! Messages still go to the address as given.

use zeroize::Zeroizing;

use crate::Recipient;

/// A provider whose mailboxes have more spellings than `name+tag@domain`.
struct Provider {
    /// Domains that share one mailbox per name. The first one is used for counting.
    domains: &'static [&'static str],
    /// Whether dots in the name are ignored.
    ignores_dots: bool,
    /// The character that begins a tag.
    tag: char,
}

const fn provider(domains: &'static [&'static str], ignores_dots: bool, tag: char) -> Provider {
    Provider {
        domains,
        ignores_dots,
        tag,
    }
}

/// Mail providers with rules of their own, from their help pages. Outlook, Hotmail, Live, Fastmail
/// and Zoho follow the general rule: a tag begins with `+`.
const PROVIDERS: [Provider; 4] = [
    provider(&["gmail.com", "googlemail.com"], true, '+'),
    provider(&["icloud.com", "me.com", "mac.com"], false, '+'),
    provider(&["proton.me", "protonmail.com", "pm.me"], true, '+'),
    provider(&["yahoo.com"], false, '-'),
];

impl Recipient {
    /// Returns the text under which messages to this recipient are counted: the phone number, or
    /// the mailbox in lower case and without a tag.
    ///
    /// Tags are cut for every domain. If a domain has no tags, two of its users may share a limit,
    /// which does little harm.
    pub fn counted_as(&self) -> Zeroizing<String> {
        let Self::Email(address) = self else {
            return Zeroizing::new(self.expose().to_owned());
        };
        let lower = address.canonical();
        let Some((name, domain)) = lower.split_once('@') else {
            return Zeroizing::new(lower.to_owned());
        };
        let known = PROVIDERS
            .iter()
            .find(|provider| provider.domains.contains(&domain));
        let tag = known.map_or('+', |provider| provider.tag);
        let base = match name.split_once(tag) {
            // A tag needs a name in front of it: `+x@example.org` has none.
            Some((base, _)) if !base.is_empty() => base,
            _ => name,
        };
        let mut mailbox = Zeroizing::new(String::with_capacity(lower.len()));
        let ignores_dots = known.is_some_and(|provider| provider.ignores_dots);
        mailbox.extend(base.chars().filter(|&char| !ignores_dots || char != '.'));
        mailbox.push('@');
        mailbox.push_str(known.map_or(domain, |provider| provider.domains[0]));
        mailbox
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Channel;

    fn counted(channel: Channel, text: &str) -> String {
        let recipient = Recipient::parse(channel, text).unwrap();
        recipient.counted_as().to_string()
    }

    #[test]
    fn spellings_of_one_mailbox_are_counted_as_one() {
        for (address, mailbox) in [
            ("Jane.Doe+1@GMail.com", "janedoe@gmail.com"),
            ("janedoe@googlemail.com", "janedoe@gmail.com"),
            ("jane.doe+a+b@outlook.com", "jane.doe@outlook.com"),
            ("jane+x@hotmail.com", "jane@hotmail.com"),
            ("jane+x@me.com", "jane@icloud.com"),
            ("j.ane+x@pm.me", "jane@proton.me"),
            ("jane-shop@yahoo.com", "jane@yahoo.com"),
            ("jane+x@fastmail.com", "jane@fastmail.com"),
            // Other domains: the tag only.
            ("jane.doe+x@example.org", "jane.doe@example.org"),
            ("jane-doe@example.org", "jane-doe@example.org"),
            ("+x@example.org", "+x@example.org"),
            ("jane@gmail.com.example.org", "jane@gmail.com.example.org"),
        ] {
            assert_eq!(counted(Channel::Email, address), mailbox, "{address}");
        }
        assert_eq!(counted(Channel::Sms, "+4915112345678"), "+4915112345678");
    }
}
