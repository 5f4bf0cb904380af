//! Parses requests from HTTP or events. Every refusal names the field and the rule, and does not
//! quote the value.

use std::net::IpAddr;

use watchword_chassis::ProblemCode;
use watchword_core::{Channel, Locale, Malformed, Purpose, Recipient, Service, Subject, Variables};
use watchword_events::{ClientRequested, FallbackRequested, OtpRequested};
use watchword_verifier::{FallbackStep, OpenRequest};

use crate::IssueError;

/// Most fallback steps of a request.
const MOST_STEPS: usize = 3;
/// Seconds between a message and the next step: the default, and the minimum.
const DEFAULT_STEP_SECONDS: u64 = 30;
const SHORTEST_STEP_SECONDS: u64 = 5;
/// Maximum length of a client's `user_agent`, in bytes.
const LONGEST_USER_AGENT: usize = 1_024;

/// Parses `request` and checks its recipients against the numbers that the service allows.
pub fn parse(service: &Service, request: OtpRequested) -> Result<OpenRequest, IssueError> {
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
        // An unreadable language falls back to English; it does not fail the request.
        locale: request.locale.as_deref().and_then(Locale::from_wish),
        variables,
        fallback,
    })
}

/// Returns the address of `client`, if it has one.
pub fn client(client: Option<ClientRequested>) -> Result<Option<IpAddr>, IssueError> {
    const ADDRESS: Malformed =
        Malformed::new("client.ip is an IPv4 or IPv6 address without port and zone");
    const AGENT: Malformed =
        Malformed::new("client.user_agent is at most 1024 bytes without control characters");
    let Some(ClientRequested { ip, user_agent }) = client else {
        return Ok(None);
    };
    if let Some(agent) = user_agent
        && (agent.len() > LONGEST_USER_AGENT || agent.chars().any(char::is_control))
    {
        return Err(invalid("client")(AGENT));
    }
    let address = ip.map(|text| text.parse().map_err(|_| invalid("client")(ADDRESS)));
    address.transpose()
}

/// Parses the recipient in `field` and checks it against the numbers that the service allows.
fn recipient(
    service: &Service,
    channel: Channel,
    to: &str,
    field: &'static str,
) -> Result<Recipient, IssueError> {
    let recipient = Recipient::parse(channel, to).map_err(|error| {
        let code = match channel {
            Channel::Sms => ProblemCode::InvalidPhone,
            Channel::Email => ProblemCode::InvalidEmail,
        };
        IssueError::malformed(code, field, &error)
    })?;
    if let Recipient::Sms(number) = &recipient {
        let admitted = service.numbers.admit(number);
        admitted.map_err(|refusal| IssueError::number(field, &refusal))?;
    }
    Ok(recipient)
}

/// Parses the fallback steps. All of them must be due before the code expires.
fn fallback(
    service: &Service,
    steps: &[FallbackRequested],
) -> Result<Vec<FallbackStep>, IssueError> {
    let wrong = |rule| invalid("fallback")(Malformed::new(rule));
    if steps.len() > MOST_STEPS {
        return Err(wrong("at most 3 fallback steps are allowed"));
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

fn invalid(field: &'static str) -> impl FnOnce(Malformed) -> IssueError {
    move |error| IssueError::malformed(ProblemCode::InvalidRequest, field, &error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_of(error: IssueError) -> (ProblemCode, &'static str) {
        match error {
            IssueError::Invalid { code, field, .. } => (code, field),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_client_is_an_address_or_nothing() {
        let read = |ip: Option<&str>, agent: Option<&str>| {
            let asked = ClientRequested {
                ip: ip.map(str::to_owned),
                user_agent: agent.map(str::to_owned),
            };
            client(Some(asked)).map_err(field_of)
        };
        assert_eq!(client(None), Ok(None));
        assert_eq!(read(None, Some("Browser/1.0")), Ok(None));
        for text in ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"] {
            assert_eq!(read(Some(text), None), Ok(text.parse().ok()), "{text}");
        }
        let refused = Err((ProblemCode::InvalidRequest, "client"));
        for text in [
            "",
            "unknown",
            "192.0.2.1:80",
            "[::1]",
            "fe80::1%eth0",
            "1.2",
        ] {
            assert_eq!(read(Some(text), None), refused, "{text}");
        }
        assert_eq!(read(None, Some("a\r\nb")), refused);
        assert_eq!(read(None, Some(&"a".repeat(1_025))), refused);
    }
}
