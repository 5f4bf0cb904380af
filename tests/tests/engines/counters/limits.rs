//! The counters of messages: per recipient, per service, and shared between processes.

use futures_util::future::join_all;
use watchword_core::{SendLimits, ServiceName, SubjectTag, Timestamp};
use watchword_issuer::limits::tally::Tally;
use watchword_issuer::limits::{Counter, Limit, Permit, Quota};
use watchword_storage::StorageError;

use super::{T0, World, delivery};

async fn a_recipient_has_a_cooldown_an_hour_and_a_day(world: World) {
    let limits = SendLimits {
        cooldown_ms: 30_000,
        per_hour: 3,
        per_day: 4,
        ..SendLimits::default()
    };
    let mut now = T0;
    assert_eq!(world.reserve(1, 1, limits, now).await, Permit::Granted);
    // A repeat of the same message is not counted again.
    assert_eq!(
        world.reserve(1, 1, limits, now.plus_millis(5)).await,
        Permit::Repeated
    );
    let (one, limiter) = (SubjectTag::new([1; 10]), &world.limiter);
    for (send, now, is_known) in [
        (1, now.plus_millis(5), true),
        (2, now.plus_millis(5), false),
        (1, now.plus_millis(24 * 3_600_000), false),
    ] {
        let known = limiter.is_reserved(one, &delivery(send), now).await;
        assert_eq!(known, Ok(is_known), "{send}");
    }
    let (nine, first) = (SubjectTag::new([9; 10]), delivery(1));
    assert_eq!(limiter.is_reserved(nine, &first, now).await, Ok(false));
    let early = world.reserve(1, 2, limits, now.plus_millis(29_999)).await;
    assert_eq!(
        early,
        Permit::Refused {
            until: now.plus_millis(30_000),
            limit: Limit::Cooldown
        }
    );
    assert_eq!(
        world.reserve(2, 2, limits, now).await,
        Permit::Granted,
        "another recipient"
    );
    assert_eq!(
        world
            .reserve_waived(1, 2, limits, now.plus_millis(10), true)
            .await,
        Permit::Granted
    );
    now = now.plus_millis(60_000);
    assert_eq!(world.reserve(1, 3, limits, now).await, Permit::Granted);
    let hour = world.reserve(1, 4, limits, now.plus_millis(60_000)).await;
    assert_eq!(
        hour,
        Permit::Refused {
            until: T0.plus_millis(3_600_000),
            limit: Limit::RecipientHour
        }
    );
    now = T0.plus_millis(3_700_000);
    assert_eq!(world.reserve(1, 4, limits, now).await, Permit::Granted);
    let day = world.reserve(1, 5, limits, now.plus_millis(60_000)).await;
    assert_eq!(
        day,
        Permit::Refused {
            until: T0.plus_millis(24 * 3_600_000),
            limit: Limit::RecipientDay
        }
    );
    assert_eq!(
        world
            .reserve(1, 5, limits, T0.plus_millis(24 * 3_600_000))
            .await,
        Permit::Granted
    );
}

async fn of_fifty_at_once_three_are_granted(world: World) {
    let limits = SendLimits {
        cooldown_ms: 0,
        per_hour: 3,
        per_day: 20,
        ..SendLimits::default()
    };
    let permits = join_all((1..=50).map(|send| world.reserve(1, send, limits, T0))).await;
    assert_eq!(
        permits
            .iter()
            .filter(|permit| **permit == Permit::Granted)
            .count(),
        3
    );
}

async fn a_service_has_its_minute(world: World) {
    let limits = SendLimits {
        service_per_minute: 5,
        ..SendLimits::default()
    };
    let admit = |name: &'static str, now: Timestamp| {
        let limiter = world.limiter.clone();
        async move {
            limiter
                .admit(&name.parse().unwrap(), limits, now)
                .await
                .unwrap()
        }
    };
    for _ in 0..5 {
        assert_eq!(admit("one", T0).await, Permit::Granted);
    }
    let Permit::Refused { until, limit } = admit("one", T0).await else {
        panic!("a sixth")
    };
    assert!(until > T0 && until <= T0.plus_millis(60_000));
    assert_eq!(limit, Limit::ServiceMinute);
    assert_eq!(admit("two", T0).await, Permit::Granted);
    assert_eq!(admit("one", until).await, Permit::Granted);
}

