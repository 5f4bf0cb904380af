//! Message texts: minijinja templates by locale, embedded ones first, files on top of them.
//! Values are data; a template is never made from one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use minijinja::{AutoEscape, Environment, ErrorKind, Template, UndefinedBehavior};
use watchword_core::{Locale, Variables, is_separator};

use crate::Dispatch;

/// Templates of one channel, compiled once.
pub struct Templates {
    environment: Environment<'static>,
    /// Locales that have every file of the channel, with the variables their files use. All parts
    /// of a message come from one locale.
    locales: BTreeMap<String, BTreeSet<String>>,
}

/// An embedded template: its name is `<locale>/<file>`, as under `config/templates/`.
pub type Embedded = (&'static str, &'static str);

/// Values that every text gets.
const OWN: [&str; 5] = ["app", "code", "host", "minutes", "seconds"];
/// The language that a message falls back to.
const ENGLISH: &str = "en";
/// The code of sample renderings.
const SAMPLE_CODE: &str = "0123456789";
/// Remaining lives of sample renderings: texts treat seconds and minutes differently.
const SAMPLE_LIVES: [Duration; 2] = [Duration::from_secs(600), Duration::from_secs(45)];

/// Why templates were refused at start, or a text could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// A file could not be read.
    #[error("template {name} cannot be read")]
    Unreadable {
        /// `<locale>/<file>`.
        name: String,
    },
    /// A template has an error; the message tells the line, not values.
    #[error("template {name} is wrong: {message}")]
    Invalid {
        /// `<locale>/<file>`.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// No locale, not even English, has the file.
    #[error("there is no template {file} for English")]
    Missing {
        /// The file's name.
        file: &'static str,
    },
    /// Two folders are of the same locale.
    #[error("two template folders are of the locale {locale}; keep one")]
    Twice {
        /// The locale.
        locale: String,
    },
    /// A text does not show the code.
    #[error("template {name} does not show the code; add {{{{ code }}}}")]
    NoCode {
        /// `<locale>/<file>`.
        name: String,
    },
    /// A subject shows the code, which locked screens display.
    #[error("template {name} shows the code; a subject must not, since locked screens show it")]
    CodeInSubject {
        /// `<locale>/<file>`.
        name: String,
    },
    /// The request brings no value for a variable of the template.
    #[error("template {name} needs the variable {variable}")]
    MissingVariable {
        /// `<locale>/<file>`.
        name: String,
        /// The variable.
        variable: String,
    },
}

/// The values of one text.
#[derive(Clone, Copy)]
struct Values<'a> {
    app: &'a str,
    code: &'a str,
    host: &'a str,
    remaining: Duration,
    variables: &'a Variables,
}

impl Templates {
    /// Compiles `embedded`, then whatever of the same names lies under `folder`
    /// (`<folder>/<locale>/<file>`), which takes precedence. `files` are the names this channel
    /// uses; others in the folder are left alone.
    pub fn load(
        embedded: &[Embedded],
        files: &[&'static str],
        folder: Option<&Path>,
    ) -> Result<Self, TemplateError> {
        let mut sources: BTreeMap<String, String> = embedded
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        if let Some(folder) = folder {
            sources.extend(read_folder(folder, files)?);
        }
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|name| {
            if Path::new(name)
                .extension()
                .is_some_and(|extension| extension == "html")
            {
                AutoEscape::Html
            } else {
                AutoEscape::None
            }
        });
        for (name, text) in sources {
            environment
                .add_template_owned(name.clone(), text)
                .map_err(|error| TemplateError::Invalid {
                    name,
                    message: error.to_string(),
                })?;
        }
        let mut templates = Self {
            locales: BTreeMap::new(),
            environment,
        };
        templates.locales = templates.complete(files);
        for file in files {
            if templates.template(ENGLISH, file).is_none() {
                return Err(TemplateError::Missing { file });
            }
        }
        templates.try_all(files)?;
        Ok(templates)
    }

