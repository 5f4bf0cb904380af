//! Whether the texts of a request can be made, checked before anything is opened for it. The
//! workers own the texts; the process that has both passes them in.

use watchword_chassis::{Problem, ProblemCode, Service};
use watchword_core::{Channel, Recipient};
use watchword_verifier::OpenRequest;

/// Renders the texts that the workers would make.
pub trait MessageCheck: Send + Sync {
    /// Whether the message of `service` by `channel` can be made with the values of `request`.
    fn check(
        &self,
        service: &Service,
        channel: Channel,
        request: &OpenRequest,
    ) -> Result<(), Unsendable>;
}

/// Why no message can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// The template of the operator uses a variable that the request does not bring.
    #[error("the {channel} template needs the variable {name}")]
    MissingVariable {
        /// The channel of the template.
        channel: Channel,
        /// The variable, as the template names it.
        name: String,
    },
    /// Its values make an SMS too long.
    #[error("the variables make an SMS of more than two parts")]
    TooLong,
    /// The template fails otherwise, for example because its conditions omit the code.
    #[error("no {channel} message can be made with these variables: {problem}")]
    Template {
        /// The channel of the template.
        channel: Channel,
        /// The template and its problem, without any value.
        problem: String,
    },
}

/// Checks the message of `request` and those of its fallback steps, once for each channel.
pub fn check(
    texts: &dyn MessageCheck,
    service: &Service,
    request: &OpenRequest,
) -> Result<(), Problem> {
    let steps = request.fallback.iter().map(|step| &step.recipient);
    let recipients = std::iter::once(&request.recipient).chain(steps);
    let used: Vec<_> = recipients.map(Recipient::channel).collect();
    for channel in Channel::ALL {
        if used.contains(&channel) {
            let checked = texts.check(service, channel, request);
            checked.map_err(|error| Problem {
                field: Some("variables".into()),
                ..Problem::new(ProblemCode::TemplateVariables, error.to_string())
            })?;
        }
    }
    Ok(())
}
