//! The message texts of both channels. [`check`] validates them at `config check`, `doctor`, start
//! and reload; the issuer renders them for requests with variables.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use watchword_chassis::Services;
use watchword_chassis::config::ConfigError;
use watchword_core::{Channel, Locale, Service};
use watchword_delivery::{Dispatch, Sender, TemplateError, Templates};
use watchword_email_worker::EmailText;
use watchword_issuer::{MessageCheck, Unsendable};
use watchword_sms_worker::{SmsText, TextError, check_templates};
use watchword_verifier::OpenRequest;

use crate::config::{Config, Warning};
use crate::needs::Needs;

/// The longest lifetime that messages show in seconds; from two minutes on they show minutes.
const LONGEST_IN_SECONDS: Duration = Duration::from_secs(119);

/// The templates of both channels.
pub struct Texts {
    sms: SmsText,
    email: EmailText,
}

impl Texts {
    /// Loads the embedded templates, overridden by those in `folder`.
    pub fn load(folder: Option<&Path>) -> anyhow::Result<Self> {
        Ok(Self {
            sms: SmsText::load(folder)?,
            email: EmailText::load(folder)?,
        })
    }
}

impl MessageCheck for Texts {
    fn check(
        &self,
        service: &Service,
        channel: Channel,
        request: &OpenRequest,
    ) -> Result<(), Unsendable> {
        let templates = match channel {
            Channel::Sms => self.sms.templates(),
            Channel::Email => self.email.templates(),
        };
        if !templates.uses_variables(request.locale.as_ref()) {
            return Ok(());
        }
        let full = Duration::from_millis(service.policy.lifetime_ms);
        // A delayed message shows the remaining lifetime, in seconds if it is short, which may be
        // longer text or take another branch of the template.
        for lifetime in [full, full.min(LONGEST_IN_SECONDS)] {
            self.try_message(service, channel, request, lifetime)?;
        }
        Ok(())
    }
}

impl Texts {
    fn try_message(
        &self,
        service: &Service,
        channel: Channel,
        request: &OpenRequest,
        lifetime: Duration,
    ) -> Result<(), Unsendable> {
        let template = |problem: String| Unsendable::Template { channel, problem };
        let digits = usize::from(service.policy.code_length.digits());
        let dispatch = Dispatch::sample(&sender(service), digits, lifetime);
        let dispatch = dispatch.ok_or_else(|| template("the code is too long".to_owned()))?;
        let mut dispatch = dispatch.bringing(request.variables.clone());
        dispatch.locale.clone_from(&request.locale);
        let unsendable = |error| match error {
            TemplateError::MissingVariable { variable, .. } => Unsendable::MissingVariable {
                channel,
                name: variable,
            },
            error => template(error.to_string()),
        };
        match channel {
            Channel::Sms => match self.sms.render(&dispatch) {
                Ok(_) => Ok(()),
                Err(TextError::TooLong { .. }) => Err(Unsendable::TooLong),
                Err(TextError::Template(error)) => Err(unsendable(error)),
                Err(error @ TextError::Unencodable) => Err(template(error.to_string())),
            },
            Channel::Email => {
                let templates = self.email.templates();
                templates.check(&dispatch).map_err(unsendable)
            }
        }
    }
}

fn sender(service: &Service) -> Sender {
    Sender {
        app: service.app.clone(),
        host: service.host.clone(),
    }
}

/// Checks the texts that a process with these `needs` sends or renders, for each of `services`.
/// Returns warnings about SMS of several parts and about unused files.
pub fn check(
    config: &Config,
    services: &Services,
    needs: Needs,
) -> Result<Vec<Warning>, ConfigError> {
    let folder = config.templates.as_deref();
    let mut warnings = Vec::new();
    let mut used = Vec::new();
    if needs.texts(Channel::Sms) {
        let text = SmsText::load(folder).map_err(|error| refused(&error))?;
        for service in services.iter() {
            let costly = check_templates(&text, &sender(service));
            for (locale, (encoding, parts)) in costly.map_err(|error| of(service, &error))? {
                warnings.push(Warning::new(
                    format!("services.{}", service.name),
                    format!("an SMS in {locale} takes {parts} parts ({encoding:?})"),
                ));
            }
        }
        used.push((Channel::Sms, text.into_templates()));
    }
    if needs.texts(Channel::Email) {
        let text = EmailText::load(folder).map_err(|error| refused(&error))?;
        for service in services.iter() {
            let checked = text.templates().check_for(&sender(service));
            checked.map_err(|error| of(service, &error))?;
        }
        used.push((Channel::Email, text.into_templates()));
    }
    if let Some(folder) = folder {
        let is_configured = |channel| match channel {
            Channel::Sms => config.sms.is_some(),
            Channel::Email => config.email.is_some(),
        };
        used.retain(|(channel, _)| is_configured(*channel));
        let unused = unused(folder, &used).map_err(|_| {
            let unreadable = "cannot be read; its files must be readable for this process";
            ConfigError::new("templates", unreadable)
        })?;
        warnings.extend(
            unused
                .into_iter()
                .map(|text| Warning::new("templates", text)),
        );
    }
    Ok(warnings)
}

