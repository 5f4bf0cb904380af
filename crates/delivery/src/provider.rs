//! The interface to a gateway or relay, which the workers implement: send one message and classify
//! the outcome.

use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use watchword_chassis::config::ConfigError;
use watchword_chassis::lifecycle::LONGEST_ATTEMPT;
use watchword_core::{
    AttemptClass, Channel, Code, DeliveryId, Locale, ProviderName, Recipient, Variables,
    is_separator,
};

/// A message to send, in clear. It lives for one attempt.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// The delivery id; the same for every attempt, so that a provider can recognize a repeat.
    pub delivery_id: DeliveryId,
    /// The recipient's number or address.
    pub recipient: Recipient,
    /// The code to send.
    pub code: Code,
    /// How the service presents itself in the message.
    pub sender: Sender,
    /// The requested language, if any.
    pub locale: Option<Locale>,
    /// The caller's template variables.
    pub variables: Variables,
    /// The remaining lifetime of the code, which the text and the provider's validity period use.
    pub remaining: Duration,
}

impl Dispatch {
    /// Returns a sample message of `sender` for rendering texts, with a placeholder recipient and a
    /// code of `digits` digits that lives for `remaining`. Returns `None` for more digits than a
    /// sample code has.
    pub fn sample(sender: &Sender, digits: usize, remaining: Duration) -> Option<Self> {
        let code = SAMPLE_CODES.get(..digits)?;
        Some(Self {
            delivery_id: format!("{}-1", "a".repeat(32)).parse().ok()?,
            recipient: Recipient::parse(Channel::Email, "person@example.org").ok()?,
            code: code.parse().ok()?,
            sender: sender.clone(),
            locale: None,
            variables: Variables::default(),
            remaining,
        })
    }

    /// Returns the sample with `variables` and with a code that no other value of the message
    /// contains. A code found in the rendered text is then the code itself and not, for example,
    /// part of an order number.
    #[must_use]
    pub fn bringing(mut self, variables: Variables) -> Self {
        let values = variables.as_map().values();
        let own = [Some(&self.sender.app), self.sender.host.as_ref()];
        let all = values.chain(own.into_iter().flatten());
        let all: Vec<String> = all
            .map(|value| value.chars().filter(|c| !is_separator(*c)).collect())
            .collect();
        let digits = self.code.expose().len();
        let free = (0..10)
            .filter_map(|start| SAMPLE_CODES.get(start..start + digits))
            .find(|code| !all.iter().any(|value| value.contains(code)));
        if let Some(Ok(code)) = free.map(str::parse) {
            self.code = code;
        }
        self.variables = variables;
        self
    }
}

/// Ten sample codes of up to ten digits, each starting one digit later.
const SAMPLE_CODES: &str = "0123456789012345678";

/// How a service presents itself to the recipients of its codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The name that users know: `Example Jira`.
    pub app: String,
    /// The host of the page that asks for the code. If set, an SMS ends with the line that binds
    /// the code to this domain (WICG draft "Origin-bound one-time codes").
    pub host: Option<String>,
}

/// The subject of the evidence that an attempt's outcome gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// None: the provider was not called.
    NotCalled,
    /// The recipient's country or mail domain, until other destinations have the same outcome.
    Destination,
    /// Our account, according to the answer to one message. Counts for that destination only, until
    /// a second destination has the same outcome with no acceptance in between.
    Account,
    /// The provider, for every recipient: the call failed before the peer knew the recipient, or
    /// the answer refuses our credentials.
    Provider,
}

/// The outcome of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempted {
    /// The outcome class, which decides the next step.
    pub class: AttemptClass,
    /// The subject that the outcome is evidence about.
    pub scope: Scope,
    /// The provider's id for the message.
    pub provider_message_id: Option<String>,
    /// The delay that the provider asks for before the next attempt.
    pub retry_after: Option<Duration>,
    /// A short reason for the log: a status code or an error word. Must not contain text that a
    /// peer sent.
    pub reason: String,
}

impl Attempted {
    /// Creates an outcome of `class`. Its scope is the provider for `config_fault`, and the
    /// destination for every other class.
    pub fn new(class: AttemptClass, reason: impl Into<String>) -> Self {
        let scope = match class {
            AttemptClass::ConfigFault => Scope::Provider,
            _ => Scope::Destination,
        };
        Self {
            class,
            scope,
            provider_message_id: None,
            retry_after: None,
            reason: reason.into(),
        }
    }

    /// Creates an outcome for an attempt that ended before the provider was called, for example
    /// because the request could not be built.
    pub fn not_called(class: AttemptClass, reason: impl Into<String>) -> Self {
        Self::new(class, reason).about(Scope::NotCalled)
    }

    /// Creates the outcome of an attempt whose text could not be rendered because of `error`. No
    /// provider was called, and none is at fault.
    pub fn without_text(error: &dyn Error) -> Self {
        Self::not_called(AttemptClass::TextFault, error.to_string())
    }

    /// Returns the outcome with its scope set to `scope`.
    #[must_use]
    pub const fn about(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }
}

/// A peer that presents a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsPeer {
    /// DNS name or IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether TLS starts with `STARTTLS` in an SMTP session.
    pub starttls: bool,
}

/// Validates `timeout_seconds` and returns it as a duration. The upper bound ensures that an
/// attempt in flight finishes while the process drains.
pub fn attempt_limit(seconds: u64) -> Result<Duration, ConfigError> {
    let limit = Duration::from_secs(seconds);
    if limit.is_zero() || limit > LONGEST_ATTEMPT {
        let most = LONGEST_ATTEMPT.as_secs();
        let rule = format!("must be 1 to {most}");
        return Err(ConfigError::new("timeout_seconds", rule));
    }
    Ok(limit)
}

/// A configured SMS gateway or SMTP relay.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Returns the name used in config, ledger and labels.
    fn name(&self) -> &ProviderName;

    /// Returns the longest time that an attempt takes, whatever the peer does. It bounds every wait
    /// inside.
    fn attempt_limit(&self) -> Duration;

    /// Returns whether the provider recognizes a repeat of the same delivery, so that an attempt of
    /// unknown outcome can be repeated without a second message.
    fn is_idempotent(&self) -> bool {
        false
    }

    /// Returns whether the provider's receipts identify a message by the provider's id alone, so
    /// that the id must be stored.
    fn wants_name(&self) -> bool {
        false
    }

    /// Connects and logs in as far as possible without sending anything, and returns what was
    /// verified. The caller bounds the call by [`Provider::attempt_limit`].
    async fn probe(&self) -> Result<&'static str, Attempted> {
        Ok("needs no connection")
    }

    /// Returns the hosts that present a certificate: those that take messages and those that issue
    /// tokens.
    fn tls_peers(&self) -> Vec<TlsPeer> {
        Vec::new()
    }

    /// Returns the request that would be made for this message, with secrets masked, for an
    /// operator who configures the provider. Sends nothing. `None` if the protocol has no request
    /// to show.
    async fn show(&self, _dispatch: &Dispatch) -> Option<String> {
        None
    }

    /// Sends one message as [`Provider::attempt`] does, and describes the response for an operator
    /// who configures the provider, with secrets, recipient and code masked. `None` if there is
    /// nothing to describe.
    async fn try_out(&self, dispatch: &Dispatch) -> (Attempted, Option<String>) {
        (self.attempt(dispatch).await, None)
    }

    /// Sends one message. May be called again for the same delivery. The method is cancel safe:
    /// dropping the future leaves no state that affects a later call.
    async fn attempt(&self, dispatch: &Dispatch) -> Attempted;
}
