//! Mail: a subject and two parts, rendered from the templates of its locale, with the minimum of
//! headers. There is no link and no tracking image, and no `List-Unsubscribe`, because the person
//! requested the code. Templates whose subject shows the code are rejected on loading, because
//! relays log subjects.

use std::path::Path;

use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::{Address, Message};
use watchword_core::Recipient;
use watchword_delivery::{Dispatch, Embedded, TemplateError, Templates};

const SUBJECT: &str = "email.subject.txt";
const TEXT: &str = "email.txt";
const HTML: &str = "email.html";

macro_rules! embedded {
    ($($locale:literal),*) => {
        [$(
            (concat!($locale, "/email.subject.txt"), include_str!(concat!("../../../config/templates/", $locale, "/email.subject.txt"))),
            (concat!($locale, "/email.txt"), include_str!(concat!("../../../config/templates/", $locale, "/email.txt"))),
            (concat!($locale, "/email.html"), include_str!(concat!("../../../config/templates/", $locale, "/email.html"))),
        )*]
    };
}

const EMBEDDED: [Embedded; 24] = embedded!("de", "en", "es", "fr", "it", "nl", "pl", "pt");

/// Error of building a mail.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// A template is missing or invalid.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The recipient is not a valid mailbox, or the mail could not be assembled.
    #[error("the mail cannot be assembled")]
    Malformed,
}

/// Rendered subject and parts of a mail.
pub struct EmailParts {
    /// Subject, a single line.
    pub subject: String,
    /// Plain-text part.
    pub text: String,
    /// HTML part.
    pub html: String,
}

/// Renderer of mails.
pub struct EmailText {
    templates: Templates,
}

/// `Auto-Submitted: auto-generated` (RFC 3834): suppresses out-of-office replies.
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// `X-Entity-Ref-ID`: mail clients group mails with the same subject and would hide a new code in
/// an old conversation. A different reference per delivery keeps each mail separate.
#[derive(Clone)]
struct EntityReference(String);

impl Header for EntityReference {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("X-Entity-Ref-ID")
    }

    fn parse(text: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self(text.to_owned()))
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), self.0.clone())
    }
}

