//! Applies the send limits: selects the counters of a message, and returns an error that names
//! the limit that refuses it. [`crate::limits`] does the counting.

use std::net::IpAddr;
use std::sync::Arc;

use watchword_core::{Clock, DeliveryId, Recipient, SendLimits, Service, SubjectTag, Timestamp};
use watchword_events::ClientRequested;
use watchword_storage::StorageError;
use watchword_verifier::Index;

use crate::IssueError;
use crate::limits::{Counter, Limit, Permit, Quota, Reservation, SendLimiter};
use crate::request;
use crate::telemetry::IssuerMetrics;

/// Counts requests and messages against the limits of their service.
pub(crate) struct Guard {
    limiter: Arc<dyn SendLimiter>,
    quota: Quota,
    index: Index,
    clock: Arc<dyn Clock>,
    metrics: IssuerMetrics,
}

/// A message to count before it is sent.
pub(crate) struct Sending<'a> {
    pub(crate) recipient: &'a Recipient,
    pub(crate) delivery: &'a DeliveryId,
    pub(crate) names_subject: bool,
    pub(crate) waive_cooldown: bool,
    pub(crate) at: Timestamp,
}

impl Guard {
    pub(crate) fn new(
        limiter: Arc<dyn SendLimiter>,
        index: Index,
        clock: Arc<dyn Clock>,
        metrics: IssuerMetrics,
    ) -> Self {
        Self {
            quota: Quota::new(limiter.clone()),
            limiter,
            index,
            clock,
            metrics,
        }
    }

    /// Counts a request of the service.
    pub(crate) async fn admit(&self, service: &Service) -> Result<(), IssueError> {
        let now = self.clock.now();
        let admitted = self.limiter.admit(&service.name, service.limits, now);
        let permit = admitted.await.map_err(unavailable)?;
        self.permitted(service, permit, true)
    }

    /// Returns the tag of the client, if the request has its address.
    pub(crate) fn client(
        &self,
        service: &Service,
        client: Option<ClientRequested>,
    ) -> Result<Option<SubjectTag>, IssueError> {
        let address: Option<IpAddr> = request::client(client)?;
        let tag = |address| self.index.client_tag(&service.name, address);
        Ok(address.map(tag))
    }

    /// Counts a message against every limit, or against none if one refuses it. Repeating the call
    /// for the same message succeeds and does not count it again.
    pub(crate) async fn reserve(
        &self,
        service: &Service,
        sending: Sending<'_>,
        client: Option<SubjectTag>,
    ) -> Result<(), IssueError> {
        let (limits, names_subject) = (&service.limits, sending.names_subject);
        let counters = self.counters(service, &sending, client);
        let recipient = self.index.recipient_tag(&service.name, sending.recipient);
        let taken = self
            .quota
            .take(&counters, limits, names_subject, sending.at);
        let taken = taken.await.map_err(unavailable)?;
        if taken != Permit::Granted {
            // An earlier try may have counted this message and then failed to queue it.
            let reserved = self
                .limiter
                .is_reserved(recipient, sending.delivery, sending.at);
            if reserved.await.map_err(unavailable)? {
                return Ok(());
            }
            return self.permitted(service, taken, names_subject);
        }
        let reservation = Reservation {
            recipient,
            delivery: sending.delivery.clone(),
            names_subject,
            waive_cooldown: sending.waive_cooldown,
            limits: *limits,
            now: sending.at,
        };
        let reserved = self.limiter.reserve(reservation).await;
        if reserved != Ok(Permit::Granted) {
            self.quota.give_back(&counters, limits, sending.at);
        }
        let permit = reserved.map_err(unavailable)?;
        self.permitted(service, permit, names_subject)
    }

    /// Returns the counters that a message shares with others.
    fn counters(
        &self,
        service: &Service,
        sending: &Sending<'_>,
        client: Option<SubjectTag>,
    ) -> Vec<Counter> {
        let (name, index) = (&service.name, &self.index);
        let mut counters = Vec::with_capacity(5);
        counters.push(Counter::Service(name.clone()));
        counters.extend(client.map(Counter::Client));
        // Without a subject the recipient takes its place, and its own limits already count the
        // message.
        if sending.names_subject {
            let subject = sending.delivery.verification().subject_tag();
            counters.push(Counter::Subject(subject));
        }
        if let Recipient::Sms(number) = sending.recipient {
            let country = number.country().map(str::to_owned);
            counters.push(Counter::NumberBlock(index.number_block_tag(name, number)));
            counters.push(Counter::Country(name.clone(), country));
        }
        counters
    }

    fn permitted(
        &self,
        service: &Service,
        permit: Permit,
        names_subject: bool,
    ) -> Result<(), IssueError> {
        let Permit::Refused { until, limit } = permit else {
            return Ok(());
        };
        self.metrics.limited(limit);
        Err(IssueError::Limited {
            limit,
            detail: limit_detail(limit, &service.limits, names_subject),
            wait_seconds: until.millis_since(self.clock.now()).div_ceil(1_000),
        })
    }
}

/// Returns the explanation of a refusal by `limit`. It names the counted messages and the config
/// key.
fn limit_detail(limit: Limit, limits: &SendLimits, names_subject: bool) -> String {
    let counted = match limit {
        Limit::Cooldown => {
            let seconds = limits.cooldown_ms / 1_000;
            return format!("a message was sent to this recipient less than {seconds} s ago");
        }
        Limit::RecipientHour => "messages to this recipient within an hour",
        Limit::RecipientDay => "messages to this recipient within a day",
        Limit::Subject => "messages for this subject within an hour",
        Limit::NumberBlock => {
            "messages within an hour to numbers that differ in their last four digits only"
        }
        Limit::Client => "messages for this client within an hour",
        Limit::Country => "messages to this country within a day",
        Limit::ServiceDay => "messages of the service within a day",
        Limit::ServiceMinute => "requests of the service within a minute",
    };
    let is_shared = matches!(
        limit,
        Limit::RecipientHour | Limit::RecipientDay | Limit::NumberBlock | Limit::Country
    );
    let share = if is_shared && !names_subject {
        "; a quarter of it is kept for requests with a subject"
    } else {
        ""
    };
    let key = limit.as_str();
    format!("too many {counted} (limits.{key}{share})")
}

fn unavailable(_: StorageError) -> IssueError {
    IssueError::StoreUnavailable("the limits cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_names_its_limit() {
        let limits = SendLimits::default();
        let cooldown = limit_detail(Limit::Cooldown, &limits, true);
        let detail = "a message was sent to this recipient less than 30 s ago";
        assert_eq!(cooldown, detail);
        for limit in Limit::ALL.into_iter().filter(|one| *one != Limit::Cooldown) {
            let detail = limit_detail(limit, &limits, true);
            let key = format!("(limits.{})", limit.as_str());
            assert!(detail.ends_with(&key), "{detail}");
        }
        for limit in [Limit::RecipientDay, Limit::NumberBlock, Limit::Country] {
            let shared = limit_detail(limit, &limits, false);
            assert!(shared.contains("a quarter of it is kept"), "{limit:?}");
        }
    }
}