fn refused(error: &dyn std::error::Error) -> ConfigError {
    ConfigError::new("templates", error.to_string())
}

fn of(service: &Service, error: &dyn std::error::Error) -> ConfigError {
    let name = &service.name;
    ConfigError::new("templates", format!("for service {name}: {error}"))
}

/// Returns warnings about unused files of `folder`, and about locales in which a channel lacks
/// files and sends another language.
fn unused(folder: &Path, channels: &[(Channel, Templates)]) -> std::io::Result<Vec<String>> {
    let known = [SmsText::FILES.as_slice(), &EmailText::FILES].concat();
    let mut unused = Vec::new();
    let mut locales = BTreeSet::new();
    for (name, path) in entries(folder)? {
        let Some(locale) = name.parse::<Locale>().ok().filter(|_| path.is_dir()) else {
            unused.push(format!(
                "{name} is not used: it is not a locale folder such as de or pt-BR"
            ));
            continue;
        };
        for (file, _) in entries(&path)? {
            if !known.contains(&file.as_str()) {
                let known = known.join(", ");
                unused.push(format!("{name}/{file} is not used: the names are {known}"));
            }
        }
        locales.insert(locale.to_string());
    }
    for locale in &locales {
        for (channel, templates) in channels {
            let missing = templates.missing_files(locale);
            if !missing.is_empty() {
                let wish: Option<Locale> = locale.parse().ok();
                unused.push(format!(
                    "{channel} messages in {locale} are sent in {}: the folder {locale} lacks {}",
                    templates.locale_for(wish.as_ref()),
                    missing.join(", ")
                ));
            }
        }
    }
    Ok(unused)
}

/// Returns the sorted entries of `folder` except hidden ones, which Kubernetes and editors create.
fn entries(folder: &Path) -> std::io::Result<Vec<(String, std::path::PathBuf)>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            entries.push((name, entry.path()));
        }
    }
    entries.sort();
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use watchword_chassis::config::{GuessesConfig, LimitsConfig, PolicyConfig, ServiceConfig};
    use watchword_core::{Purpose, Recipient, Variables};

    use super::*;

    /// A delayed message may need a variable that a message sent at once does not.
    #[test]
    fn the_words_of_a_late_message_are_tried_too() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("en")).unwrap();
        let text = "{# variables: note #}{{ code }}{% if seconds < 120 %} {{ note }}{% endif %}";
        std::fs::write(folder.path().join("en/sms.txt"), text).unwrap();
        let texts = Texts::load(Some(folder.path())).unwrap();
        let section = ServiceConfig {
            app: "Example".to_owned(),
            host: None,
            api_keys: Vec::new(),
            broker_users: Vec::new(),
            countries: vec!["DE".to_owned()],
            unknown_prefixes: Vec::new(),
            fixed_line_prefixes: Vec::new(),
            links_in_variables: false,
            policy: PolicyConfig::default(),
            limits: LimitsConfig::default(),
            guesses: GuessesConfig::default(),
        };
        let sections = BTreeMap::from([("web".parse().unwrap(), section)]);
        let services = Services::from_config(&sections).unwrap();
        let service = services.iter().next().unwrap();
        let mut request = OpenRequest {
            recipient: Recipient::Sms("+4915112345678".parse().unwrap()),
            subject: None,
            purpose: Purpose::login(),
            locale: None,
            variables: Variables::default(),
            fallback: Vec::new(),
        };
        let missing = Unsendable::MissingVariable {
            channel: Channel::Sms,
            name: "note".to_owned(),
        };
        let checked = texts.check(service, Channel::Sms, &request);
        assert_eq!(checked, Err(missing));
        let note = BTreeMap::from([("note".to_owned(), "hurry".to_owned())]);
        request.variables = Variables::new(note).unwrap();
        assert_eq!(texts.check(service, Channel::Sms, &request), Ok(()));
    }
}
