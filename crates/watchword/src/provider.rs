//! `watchword provider test`: shows the request that a provider would make, or sends a message and
//! shows the answer. Secrets are masked; in answers, recipient and code are masked too.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use watchword_chassis::{SystemClock, SystemEntropy};
use watchword_core::{AttemptClass, DeliveryId, SubjectTag};
use watchword_core::{Channel, Clock, Code, CodeLength, Recipient, Variables, VerificationId};
use watchword_delivery::{Dispatch, Inbox, Provider, Sender};
use watchword_dial::TlsFault;
use watchword_email_worker::EmailText;
use watchword_sms_worker::SmsText;

use crate::cli::ProviderTestArguments;
use crate::config::Config;
use crate::failure::Failure;
use crate::needs::Needs;
use crate::validation::checked;
use crate::{channels, output};

/// Shows the request that a provider would make, or sends a message if `--to` is given. The
/// variables of `arguments` override the sample values.
pub async fn test(path: &Path, arguments: ProviderTestArguments) -> anyhow::Result<()> {
    let ProviderTestArguments {
        name,
        to,
        variables,
        json: as_json,
    } = arguments;
    let config = checked(path, Needs::PROVIDERS)?;
    let (channel, provider) = find(&config, &name, to.as_deref()).map_err(|known| {
        anyhow::anyhow!(
            "{} has no provider of that name. It has: {known}.",
            path.display()
        )
    })?;
    let sample = match channel {
        Channel::Sms => "+12025550123",
        Channel::Email => "person@example.com",
    };
    let recipient = Recipient::parse(channel, to.as_deref().unwrap_or(sample))
        .map_err(|error| Failure::usage(format!("--to: {error}")))?;
    let id = VerificationId::draw(SubjectTag::new([0; 10]), &SystemEntropy)?;
    let folder = config.templates.as_deref();
    let samples = match channel {
        Channel::Sms => SmsText::load(folder)?.templates().sample_variables(None),
        Channel::Email => EmailText::load(folder)?.templates().sample_variables(None),
    };
    let mut all = samples.as_map().clone();
    all.extend(variables);
    let variables = Variables::new(all).context("--variable")?;
    let service = config.services.iter().next();
    let dispatch = Dispatch {
        delivery_id: DeliveryId::new(id, 1),
        recipient,
        code: Code::draw(CodeLength::default(), &SystemEntropy)?,
        sender: Sender {
            app: service.map_or_else(
                || "Watchword".to_owned(),
                |(_, service)| service.app.clone(),
            ),
            host: service.and_then(|(_, service)| service.host.clone()),
        },
        locale: None,
        variables,
        remaining: Duration::from_secs(300),
    };
    if to.is_none() {
        let request = provider.show(&dispatch).await;
        if as_json {
            return output::json(
                &json!({ "provider": name, "channel": channel.as_str(), "request": request }),
            );
        }
        match request {
            Some(request) => println!("{request}"),
            None => println!(
                "{name} has no request to show. Send a message with --to ADDRESS; if that ends as \
                 text_fault, check the templates with 'watchword config check'."
            ),
        }
        return Ok(());
    }
    let (attempted, answer) = provider.try_out(&dispatch).await;
    if as_json {
        output::json(&json!({
            "provider": name, "channel": channel.as_str(), "class": attempted.class.as_str(),
            "reason": attempted.reason, "id": attempted.provider_message_id, "answer": answer,
        }))?;
    } else {
        if let Some(answer) = answer {
            println!("{answer}");
        }
        let id = &attempted.provider_message_id;
        let id = id
            .as_ref()
            .map_or_else(String::new, |id| format!(", id {id}"));
        println!("{} ({}){id}", attempted.class, attempted.reason);
        if let Some(fault) = TlsFault::in_reason(&attempted.reason) {
            println!("TLS failed: {}", fault.advice());
        }
    }
    anyhow::ensure!(
        attempted.class == AttemptClass::Accepted,
        "{name} did not accept the message: {} ({}).",
        attempted.class,
        attempted.reason
    );
    Ok(())
}

/// Finds the provider `name`; the error lists the configured providers. If both channels have a
/// provider of that name, `to` decides which to use, and without `to` the SMS provider is used.
fn find(
    config: &Config,
    name: &str,
    to: Option<&str>,
) -> Result<(Channel, Arc<dyn Provider>), String> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let wanted = match to {
        Some(to) if to.contains('@') => Channel::Email,
        _ => Channel::Sms,
    };
    let (mut found, mut known) = (None, Vec::new());
    for channel in Channel::ALL {
        let Ok(setup) = channels::build(config, channel, &Inbox::default(), &clock) else {
            continue;
        };
        for provider in setup.router.providers() {
            known.push(format!("{} ({channel})", provider.name()));
            let is_it = provider.name().as_str() == name;
            if is_it && (found.is_none() || channel == wanted) {
                found = Some((channel, provider.clone()));
            }
        }
    }
    found.ok_or_else(|| known.join(", "))
}
