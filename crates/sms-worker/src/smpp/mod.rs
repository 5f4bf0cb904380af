//! SMPP 3.4 provider: one shared transceiver bind, a window of unanswered messages, and the outcome
//! classes of `command_status` values. The codec is `rusmpp`'s; its client is not used because it
//! adds a DNS resolver and second major versions. SMPP is clear text, so hosts beyond loopback need
//! `allow_cleartext`; use a tunnel on loopback instead.

mod alphabet;
mod config;
mod deliver;
mod frame;
mod link;
pub mod receipt;
mod status;

use std::str::FromStr;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rusmpp::pdus::SubmitSm;
use rusmpp::tlvs::MessageSubmissionRequestTlvValue;
use rusmpp::types::{AnyOctetString, COctetString, EmptyOrFullCOctetString, OctetString};
use rusmpp::values::{DataCoding, MessagePayload, Npi, RegisteredDelivery, Ton};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use watchword_chassis::config::ConfigError;
use watchword_core::{AttemptClass, ProviderName};
use watchword_delivery::{Attempted, Dispatch, Provider, Scope};
use watchword_events::ReceiptReceived;

pub use config::SmppConfig;

use crate::config::{Secrets, Senders};
use crate::receipt::{HeardReceipt, Unread};
use crate::segments::Encoding;
use crate::text::{SmsText, TextError};
use link::{Account, Answer, Job, Unbound, bind};
use receipt::MessageIds;
use status::{INVALID_BIND, INVALID_COMMAND, Statuses, THROTTLED};

/// How long all messages wait after the peer throttled one.
const THROTTLE_REST: Duration = Duration::from_secs(1);
/// Octets that fit into `short_message`; longer texts go into `message_payload`.
const SHORT_OCTETS: usize = 140;
const RECEIPTS: usize = 1_024;

/// SMPP provider.
pub(crate) struct SmppProvider {
    name: ProviderName,
    senders: Senders,
    limit: Duration,
    text: SmsText,
    account: Account,
    window: Semaphore,
    link: Mutex<Option<mpsc::Sender<Job>>>,
    resting_until: Mutex<Option<Instant>>,
    told: mpsc::Sender<Result<receipt::Told, Unread>>,
    message_ids: MessageIds,
    statuses: Statuses,
}

