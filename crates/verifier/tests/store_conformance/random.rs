//! Random sequences of calls on the model, SQLite and Redis, which must all return the same
//! results. A failing sequence is shrunk to a short one.

use std::cell::Cell;
use std::collections::HashMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use watchword_core::{
    Clock, GuessBudget, Policy, ResendCode, ShortTag, SteadyTime, Timestamp, VerificationId,
};
use watchword_storage::rusqlite::Connection;
use watchword_verifier::store::{
    CheckCommand, Checked, Expected, OpenCommand, Opened, SlotKey, StepOf, StoreError,
    StoredVerification, VerificationStore,
};

use crate::engine::{Engine, Machine};
use crate::model::Model;
use crate::scene::{
    HOUR_MS, NOW, RIGHT, WRONG, check, digest, id, order, purpose, sealed_code, service, short,
    slot, tag,
};

const CASES: u32 = 200;
/// Low limits, so that the sequences reach them.
const BUDGET: GuessBudget = GuessBudget {
    per_hour: 4,
    per_day: 7,
    in_a_row: 12,
};

/// The verification that a step uses: one of those ordered, or an unknown one.
type Target = Option<prop::sample::Index>;

#[derive(Debug, Clone)]
enum Step {
    Wait {
        ms: i64,
    },
    Open {
        subject: u64,
        purpose: bool,
        rotates: bool,
        /// The number of variables, locale and fallback; 0 for none.
        content: u8,
        details: u8,
        /// Whether the request names the slot's newest verification.
        over: bool,
    },
    Resend {
        target: Target,
        own: bool,
        code: Option<bool>,
    },
    Fallback {
        target: Target,
        own: bool,
        after: u8,
        details: Option<u8>,
        code: Option<bool>,
    },
    Confirm {
        target: Target,
        send: u8,
    },
    Check {
        target: Target,
        own: bool,
        purpose: Option<bool>,
        content: Option<u8>,
        code: bool,
        keys: u8,
        check_id: u8,
    },
    Cancel {
        target: Target,
        own: bool,
    },
    Get {
        target: Target,
        own: bool,
    },
    Forget {
        subject: u64,
    },
}

#[derive(Debug, PartialEq)]
enum Answer {
    Opened(Opened),
    Resent(Option<Opened>),
    /// `None`: the code cannot be compared.
    Checked(Option<Checked>),
    Found(Option<StoredVerification>),
    Done,
}

fn step() -> impl Strategy<Value = Step> {
    let target = || prop::option::weighted(0.97, any::<prop::sample::Index>());
    let own = || prop::bool::weighted(0.95);
    let part = || prop_oneof![4 => Just(0_u8), 1 => 1..3_u8];
    let day = i64::try_from(24 * HOUR_MS).unwrap();
    let hour = i64::try_from(HOUR_MS).unwrap();
    let ms = prop_oneof![
        4 => 0..2_000_i64,
        6 => Just(30_000),
        2 => 60_000..310_000_i64,
        2 => -600_000..0_i64,
        1 => hour - 1..hour + 400_000,
        1 => Just(day),
    ];
    prop_oneof![
        3 => ms.prop_map(|ms| Step::Wait { ms }),
        4 => (0..2_u64, any::<bool>(), any::<bool>(), part(), part(), any::<bool>()).prop_map(
            |(subject, purpose, rotates, content, details, over)| {
                Step::Open { subject, purpose, rotates, content, details, over }
            },
        ),
        2 => (target(), own(), prop::option::of(any::<bool>()))
            .prop_map(|(target, own, code)| Step::Resend { target, own, code }),
        2 => (target(), own(), 0..4_u8, prop::option::of(part()), prop::option::of(any::<bool>()))
            .prop_map(|(target, own, after, details, code)| {
                Step::Fallback { target, own, after, details, code }
            }),
        4 => (target(), 1..4_u8).prop_map(|(target, send)| Step::Confirm { target, send }),
        8 => (
            target(),
            own(),
            prop::option::weighted(0.3, prop::bool::weighted(0.7)),
            prop::option::weighted(0.2, part()),
            prop::bool::weighted(0.3),
            0..12_u8,
            0..24_u8,
        )
            .prop_map(|(target, own, purpose, content, code, keys, check_id)| {
                Step::Check { target, own, purpose, content, code, keys, check_id }
            }),
        1 => (target(), own()).prop_map(|(target, own)| Step::Cancel { target, own }),
        2 => (target(), own()).prop_map(|(target, own)| Step::Get { target, own }),
        1 => (0..2_u64).prop_map(|subject| Step::Forget { subject }),
    ]
}

