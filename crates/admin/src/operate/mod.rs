//! The operations of an operator. Each is a function that returns a report, called by the admin API
//! and by the command line. If this process does not run the role that an operation needs, the
//! problem names that role.

mod audit;
mod circuit;
mod dead_letters;
mod diagnosis;
mod fields;
mod find;
mod status;
mod unlock;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use watchword_broker::Broker;
use watchword_chassis::{Problem, ProblemCode, Services};
use watchword_core::{Channel, Clock, Live, VerificationId};
use watchword_delivery::{DeliveryMetrics, Router};
use watchword_issuer::Issuer;
use watchword_issuer::limits::SendLimiter;
use watchword_ledger::LedgerStore;
use watchword_storage::StorageError;
use watchword_verifier::store::{StoreError, VerificationStore};
use watchword_verifier::{Index, Verifier};

pub use audit::AuditReport;
pub use circuit::{
    CircuitReport, CircuitRequest, CircuitState, HeldCircuit, ProviderReport, ProvidersReport,
};
pub use dead_letters::{
    ChangeReport, ChangeRequest, DeadLetter, DeadLetterDetails, DeadLetterFilter, DeadLetterState,
    DeadLettersReport, MOST_LISTED, ShowRequest,
};
pub use find::{FindReport, FindRequest, TimelineEntry, VerificationReport};
pub use status::{ChannelHour, History, QueueReport, StatusReport, StatusSources};
pub use unlock::{Forgotten, UnlockReport, UnlockRequest};

/// How long an operation waits for another operation of its kind to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// The dependencies of the operations. Those of roles that the process does not run are `None`.
pub struct Operator {
    /// The services, replaced by a reload.
    pub services: Live<Services>,
    /// The clock of the engine.
    pub clock: Arc<dyn Clock>,
    /// The store of code state.
    pub verifications: Arc<dyn VerificationStore>,
    /// The outcomes of deliveries.
    pub ledger: Arc<dyn LedgerStore>,
    /// The counters of the send limits.
    pub limiter: Arc<dyn SendLimiter>,
    /// The queues; an issuer or a worker is connected to them.
    pub broker: Option<Arc<dyn Broker>>,
    /// Cancels and unlocks; an issuer or a verifier has it.
    pub verifier: Option<Arc<Verifier>>,
    /// Resends codes; only an issuer has it.
    pub issuer: Option<Arc<Issuer>>,
    /// The channels whose workers run in this process.
    pub channels: Vec<OperatedChannel>,
    /// Permits one search of the store at a time.
    pub searching: Semaphore,
    /// Permits one operation at a time to read dead letters: two would each see a part of them.
    pub reading_dead_letters: Semaphore,
    /// Permits one audit at a time.
    pub auditing: Semaphore,
}

/// A channel whose worker runs in this process.
pub struct OperatedChannel {
    /// The channel.
    pub channel: Channel,
    /// Its providers and their health.
    pub router: Live<Router>,
    /// The series that show the providers' shares.
    pub metrics: DeliveryMetrics,
}

impl Operator {
    fn index(&self) -> Result<&Index, Problem> {
        self.verifier().map(Verifier::index)
    }

    fn verifier(&self) -> Result<&Verifier, Problem> {
        let verifier = self.verifier.as_deref();
        verifier.ok_or_else(|| elsewhere("an issuer or a verifier"))
    }

    fn broker(&self) -> Result<&dyn Broker, Problem> {
        let broker = self.broker.as_deref();
        broker.ok_or_else(|| elsewhere("an issuer or a worker"))
    }

    /// Waits up to [`PATIENCE`] for the end of another search.
    async fn search_alone(&self) -> Result<SemaphorePermit<'_>, Problem> {
        alone(&self.searching, "another search is running").await
    }

    /// Waits up to [`PATIENCE`] for the end of another operation that reads dead letters.
    async fn read_dead_letters_alone(&self) -> Result<SemaphorePermit<'_>, Problem> {
        let detail = "another reading of the dead letters is running";
        alone(&self.reading_dead_letters, detail).await
    }

    /// Returns the reason why no provider of `channel` gets messages, if there is one and the
    /// channel's worker runs in this process.
    fn standstill(&self, channel: Channel) -> Option<String> {
        let mut channels = self.channels.iter();
        let found = channels.find(|one| one.channel == channel)?;
        let standstills = found.router.get().standstills(self.clock.now());
        let mut whole = standstills.iter().filter(|one| one.route.is_none());
        whole.next().map(|one| one.sentence(channel))
    }

    /// Resends the code of `id`, within the limits of its service.
    pub async fn resend(&self, id: &VerificationId) -> Result<VerificationReport, Problem> {
        let issuer = self.issuer.as_ref().ok_or_else(|| elsewhere("an issuer"))?;
        let found = self.inspect(id).await?;
        let services = self.services.get();
        let service = services.by_name(&found.verification.service);
        let service = service.ok_or_else(no_service)?;
        let mut span = watchword_chassis::spans::Span::none();
        issuer.resend(service, id, None, &mut span).await?;
        self.report(id).await
    }

    /// Cancels `id`, so that its code is no longer accepted.
    pub async fn cancel(&self, id: &VerificationId) -> Result<VerificationReport, Problem> {
        let verifier = self.verifier()?;
        let found = self.inspect(id).await?;
        let canceled = verifier.cancel(&found.verification.service, id).await?;
        canceled.ok_or_else(unknown)?;
        self.report(id).await
    }
}

async fn alone<'a>(
    place: &'a Semaphore,
    detail: &'static str,
) -> Result<SemaphorePermit<'a>, Problem> {
    match timeout(PATIENCE, place.acquire()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Problem::new(ProblemCode::Overloaded, detail).retry_after(2)),
    }
}

/// Returns the problem of an operation that only a process of `role` can serve.
fn elsewhere(role: &str) -> Problem {
    let detail = format!("this process cannot do it: ask the admin API of {role}");
    Problem::new(ProblemCode::NotServedHere, detail)
}

fn unknown() -> Problem {
    let detail = "no verification of this id is remembered";
    Problem::new(ProblemCode::NotFound, detail)
}

/// The detail of a problem with a service that is not configured.
pub const NO_SERVICE: &str = "the configuration has no such service";

fn no_service() -> Problem {
    Problem::new(ProblemCode::NotFound, NO_SERVICE)
}

fn store_problem(error: &StoreError) -> Problem {
    let detail = match error {
        StoreError::Storage(StorageError::Timeout) => "the store did not answer in time",
        StoreError::Storage(_) => "the store cannot be reached",
        StoreError::Corrupt => "the store holds a record that cannot be read",
    };
    Problem::new(ProblemCode::StoreUnavailable, detail).retry_after(1)
}

fn limits_problem(_: StorageError) -> Problem {
    Problem::new(ProblemCode::StoreUnavailable, "the limits cannot be read").retry_after(1)
}

fn ledger_problem() -> Problem {
    Problem::new(ProblemCode::StoreUnavailable, "the ledger cannot be read").retry_after(1)
}
