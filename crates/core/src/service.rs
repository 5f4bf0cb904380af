//! A service that requests codes, as configured.

use crate::{GuessBudget, NumberPolicy, Policy, SendLimits, ServiceName};

/// A configured service.
#[derive(Debug, Clone)]
pub struct Service {
    /// The name in the configuration, in metrics and in events.
    pub name: ServiceName,
    /// The application name that messages show, 1 to 40 characters.
    pub app: String,
    /// The host of the page on which people enter their codes.
    pub host: Option<String>,
    /// Length, lifetime and attempts of codes.
    pub policy: Policy,
    /// The send limits.
    pub limits: SendLimits,
    /// The limits on wrong codes of a subject.
    pub budget: GuessBudget,
    /// The numbers that may receive SMS.
    pub numbers: NumberPolicy,
    /// Whether template variables may contain links.
    pub links_in_variables: bool,
}
