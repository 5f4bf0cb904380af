//! Decision after an attempt.

use std::hint::black_box;
use std::time::Duration;

use watchword_core::AttemptClass;
use watchword_delivery::Rules;
use watchword_delivery::measured::{Decision, Ended, decide};

use crate::operation::Operation;
use crate::samples::{DEADLINE, NOW};

pub fn operations() -> Vec<Operation> {
    let ended = Ended {
        class: AttemptClass::Transient,
        attempt_count: 2,
        unknown_count: 0,
        is_idempotent: false,
        has_another: false,
        has_left: true,
        has_fallback: false,
        retry_after: Some(Duration::from_secs(10)),
        now: NOW,
        deadline: DEADLINE,
    };
    let waits = move || match decide(black_box(ended), black_box(Rules::default())) {
        Decision::Wait(rung) => Some(rung),
        _ => None,
    };
    vec![Operation::new("retry: decision", waits)]
}