    /// Returns the locales that have all of `files`, with the variables they use. The log names the
    /// others: mixed with another locale they would make a message of two languages.
    fn complete(&self, files: &[&'static str]) -> BTreeMap<String, BTreeSet<String>> {
        let mut locales = BTreeMap::new();
        let names = self.environment.templates().map(|(name, _)| name);
        let all: BTreeSet<_> = names
            .filter_map(|name| name.split_once('/'))
            .map(|(locale, _)| locale)
            .collect();
        for locale in all {
            let found: Vec<_> = files
                .iter()
                .filter_map(|file| self.template(locale, file))
                .collect();
            if found.len() < files.len() {
                tracing::warn!(
                    locale,
                    files = files.join(", "),
                    "a template folder lacks some of these files and is not used"
                );
                continue;
            }
            let used = found.iter().flat_map(|one| one.undeclared_variables(false));
            let used = used.filter(|name| !OWN.contains(&name.as_str())).collect();
            locales.insert(locale.to_owned(), used);
        }
        locales
    }

    /// Renders every text once: each shows the code, but for subjects, which do not.
    fn try_all(&self, files: &[&'static str]) -> Result<(), TemplateError> {
        for locale in self.locales.keys() {
            let variables = self.sample_variables(locale.parse().ok().as_ref());
            for template in files.iter().filter_map(|file| self.template(locale, file)) {
                for remaining in SAMPLE_LIVES {
                    let values = Values {
                        app: "App",
                        code: SAMPLE_CODE,
                        host: "example.org",
                        remaining,
                        variables: &variables,
                    };
                    let text = render(&template, values)?;
                    let name = template.name().to_owned();
                    let is_subject = name.contains(".subject.");
                    match (is_subject, shows_code(&text)) {
                        (true, true) => return Err(TemplateError::CodeInSubject { name }),
                        (false, false) => return Err(TemplateError::NoCode { name }),
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// The locales there are messages in, sorted.
    pub fn locales(&self) -> Vec<String> {
        self.locales.keys().cloned().collect()
    }

    /// Variables that the texts of `locale` use and requests can bring, each with a short value: a
    /// text is rendered with them where there is no request.
    pub fn sample_variables(&self, locale: Option<&Locale>) -> Variables {
        let used = self.locales.get(self.chosen(locale));
        let samples = used.into_iter().flatten();
        // A template may convert it to a number.
        let samples = samples.map(|name| (name.clone(), "1".to_owned()));
        // A variable that no request can bring stays undefined, and so an error.
        let can_come = samples.filter(|one| Variables::new([one.clone()].into()).is_ok());
        Variables::new(can_come.take(Variables::MOST).collect()).unwrap_or_default()
    }

    /// Whether a message in `locale` depends on what a request brings.
    pub fn uses_variables(&self, locale: Option<&Locale>) -> bool {
        let variables = self.locales.get(self.chosen(locale));
        variables.is_some_and(|variables| !variables.is_empty())
    }

    /// The locale of a message: `wish`, else a shorter form of it, else English.
    fn chosen<'a>(&self, wish: Option<&'a Locale>) -> &'a str {
        let mut wishes = wish.into_iter().flat_map(Locale::fallbacks);
        wishes
            .find(|locale| self.locales.contains_key(*locale))
            .unwrap_or(ENGLISH)
    }

    fn template(&self, locale: &str, file: &str) -> Option<Template<'_, '_>> {
        self.environment
            .get_template(&format!("{locale}/{file}"))
            .ok()
    }

    /// The text of `file` for `dispatch` in the locale of the message. Trailing white space is cut.
    pub fn render(&self, file: &'static str, dispatch: &Dispatch) -> Result<String, TemplateError> {
        let locale = self.chosen(dispatch.locale.as_ref());
        let template = self.template(locale, file);
        render(
            &template.ok_or(TemplateError::Missing { file })?,
            Values {
                app: &dispatch.sender.app,
                code: dispatch.code.expose(),
                host: dispatch.sender.host.as_deref().unwrap_or_default(),
                remaining: dispatch.remaining,
                variables: &dispatch.variables,
            },
        )
    }
}

/// Times are rounded down, so no text promises more time than there is.
fn render(template: &Template<'_, '_>, values: Values<'_>) -> Result<String, TemplateError> {
    let variables = values.variables.as_map();
    let seconds = values.remaining.as_secs();
    let mut context: BTreeMap<&str, minijinja::Value> = variables
        .iter()
        .map(|(name, value)| (name.as_str(), minijinja::Value::from(value.as_str())))
        .collect();
    context.insert("app", values.app.into());
    context.insert("code", values.code.into());
    context.insert("host", values.host.into());
    context.insert("seconds", seconds.into());
    context.insert("minutes", (seconds / 60).into());
    let rendered = template.render(context);
    rendered
        .map(|text| text.trim_end().to_owned())
        .map_err(|error| {
            let name = template.name().to_owned();
            let missing = template
                .undeclared_variables(false)
                .into_iter()
                .filter(|name| !OWN.contains(&name.as_str()) && !variables.contains_key(name))
                .min();
            match missing.filter(|_| error.kind() == ErrorKind::UndefinedError) {
                Some(variable) => TemplateError::MissingVariable { name, variable },
                // The error's own text may quote a value, so only its kind is reported.
                None => TemplateError::Invalid {
                    name,
                    message: format!("{:?}", error.kind()),
                },
            }
        })
}

/// Whether a person can read the sample code in `text`, in groups or not.
fn shows_code(text: &str) -> bool {
    let compact: String = text.chars().filter(|c| !is_separator(*c)).collect();
    compact.contains(SAMPLE_CODE)
}

fn read_folder(
    folder: &Path,
    files: &[&'static str],
) -> Result<BTreeMap<String, String>, TemplateError> {
    let unreadable = |name: String| move |_| TemplateError::Unreadable { name };
    let mut sources = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable(folder.display().to_string()))? {
        let entry = entry.map_err(unreadable(folder.display().to_string()))?;
        let Ok(locale) = entry.file_name().to_string_lossy().parse::<Locale>() else {
            continue;
        };
        if !entry.path().is_dir() {
            continue;
        }
        for file in files {
            let path = entry.path().join(file);
            if path.exists() {
                let name = format!("{locale}/{file}");
                let text = std::fs::read_to_string(path).map_err(unreadable(name.clone()))?;
                // Some editors put a byte order mark in front, which would make an SMS UCS-2.
                let text = text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned();
                if sources.insert(name, text).is_some() {
                    let locale = locale.to_string();
                    return Err(TemplateError::Twice { locale });
                }
            }
        }
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "mail.txt";
    const SUBJECT: &str = "mail.subject.txt";
    const EMBEDDED: [Embedded; 4] = [
        ("en/mail.txt", "code {{ code }}"),
        ("en/mail.subject.txt", "your code"),
        ("sv/mail.txt", "kod {{ code }}"),
        ("sv/mail.subject.txt", "din kod"),
    ];

    fn load(files: &[(&str, &str)]) -> Result<Templates, TemplateError> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Templates::load(&EMBEDDED, &[TEXT, SUBJECT], Some(folder.path()))
    }

    fn text(templates: &Templates, file: &str, locale: &str, remaining: u64) -> String {
        let locale = locale.parse().unwrap();
        let locale = templates.chosen(Some(&locale));
        let values = Values {
            app: "App",
            code: "012345",
            host: "",
            remaining: Duration::from_secs(remaining),
            variables: &Variables::default(),
        };
        render(&templates.template(locale, file).unwrap(), values).unwrap()
    }

    #[test]
    fn a_text_without_the_code_and_a_subject_with_it_are_refused_by_name() {
        for (files, message) in [
            (&[("en/mail.txt", "hello")][..], "en/mail.txt does not show"),
            (
                &[("sv/mail.txt", "{% if seconds > 60 %}{{ code }}{% endif %}")],
                "sv/mail.txt does",
            ),
            (
                &[("en/mail.subject.txt", "{{ code }}")],
                "en/mail.subject.txt shows",
            ),
            (
                &[("en/mail.txt", "{{ code }} {{ nobody.knows }}")],
                "en/mail.txt is wrong",
            ),
            (
                &[("no/mail.txt", "{{ code }}"), ("nb/mail.txt", "{{ code }}")],
                "locale nb",
            ),
        ] {
            let error = load(files).err().unwrap().to_string();
            assert!(error.contains(message), "{error}");
        }
        let grouped = load(&[("en/mail.txt", "{{ code[:3] }} {{ code[3:] }}")]).unwrap();
        assert_eq!(text(&grouped, TEXT, "en", 300), "012 345");
    }

    #[test]
    fn a_message_is_of_one_language() {
        let templates = load(&[
            ("da/mail.txt", "kode {{ code }}"),
            ("sv-FI/mail.txt", "finlandssvensk {{ code }}"),
            ("zh-TW/mail.txt", "{{ code }}"),
            ("zh-TW/mail.subject.txt", "TW"),
        ])
        .unwrap();
        assert_eq!(templates.locales(), ["en", "sv", "zh-hant-tw"]);
        for (locale, body, subject) in [
            ("da", "code 012345", "your code"),
            ("sv-FI", "kod 012345", "din kod"),
            ("zh-Hant-TW", "012345", "TW"),
            ("zh-CN", "code 012345", "your code"),
        ] {
            assert_eq!(text(&templates, TEXT, locale, 300), body, "{locale}");
            assert_eq!(text(&templates, SUBJECT, locale, 300), subject, "{locale}");
        }
    }

    #[test]
    fn times_are_rounded_down_and_a_byte_order_mark_is_cut() {
        let source = "\u{feff}{{ code }} {{ minutes }} {{ seconds }}";
        let templates = load(&[("en/mail.txt", source)]).unwrap();
        for (remaining, expected) in [
            (600, "012345 10 600"),
            (299, "012345 4 299"),
            (119, "012345 1 119"),
            (59, "012345 0 59"),
        ] {
            assert_eq!(text(&templates, TEXT, "en", remaining), expected);
        }
    }

    #[test]
    fn a_missing_variable_is_named() {
        let templates =
            load(&[("sv/mail.txt", "{{ code }} {{ amount }} till {{ payee }}")]).unwrap();
        assert!(templates.uses_variables("sv".parse().ok().as_ref()));
        assert!(!templates.uses_variables(None));
        let variables = [("amount".to_owned(), "1 EUR".to_owned())];
        let values = Values {
            app: "App",
            code: "012345",
            host: "",
            remaining: Duration::from_secs(300),
            variables: &Variables::new(variables.into()).unwrap(),
        };
        let error = render(&templates.template("sv", TEXT).unwrap(), values).unwrap_err();
        let is_named =
            matches!(error, TemplateError::MissingVariable { variable, .. } if variable == "payee");
        assert!(is_named);
    }
}
