//! Parsing of request fields into their types. An error names the field and never quotes its value.

use std::str::FromStr;

use watchword_chassis::{Problem, ProblemCode};
use watchword_core::{Channel, Malformed, Recipient};

/// Parses the field `name`.
pub(super) fn parsed<T>(name: &'static str, text: &str) -> Result<T, Problem>
where
    T: FromStr<Err = Malformed>,
{
    text.parse()
        .map_err(|error| Problem::field(ProblemCode::InvalidRequest, name, &error))
}

/// Parses a phone number or, if `text` contains an `@`, a mail address.
pub(super) fn recipient(text: &str) -> Result<Recipient, Problem> {
    let (channel, code) = if text.contains('@') {
        (Channel::Email, ProblemCode::InvalidEmail)
    } else {
        (Channel::Sms, ProblemCode::InvalidPhone)
    };
    Recipient::parse(channel, text).map_err(|error| Problem::field(code, "recipient", &error))
}

/// Returns the problem of a field `name` that breaks `rule`.
pub(super) fn invalid(name: &'static str, rule: &'static str) -> Problem {
    Problem::field(ProblemCode::InvalidRequest, name, &Malformed::new(rule))
}
