//! The names of exchanges, queues and routing keys. The broker crate declares them.

use watchword_core::{Channel, Rung, ServiceName};

/// Topic exchange to which auth services publish [`crate::OtpRequested`]; see
/// [`request_routing_key`]. Topic permissions on it restrict each auth service to its own key.
pub const REQUESTS_EXCHANGE: &str = "watchword.requests";
/// Direct exchange for [`crate::OtpSend`]; its routing keys are the channels' names.
pub const SEND_EXCHANGE: &str = "watchword.send";
/// Direct exchange for messages from role to role: [`crate::ReceiptReceived`] and
/// [`crate::StepDue`].
pub const WORK_EXCHANGE: &str = "watchword.work";
/// Topic exchange for outcome events; see [`event_routing_key`].
pub const EVENTS_EXCHANGE: &str = "watchword.events";

/// A queue kind: a queue that a role consumes, with its late, wait and dead-letter queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Requests from auth services, consumed by the issuer.
    Requests,
    /// Send orders of one channel, consumed by its workers.
    Send(Channel),
    /// Receipts from providers, consumed by the workers.
    Receipts,
    /// Fallback steps that become due, consumed by the issuer.
    Timers,
}

impl Lane {
    /// All queue kinds.
    pub const ALL: [Self; 5] = [
        Self::Requests,
        Self::Send(Channel::Sms),
        Self::Send(Channel::Email),
        Self::Receipts,
        Self::Timers,
    ];

    /// Returns the index in [`Lane::ALL`].
    pub const fn place(self) -> usize {
        match self {
            Self::Requests => 0,
            Self::Send(Channel::Sms) => 1,
            Self::Send(Channel::Email) => 2,
            Self::Receipts => 3,
            Self::Timers => 4,
        }
    }

    /// Returns the metric label and routing key: `requests`, `sms`, `email`, `receipts` or
    /// `timers`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Send(channel) => channel.as_str(),
            Self::Receipts => "receipts",
            Self::Timers => "timers",
        }
    }

    /// Parses a name that [`Self::as_str`] returns.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.as_str() == word)
    }

    /// Returns the exchange that feeds the queue.
    pub const fn exchange(self) -> &'static str {
        match self {
            Self::Requests => REQUESTS_EXCHANGE,
            Self::Send(_) => SEND_EXCHANGE,
            Self::Receipts | Self::Timers => WORK_EXCHANGE,
        }
    }

    /// Returns the name of the main queue: `watchword.sms`.
    pub fn queue(self) -> String {
        format!("watchword.{}", self.as_str())
    }

    /// Whether a message may be published again into a wait queue or a dead-letter queue.
    ///
    /// Requests hold a recipient in clear. The broker keeps them only in queues with a time-to-live
    /// of minutes, and their consumer receives all of them, including those that reached their
    /// delivery limit ([`Self::late`]).
    pub const fn is_republished(self) -> bool {
        !matches!(self, Self::Requests)
    }

    /// Returns the name of the wait queue of `rung`: `watchword.sms.retry.5s`.
    pub fn retry_queue(self, rung: Rung) -> String {
        format!("watchword.{}.retry.{}", self.as_str(), rung.name)
    }

    /// Returns the short name of the queue for expired messages, such as `sms.late`. The broker
    /// moves expired orders and requests there, so that they delay no fresh message. Returns `None`
    /// if messages of this kind do not expire.
    pub const fn late(self) -> Option<&'static str> {
        match self {
            Self::Requests => Some("requests.late"),
            Self::Send(Channel::Sms) => Some("sms.late"),
            Self::Send(Channel::Email) => Some("email.late"),
            Self::Receipts | Self::Timers => None,
        }
    }

    /// Returns the full name of the [`Self::late`] queue: `watchword.sms.late`.
    pub fn late_queue(self) -> Option<String> {
        self.late().map(|late| format!("watchword.{late}"))
    }

    /// Returns the name of the dead-letter queue: `watchword.sms.parked`.
    pub fn parked_queue(self) -> String {
        format!("watchword.{}.parked", self.as_str())
    }
}

/// Returns the routing key under which an auth service publishes the requests of `service` to
/// [`REQUESTS_EXCHANGE`]: `requests.jira`. The key `requests` leads to the queue that all services
/// share.
pub fn request_routing_key(service: &ServiceName) -> String {
    format!("{}.{service}", Lane::Requests.as_str())
}

/// Returns the queue of [`request_routing_key`]: `watchword.requests.service.jira`. The part
/// `service` keeps a service called `late` or `parked` apart from the queues with those names.
pub fn request_queue(service: &ServiceName) -> String {
    format!("{}.service.{service}", Lane::Requests.queue())
}

/// Returns the routing key of an event about `noun` (`delivery`, `verification`) of `service`:
/// `delivery.updated.jira`. A service that binds `*.updated.jira` gets only its own events.
pub fn event_routing_key(noun: &str, service: &ServiceName) -> String {
    format!("{noun}.updated.{service}")
}

#[cfg(test)]
mod tests {
    use watchword_core::Ladder;

    use super::*;

    #[test]
    fn names_are_those_of_the_contract() {
        for (place, lane) in Lane::ALL.into_iter().enumerate() {
            assert_eq!(lane.place(), place);
        }
        let lane = Lane::Send(Channel::Sms);
        assert_eq!(lane.queue(), "watchword.sms");
        assert_eq!(
            lane.retry_queue(Ladder::STANDARD.rungs()[1]),
            "watchword.sms.retry.5s"
        );
        assert_eq!(lane.parked_queue(), "watchword.sms.parked");
        assert_eq!(lane.late_queue().as_deref(), Some("watchword.sms.late"));
        for channel in Channel::ALL {
            let lane = Lane::Send(channel);
            assert_eq!(
                lane.late(),
                Some(format!("{}.late", lane.as_str()).as_str())
            );
        }
        assert_eq!(Lane::Requests.queue(), "watchword.requests");
        let service = "jira".parse().unwrap();
        assert_eq!(request_routing_key(&service), "requests.jira");
        assert_eq!(request_queue(&service), "watchword.requests.service.jira");
        assert_eq!(
            event_routing_key("delivery", &"jira".parse().unwrap()),
            "delivery.updated.jira"
        );
    }
}