/// The state of a run: the models, and the verifications ordered so far.
struct Run<'a> {
    stores: [&'a dyn VerificationStore; 2],
    /// The model of each engine; there are two because the engines use different clocks.
    models: [Model; 2],
    /// The first subject of this run, so that runs do not interfere.
    first_subject: u64,
    now: Timestamp,
    /// The machine of the embedded engine, whose wall clock shows `now`.
    machine: Machine,
    ordered: Vec<VerificationId>,
    /// The newest verification ordered for each slot.
    newest: HashMap<SlotKey, VerificationId>,
}

/// The call of a step, built once and made on the model and both stores.
enum Call {
    Open(OpenCommand),
    Resend(VerificationId, bool, Option<bool>),
    Fallback(VerificationId, bool, StepOf, Option<bool>),
    Confirm(VerificationId, u8),
    Check(CheckCommand),
    Cancel(VerificationId, bool),
    Get(VerificationId, bool),
    Forget(u64),
}

fn caller(own: bool) -> watchword_core::ServiceName {
    service(if own { "web" } else { "other" })
}

fn part(kind: &str, number: u8) -> Option<ShortTag> {
    (number > 0).then(|| short(&format!("{kind}{number}")))
}

fn typed(right: bool) -> &'static str {
    if right { RIGHT } else { WRONG }
}

impl Run<'_> {
    fn target(&self, target: Target) -> VerificationId {
        match target {
            Some(index) if !self.ordered.is_empty() => index.get(&self.ordered).clone(),
            _ => id(self.first_subject, 0),
        }
    }

    fn call(&mut self, step: &Step) -> Option<Call> {
        Some(match *step {
            Step::Wait { ms } => {
                let at = (self.now.as_millis() + ms).max(NOW.as_millis());
                self.machine.step(at - self.now.as_millis());
                self.machine.uptime.advance_millis(ms.max(0));
                if let Some((_, uptime)) = &mut self.models[0].steady {
                    *uptime = self.machine.uptime.now();
                }
                self.now = Timestamp::from_millis(at);
                return None;
            }
            Step::Open {
                subject,
                purpose,
                rotates,
                content,
                details,
                over,
            } => {
                let mut order = self.order(subject, purpose, rotates);
                order.variables = part("content", content);
                order.details = part("details", details);
                order.steps = details;
                order.sealed_order = format!("{details}{details}{details}{details}");
                // The two purposes use different recipients.
                order.recipient = short(if purpose { "one" } else { "two" });
                let newest = self.newest.get(&order.slot).filter(|_| over);
                order.over = newest.cloned();
                self.newest.insert(order.slot.clone(), order.id.clone());
                Call::Open(order)
            }
            Step::Resend { target, own, code } => Call::Resend(self.target(target), own, code),
            Step::Fallback {
                target,
                own,
                after,
                details,
                code,
            } => {
                let details = details.and_then(|details| part("details", details));
                Call::Fallback(self.target(target), own, StepOf { after, details }, code)
            }
            Step::Confirm { target, send } => Call::Confirm(self.target(target), send),
            Step::Check {
                target,
                own,
                purpose: asked,
                content,
                code,
                keys,
                check_id,
            } => {
                let id = self.target(target);
                let mut command = check(&id, typed(code), &format!("c{check_id}"), self.now);
                command.service = caller(own);
                command.expected = Expected {
                    purpose: asked.map(|login| purpose(if login { "login" } else { "enrol" })),
                    variables: content.map(|content| part("content", content)),
                    ..Expected::default()
                };
                match keys {
                    0 => command.candidates = vec![digest("d2", &id, typed(code))],
                    1 => command.candidates.clear(),
                    2..=4 => command.candidates.insert(0, digest("d2", &id, typed(code))),
                    _ => {}
                }
                Call::Check(command)
            }
            Step::Cancel { target, own } => Call::Cancel(self.target(target), own),
            Step::Get { target, own } => Call::Get(self.target(target), own),
            Step::Forget { subject } => Call::Forget(self.first_subject + subject),
        })
    }

    fn order(&mut self, subject: u64, login: bool, rotates: bool) -> OpenCommand {
        let subject = self.first_subject + subject;
        let name = if login { "login" } else { "enrol" };
        let number = u64::try_from(self.ordered.len()).unwrap() + 1;
        let base = order(subject, number);
        self.ordered.push(base.id.clone());
        OpenCommand {
            slot: slot(subject, name),
            purpose: purpose(name),
            policy: Policy {
                max_sends: 3,
                max_checks: if rotates { 3 } else { 5 },
                resend: if rotates {
                    ResendCode::Rotate
                } else {
                    ResendCode::Same
                },
                ..Policy::default()
            },
            budget: BUDGET,
            now: self.now,
            ..base
        }
    }

    fn expect(&mut self, call: &Call, engine: usize) -> Answer {
        let (model, now) = (&mut self.models[engine], self.now);
        match call {
            Call::Open(order) => Answer::Opened(model.open(order.clone())),
            Call::Resend(id, own, code) => {
                let next = code.map(|right| sealed_code(id, typed(right)));
                Answer::Resent(model.resend(id, &caller(*own), next, 0, BUDGET, now))
            }
            Call::Fallback(id, own, after, code) => {
                let next = code.map(|right| sealed_code(id, typed(right)));
                Answer::Resent(model.step(id, &caller(*own), *after, next, BUDGET, now))
            }
            // An engine may have forgotten the verification, and the call has no time of its own.
            Call::Confirm(id, send) => {
                model.confirm(id, *send);
                Answer::Done
            }
            Call::Check(command) => Answer::Checked(model.check(command.clone(), BUDGET)),
            Call::Cancel(id, own) => Answer::Found(model.cancel(id, &caller(*own), now)),
            Call::Get(id, own) => Answer::Found(model.get(id, &caller(*own), now)),
            Call::Forget(subject) => {
                model.forget_guesses(&tag(*subject).to_string());
                Answer::Done
            }
        }
    }

    async fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        let Some(call) = self.call(&step) else {
            return Ok(());
        };
        for (place, name) in ["SQLite", "Redis"].iter().enumerate() {
            let expected = self.expect(&call, place);
            let got = answer(self.stores[place], &call, self.now).await;
            prop_assert_eq!(&got, &expected, "{} at {:?}", name, step);
        }
        Ok(())
    }
}

