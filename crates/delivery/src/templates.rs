//! Message texts: minijinja templates by locale. The operator's files override the embedded
//! templates. Values are only data; they are never compiled as templates.

mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use minijinja::{AutoEscape, Environment, ErrorKind, Template, UndefinedBehavior};
use watchword_core::{Locale, Variables, is_separator};

use crate::{Dispatch, Sender};

/// The compiled templates of one channel.
pub struct Templates {
    environment: Environment<'static>,
    files: &'static [&'static str],
    /// The locales that have every file of the channel, with the variables that their files use.
    /// All parts of a message come from the same locale.
    locales: BTreeMap<String, BTreeSet<String>>,
}

/// An embedded template: its name, `<locale>/<file>` as under `config/templates/`, and its text.
pub type Embedded = (&'static str, &'static str);

/// The values that every template gets.
const OWN: [&str; 5] = ["app", "code", "host", "minutes", "seconds"];
/// The last fallback language.
const ENGLISH: &str = "en";
/// The remaining lifetimes of sample renderings, because texts treat seconds and minutes
/// differently.
const SAMPLE_LIVES: [Duration; 3] = [
    Duration::from_secs(600),
    Duration::from_secs(119),
    Duration::from_secs(45),
];
/// The number of digits in the code of sample renderings: the longest code.
const SAMPLE_DIGITS: usize = 10;

/// An error of loading or rendering templates. No message shows a value.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// A file or folder cannot be read.
    #[error("template {name} cannot be read")]
    Unreadable {
        /// `<locale>/<file>`, or the folder.
        name: String,
    },
    /// A template has a syntax error, or one of its expressions fails.
    #[error("template {name}, line {line}: {problem}")]
    Invalid {
        /// `<locale>/<file>`.
        name: String,
        /// Line number, from 1.
        line: usize,
        /// The fault, without any value.
        problem: String,
    },
    /// A template uses a name that neither Watchword nor the template's declaration defines.
    #[error(
        "template {name}, line {line}: `{variable}` is not defined; correct it to one of app, code, \
         host, minutes and seconds, or declare that requests bring it: {{# variables: {variable} #}}"
    )]
    Undefined {
        /// `<locale>/<file>`.
        name: String,
        /// Line number, from 1.
        line: usize,
        /// The undefined name.
        variable: String,
    },
    /// No template for English, which every other locale falls back to.
    #[error("template en/{file} is missing; English is required")]
    Missing {
        /// The file name without a locale.
        file: &'static str,
    },
    /// Two folder names mean the same locale.
    #[error("two template folders have the locale {locale}; keep one")]
    Twice {
        /// The locale in its normal form.
        locale: String,
    },
    /// A text does not show the code.
    #[error("template {name} does not show the code; show {{{{ code }}}} under every condition")]
    NoCode {
        /// `<locale>/<file>`.
        name: String,
    },
    /// A subject shows the code. Locked screens display subjects.
    #[error("template {name} shows the code; a subject must not, because locked screens show it")]
    CodeInSubject {
        /// `<locale>/<file>`.
        name: String,
    },
    /// The request has no value for a variable of the template.
    #[error("template {name} needs the variable {variable}")]
    MissingVariable {
        /// `<locale>/<file>`.
        name: String,
        /// Name of the missing variable.
        variable: String,
    },
}

