//! The services and people of a history: they request codes, enter the ones that arrived, and
//! request again. Each answer is compared with the request. They see answers and messages only, not
//! the stores.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use watchword_chassis::spans::Span;
use watchword_core::{
    Channel, CheckVerdict, DeliveryId, Recipient, Timestamp, Variables, VerificationId,
};
use watchword_events::{FallbackRequested, OtpRequested};
use watchword_issuer::{IssueError, Issuer};
use watchword_verifier::store::StoredVerification;
use watchword_verifier::{CheckRequest, Verifier};

use crate::history::{Asks, By, Node, Person, Tenant, Typed};
use crate::world::{State, World};

/// How long after the deadline an answer is remembered.
const AFTERLIFE_MS: u64 = 3_600_000;

/// The template variable that a message may show.
pub const AMOUNT: &str = "amount";

/// The knowledge of services and people.
#[derive(Default)]
pub struct Callers {
    sessions: Vec<Session>,
    arrived: HashMap<VerificationId, Vec<(u8, String)>>,
    /// The amount that each code showed when it arrived, by verification and code.
    shown: HashMap<(VerificationId, String), HashSet<u8>>,
    /// Messages that a service was promised.
    pub promised: HashSet<DeliveryId>,
    guesses: u32,
    turn: usize,
    pub fronts: [Option<Front>; 2],
}

/// The API of an issuer and verifier process.
#[derive(Clone)]
pub struct Front {
    pub issuer: Arc<Issuer>,
    pub verifier: Arc<Verifier>,
}

struct Session {
    verification: VerificationId,
    tenant: Tenant,
    /// The amounts for which a service was given this verification.
    pays: HashSet<u8>,
    expires_at: Timestamp,
    checks: Vec<Asked>,
}

/// The parameters of a check.
#[derive(Clone)]
struct Asked {
    id: Option<String>,
    code: String,
    asks: Asks,
    is_stale: bool,
    /// The answer that the same check got before this one was sent.
    known: Option<CheckVerdict>,
    answer: Option<CheckVerdict>,
}

impl Tenant {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shop => "shop",
            Self::Bank => "bank",
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Shop => Self::Bank,
            Self::Bank => Self::Shop,
        }
    }
}

impl Person {
    const fn addresses(self) -> (&'static str, &'static str) {
        match self {
            Self::Ann => ("+4915112345678", "ann@example.org"),
            Self::Bob => ("+4915112345679", "bob@example.org"),
        }
    }
}

fn variables(pays: u8) -> BTreeMap<String, String> {
    let amount = (pays > 0).then(|| (AMOUNT.to_owned(), pays.to_string()));
    amount.into_iter().collect()
}

fn request(person: Person, by: By, pays: u8) -> OtpRequested {
    let (number, mail) = person.addresses();
    let (channel, to) = match by {
        By::Sms | By::SmsThenMail => ("sms", number),
        By::Mail => ("email", mail),
    };
    let mut fallback = Vec::new();
    if by == By::SmsThenMail {
        fallback.push(FallbackRequested {
            channel: "email".to_owned(),
            to: mail.to_owned(),
            after_seconds: Some(10),
        });
    }
    OtpRequested {
        channel: channel.to_owned(),
        to: to.to_owned(),
        purpose: None,
        subject: Some(format!("{person:?}")),
        locale: None,
        variables: variables(pays),
        fallback,
        client: None,
    }
}

impl Callers {
    /// Records a message that reached its person.
    pub fn arrived(&mut self, id: &DeliveryId, code: &str, shown: u8) {
        let key = (id.verification().clone(), code.to_owned());
        self.shown.entry(key).or_default().insert(shown);
        let arrived = self.arrived.entry(id.verification().clone()).or_default();
        arrived.push((id.send(), code.to_owned()));
    }

    fn place(&self, nth: u8) -> Option<usize> {
        let count = self.sessions.len();
        (count > 0).then(|| count - 1 - usize::from(nth) % count)
    }

    fn codes(&self, id: &VerificationId) -> &[(u8, String)] {
        self.arrived.get(id).map_or(&[], Vec::as_slice)
    }

    fn typed(&mut self, place: usize, typed: Typed) -> Option<String> {
        let id = &self.sessions[place].verification;
        let own = self.codes(id);
        match typed {
            Typed::Newest => own.last().map(|(_, code)| code.clone()),
            Typed::First => own.first().map(|(_, code)| code.clone()),
            Typed::OfAnother => {
                let others = self.sessions.iter().rev();
                let codes = others
                    .filter(|other| other.verification != *id)
                    .filter_map(|other| self.codes(&other.verification).last());
                let mut foreign = codes.filter(|(_, code)| own.iter().all(|(_, own)| own != code));
                foreign.next().map(|(_, code)| code.clone())
            }
            // No code begins with three zeros, see `World`'s `Entropy`.
            Typed::Wrong => {
                self.guesses += 1;
                Some(format!("000{:03}", self.guesses % 1_000))
            }
        }
    }

