//! Messages: the text of an SMS with its segments, the parts of a mail, the whole mail.

use watchword_core::Channel;
use watchword_email_worker::EmailText;
use watchword_sms_worker::SmsText;

use crate::operation::Operation;
use crate::samples::dispatch;

pub fn operations() -> anyhow::Result<Vec<Operation>> {
    let sms = {
        let (text, dispatch) = (SmsText::load(None)?, dispatch(Channel::Sms)?);
        move || text.render(&dispatch).ok()
    };
    let parts = {
        let (text, dispatch) = (EmailText::load(None)?, dispatch(Channel::Email)?);
        move || text.render(&dispatch).ok()
    };
    let mail = {
        let (text, dispatch) = (EmailText::load(None)?, dispatch(Channel::Email)?);
        let from = "Example <no-reply@mail.example.org>".parse()?;
        move || {
            let message = text.message(&dispatch, &from).ok()?;
            Some(message.formatted())
        }
    };
    Ok(vec![
        Operation::new("message: sms text", sms),
        Operation::new("message: email parts", parts),
        Operation::new("message: whole email", mail),
    ])
}
