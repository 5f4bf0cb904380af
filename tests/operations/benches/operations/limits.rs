//! Send limits: a recipient after a busy day, and the minute of a service.

use std::hint::black_box;

use watchword_core::{SendLimits, SubjectTag, Timestamp};
use watchword_issuer::limits::window::{MINUTE_MS, Minute, admit, reserve};
use watchword_issuer::limits::{Permit, Reservation};

use crate::operation::Operation;
use crate::samples::{NOW, delivery_id};

pub fn operations() -> anyhow::Result<Vec<Operation>> {
    let limits = SendLimits {
        cooldown_ms: 30_000,
        per_hour: 5,
        per_day: 10,
        service_per_minute: 600,
        ..SendLimits::default()
    };
    // A message every two hours: nine were sent, so the tenth of the day is the last one allowed.
    let sent: Vec<Timestamp> = (1..=9)
        .rev()
        .map(|number| NOW.minus_millis(number * 7_200_000))
        .collect();
    let minute = Minute {
        number: NOW.as_millis() / MINUTE_MS,
        count: 17,
    };
    let reservation = Reservation {
        recipient: SubjectTag::new([2; 10]),
        delivery: delivery_id()?,
        names_subject: true,
        waive_cooldown: false,
        limits,
        now: NOW,
    };
    let reserved = move || {
        let permit = reserve(&sent, black_box(&reservation));
        (permit == Permit::Granted).then_some(permit)
    };
    let admitted = move || admit(black_box(Some(minute)), limits.service_per_minute, NOW).ok();
    Ok(vec![
        Operation::new("limit: recipient", reserved),
        Operation::new("limit: service", admitted),
    ])
}