/// A slow clock counts in the minute of the faster one, and each request is counted once.
async fn a_clock_that_lags_counts_each_request_once(world: World) {
    let limits = SendLimits {
        service_per_minute: 640,
        ..SendLimits::default()
    };
    let service = "one".parse().unwrap();
    let mut granted = 0;
    for number in 0..700 {
        let now = if number == 0 {
            T0
        } else {
            T0.minus_millis(120_000)
        };
        let permit = world.limiter.admit(&service, limits, now).await.unwrap();
        granted += u32::from(permit == Permit::Granted);
    }
    assert_eq!(granted, 640);
}

/// A full minute further in the future was written by a clock that has been corrected since, and is
/// ignored.
async fn a_corrected_clock_leaves_no_full_minute(world: World) {
    let limits = SendLimits {
        service_per_minute: 2,
        ..SendLimits::default()
    };
    let service = "one".parse().unwrap();
    for (now, is_granted) in [
        (T0, true),
        (T0, true),
        (T0.minus_millis(120_000), false),
        (T0.minus_millis(180_000), true),
    ] {
        let permit = world.limiter.admit(&service, limits, now).await.unwrap();
        assert_eq!(permit == Permit::Granted, is_granted, "{now:?}");
    }
}

/// When an operator unlocks a recipient, only its messages are forgotten.
async fn a_recipient_that_is_forgotten_starts_again(world: World) {
    let limits = SendLimits {
        per_hour: 1,
        ..SendLimits::default()
    };
    for recipient in [1, 2] {
        let permit = world.reserve(recipient, 1, limits, T0).await;
        assert_eq!(permit, Permit::Granted);
    }
    let forgotten = world.limiter.forget_recipient(SubjectTag::new([1; 10]));
    forgotten.await.unwrap();
    let now = T0.plus_millis(1);
    let again = world.reserve(1, 2, limits, now).await;
    assert_eq!(again, Permit::Granted);
    let other = world.reserve(2, 2, limits, now).await;
    assert!(matches!(other, Permit::Refused { .. }), "{other:?}");
}

/// Every kind of counter adds up, expires after its window, and can be deleted alone.
async fn a_counter_adds_up_and_forgets(world: World) {
    let tag = |byte| SubjectTag::new([byte; 10]);
    let service: ServiceName = "one".parse().unwrap();
    let limiter = &world.limiter;
    for (counter, other) in [
        (Counter::Subject(tag(1)), Counter::Subject(tag(2))),
        (Counter::NumberBlock(tag(1)), Counter::Client(tag(1))),
        (Counter::Client(tag(3)), Counter::NumberBlock(tag(2))),
        (
            Counter::Country(service.clone(), Some("DE".to_owned())),
            Counter::Country(service.clone(), None),
        ),
        (
            Counter::Service(service.clone()),
            Counter::Service("two".parse().unwrap()),
        ),
    ] {
        let (span, part) = (counter.span(), counter.span().part(T0));
        let most = |tally: Tally, most, part| tally.full_until(0, most, span, part);
        limiter.count(&other, 9, T0).await.unwrap();
        limiter.count(&counter, 2, T0).await.unwrap();
        let later = span.end_of(part).minus_millis(1);
        let sum = limiter.count(&counter, 3, later).await.unwrap();
        let now = span.part(later);
        assert_eq!(most(sum, 6, now), None, "{counter}");
        assert_eq!(most(sum, 5, now), Some(span.end_of(part)), "{counter}");
        let rest = limiter.count(&counter, 0, span.end_of(part)).await.unwrap();
        assert_eq!(most(rest, 4, now + 1), None, "{counter}");
        assert_eq!(most(rest, 3, now + 1), Some(span.end_of(now)), "{counter}");
        let corrected = limiter.count(&counter, -1, later).await.unwrap();
        assert_eq!(most(corrected, 5, now), None, "{counter}");
        limiter.forget(&counter).await.unwrap();
        let none = limiter.count(&counter, 0, later).await.unwrap();
        assert_eq!(most(none, 1, now), None, "{counter}");
        let kept = limiter.count(&other, 0, T0).await.unwrap();
        assert!(most(kept, 9, part).is_some(), "{other}");
    }
}

