//! The operations, each a function that returns a report. The admin API and the command line call
//! the same ones. An operation that this process cannot serve is a problem that names the role to
//! ask.

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

/// How long an operation waits for another one of its kind.
const PATIENCE: Duration = Duration::from_secs(2);

/// The parts of an [`Operator`]; those of roles that the process does not run are absent.
pub struct Operator {
    /// The services.
    pub services: Live<Services>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Code state.
    pub verifications: Arc<dyn VerificationStore>,
    /// The ledger.
    pub ledger: Arc<dyn LedgerStore>,
    /// Send limits.
    pub limiter: Arc<dyn SendLimiter>,
    /// Queues.
    pub broker: Option<Arc<dyn Broker>>,
    /// Checks and cancels; an issuer or a verifier has one.
    pub verifier: Option<Arc<Verifier>>,
    /// Sends codes again.
    pub issuer: Option<Arc<Issuer>>,
    /// The channels whose workers run here.
    pub channels: Vec<OperatedChannel>,
    /// Lets one search at a time read through the store.
    pub searching: Semaphore,
    /// Lets one operation at a time read dead letters: two would each see a part of them.
    pub reading_dead_letters: Semaphore,
    /// One audit at a time.
    pub auditing: Semaphore,
}

/// A channel whose worker runs here.
pub struct OperatedChannel {
    /// Which.
    pub channel: Channel,
    /// Its providers.
    pub router: Live<Router>,
    /// Where their shares are shown.
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

    /// Waits a moment for the end of another search.
    async fn search_alone(&self) -> Result<SemaphorePermit<'_>, Problem> {
        alone(&self.searching, "another search is running").await
    }

    /// Waits a moment for the end of another look at dead letters.
    async fn read_dead_letters_alone(&self) -> Result<SemaphorePermit<'_>, Problem> {
        let detail = "another reading of the dead letters is running";
        alone(&self.reading_dead_letters, detail).await
    }

    /// Why no provider of `channel` gets messages, if its worker runs here and that is so.
    fn standstill(&self, channel: Channel) -> Option<String> {
        let mut channels = self.channels.iter();
        let found = channels.find(|one| one.channel == channel)?;
        let standstills = found.router.get().standstills(self.clock.now());
        let mut whole = standstills.iter().filter(|one| one.route.is_none());
        whole.next().map(|one| one.sentence(channel))
    }

    /// Sends the code of `id` again, within the limits of its service.
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

    /// Withdraws `id`: its code is worth nothing from now on.
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

/// The problem of an operation that a process of another role serves.
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
