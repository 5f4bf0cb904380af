//! Checks before a verification is opened that the texts of its request can be rendered. The
//! workers' crates own the texts; the binary passes them in behind [`MessageCheck`].

use watchword_chassis::ProblemCode;
use watchword_core::{Channel, Recipient, Service};
use watchword_verifier::OpenRequest;

use crate::IssueError;

/// Renders the texts that the workers would send.
pub trait MessageCheck: Send + Sync {
    /// Checks that the message of `service` by `channel` can be rendered with the values of
    /// `request`.
    fn check(
        &self,
        service: &Service,
        channel: Channel,
        request: &OpenRequest,
    ) -> Result<(), Unsendable>;
}

/// The reason why a message cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// The operator's template uses a variable that the request lacks.
    #[error("the {channel} template needs the variable {name}")]
    MissingVariable {
        /// The channel of the template.
        channel: Channel,
        /// The variable, as the template names it.
        name: String,
    },
    /// The values make the SMS too long.
    #[error("the variables make an SMS of more than two parts")]
    TooLong,
    /// The template fails for another reason, for example because its conditions omit the code.
    #[error("no {channel} message can be made with these variables: {problem}")]
    Template {
        /// The channel of the template.
        channel: Channel,
        /// The template and its problem, without any value.
        problem: String,
    },
}

/// Checks the messages of `request` and of its fallback steps, once per channel.
pub fn check(
    texts: &dyn MessageCheck,
    service: &Service,
    request: &OpenRequest,
) -> Result<(), IssueError> {
    let steps = request.fallback.iter().map(|step| &step.recipient);
    let recipients = std::iter::once(&request.recipient).chain(steps);
    let used: Vec<_> = recipients.map(Recipient::channel).collect();
    for channel in Channel::ALL {
        if used.contains(&channel) {
            let checked = texts.check(service, channel, request);
            checked.map_err(|error| IssueError::Invalid {
                code: ProblemCode::TemplateVariables,
                field: "variables",
                detail: error.to_string().into(),
            })?;
        }
    }
    Ok(())
}