impl EmailText {
    /// Template files of a locale.
    pub const FILES: [&'static str; 3] = [SUBJECT, TEXT, HTML];

    /// Loads the embedded templates; files under `folder` override them.
    pub fn load(folder: Option<&Path>) -> Result<Self, TemplateError> {
        Templates::load(&EMBEDDED, &Self::FILES, folder).map(|templates| Self { templates })
    }

    /// Returns the templates.
    pub const fn templates(&self) -> &Templates {
        &self.templates
    }

    /// Consumes the renderer and returns its templates.
    pub fn into_templates(self) -> Templates {
        self.templates
    }

    /// Renders subject and parts for `dispatch`.
    pub fn render(&self, dispatch: &Dispatch) -> Result<EmailParts, MessageError> {
        // Collapse white space: a line break in the template must not break the header.
        let subject = self.templates.render(SUBJECT, dispatch)?;
        let subject = subject.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(EmailParts {
            subject,
            text: self.templates.render(TEXT, dispatch)?,
            html: self.templates.render(HTML, dispatch)?,
        })
    }

    /// Builds the mail from `from`. The message id is derived from the delivery, so that a repeat
    /// after a lost reply can be recognized as the same mail.
    pub fn message(&self, dispatch: &Dispatch, from: &Mailbox) -> Result<Message, MessageError> {
        let Recipient::Email(address) = &dispatch.recipient else {
            return Err(MessageError::Malformed);
        };
        let to = mailbox(address.expose()).ok_or(MessageError::Malformed)?;
        let parts = self.render(dispatch)?;
        Message::builder()
            .from(from.clone())
            .to(Mailbox::new(None, to))
            .subject(parts.subject)
            .message_id(Some(format!(
                "<{}@{}>",
                dispatch.delivery_id,
                from.email.domain()
            )))
            .header(AutoSubmitted)
            .header(EntityReference(dispatch.delivery_id.to_string()))
            .multipart(MultiPart::alternative_plain_html(parts.text, parts.html))
            .map_err(|_| MessageError::Malformed)
    }
}

/// Returns the address in the form that SMTP and headers require: a local part that is only valid
/// in quotes is quoted (RFC 5321 section 4.1.2). `EmailAddress` currently accepts no such local
/// part.
fn mailbox(address: &str) -> Option<Address> {
    let (user, domain) = address.rsplit_once('@')?;
    let is_atom = |byte: u8| byte.is_ascii_graphic() && !b"\"\\()<>[]:;,@".contains(&byte);
    if !user.bytes().all(is_atom) || !domain.is_ascii() {
        return None;
    }
    let quoted = || Address::new(format!("\"{user}\""), domain);
    Address::new(user, domain).or_else(|_| quoted()).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use watchword_core::{Channel, Variables};
    use watchword_delivery::Sender;

    use super::*;

    fn dispatch(app: &str) -> Dispatch {
        Dispatch {
            delivery_id: format!("{}-1", "a".repeat(32)).parse().unwrap(),
            recipient: Recipient::parse(Channel::Email, "jane@example.org").unwrap(),
            code: "012345".parse().unwrap(),
            sender: Sender {
                app: app.into(),
                host: None,
            },
            locale: None,
            variables: Variables::default(),
            remaining: Duration::from_secs(299),
        }
    }

    fn mail(dispatch: &Dispatch) -> String {
        let from = "Example <no-reply@mail.example.org>".parse().unwrap();
        let message = EmailText::load(None)
            .unwrap()
            .message(dispatch, &from)
            .unwrap();
        String::from_utf8(message.formatted()).unwrap()
    }

    #[test]
    fn the_headers_are_exactly_these() {
        let mail = mail(&dispatch("Jira"));
        let head = mail.split("\r\n\r\n").next().unwrap();
        let mut names: Vec<_> = head
            .split("\r\n")
            .filter(|line| !line.starts_with([' ', '\t']))
            .filter_map(|line| line.split_once(':').map(|(name, _)| name))
            .collect();
        names.sort_unstable();
        let expected = [
            "Auto-Submitted",
            "Content-Type",
            "Date",
            "From",
            "MIME-Version",
            "Message-ID",
            "Subject",
            "To",
            "X-Entity-Ref-ID",
        ];
        assert_eq!(names, expected);
        assert!(head.contains(&format!(
            "Message-ID: <{}-1@mail.example.org>",
            "a".repeat(32)
        )));
        assert!(head.contains("Subject: Jira: your sign-in code\r\n"));
        assert!(head.contains(&format!("X-Entity-Ref-ID: {}-1\r\n", "a".repeat(32))));
        assert!(!head.contains("012345"));
        assert!(
            mail.contains("text/plain")
                && mail.contains("text/html")
                && mail.matches("012345").count() == 2
        );
        assert!(!mail.contains("http://") && !mail.contains("https://") && !mail.contains("<img"));
    }

    #[test]
    fn mailboxes_are_quoted_where_they_must_be() {
        let written = |address: &str| mailbox(address).map(|to| to.to_string());
        for (address, expected) in [
            ("jane+tag@example.org", Some("jane+tag@example.org")),
            ("jane..doe@example.org", Some("\"jane..doe\"@example.org")),
            ("jane.@example.org", Some("\"jane.\"@example.org")),
            ("jane", None),
            ("a\"b@example.org", None),
            ("a>b@example.org", None),
            ("a b@example.org", None),
            ("a\r\nRSET@example.org", None),
            ("jan\u{e9}@example.org", None),
            ("jane@b\u{fc}cher.example", None),
        ] {
            assert_eq!(written(address).as_deref(), expected, "{address}");
        }
    }

    #[test]
    fn no_value_breaks_out_of_its_place() {
        let mail = mail(&dispatch("<script>\r\nBcc: eve@example.org"));
        let head = mail.split("\r\n\r\n").next().unwrap();
        assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
        assert!(
            !mail.contains("<script>\r\nBcc: eve@example.org</") && mail.contains("&lt;script&gt;")
        );
    }

    #[test]
    fn every_locale_has_its_mail() {
        let text = EmailText::load(None).unwrap();
        for locale in ["de", "en", "es", "fr", "it", "nl", "pl", "pt"] {
            let mut dispatch = dispatch("Jira");
            dispatch.locale = Some(locale.parse().unwrap());
            let parts = text.render(&dispatch).unwrap();
            assert!(parts.text.contains("012345") && parts.html.contains("012345"));
            assert!(
                parts.html.contains(&format!("lang=\"{locale}\""))
                    && !parts.subject.contains("012345")
            );
        }
    }
    #[test]
    fn times_are_whole_words_and_rounded_down() {
        let text = EmailText::load(None).unwrap();
        for (locale, one, many, minutes) in [
            ("de", "1 Sekunde ", "90 Sekunden ", "4 Minuten "),
            ("en", "1 second ", "90 seconds ", "4 minutes "),
            ("es", "1 segundo ", "90 segundos ", "4 minutos "),
            ("fr", "1 seconde ", "90 secondes ", "4 minutes "),
            ("it", "1 secondo ", "90 secondi ", "4 minuti "),
            ("nl", "1 seconde ", "90 seconden ", "4 minuten "),
            ("pl", "1 s ", "90 s ", "4 min "),
            ("pt", "1 segundo ", "90 segundos ", "4 minutos "),
        ] {
            for (seconds, said) in [(1, one), (90, many), (289, minutes)] {
                let mut dispatch = dispatch("Jira");
                dispatch.locale = Some(locale.parse().unwrap());
                dispatch.remaining = Duration::from_millis(seconds * 1_000 + 900);
                let parts = text.render(&dispatch).unwrap();
                for part in [&parts.text, &parts.html] {
                    assert!(
                        part.contains(&format!(" {said}")),
                        "{locale} {seconds}: {part}"
                    );
                }
            }
        }
    }
}
