//! The texts of both channels: checked at start and reload, and rendered by the issuer for each
//! request.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use watchword_chassis::{Service, Services};
use watchword_core::Channel;
use watchword_delivery::{Dispatch, Sender, TemplateError};
use watchword_email_worker::{EmailText, MessageError};
use watchword_issuer::{MessageCheck, Unsendable};
use watchword_sms_worker::{SmsText, TextError, check_templates};
use watchword_verifier::OpenRequest;

/// Below two minutes a message shows seconds.
const LONGEST_IN_SECONDS: Duration = Duration::from_secs(119);

/// The texts of both channels.
pub struct Texts {
    sms: SmsText,
    email: EmailText,
}

impl Texts {
    /// The embedded templates, with those under `folder` on top.
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
        let full = Duration::from_millis(service.policy.lifetime_ms);
        // A message that is sent late shows the rest of the lifetime, in other and longer words.
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
        let template = Unsendable::Template { channel };
        let digits = usize::from(service.policy.code_length.digits());
        let dispatch = Dispatch::sample(&sender(service), digits, lifetime);
        let mut dispatch = dispatch.ok_or_else(|| template.clone())?;
        dispatch.locale.clone_from(&request.locale);
        dispatch.variables.clone_from(&request.variables);
        let missing = |error| match error {
            TemplateError::MissingVariable { variable, .. } => Unsendable::MissingVariable {
                channel,
                name: variable,
            },
            _ => template.clone(),
        };
        match channel {
            Channel::Sms => self
                .sms
                .check_variables(&dispatch)
                .map_err(|error| match error {
                    TextError::TooLong { .. } => Unsendable::TooLong,
                    TextError::Template(error) => missing(error),
                }),
            Channel::Email => self
                .email
                .check_variables(&dispatch)
                .map_err(|error| match error {
                    MessageError::Template(error) => missing(error),
                    MessageError::Malformed => template.clone(),
                }),
        }
    }
}

fn sender(service: &Service) -> Sender {
    Sender {
        app: service.app.clone(),
        host: service.host.clone(),
    }
}

/// Loads the SMS texts and warns of those that take two parts, which cost twice. Longer ones are an error.
pub fn check_sms(folder: Option<&Path>, services: &Services) -> anyhow::Result<()> {
    let text = SmsText::load(folder)?;
    for service in services.iter() {
        let costly = check_templates(&text, &sender(service))
            .with_context(|| format!("the texts of service {}", service.name))?;
        for (locale, encoding, parts) in costly {
            tracing::warn!(service = %service.name, locale, ?encoding, parts, "an SMS takes more than one part");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use watchword_chassis::config::{GuessesConfig, LimitsConfig, PolicyConfig, ServiceConfig};
    use watchword_core::{Purpose, Recipient, Variables};

    use super::*;

    /// A message that is sent late has other words than one that is sent at once.
    #[test]
    fn the_words_of_a_late_message_are_tried_too() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("en")).unwrap();
        let text = "{{ code }}{% if seconds < 120 %} {{ note }}{% endif %}";
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
