//! The send limits' rules: of one recipient with a busy day behind it, and of a service's minute.

use std::hint::black_box;

use watchword_core::{SendLimits, Timestamp};
use watchword_issuer::limits::Permit;
use watchword_issuer::limits::window::{MINUTE_MS, Minute, admit, reserve};

use crate::operation::Operation;
use crate::samples::NOW;

pub fn operations() -> Vec<Operation> {
    let limits = SendLimits {
        cooldown_ms: 30_000,
        per_hour: 5,
        per_day: 10,
        service_per_minute: 600,
    };
    // A message every two hours: the tenth of the day is the last that may go.
    let sent: Vec<Timestamp> = (1..=9)
        .rev()
        .map(|number| NOW.minus_millis(number * 7_200_000))
        .collect();
    let minute = Minute {
        number: NOW.as_millis() / MINUTE_MS,
        count: 17,
    };
    let reserved = move || {
        let permit = reserve(&sent, black_box(limits), limits.cooldown_ms, NOW);
        (permit == Permit::Granted).then_some(permit)
    };
    let admitted = move || admit(black_box(Some(minute)), limits.service_per_minute, NOW).ok();
    vec![
        Operation::new("limit: recipient", reserved),
        Operation::new("limit: service", admitted),
    ]
}