    /// Returns the number of checks of a verification, counting each check id once.
    fn asked(&self, place: usize) -> u32 {
        let checks = &self.sessions[place].checks;
        let ids: HashSet<_> = checks
            .iter()
            .filter_map(|check| check.id.as_ref())
            .collect();
        let plain = checks.iter().filter(|check| check.id.is_none()).count();
        u32::try_from(ids.len() + plain).unwrap()
    }

    /// Returns the next process that is up, in turn.
    fn front(&mut self) -> Option<(Node, Front)> {
        self.turn += 1;
        let order = [self.turn % 2, (self.turn + 1) % 2];
        order
            .into_iter()
            .find_map(|place| Some((Node::ISSUERS[place], self.fronts[place].clone()?)))
    }
}

/// Runs `work` against an issuer and verifier process. The work ends if that process dies.
fn at_a_front<W: Future<Output = ()> + Send + 'static>(
    world: &Arc<World>,
    work: impl FnOnce(Node, Front) -> W,
) {
    let front = world.lock().callers.front();
    if let Some((node, front)) = front {
        let task = tokio::spawn(work(node, front));
        world.owns(node, task.abort_handle());
    }
}

/// Records the answer to a request for a message.
fn told(
    state: &mut State,
    node: Node,
    tenant: Tenant,
    pays: Option<u8>,
    answer: Result<StoredVerification, IssueError>,
) {
    match answer {
        Err(error) => state.say(node, || format!("refuses: {}", error.code().as_str())),
        Ok(sent) => {
            let id = DeliveryId::new(sent.id.clone(), sent.sends);
            let name = state.name_of(&id);
            state.say(node, || format!("promises {name}"));
            // The fallback step sends this message by itself; it was not promised to the service.
            if !state.codes.by_step.contains(&id) {
                state.callers.promised.insert(id);
            }
            let sessions = &mut state.callers.sessions;
            let known = sessions
                .iter_mut()
                .find(|session| session.verification == sent.id);
            if let Some(session) = known {
                session.pays.extend(pays);
            } else {
                sessions.push(Session {
                    verification: sent.id,
                    tenant,
                    pays: pays.into_iter().collect(),
                    expires_at: sent.expires_at,
                    checks: Vec::new(),
                });
            }
        }
    }
}

pub fn open(world: &Arc<World>, (person, tenant): (Person, Tenant), by: By, pays: u8) {
    let (this, service) = (world.clone(), world.kit.service(tenant));
    at_a_front(world, |node, front| async move {
        let answer = front
            .issuer
            .issue(&service, request(person, by, pays), &mut Span::none())
            .await;
        told(&mut this.lock(), node, tenant, Some(pays), answer);
    });
}

pub fn resend(world: &Arc<World>, nth: u8) {
    let Some((id, tenant)) = session(world, nth) else {
        return;
    };
    let (this, service) = (world.clone(), world.kit.service(tenant));
    at_a_front(world, |node, front| async move {
        let answer = front
            .issuer
            .resend(&service, &id, None, &mut Span::none())
            .await;
        told(&mut this.lock(), node, tenant, None, answer);
    });
}

fn session(world: &World, nth: u8) -> Option<(VerificationId, Tenant)> {
    let state = world.lock();
    let session = &state.callers.sessions[state.callers.place(nth)?];
    Some((session.verification.clone(), session.tenant))
}

pub fn cancel(world: &Arc<World>, nth: u8, as_other: bool) {
    let Some((id, tenant)) = session(world, nth) else {
        return;
    };
    let by = if as_other { tenant.other() } else { tenant };
    let (this, service) = (world.clone(), world.kit.service(by));
    at_a_front(world, |node, front| async move {
        let answer = front.verifier.cancel(&service.name, &id).await;
        let mut state = this.lock();
        let name = state.name(&id);
        state.say(node, || format!("withdraws {name}: {answer:?}"));
        if as_other && !matches!(answer, Ok(None) | Err(_)) {
            state.broken(format!("{name} is withdrawn by its own service only"));
        }
    });
}

pub fn check(world: &Arc<World>, nth: u8, typed: Typed, asks: Asks) {
    let mut state = world.lock();
    let callers = &mut state.callers;
    let Some(place) = callers.place(nth) else {
        return;
    };
    let Some(code) = callers.typed(place, typed) else {
        return;
    };
    let own = callers.codes(&callers.sessions[place].verification);
    let number = own.iter().rev().find(|(_, own)| *own == code);
    let is_stale = number.is_some_and(|(number, _)| {
        own.iter()
            .any(|(later, other)| later > number && *other != code)
    });
    let count = callers.sessions[place].checks.len();
    let asked = Asked {
        id: (asks != Asks::Plainly).then(|| format!("check-{place}-{count}")),
        code,
        asks,
        is_stale,
        known: None,
        answer: None,
    };
    drop(state);
    ask(world, place, asked);
}

