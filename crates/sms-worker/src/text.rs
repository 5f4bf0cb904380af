//! The text of an SMS: the template of its locale, then, if the service names a host, the
//! origin-bound line, which is exactly the last one (R32). Refuses texts of more than two parts.

use std::path::Path;
use std::time::Duration;

use watchword_core::{Channel, Code, DeliveryId, Recipient, Variables};
use watchword_delivery::{Dispatch, Embedded, Sender, TemplateError, Templates};

use crate::segments::{Encoding, Segments, segments};

const FILE: &str = "sms.txt";

/// Parts an SMS may take.
const MOST_PARTS: usize = 2;

macro_rules! embedded {
    ($($locale:literal),*) => {
        [$((concat!($locale, "/sms.txt"), include_str!(concat!("../../../config/templates/", $locale, "/sms.txt")))),*]
    };
}

const EMBEDDED: [Embedded; 8] = embedded!("de", "en", "es", "fr", "it", "nl", "pl", "pt");

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The template is missing or wrong.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// It would take more than two parts.
    #[error("the SMS template for {locale} makes a text of {count} parts; at most 2 are sent")]
    TooLong {
        /// The locale.
        locale: String,
        /// Its parts.
        count: usize,
    },
}

/// Makes texts.
pub struct SmsText {
    templates: Templates,
}

impl SmsText {
    /// The embedded templates, with those under `folder` on top.
    pub fn load(folder: Option<&Path>) -> Result<Self, TemplateError> {
        Templates::load(&EMBEDDED, &[FILE], folder).map(|templates| Self { templates })
    }

    /// The text for `dispatch` and what it takes on the air.
    pub fn render(&self, dispatch: &Dispatch) -> Result<(String, Segments), TextError> {
        let mut text = self.templates.render(FILE, dispatch)?;
        if let Some(host) = &dispatch.sender.host {
            text = format!("{text}\n\n@{host} #{}", dispatch.code.expose());
        }
        let segments = segments(&text);
        if segments.count > MOST_PARTS {
            let locale = dispatch
                .locale
                .as_ref()
                .map_or_else(|| "en".to_owned(), ToString::to_string);
            return Err(TextError::TooLong {
                locale,
                count: segments.count,
            });
        }
        Ok((text, segments))
    }

    /// A short value for each variable that the templates use.
    pub fn sample_variables(&self) -> Variables {
        self.templates.sample_variables()
    }

    /// The locales there are templates for.
    pub fn locales(&self) -> Vec<String> {
        self.templates.locales()
    }
}

/// Renders the text of every locale for `sender` with the longest code: what cannot be sent is an
/// error at start, and what takes two parts is told (as locale, encoding and parts).
pub fn check_templates(
    text: &SmsText,
    sender: &Sender,
) -> Result<Vec<(String, Encoding, usize)>, TextError> {
    let mut costly = Vec::new();
    for locale in text.locales() {
        let Some(mut sample) = sample(sender) else {
            continue;
        };
        sample.locale = locale.parse().ok();
        sample.variables = text.sample_variables();
        let (_, segments) = text.render(&sample)?;
        if segments.count > 1 {
            costly.push((locale, segments.encoding, segments.count));
        }
    }
    Ok(costly)
}

fn sample(sender: &Sender) -> Option<Dispatch> {
    let delivery_id: DeliveryId = format!("{}-1", "a".repeat(32)).parse().ok()?;
    let code: Code = "0123456789".parse().ok()?;
    Some(Dispatch {
        delivery_id,
        recipient: Recipient::parse(Channel::Sms, "+12025550123").ok()?,
        code,
        sender: sender.clone(),
        locale: None,
        variables: Variables::default(),
        remaining: Duration::from_secs(600),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(host: Option<&str>) -> Sender {
        Sender {
            app: "Example Company Jira".into(),
            host: host.map(str::to_owned),
        }
    }

    /// An independent reading of the WICG rule: the last line is `@host SP #code`, alone.
    fn origin_bound(text: &str) -> Option<(&str, &str)> {
        let last = text.split('\n').next_back()?;
        let (host, code) = last.strip_prefix('@')?.split_once(" #")?;
        let word =
            |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_ascii_whitespace());
        (word(host) && word(code)).then_some((host, code))
    }

    #[test]
    fn every_embedded_text_fits_one_part_with_the_longest_values() {
        let text = SmsText::load(None).unwrap();
        let host = "login.jira.example-company.org";
        assert_eq!(check_templates(&text, &sender(Some(host))).unwrap(), []);
        assert_eq!(text.locales().len(), 8);
    }

    #[test]
    fn a_text_of_ones_own_may_use_what_requests_bring() {
        let folder = tempfile::tempdir().unwrap();
        let write = |locale: &str, text: &str| {
            let folder = folder.path().join(locale);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("sms.txt"), text).unwrap();
        };
        // Named as locales are written elsewhere, too.
        write("en", "{{ app }}: {{ code }} for {{ amount }}");
        write("pt_BR", "{{ code }} por {{ amount }}");
        let text = SmsText::load(Some(folder.path())).unwrap();
        assert_eq!(check_templates(&text, &sender(None)).unwrap(), []);
        let mut dispatch = sample(&sender(None)).unwrap();
        dispatch.locale = "pt-BR".parse().ok();
        assert!(text.render(&dispatch).is_err(), "this request brings none");
        dispatch.variables = text.sample_variables();
        assert_eq!(text.render(&dispatch).unwrap().0, "0123456789 por x");
        write("en", "{{ code }} to {{ to }}");
        let wrong = SmsText::load(Some(folder.path())).unwrap();
        assert!(check_templates(&wrong, &sender(None)).is_err());
    }

    #[test]
    fn the_last_line_is_bound_to_the_host() {
        let text = SmsText::load(None).unwrap();
        for locale in text.locales() {
            let mut dispatch = sample(&sender(Some("login.example.org"))).unwrap();
            dispatch.locale = locale.parse().ok();
            let (rendered, _) = text.render(&dispatch).unwrap();
            assert_eq!(
                origin_bound(&rendered),
                Some(("login.example.org", "0123456789")),
                "{rendered}"
            );
        }
        let (plain, _) = text.render(&sample(&sender(None)).unwrap()).unwrap();
        assert_eq!(origin_bound(&plain), None);
    }

    #[test]
    fn unknown_locales_fall_back_to_english_and_regions_to_their_language() {
        let text = SmsText::load(None).unwrap();
        let rendered = |locale: &str| {
            let mut dispatch = sample(&sender(None)).unwrap();
            dispatch.locale = Some(locale.parse().unwrap());
            text.render(&dispatch).unwrap().0
        };
        assert_eq!(rendered("sw"), rendered("en"));
        assert_eq!(rendered("de-AT"), rendered("de"));
        assert_ne!(rendered("de"), rendered("en"));
    }

    #[test]
    fn an_app_name_is_data() {
        let text = SmsText::load(None).unwrap();
        let mut dispatch = sample(&sender(None)).unwrap();
        dispatch.sender.app = "{{ 7 * 7 }} <b>".into();
        assert!(
            text.render(&dispatch)
                .unwrap()
                .0
                .starts_with("{{ 7 * 7 }} <b>: ")
        );
    }

    #[test]
    fn a_text_of_three_parts_is_refused() {
        let text = SmsText::load(None).unwrap();
        let mut dispatch = sample(&sender(None)).unwrap();
        dispatch.sender.app = "ж".repeat(100);
        assert!(matches!(
            text.render(&dispatch),
            Err(TextError::TooLong { count: 3, .. })
        ));
    }
}
