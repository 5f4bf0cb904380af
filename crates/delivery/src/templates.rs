//! Message texts: minijinja templates by locale, embedded ones first, files on top of them.
//! Values are data; a template is never made from one.

use std::collections::BTreeMap;
use std::path::Path;

use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use watchword_core::{Locale, Variables};

use crate::Dispatch;

/// Templates of one channel, compiled once.
pub struct Templates {
    environment: Environment<'static>,
}

/// An embedded template: its name is `<locale>/<file>`, as under `config/templates/`.
pub type Embedded = (&'static str, &'static str);

/// What every text gets.
const OWN: [&str; 4] = ["app", "code", "host", "minutes"];

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
        let templates = Self { environment };
        for file in files {
            if templates
                .environment
                .get_template(&format!("en/{file}"))
                .is_err()
            {
                return Err(TemplateError::Missing { file });
            }
        }
        Ok(templates)
    }

    /// The locales that have any template, sorted.
    pub fn locales(&self) -> Vec<String> {
        let mut locales: Vec<_> = self
            .environment
            .templates()
            .filter_map(|(name, _)| name.split_once('/').map(|(locale, _)| locale.to_owned()))
            .collect();
        locales.sort();
        locales.dedup();
        locales
    }

    /// Variables that the templates use and requests bring, each with a short value: what a text is
    /// tried with where there is no request.
    pub fn sample_variables(&self) -> Variables {
        let names = self
            .environment
            .templates()
            .flat_map(|(_, template)| template.undeclared_variables(false))
            .filter(|name| !OWN.contains(&name.as_str()));
        // What no request can bring stays unknown, and so an error.
        Variables::new(names.map(|name| (name, "x".to_owned())).collect()).unwrap_or_default()
    }

    /// The text of `file` for `dispatch`: in its locale, else in a shorter form of it, else in
    /// English. Trailing white space is cut.
    pub fn render(&self, file: &'static str, dispatch: &Dispatch) -> Result<String, TemplateError> {
        let english = Locale::english();
        let locale = dispatch.locale.as_ref().unwrap_or(&english);
        let template = locale
            .fallbacks()
            .chain(std::iter::once("en"))
            .find_map(|locale| {
                self.environment
                    .get_template(&format!("{locale}/{file}"))
                    .ok()
            })
            .ok_or(TemplateError::Missing { file })?;
        let minutes = dispatch.remaining.as_secs().div_ceil(60).max(1);
        let mut values: BTreeMap<&str, minijinja::Value> = dispatch
            .variables
            .as_map()
            .iter()
            .map(|(name, value)| (name.as_str(), minijinja::Value::from(value.as_str())))
            .collect();
        values.insert("app", dispatch.sender.app.as_str().into());
        values.insert("code", dispatch.code.expose().into());
        values.insert(
            "host",
            dispatch.sender.host.as_deref().unwrap_or_default().into(),
        );
        values.insert("minutes", minutes.into());
        template
            .render(values)
            .map(|text| text.trim_end().to_owned())
            // The error's own text may quote a value: only its kind is told.
            .map_err(|error| TemplateError::Invalid {
                name: template.name().to_owned(),
                message: format!("{:?}", error.kind()),
            })
    }
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
                sources.insert(name, text);
            }
        }
    }
    Ok(sources)
}