impl SmppProvider {
    pub(crate) fn new(
        name: ProviderName,
        senders: Senders,
        limit: Duration,
        config: &SmppConfig,
        secrets: &Secrets,
        text: SmsText,
        receipts: mpsc::Sender<HeardReceipt>,
    ) -> Result<Self, ConfigError> {
        let password = secrets.get("password", "secrets.password")?;
        config.check(&password)?;
        let statuses = Statuses::compile(&config.statuses)?;
        let (told, mut heard) = mpsc::channel::<Result<receipt::Told, Unread>>(RECEIPTS);
        let provider = name.clone();
        let forward = async move {
            while let Some(told) = heard.recv().await {
                let receipt = HeardReceipt {
                    provider: provider.clone(),
                    receipt: told.map(|told| ReceiptReceived {
                        provider: provider.clone(),
                        delivery_id: None,
                        message_id: Some(told.message_id),
                        state: told.state,
                        error: told.error,
                    }),
                };
                if receipts.send(receipt).await.is_err() {
                    return;
                }
            }
        };
        // The task ends with the provider, which holds the sender. A configuration that is only
        // checked has no runtime and receives no receipts.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(forward);
        }
        Ok(Self {
            name,
            senders,
            limit,
            text,
            account: Account {
                host: config.host.clone(),
                port: config.port,
                system_id: config.system_id.clone(),
                password,
                system_type: config.system_type.clone(),
                enquire_link: Duration::from_secs(config.enquire_link_seconds),
                message_ids: config.message_ids,
            },
            message_ids: config.message_ids,
            statuses,
            window: Semaphore::new(config.window),
            link: Mutex::new(None),
            resting_until: Mutex::new(None),
            told,
        })
    }

    /// Returns the current bind or dials a new one. The caller limits the wait. Concurrent callers
    /// wait for the same dial.
    async fn link(&self) -> Result<mpsc::Sender<Job>, Unbound> {
        let mut link = self.link.lock().await;
        if let Some(jobs) = link.as_ref()
            && !jobs.is_closed()
        {
            return Ok(jobs.clone());
        }
        let jobs = bind(&self.account, self.told.clone()).await?;
        *link = Some(jobs.clone());
        Ok(jobs)
    }

    /// Makes the next message bind again. Messages in flight keep their bind until they are
    /// answered; the bind ends with the last of them.
    async fn unlink(&self, jobs: &mpsc::Sender<Job>) {
        let mut link = self.link.lock().await;
        link.take_if(|current| current.same_channel(jobs));
    }

    fn submit(&self, dispatch: &Dispatch) -> Result<SubmitSm, Attempted> {
        let rendered = self.text.render(dispatch);
        let (text, segments) = rendered.map_err(|error| Attempted::without_text(&error))?;
        let unencodable = || Attempted::without_text(&TextError::Unencodable);
        let fault = |reason| Attempted::not_called(AttemptClass::ConfigFault, reason);
        let (coding, octets) = match segments.encoding {
            Encoding::Ucs2 => (DataCoding::Ucs2, alphabet::ucs2(&text)),
            Encoding::Gsm7 => {
                let octets = alphabet::gsm(&text).ok_or_else(unencodable)?;
                (DataCoding::McSpecific, octets)
            }
        };
        let sender = self.senders.of(&dispatch.recipient);
        let digits = sender.trim_start_matches('+');
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let (ton, npi, source) = match is_number {
            true if sender.starts_with('+') || digits.len() > 8 => {
                (Ton::International, Npi::Isdn, digits)
            }
            true => (Ton::Unknown, Npi::Unknown, digits),
            false => (Ton::Alphanumeric, Npi::Unknown, sender),
        };
        let to = dispatch.recipient.expose().trim_start_matches('+');
        let wrong = |_| Attempted::not_called(AttemptClass::RecipientInvalid, "number");
        let validity = EmptyOrFullCOctetString::from_str(&validity(dispatch.remaining));
        let mut submit = SubmitSm::builder()
            .source_addr_ton(ton)
            .source_addr_npi(npi)
            .source_addr(COctetString::from_str(source).map_err(|_| fault("sender"))?)
            .dest_addr_ton(Ton::International)
            .dest_addr_npi(Npi::Isdn)
            .destination_addr(COctetString::from_str(to).map_err(wrong)?)
            .registered_delivery(RegisteredDelivery::from(1))
            .validity_period(validity.map_err(|_| fault("validity"))?)
            .data_coding(coding)
            .build();
        let fits = match segments.encoding {
            Encoding::Gsm7 => octets.len() <= SHORT_OCTETS * 8 / 7,
            Encoding::Ucs2 => octets.len() <= SHORT_OCTETS,
        };
        if fits {
            submit.set_short_message(OctetString::from_vec(octets).map_err(|_| unencodable())?);
        } else {
            let payload = MessagePayload::new(AnyOctetString::from_vec(octets));
            submit.push_tlv(MessageSubmissionRequestTlvValue::MessagePayload(payload));
        }
        Ok(submit)
    }

    /// Waits out throttling, then for a place in the window and for the bind. Nothing is written to
    /// the peer before this returns.
    async fn prepared(&self) -> Result<(SemaphorePermit<'_>, mpsc::Sender<Job>), Attempted> {
        let transient = |reason| Attempted::new(AttemptClass::Transient, reason);
        let resting_until = *self.resting_until.lock().await;
        if let Some(until) = resting_until {
            sleep(until.saturating_duration_since(now())).await;
        }
        let permit = self
            .window
            .acquire()
            .await
            .map_err(|_| transient("window"))?;
        let jobs = self.link().await.map_err(unbound_attempt)?;
        Ok((permit, jobs))
    }

    async fn send(&self, submit: SubmitSm) -> Attempted {
        let (_permit, jobs) = match timeout(self.limit / 2, self.prepared()).await {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(attempted)) => return attempted,
            Err(_) => return not_ready(self.window.available_permits()),
        };
        let (answer, answered) = oneshot::channel();
        if jobs.send((Box::new(submit), answer)).await.is_err() {
            // The bind ended before the message was written.
            return Attempted::new(AttemptClass::Transient, "unbound");
        }
        let Ok(answer) = answered.await else {
            return Attempted::new(AttemptClass::UnknownOutcome, "unbound");
        };
        let Answer {
            status,
            is_nack,
            id,
        } = answer;
        if (is_nack && status != THROTTLED) || matches!(status, INVALID_COMMAND | INVALID_BIND) {
            self.unlink(&jobs).await;
        }
        let class = self.statuses.class(status, is_nack);
        let mut attempted = Attempted::new(class, format!("smpp_0x{status:02x}"))
            .about(self.statuses.scope(status));
        if class == AttemptClass::Accepted {
            attempted.provider_message_id = self.message_ids.of_answer(id);
        }
        if status == THROTTLED && class == AttemptClass::Transient {
            attempted.retry_after = Some(THROTTLE_REST);
            *self.resting_until.lock().await = Some(now() + THROTTLE_REST);
        }
        attempted
    }
}