pub fn check_again(world: &Arc<World>, nth: u8) {
    let state = world.lock();
    let place = state.callers.place(nth);
    let last = place.and_then(|place| {
        let asked = state.callers.sessions[place].checks.last()?;
        Some((place, asked.clone()))
    });
    drop(state);
    if let Some((place, last)) = last {
        ask(
            world,
            place,
            Asked {
                answer: None,
                ..last
            },
        );
    }
}

fn ask(world: &Arc<World>, place: usize, mut asked: Asked) {
    let (id, tenant, number, pays) = {
        let mut state = world.lock();
        let session = &mut state.callers.sessions[place];
        let same = |other: &&Asked| asked.id.is_some() && other.id == asked.id;
        let answers = session.checks.iter().filter(same);
        asked.known = answers
            .filter_map(|check| check.answer)
            .find(|answer| *answer != CheckVerdict::Refused);
        session.checks.push(asked.clone());
        (
            session.verification.clone(),
            session.tenant,
            session.checks.len() - 1,
            session.pays.iter().min().copied().unwrap_or(0),
        )
    };
    let by = match asked.asks {
        Asks::OtherService => tenant.other(),
        _ => tenant,
    };
    let purpose = (asked.asks == Asks::OtherPurpose).then(|| "enrol".parse().unwrap());
    let (this, service) = (world.clone(), world.kit.service(by));
    at_a_front(world, |node, front| async move {
        let mut request = CheckRequest::of(asked.code.parse().unwrap());
        request.check_id = asked.id.as_ref().map(|id| id.parse().unwrap());
        request.purpose = purpose;
        match asked.asks {
            Asks::OwnContent => request.variables = Variables::new(variables(pays)).ok(),
            Asks::OtherContent => request.variables = Variables::new(variables(9)).ok(),
            Asks::OtherRecipient => {
                let stranger = Recipient::parse(Channel::Sms, "+4915112345670");
                request.recipient = Some(stranger.unwrap());
            }
            _ => {}
        }
        let answer = front.verifier.check(&service, &id, request).await;
        if let Ok(checked) = answer {
            answered(&mut this.lock(), node, (place, number), checked.verdict);
        }
    });
}

/// Compares the answer to a check with its parameters and with earlier answers.
fn answered(state: &mut State, node: Node, (place, number): (usize, usize), verdict: CheckVerdict) {
    let session = &mut state.callers.sessions[place];
    session.checks[number].answer = Some(verdict);
    let (id, tenant) = (session.verification.clone(), session.tenant);
    let asked = session.checks[number].clone();
    let forgotten_at = session.expires_at.plus_millis(AFTERLIFE_MS);
    let approvals: HashSet<_> = session
        .checks
        .iter()
        .enumerate()
        .filter(|(_, check)| check.answer == Some(CheckVerdict::Approved))
        .map(|(number, check)| check.id.clone().ok_or(number))
        .collect();
    let name = state.name(&id);
    state.say(node, || format!("answers a check of {name}: {verdict:?}"));
    let own = state.callers.codes(&id);
    let is_own_code = own.iter().any(|(_, own)| *own == asked.code);
    let fits = matches!(asked.asks, Asks::WithId | Asks::Plainly | Asks::OwnContent);
    let key = (id.clone(), asked.code.clone());
    let shown = state.callers.shown.get(&key).cloned().unwrap_or_default();
    let pays = state.callers.sessions[place].pays.clone();
    if verdict == CheckVerdict::Approved && shown.union(&pays).count() > 1 {
        state.broken(format!(
            "the code of {name} approves only the content that its message showed"
        ));
    }
    if verdict == CheckVerdict::Approved && !(is_own_code && fits) {
        state.broken(format!(
            "{name} is approved by its own code, service, purpose, recipient and content only"
        ));
    }
    if verdict == CheckVerdict::Approved && asked.is_stale {
        state.broken(format!(
            "{name} is not approved by a code that another replaced"
        ));
    }
    let is_wrong = matches!(verdict, CheckVerdict::Wrong | CheckVerdict::LastWrong);
    if is_wrong && is_own_code && fits && tenant == Tenant::Shop {
        state.broken(format!(
            "the code delivered with {name} is not refused as wrong"
        ));
    }
    if approvals.len() > 1 {
        state.broken(format!(
            "only one check of {name} is answered with an approval"
        ));
    }
    let may_be_forgotten = state.disturbed.clock || state.now() >= forgotten_at;
    if asked.known.is_some_and(|known| known != verdict) && !may_be_forgotten {
        state.broken(format!("a repeated check of {name} gets the same answer"));
    }
    let (asked, compared) = (
        state.callers.asked(place),
        state
            .codes
            .tallies
            .get(&id)
            .map_or(0, |tally| tally.compared),
    );
    if compared > asked {
        state.broken(format!("a check of {name} compares once"));
    }
}
