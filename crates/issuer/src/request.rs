//! A request as it came, by HTTP or by event, turned into values. Every refusal names the field
//! and the rule, never the value.

use watchword_chassis::{Problem, ProblemCode, Service};
use watchword_core::{Channel, Locale, Malformed, Purpose, Recipient, Subject, Variables};
use watchword_events::OtpRequested;
use watchword_verifier::OpenRequest;

/// Parses `request` and holds its recipient against what the service sends to.
pub fn parse(service: &Service, request: OtpRequested) -> Result<OpenRequest, Problem> {
    let channel: Channel = request.channel.parse().map_err(invalid("channel"))?;
    let recipient = Recipient::parse(channel, &request.to).map_err(|error| {
        let code = match channel {
            Channel::Sms => ProblemCode::InvalidPhone,
            Channel::Email => ProblemCode::InvalidEmail,
        };
        Problem::field(code, "to", &error)
    })?;
    if let Recipient::Sms(number) = &recipient
        && let Some(reason) = service.numbers.refusal(number)
    {
        return Err(Problem {
            field: Some("to"),
            ..Problem::new(ProblemCode::DestinationBlocked, reason)
        });
    }
    let purpose = request
        .purpose
        .map_or_else(|| Ok(Purpose::login()), |text| text.parse());
    let subject: Option<Subject> = request
        .subject
        .map(|text| text.parse())
        .transpose()
        .map_err(invalid("subject"))?;
    let locale: Option<Locale> = request
        .locale
        .map(|text| text.parse())
        .transpose()
        .map_err(invalid("locale"))?;
    Ok(OpenRequest {
        recipient,
        subject,
        purpose: purpose.map_err(invalid("purpose"))?,
        locale,
        variables: Variables::new(request.variables).map_err(invalid("variables"))?,
    })
}

fn invalid(field: &'static str) -> impl FnOnce(Malformed) -> Problem {
    move |error| Problem::field(ProblemCode::InvalidRequest, field, &error)
}
