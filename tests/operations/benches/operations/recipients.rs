//! Parsing of recipients, and the lookup of a number in the numbering plans.

use watchword_core::{Channel, PhoneNumber, Recipient};

use crate::operation::Operation;

pub fn operations() -> anyhow::Result<Vec<Operation>> {
    let number: PhoneNumber = "+4915112345678".parse()?;
    Ok(vec![
        parse("recipient: number, DE", Channel::Sms, "+4915112345678"),
        parse("recipient: number, US", Channel::Sms, "+12025550123"),
        Operation::new("recipient: kind of number", move || Some(number.kind())),
        parse(
            "recipient: mailbox",
            Channel::Email,
            "jane.doe+login@mail.example.org",
        ),
    ])
}

fn parse(name: &'static str, channel: Channel, text: &'static str) -> Operation {
    Operation::new(name, move || Recipient::parse(channel, text).ok())
}