/// Returns the outcome of an attempt that used up its time to prepare, with `free_places` left in
/// the window. If the window is full, the message made no call and says nothing about the peer: the
/// messages in the window do.
fn not_ready(free_places: usize) -> Attempted {
    let attempted = Attempted::new(AttemptClass::Transient, "busy");
    if free_places == 0 {
        attempted.about(Scope::NotCalled)
    } else {
        attempted
    }
}

fn unbound_attempt(unbound: Unbound) -> Attempted {
    match unbound {
        Unbound::Refused(status @ 0x0d..=0x0f) => {
            Attempted::new(AttemptClass::ConfigFault, format!("bind_0x{status:02x}"))
        }
        Unbound::Refused(_) | Unbound::Away => {
            Attempted::new(AttemptClass::Transient, "bind").about(Scope::Provider)
        }
    }
}

fn now() -> Instant {
    Instant::now()
}

/// Formats the remaining lifetime as SMPP's relative time `YYMMDDhhmmss000R`, at most one hour.
fn validity(remaining: Duration) -> String {
    let seconds = remaining.as_secs().clamp(1, 3_599);
    format!("00000000{:02}{:02}000R", seconds / 60, seconds % 60)
}

#[async_trait]
impl Provider for SmppProvider {
    fn name(&self) -> &ProviderName {
        &self.name
    }

    fn attempt_limit(&self) -> Duration {
        self.limit
    }

    fn wants_name(&self) -> bool {
        true
    }

    async fn probe(&self) -> Result<&'static str, Attempted> {
        self.link().await.map(|_| "bound").map_err(unbound_attempt)
    }

    async fn attempt(&self, dispatch: &Dispatch) -> Attempted {
        let submit = match self.submit(dispatch) {
            Ok(submit) => submit,
            Err(attempted) => return attempted,
        };
        timeout(self.limit, self.send(submit))
            .await
            .unwrap_or_else(|_| Attempted::new(AttemptClass::UnknownOutcome, "timeout"))
    }
}

/// Creates the channel for the receipts of all SMPP providers.
pub(crate) fn receipts() -> (mpsc::Sender<HeardReceipt>, mpsc::Receiver<HeardReceipt>) {
    mpsc::channel(RECEIPTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_window_says_nothing_about_the_peer() {
        assert_eq!(not_ready(0).scope, Scope::NotCalled);
        assert_eq!(not_ready(1).scope, Scope::Destination);
        assert_eq!(not_ready(0).class, AttemptClass::Transient);
    }

    #[test]
    fn validity_is_written_as_the_standard_has_it() {
        assert_eq!(validity(Duration::from_secs(299)), "000000000459000R");
        assert_eq!(validity(Duration::ZERO), "000000000001000R");
    }
}
