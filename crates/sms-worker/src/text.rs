//! Text of an SMS: the rendered template of its locale and, if the service names a host, the
//! origin-bound line. That line must be the very last one for browsers to recognize it (WICG
//! origin-bound one-time codes). Texts of more than two parts are an error.

use std::collections::BTreeMap;
use std::path::Path;

use watchword_delivery::{Dispatch, Embedded, Sender, TemplateError, Templates};

use crate::segments::{Encoding, Segments, segments};

const FILE: &str = "sms.txt";

/// Maximum number of parts of an SMS.
const MOST_PARTS: usize = 2;

macro_rules! embedded {
    ($($locale:literal),*) => {
        [$((concat!($locale, "/sms.txt"), include_str!(concat!("../../../config/templates/", $locale, "/sms.txt")))),*]
    };
}

const EMBEDDED: [Embedded; 8] = embedded!("de", "en", "es", "fr", "it", "nl", "pl", "pt");

/// Error of rendering a text.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The template is missing or invalid.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The text exceeds two parts.
    #[error("template {locale}/sms.txt makes a text of {count} parts; at most 2 are sent")]
    TooLong {
        /// Locale of the template.
        locale: String,
        /// Number of parts it would take.
        count: usize,
    },
    /// The encoding of the provider's protocol cannot express the text.
    #[error("the text cannot be encoded for the provider")]
    Unencodable,
}

/// Renderer of SMS texts.
pub struct SmsText {
    templates: Templates,
}

impl SmsText {
    /// Template files of a locale.
    pub const FILES: [&'static str; 1] = [FILE];

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

    /// Renders the text for `dispatch` and returns it with its size.
    pub fn render(&self, dispatch: &Dispatch) -> Result<(String, Segments), TextError> {
        let mut text = self.templates.render(FILE, dispatch)?;
        if let Some(host) = &dispatch.sender.host {
            text = format!("{text}\n\n@{host} #{}", dispatch.code.expose());
        }
        let segments = segments(&text);
        if segments.count > MOST_PARTS {
            let locale = self.templates.locale_for(dispatch.locale.as_ref());
            return Err(TextError::TooLong {
                locale: locale.to_owned(),
                count: segments.count,
            });
        }
        Ok((text, segments))
    }
}

/// Renders the text of every locale for `sender` with the longest code. Returns the locales whose
/// text takes two parts, with encoding and number of parts.
///
/// # Errors
///
/// Fails if a text cannot be rendered or takes more than two parts.
pub fn check_templates(
    text: &SmsText,
    sender: &Sender,
) -> Result<BTreeMap<String, (Encoding, usize)>, TextError> {
    let mut costly = BTreeMap::new();
    for sample in text.templates.samples(sender) {
        let (_, segments) = text.render(&sample)?;
        if segments.count > 1 {
            let locale = text.templates.locale_for(sample.locale.as_ref());
            costly.insert(locale.to_owned(), (segments.encoding, segments.count));
        }
    }
    Ok(costly)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use watchword_core::Variables;

    use super::*;

    fn sample(sender: &Sender) -> Option<Dispatch> {
        Dispatch::sample(sender, 10, Duration::from_secs(600))
    }

    fn sender(host: Option<&str>) -> Sender {
        Sender {
            app: "Example Company Jira".into(),
            host: host.map(str::to_owned),
        }
    }

    /// Independent parser of the WICG rule: the last line is `@host SP #code` and nothing else.
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
        assert_eq!(
            check_templates(&text, &sender(Some(host))).unwrap(),
            BTreeMap::new()
        );
        assert_eq!(text.templates.locales().len(), 8);
    }

    #[test]
    fn a_text_of_ones_own_may_use_what_requests_bring() {
        let folder = tempfile::tempdir().unwrap();
        let write = |locale: &str, text: &str| {
            let folder = folder.path().join(locale);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("sms.txt"), text).unwrap();
        };
        // Locale folders may use an underscore as well.
        let declared = "{# variables: amount #}";
        write(
            "en",
            &format!("{declared}{{{{ app }}}}: {{{{ code }}}} for {{{{ amount }}}}"),
        );
        write(
            "pt_BR",
            &format!("{declared}{{{{ code }}}} por {{{{ amount }}}}"),
        );
        let text = SmsText::load(Some(folder.path())).unwrap();
        assert_eq!(
            check_templates(&text, &sender(None)).unwrap(),
            BTreeMap::new()
        );
        let mut dispatch = sample(&sender(None)).unwrap();
        dispatch.locale = "pt-BR".parse().ok();
        assert!(text.render(&dispatch).is_err(), "this request brings none");
        dispatch.variables = text.templates.sample_variables(dispatch.locale.as_ref());
        assert_eq!(text.render(&dispatch).unwrap().0, "0123456789 por 1");
        write("en", "{{ code }} to {{ to }}");
        assert!(SmsText::load(Some(folder.path())).is_err());
    }

    #[test]
    fn variables_that_make_no_message_are_found_before_it_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("en")).unwrap();
        std::fs::write(
            folder.path().join("en/sms.txt"),
            "{# variables: a, b #}{{ code }} pays {{ a }} {{ b }}",
        )
        .unwrap();
        let text = SmsText::load(Some(folder.path())).unwrap();
        let check = |locale: &str, values: &[(&str, &str)]| {
            let values = values
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            let mut dispatch = sample(&sender(None)).unwrap();
            dispatch.locale = locale.parse().ok();
            dispatch.variables = Variables::new(values.collect()).unwrap();
            text.render(&dispatch)
        };
        assert!(check("en", &[("a", "1 EUR"), ("b", "x")]).is_ok());
        assert!(check("de", &[]).is_ok(), "its template uses none");
        let missing = check("en", &[("a", "1 EUR")]).unwrap_err();
        assert!(matches!(
            missing,
            TextError::Template(TemplateError::MissingVariable { variable, .. }) if variable == "b"
        ));
        let cyrillic = "ж".repeat(100);
        let long = check("en", &[("a", &cyrillic), ("b", &cyrillic)]).unwrap_err();
        assert!(
            matches!(long, TextError::TooLong { count: 4, .. }),
            "{long}"
        );
    }

    #[test]
    fn no_text_promises_ten_seconds_more_than_there_are() {
        let text = SmsText::load(None).unwrap();
        for locale in text.templates.locales() {
            for (seconds, said) in [
                (30, "30 "),
                (90, "90 "),
                (119, "119 "),
                (120, "2 "),
                (289, "4 "),
                (290, "5 "),
            ] {
                let remaining = Duration::from_millis(seconds * 1_000 + 900);
                let mut dispatch = Dispatch::sample(&sender(None), 6, remaining).unwrap();
                dispatch.locale = locale.parse().ok();
                let rendered = text.render(&dispatch).unwrap().0;
                assert!(rendered.contains(&format!(" {said}")), "{rendered}");
                assert_eq!(
                    rendered.contains("min") || rendered.contains("Min"),
                    seconds >= 120
                );
            }
        }
    }

    #[test]
    fn the_last_line_is_bound_to_the_host() {
        let text = SmsText::load(None).unwrap();
        for locale in text.templates.locales() {
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
