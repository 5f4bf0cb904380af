#![doc = include_str!("../README.md")]

/// A place between two effects, named after the effect that has just happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The verification is open; nothing was counted or published.
    IssuerOpened,
    /// The message is counted against its recipient; it is not published.
    IssuerReserved,
    /// The broker confirmed the message; it is not marked as confirmed in the store.
    IssuerPublished,
    /// The message is marked as confirmed; the caller has no answer.
    IssuerMarked,
    /// The worker received the order; it has not claimed the delivery.
    DeliveryTaken,
    /// The delivery is claimed; no provider was called.
    DeliveryClaimed,
    /// The provider answered; the outcome is not recorded.
    DeliveryAttempted,
    /// The outcome is in the ledger; no event reports it yet.
    DeliveryRecorded,
    /// The outcome was published as an event; the message is not acknowledged.
    DeliveryReported,
    /// The message was confirmed in its next queue; it is not acknowledged in this one.
    BrokerMoved,
    /// The check was decided; the caller has no answer.
    VerifierChecked,
    /// The writes of a group are made; the transaction is not committed.
    StorageWritten,
    /// The transaction is committed; the callers have no answer.
    StorageCommitted,
}

impl Point {
    /// All places, for suites that visit each of them.
    pub const ALL: [Self; 13] = [
        Self::IssuerOpened,
        Self::IssuerReserved,
        Self::IssuerPublished,
        Self::IssuerMarked,
        Self::DeliveryTaken,
        Self::DeliveryClaimed,
        Self::DeliveryAttempted,
        Self::DeliveryRecorded,
        Self::DeliveryReported,
        Self::BrokerMoved,
        Self::VerifierChecked,
        Self::StorageWritten,
        Self::StorageCommitted,
    ];

    /// Returns the name of the place in `WATCHWORD_FAILPOINT`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IssuerOpened => "issuer.opened",
            Self::IssuerReserved => "issuer.reserved",
            Self::IssuerPublished => "issuer.published",
            Self::IssuerMarked => "issuer.marked",
            Self::DeliveryTaken => "delivery.taken",
            Self::DeliveryClaimed => "delivery.claimed",
            Self::DeliveryAttempted => "delivery.attempted",
            Self::DeliveryRecorded => "delivery.recorded",
            Self::DeliveryReported => "delivery.reported",
            Self::BrokerMoved => "broker.moved",
            Self::VerifierChecked => "verifier.checked",
            Self::StorageWritten => "storage.written",
            Self::StorageCommitted => "storage.committed",
        }
    }
}

/// Aborts the process if `WATCHWORD_FAILPOINT` names `point` and its count is used up.
#[cfg(debug_assertions)]
pub fn reach(point: Point) {
    armed::reach(point);
}

/// Does nothing: this build has no debug assertions.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn reach(_: Point) {}

/// Returns how long to hold a message, usually `hold_ms`. A test that waits for the end of a hold
/// shortens it: `WATCHWORD_FAILPOINT_HOLD_MS=5000`.
#[cfg(debug_assertions)]
pub fn shortened_ms(hold_ms: u64) -> u64 {
    let variable = std::env::var("WATCHWORD_FAILPOINT_HOLD_MS").ok();
    armed::shorter(hold_ms, variable.as_deref())
}

/// Returns `hold_ms`, in a build without debug assertions.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn shortened_ms(hold_ms: u64) -> u64 {
    hold_ms
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Point;

    /// The armed place, and how many more times it may be reached until the process dies.
    struct Armed {
        point: Point,
        left: AtomicU64,
    }

    pub(super) fn reach(point: Point) {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        let armed = ARMED.get_or_init(|| {
            let text = std::env::var("WATCHWORD_FAILPOINT").ok()?;
            parse(&text).map(|(point, times)| Armed {
                point,
                left: AtomicU64::new(times),
            })
        });
        if let Some(armed) = armed.as_ref().filter(|armed| armed.point == point)
            && armed.left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            std::process::abort();
        }
    }

    /// Returns the smaller of the two; a text that is no number shortens nothing.
    pub(super) fn shorter(hold_ms: u64, variable: Option<&str>) -> u64 {
        let short_ms = variable.and_then(|text| text.parse().ok());
        short_ms.map_or(hold_ms, |short_ms| hold_ms.min(short_ms))
    }

    /// Parses `name:times`. Returns `None`, which arms nothing, for any other text.
    pub(super) fn parse(text: &str) -> Option<(Point, u64)> {
        let (name, times) = text.split_once(':')?;
        let point = Point::ALL
            .into_iter()
            .find(|point| point.as_str() == name)?;
        let times = times.parse().ok().filter(|times| *times > 0)?;
        Some((point, times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_shortens_a_hold_and_never_lengthens_it() {
        for (variable, expected) in [
            (None, 60_000),
            (Some("5000"), 5_000),
            (Some("90000"), 60_000),
            (Some("soon"), 60_000),
            (Some("-1"), 60_000),
        ] {
            assert_eq!(armed::shorter(60_000, variable), expected, "{variable:?}");
        }
    }

    #[test]
    fn a_place_is_armed_by_its_name_and_a_count() {
        for point in Point::ALL {
            let text = format!("{}:3", point.as_str());
            assert_eq!(armed::parse(&text), Some((point, 3)));
        }
        for wrong in ["", "issuer.opened", "issuer.opened:0", "nowhere:1", "a:b"] {
            assert_eq!(armed::parse(wrong), None, "{wrong}");
        }
    }
}
