//! The names of every broker object. Refuses to declare them: that is the broker crate's work.

use watchword_core::{Channel, Rung, ServiceName};

/// Direct exchange to which auth services publish [`crate::OtpRequested`].
pub const REQUESTS_EXCHANGE: &str = "watchword.requests";
/// Direct exchange for [`crate::OtpSend`]; its routing keys are the channels' names.
pub const SEND_EXCHANGE: &str = "watchword.send";
/// Direct exchange for what the pipeline tells itself: [`crate::ReceiptReceived`] and
/// [`crate::StepDue`].
pub const WORK_EXCHANGE: &str = "watchword.work";
/// Topic exchange for what happened; see [`event_routing_key`].
pub const EVENTS_EXCHANGE: &str = "watchword.events";

/// A queue that a role reads, with the queues that belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Requests of auth services, read by the issuer.
    Requests,
    /// Orders for the workers of one channel.
    Send(Channel),
    /// What providers said later, read by the workers.
    Receipts,
    /// Steps of workflows that become due, read by the issuer.
    Timers,
}

impl Lane {
    /// Every lane.
    pub const ALL: [Self; 5] = [
        Self::Requests,
        Self::Send(Channel::Sms),
        Self::Send(Channel::Email),
        Self::Receipts,
        Self::Timers,
    ];

    /// Its place in [`Lane::ALL`].
    pub const fn place(self) -> usize {
        match self {
            Self::Requests => 0,
            Self::Send(Channel::Sms) => 1,
            Self::Send(Channel::Email) => 2,
            Self::Receipts => 3,
            Self::Timers => 4,
        }
    }

    /// `requests`, `sms`, `email`, `receipts` or `timers`: the lane's label and routing key.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Send(channel) => channel.as_str(),
            Self::Receipts => "receipts",
            Self::Timers => "timers",
        }
    }

    /// The lane of that name.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.as_str() == word)
    }

    /// The exchange that feeds it.
    pub const fn exchange(self) -> &'static str {
        match self {
            Self::Requests => REQUESTS_EXCHANGE,
            Self::Send(_) => SEND_EXCHANGE,
            Self::Receipts | Self::Timers => WORK_EXCHANGE,
        }
    }

    /// The queue that is read: `watchword.sms`.
    pub fn queue(self) -> String {
        format!("watchword.{}", self.as_str())
    }

    /// The wait queue of `rung`: `watchword.sms.retry.5s`.
    pub fn retry_queue(self, rung: Rung) -> String {
        format!("watchword.{}.retry.{}", self.as_str(), rung.name)
    }

    /// Orders have a deadline; the broker puts what lay past it here, so that it holds up nothing
    /// behind it: `sms.late`. `None` where nothing expires.
    pub const fn late(self) -> Option<&'static str> {
        match self {
            Self::Send(Channel::Sms) => Some("sms.late"),
            Self::Send(Channel::Email) => Some("email.late"),
            Self::Requests | Self::Receipts | Self::Timers => None,
        }
    }

    /// The queue of [`Self::late`]: `watchword.sms.late`.
    pub fn late_queue(self) -> Option<String> {
        self.late().map(|late| format!("watchword.{late}"))
    }

    /// The queue of what cannot be processed: `watchword.sms.parked`.
    pub fn parked_queue(self) -> String {
        format!("watchword.{}.parked", self.as_str())
    }
}

/// The routing key of an event about `noun` (`delivery`, `verification`) of `service`:
/// `delivery.updated.jira`. A service that binds `*.updated.jira` gets its own events.
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
        assert_eq!(
            event_routing_key("delivery", &"jira".parse().unwrap()),
            "delivery.updated.jira"
        );
    }
}
