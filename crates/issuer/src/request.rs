//! A request as it came, by HTTP or by event, turned into values. Every refusal names the field
//! and the rule, never the value.

use watchword_chassis::{Problem, ProblemCode, Service};
use watchword_core::{Channel, Locale, Malformed, Purpose, Recipient, Subject, Variables};
use watchword_events::{FallbackRequested, OtpRequested};
use watchword_verifier::{FallbackStep, OpenRequest};

/// Steps a request may name.
const MOST_STEPS: usize = 3;
/// Between two messages, unless the request says otherwise and at least.
const DEFAULT_STEP_SECONDS: u64 = 30;
const SHORTEST_STEP_SECONDS: u64 = 5;

/// Parses `request` and holds its recipient against what the service sends to.
pub fn parse(service: &Service, request: OtpRequested) -> Result<OpenRequest, Problem> {
    let channel: Channel = request.channel.parse().map_err(invalid("channel"))?;
    let recipient = recipient(service, channel, &request.to, "to")?;
    let fallback = fallback(service, &request.fallback)?;
    let purpose = request
        .purpose
        .map_or_else(|| Ok(Purpose::login()), |text| text.parse());
    let subject: Option<Subject> = request
        .subject
        .map(|text| text.parse())
        .transpose()
        .map_err(invalid("subject"))?;
    let variables = Variables::new(request.variables).map_err(invalid("variables"))?;
    if !service.links_in_variables && variables.with_link().is_some() {
        let rule = "no value may carry a link, unless the service sets links_in_variables";
        return Err(invalid("variables")(Malformed::new(rule)));
    }
    Ok(OpenRequest {
        recipient,
        subject,
        purpose: purpose.map_err(invalid("purpose"))?,
        // A language is a wish: what cannot be read is English.
        locale: request.locale.as_deref().and_then(Locale::from_wish),
        variables,
        fallback,
    })
}

/// The recipient in `field`, held against what the service sends to.
fn recipient(
    service: &Service,
    channel: Channel,
    to: &str,
    field: &'static str,
) -> Result<Recipient, Problem> {
    let recipient = Recipient::parse(channel, to).map_err(|error| {
        let code = match channel {
            Channel::Sms => ProblemCode::InvalidPhone,
            Channel::Email => ProblemCode::InvalidEmail,
        };
        Problem::field(code, field, &error)
    })?;
    if let Recipient::Sms(number) = &recipient {
        service.numbers.admit(number).map_err(|problem| Problem {
            field: Some(field),
            ..problem
        })?;
    }
    Ok(recipient)
}

/// The steps; all of them must come while the code still lives.
fn fallback(service: &Service, steps: &[FallbackRequested]) -> Result<Vec<FallbackStep>, Problem> {
    let wrong = |rule| {
        Problem::field(
            ProblemCode::InvalidRequest,
            "fallback",
            &Malformed::new(rule),
        )
    };
    if steps.len() > MOST_STEPS {
        return Err(wrong("at most 3 fallback steps are taken"));
    }
    let mut sum_ms = 0_u64;
    let mut parsed = Vec::new();
    for step in steps {
        let channel: Channel = step.channel.parse().map_err(invalid("fallback"))?;
        let seconds = step.after_seconds.unwrap_or(DEFAULT_STEP_SECONDS);
        if !(SHORTEST_STEP_SECONDS..=600).contains(&seconds) {
            return Err(wrong("after_seconds is 5 to 600"));
        }
        sum_ms += seconds * 1_000;
        if sum_ms >= service.policy.lifetime_ms {
            return Err(wrong("the steps together take longer than the code lives"));
        }
        parsed.push(FallbackStep {
            recipient: recipient(service, channel, &step.to, "fallback")?,
            after_ms: seconds * 1_000,
        });
    }
    Ok(parsed)
}

fn invalid(field: &'static str) -> impl FnOnce(Malformed) -> Problem {
    move |error| Problem::field(ProblemCode::InvalidRequest, field, &error)
}