/// Two processes together exceed a limit by less than one report, and learn of each other's
/// messages. A single process holds the limit exactly under concurrent requests.
async fn processes_share_a_counter(world: World) {
    let limits = SendLimits {
        number_block_per_hour: 80,
        ..SendLimits::default()
    };
    let counters = [Counter::NumberBlock(SubjectTag::new([1; 10]))];
    let alone = Quota::new(world.limiter.clone());
    let asks = (0..200).map(|_| alone.take(&counters, &limits, true, T0));
    let granted = |permits: Vec<Result<Permit, StorageError>>| {
        let granted = permits.into_iter().map(Result::unwrap);
        granted.filter(|permit| *permit == Permit::Granted).count()
    };
    assert_eq!(granted(join_all(asks).await), 80);
    world.limiter.forget(&counters[0]).await.unwrap();
    let two = [(); 2].map(|()| Quota::new(world.limiter.clone()));
    let mut sum = 0;
    for turn in 0..400 {
        let permit = two[turn % 2].take(&counters, &limits, true, T0).await;
        sum += granted(vec![permit]);
    }
    assert!((80..=90).contains(&sum), "{sum} of 80");
    // A process that refuses asks the store again, so it grants messages after an operator's
    // unlock.
    world.limiter.forget(&counters[0]).await.unwrap();
    let later = T0.plus_millis(5_000);
    let permit = two[0].take(&counters, &limits, true, later).await.unwrap();
    assert_eq!(permit, Permit::Granted);
}

/// A report deletes expired parts of all counters, not only of its own.
#[tokio::test]
async fn parts_that_ended_are_deleted() {
    let world = World::sqlite().await;
    let service = Counter::Service("one".parse().unwrap());
    for (byte, hour) in [(1, 0), (2, 1), (3, 3)] {
        let now = T0.plus_millis(hour * 3_600_000);
        let counter = Counter::Subject(SubjectTag::new([byte; 10]));
        for counter in [&counter, &service] {
            world.limiter.count(counter, 1, now).await.unwrap();
        }
    }
    let rows = world.sqlite.as_ref().unwrap().read(|connection| {
        let sql = "SELECT count(*) FROM limits_count";
        connection.query_row(sql, [], |row| row.get::<_, u32>(0))
    });
    // The subject's counters, and two or three hours of the service in parts of four.
    assert!((2..=3).contains(&rows.await.unwrap()));
}

/// A reservation deletes all rows older than a day, of any recipient, and no others.
#[tokio::test]
async fn rows_of_a_day_ago_are_forgotten() {
    const HOUR_MS: u64 = 3_600_000;
    let world = World::sqlite().await;
    let limits = SendLimits::default();
    for (recipient, hour) in [(1, 0), (2, 2), (3, 25)] {
        let now = T0.plus_millis(hour * HOUR_MS);
        let permit = world.reserve(recipient, 1, limits, now).await;
        assert_eq!(permit, Permit::Granted);
    }
    let left = world.sqlite.as_ref().unwrap().read(|connection| {
        let sql = "SELECT recipient FROM limits_sent ORDER BY at_ms";
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        rows.collect::<Result<Vec<_>, _>>()
    });
    let tags = [2, 3].map(|tag| SubjectTag::new([tag; 10]).to_string());
    assert_eq!(left.await.unwrap(), tags);
}

on_both!(
    a_recipient_has_a_cooldown_an_hour_and_a_day,
    of_fifty_at_once_three_are_granted,
    a_service_has_its_minute,
    a_corrected_clock_leaves_no_full_minute,
    a_clock_that_lags_counts_each_request_once,
    a_recipient_that_is_forgotten_starts_again,
    a_counter_adds_up_and_forgets,
    processes_share_a_counter,
);
