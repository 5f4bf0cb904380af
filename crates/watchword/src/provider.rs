//! `watchword provider test`: the request that a provider would send, or one real message and its
//! answer. Secrets are masked, and in answers the recipient and the code as well.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use watchword_chassis::{SystemClock, SystemEntropy};
use watchword_core::{AttemptClass, DeliveryId, SubjectTag};
use watchword_core::{Channel, Clock, Code, CodeLength, Recipient, Variables, VerificationId};
use watchword_delivery::{Dispatch, Inbox, Sender};
use watchword_email_worker::EmailText;
use watchword_sms_worker::SmsText;

use crate::channels;
use crate::needs::Needs;
use crate::run::checked;

/// Shows the request that provider `name` would send, or sends one message to `to`. `variables`
/// override the samples of the start.
pub async fn test(
    path: &Path,
    name: &str,
    to: Option<&str>,
    variables: Vec<(String, String)>,
) -> anyhow::Result<()> {
    let config = checked(path, Needs::PROVIDERS)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut found = None;
    for channel in Channel::ALL {
        let Ok(setup) = channels::build(&config, channel, &Inbox::default(), &clock) else {
            continue;
        };
        let provider = setup
            .router
            .providers()
            .iter()
            .find(|one| one.name().as_str() == name);
        if let Some(provider) = provider {
            found = Some((channel, provider.clone()));
        }
    }
    let (channel, provider) = found.context("no provider of this name is configured")?;
    let sample = match channel {
        Channel::Sms => "+12025550123",
        Channel::Email => "person@example.com",
    };
    let recipient = Recipient::parse(channel, to.unwrap_or(sample)).context("--to")?;
    let id = VerificationId::draw(SubjectTag::new([0; 10]), &SystemEntropy)?;
    let folder = config.templates.as_deref();
    let samples = match channel {
        Channel::Sms => SmsText::load(folder)?.sample_variables(None),
        Channel::Email => EmailText::load(folder)?.sample_variables(None),
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
        match provider.show(&dispatch).await {
            Some(request) => println!("{request}"),
            None => println!(
                "{name} has no request to show. Send a message with --to ADDRESS; if that ends as \
                 template, check the templates with 'watchword config check'."
            ),
        }
        return Ok(());
    }
    let (attempted, answer) = provider.try_out(&dispatch).await;
    if let Some(answer) = answer {
        println!("{answer}");
    }
    println!(
        "{} ({}){}",
        attempted.class,
        attempted.reason,
        attempted
            .provider_message_id
            .map_or_else(String::new, |id| format!(", id {id}")),
    );
    anyhow::ensure!(
        attempted.class == AttemptClass::Accepted,
        "the provider did not take it"
    );
    Ok(())
}