async fn answer(store: &dyn VerificationStore, call: &Call, now: Timestamp) -> Answer {
    match call {
        Call::Open(order) => Answer::Opened(store.open(order.clone()).await.unwrap()),
        Call::Resend(id, own, code) => {
            let next = code.map(|right| sealed_code(id, typed(right)));
            let resent = store.resend(id, &caller(*own), next, 0, BUDGET, now).await;
            Answer::Resent(resent.unwrap())
        }
        Call::Fallback(id, own, after, code) => {
            let next = code.map(|right| sealed_code(id, typed(right)));
            let stepped = store
                .step(id, &caller(*own), *after, next, BUDGET, now)
                .await;
            Answer::Resent(stepped.unwrap())
        }
        Call::Confirm(id, send) => {
            store.confirm(id, *send).await.unwrap();
            Answer::Done
        }
        Call::Check(command) => {
            let checked = store.check(command.clone(), BUDGET).await;
            assert!(matches!(checked, Ok(_) | Err(StoreError::Corrupt)));
            Answer::Checked(checked.ok())
        }
        Call::Cancel(id, own) => Answer::Found(store.cancel(id, &caller(*own), now).await.unwrap()),
        Call::Get(id, own) => Answer::Found(store.get(id, &caller(*own), now).await.unwrap()),
        Call::Forget(subject) => {
            store.forget_guesses(tag(*subject)).await.unwrap();
            Answer::Done
        }
    }
}

#[test]
fn both_stores_do_what_core_says() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let sqlite = runtime.block_on(Engine::sqlite());
    let redis = runtime.block_on(Engine::redis());
    let runs = Cell::new(0_u64);
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    };
    let steps = prop::collection::vec(step(), 1..80);
    let outcome = TestRunner::new(config).run(&steps, |steps| {
        runs.set(runs.get() + 1);
        // Each run has its own machine, and the file starts without a saved time.
        let machine = Machine::at(NOW);
        let sqlite = runtime.block_on(async {
            let forget = |file: &Connection| file.execute("DELETE FROM verifier_clock", []);
            sqlite.file().write(forget).await.unwrap();
            machine.start(sqlite.file()).await
        });
        // The clock of Redis is earlier than all of the cases.
        let mut redis_model = Model::default();
        redis_model.server = Some(NOW.minus_millis(HOUR_MS));
        let mut sqlite_model = Model::default();
        let uptime = machine.uptime.now();
        let steady = SteadyTime {
            now: NOW,
            uptime,
            epoch: 0,
        };
        sqlite_model.steady = Some((steady, uptime));
        let mut run = Run {
            stores: [&sqlite, redis.store()],
            models: [sqlite_model, redis_model],
            first_subject: runs.get() * 10,
            now: NOW,
            machine,
            ordered: Vec::new(),
            newest: HashMap::new(),
        };
        runtime.block_on(async {
            for step in steps {
                run.step(step).await?;
            }
            Ok(())
        })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