impl Templates {
    /// Compiles `embedded`, overridden by the files of the same names under `folder`
    /// (`<folder>/<locale>/<file>`). `files` are the names that this channel uses; others in the
    /// folder are ignored.
    pub fn load(
        embedded: &[Embedded],
        files: &'static [&'static str],
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
            if is_kind(name, "html") {
                AutoEscape::Html
            } else {
                AutoEscape::None
            }
        });
        let mut used = BTreeMap::new();
        for (name, source) in sources {
            let (source, declared) = names::declared(&name, &source)?;
            environment
                .add_template_owned(name.clone(), source)
                .map_err(|error| TemplateError::Invalid {
                    name: name.clone(),
                    line: error.line().unwrap_or(1),
                    // Quotes at most the template: no values exist yet.
                    problem: format!("{}: {}", error.kind(), error.detail().unwrap_or_default()),
                })?;
            let variables = names::variables(&environment, &name, &declared)?;
            used.insert(name, variables);
        }
        let templates = Self {
            locales: complete(&used, files),
            environment,
            files,
        };
        for file in files {
            if templates.template(ENGLISH, file).is_none() {
                return Err(TemplateError::Missing { file });
            }
        }
        let sample = Sender {
            app: "App".to_owned(),
            host: Some("example.org".to_owned()),
        };
        templates.check_for(&sample)?;
        Ok(templates)
    }

    /// Renders the messages of every locale as `sender` sends them, with a sample of each variable.
    pub fn check_for(&self, sender: &Sender) -> Result<(), TemplateError> {
        for dispatch in self.samples(sender) {
            self.check(&dispatch)?;
        }
        Ok(())
    }

    /// Returns sample messages of `sender`: each locale with several remaining lifetimes.
    pub fn samples(&self, sender: &Sender) -> impl Iterator<Item = Dispatch> {
        self.locales.keys().flat_map(move |locale| {
            let locale: Option<Locale> = locale.parse().ok();
            let variables = self.sample_variables(locale.as_ref());
            SAMPLE_LIVES.into_iter().filter_map(move |remaining| {
                let mut dispatch = Dispatch::sample(sender, SAMPLE_DIGITS, remaining)?;
                dispatch.locale.clone_from(&locale);
                Some(dispatch.bringing(variables.clone()))
            })
        })
    }

    /// Renders every part of `dispatch`, whose code is a sample. Fails unless every part shows the
    /// code, except a subject, which must not show it.
    pub fn check(&self, dispatch: &Dispatch) -> Result<(), TemplateError> {
        for file in self.files {
            let text = self.render(file, dispatch)?;
            if is_subject(file) && shows(&text, dispatch.code.expose()) {
                let name = format!("{}/{file}", self.locale_for(dispatch.locale.as_ref()));
                return Err(TemplateError::CodeInSubject { name });
            }
        }
        Ok(())
    }

    /// Returns the locales that have every file of the channel, sorted.
    pub fn locales(&self) -> Vec<String> {
        self.locales.keys().cloned().collect()
    }

    /// Returns the files of the channel that `locale` lacks.
    pub fn missing_files(&self, locale: &str) -> Vec<&'static str> {
        let files = self.files.iter().copied();
        files
            .filter(|file| self.template(locale, file).is_none())
            .collect()
    }

    /// Returns a short value for each variable that the texts of `locale` use.
    pub fn sample_variables(&self, locale: Option<&Locale>) -> Variables {
        let used = self.locales.get(self.locale_for(locale));
        let samples = used.into_iter().flatten().take(Variables::MOST);
        // A digit, because a template may convert the value to a number.
        let samples = samples.map(|name| (name.clone(), "1".to_owned()));
        Variables::new(samples.collect()).unwrap_or_default()
    }

    /// Returns whether a message in `locale` depends on variables of the request.
    pub fn uses_variables(&self, locale: Option<&Locale>) -> bool {
        let variables = self.locales.get(self.locale_for(locale));
        variables.is_some_and(|variables| !variables.is_empty())
    }

    /// Returns the locale of a message: `wish`, else a shorter form of it, else English.
    pub fn locale_for<'a>(&self, wish: Option<&'a Locale>) -> &'a str {
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

    /// Renders `file` for `dispatch` in the message's locale, without trailing white space. Fails
    /// if the text does not show the code, which a condition in the template can omit.
    pub fn render(&self, file: &'static str, dispatch: &Dispatch) -> Result<String, TemplateError> {
        let locale = self.locale_for(dispatch.locale.as_ref());
        let template = self.template(locale, file);
        let template = template.ok_or(TemplateError::Missing { file })?;
        let text = render(&template, dispatch)?;
        if !is_subject(file) && !shows(&text, dispatch.code.expose()) {
            let name = template.name().to_owned();
            return Err(TemplateError::NoCode { name });
        }
        Ok(text)
    }
}

/// Returns the locales that have all of `files`, with the variables that they use. A locale that
/// lacks a file is left out, because a message would otherwise mix two languages.
fn complete(
    used: &BTreeMap<String, BTreeSet<String>>,
    files: &[&'static str],
) -> BTreeMap<String, BTreeSet<String>> {
    let names = used.keys().filter_map(|name| name.split_once('/'));
    let all: BTreeSet<_> = names.map(|(locale, _)| locale).collect();
    let of = |locale: &str| {
        let parts = files
            .iter()
            .map(|file| used.get(&format!("{locale}/{file}")));
        let parts: Vec<_> = parts.collect::<Option<_>>()?;
        Some(parts.into_iter().flatten().cloned().collect())
    };
    all.into_iter()
        .filter_map(|locale| Some((locale.to_owned(), of(locale)?)))
        .collect()
}

/// How many seconds short of a full minute still count as that minute, so that the text of a fresh
/// five-minute code says five. No reader can tell the difference.
const FULL_MINUTE_SECONDS: u64 = 10;

/// Renders `template`. Times are rounded down, except for [`FULL_MINUTE_SECONDS`], so that no text
/// promises more time than is left.
fn render(template: &Template<'_, '_>, dispatch: &Dispatch) -> Result<String, TemplateError> {
    let variables = dispatch.variables.as_map();
    let seconds = dispatch.remaining.as_secs();
    let mut context: BTreeMap<&str, minijinja::Value> = variables
        .iter()
        .map(|(name, value)| (name.as_str(), minijinja::Value::from(value.as_str())))
        .collect();
    let host = dispatch.sender.host.as_deref().unwrap_or_default();
    context.insert("app", dispatch.sender.app.as_str().into());
    context.insert("code", dispatch.code.expose().into());
    context.insert("host", host.into());
    context.insert("seconds", seconds.into());
    context.insert("minutes", ((seconds + FULL_MINUTE_SECONDS) / 60).into());
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
                None => TemplateError::Invalid {
                    name,
                    line: error.line().unwrap_or(1),
                    // The error's own text may quote a value, so only its kind is reported.
                    problem: error.kind().to_string(),
                },
            }
        })
}

/// Returns whether `code` is readable in `text`, even if it is printed in groups.
fn shows(text: &str, code: &str) -> bool {
    text.contains(code) || {
        let compact: String = text.chars().filter(|c| !is_separator(*c)).collect();
        compact.contains(code)
    }
}

fn is_subject(file: &str) -> bool {
    file.contains(".subject.")
}

fn is_kind(name: &str, extension: &str) -> bool {
    let kind = Path::new(name).extension();
    kind.is_some_and(|kind| kind == extension)
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
                // Some editors write a byte order mark, which would turn an SMS into UCS-2.
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
mod tests;
