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
        let template = Unsendable::Template { channel };
        let digits = usize::from(service.policy.code_length.digits());
        let lifetime = Duration::from_millis(service.policy.lifetime_ms);
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
