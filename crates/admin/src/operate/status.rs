//! The status of the process: roles, dependencies, queues, providers, and the last hour by channel.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use watchword_chassis::admin::Readiness;
use watchword_core::Channel;
use watchword_metrics::prometheus::Registry;
use watchword_metrics::prometheus::proto::{LabelPair, Metric, MetricFamily};

use super::{Operator, ProviderReport};
use crate::configuration::Loaded;

/// The interval between samples of the counters, and the number kept: an hour and the current one.
const SAMPLE_EVERY: Duration = Duration::from_secs(60);
const SAMPLES: usize = 61;

const OPENED: &str = "watchword_verifications_opened_total";
const APPROVED: &str = "watchword_verifications_approved_total";
const ENDED: &str = "watchword_deliveries_ended_total";
const QUEUES: &str = "watchword_queue_messages";
const CONNECTED: &str = "watchword_broker_connected";
const CONSUMERS: &str = "watchword_queue_consumers";

/// The process as an operator sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The version of the program.
    pub version: String,
    /// The roles of the process.
    pub roles: Vec<String>,
    /// Whether all dependencies are up.
    pub ready: bool,
    /// Whether each dependency is up: the store, the broker, `started`.
    pub dependencies: BTreeMap<String, bool>,
    /// Conditions that need an operator, a sentence each.
    pub warnings: Vec<String>,
    /// The changed configuration keys that need a restart.
    pub restart_needed: Vec<String>,
    /// The error of the last reload, if it was refused: the process keeps its earlier
    /// configuration.
    pub reload_refused: Option<String>,
    /// The queues, if the process is connected to them. The figures are at most 30 s old.
    pub queues: Vec<QueueReport>,
    /// The providers of the workers of this process.
    pub providers: Vec<ProviderReport>,
    /// The seconds that `last_hour` covers; fewer than 3,600 in the first hour of the process.
    pub covers_seconds: u64,
    /// The counts of this process by channel.
    pub last_hour: Vec<ChannelHour>,
}

/// The messages of a queue, its wait queues and its dead-letter queue. Figures are absent while the
/// broker cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueReport {
    /// The queue kind: `requests`, `sms`, `email`, `receipts` or `timers`.
    pub queue: String,
    /// Messages ready for a consumer.
    pub ready: Option<u64>,
    /// Messages that wait for another attempt, or are past their deadline.
    pub waiting: Option<u64>,
    /// Messages in the dead-letter queue.
    pub dead_letters: Option<u64>,
    /// Consumers, if the engine counts them.
    pub consumers: Option<u64>,
}

/// The counts of a channel in the last hour. A figure is absent if the process does not run the
/// role that counts it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChannelHour {
    /// The channel that was counted.
    pub channel: Channel,
    /// Verifications opened; counted by an issuer.
    pub opened: Option<u64>,
    /// Verifications approved; counted by a verifier.
    pub approved: Option<u64>,
    /// `approved / opened`, if the process counts both and `opened` is not 0.
    pub conversion: Option<f64>,
    /// Deliveries that a provider accepted; counted by a worker.
    pub accepted: Option<u64>,
    /// Deliveries that ended otherwise; counted by a worker.
    pub not_delivered: Option<u64>,
}

/// Sums of counters by channel at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sums {
    opened: u64,
    approved: u64,
    accepted: u64,
    not_delivered: u64,
}

type Sample = [Sums; Channel::ALL.len()];

/// Samples of the counters in the last hour.
#[derive(Debug)]
pub struct History(Mutex<VecDeque<(Instant, Sample)>>);

impl History {
    /// Creates a history without samples.
    pub fn new() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }

    /// Samples the counters of `registry` every minute; never returns.
    pub async fn sample(&self, registry: &Registry) {
        let mut minutes = tokio::time::interval(SAMPLE_EVERY);
        loop {
            minutes.tick().await;
            let sample = sums(&registry.gather());
            let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            samples.push_back((Instant::now(), sample));
            if samples.len() > SAMPLES {
                samples.pop_front();
            }
        }
    }

    /// Returns the seconds since the oldest sample, and the counts since then of a process that
    /// runs `roles`.
    fn since(&self, now: &Sample, roles: &[&str]) -> (u64, Vec<ChannelHour>) {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (covers, before) = match samples.front() {
            Some((at, sample)) => (at.elapsed().as_secs(), *sample),
            None => (0, Sample::default()),
        };
        let hours = Channel::ALL.into_iter().zip(now.iter().zip(&before));
        let hours = hours.map(|(channel, (now, before))| hour(channel, roles, *now, *before));
        (covers, hours.collect())
    }
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

fn hour(channel: Channel, roles: &[&str], now: Sums, before: Sums) -> ChannelHour {
    let worker = match channel {
        Channel::Sms => "sms-worker",
        Channel::Email => "email-worker",
    };
    let grown = |role: &str, now: u64, before: u64| {
        roles.contains(&role).then(|| now.saturating_sub(before))
    };
    let opened = grown("issuer", now.opened, before.opened);
    let approved = grown("verifier", now.approved, before.approved);
    #[expect(clippy::cast_precision_loss, reason = "counts of an hour")]
    let conversion = opened
        .zip(approved)
        .filter(|(opened, _)| *opened > 0)
        .map(|(opened, approved)| approved as f64 / opened as f64);
    ChannelHour {
        channel,
        opened,
        approved,
        conversion,
        accepted: grown(worker, now.accepted, before.accepted),
        not_delivered: grown(worker, now.not_delivered, before.not_delivered),
    }
}

fn label<'a>(metric: &'a Metric, name: &str) -> Option<&'a str> {
    let labels = metric.get_label().iter();
    let mut found = labels.filter(|label| label.name() == name);
    found.next().map(LabelPair::value)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are whole and far below 2^53"
)]
const fn whole(value: f64) -> u64 {
    value as u64
}

fn family<'a>(families: &'a [MetricFamily], name: &str) -> Option<&'a MetricFamily> {
    families.iter().find(|family| family.name() == name)
}

/// Sums the series of a counter that have the label `channel` and that `fits` selects.
fn sum(
    families: &[MetricFamily],
    name: &str,
    channel: Channel,
    fits: impl Fn(&Metric) -> bool,
) -> u64 {
    let metrics = family(families, name).map(MetricFamily::get_metric);
    let metrics = metrics.unwrap_or_default().iter();
    metrics
        .filter(|metric| label(metric, "channel") == Some(channel.as_str()) && fits(metric))
        .map(|metric| whole(metric.get_counter().get_value()))
        .sum()
}

fn sums(families: &[MetricFamily]) -> Sample {
    let accepted =
        |metric: &Metric| matches!(label(metric, "outcome"), Some("accepted" | "delivered"));
    Channel::ALL.map(|channel| Sums {
        opened: sum(families, OPENED, channel, |_| true),
        approved: sum(families, APPROVED, channel, |_| true),
        accepted: sum(families, ENDED, channel, accepted),
        not_delivered: sum(families, ENDED, channel, |metric| !accepted(metric)),
    })
}

/// Whether the process is connected to the broker. If not, the queue series keep stale values.
fn is_connected(families: &[MetricFamily]) -> bool {
    let metrics = family(families, CONNECTED).map(MetricFamily::get_metric);
    let metrics = metrics.unwrap_or_default().iter();
    metrics
        .map(|metric| whole(metric.get_gauge().get_value()))
        .sum::<u64>()
        > 0
}

fn queues(families: &[MetricFamily]) -> Vec<QueueReport> {
    let Some(depths) = family(families, QUEUES) else {
        return Vec::new();
    };
    let is_connected = is_connected(families);
    let of = |family: &MetricFamily, queue: &str, state: Option<&str>| {
        let mut metrics = family.get_metric().iter();
        let found = metrics
            .find(|metric| label(metric, "lane") == Some(queue) && label(metric, "state") == state);
        found.map(|metric| whole(metric.get_gauge().get_value()))
    };
    let depth = |queue: &str, state| {
        let depth = of(depths, queue, Some(state)).unwrap_or_default();
        is_connected.then_some(depth)
    };
    watchword_events::Lane::ALL
        .iter()
        .map(|lane| lane.as_str())
        .map(|queue| QueueReport {
            queue: queue.to_owned(),
            ready: depth(queue, "ready"),
            waiting: depth(queue, "waiting"),
            dead_letters: depth(queue, "parked"),
            consumers: family(families, CONSUMERS)
                .filter(|_| is_connected)
                .and_then(|family| of(family, queue, None)),
        })
        .collect()
}

/// Returns the warning about a queue whose messages no process takes.
fn unread(queue: &QueueReport) -> Option<String> {
    let ready = queue.ready.filter(|ready| *ready > 0)?;
    let role = match queue.queue.as_str() {
        "email" => "email-worker",
        "requests" | "timers" => "issuer",
        _ => "sms-worker",
    };
    (queue.consumers == Some(0)).then(|| {
        format!(
            "{ready} in the queue {} wait, and no process takes them: start the role {role}",
            queue.queue
        )
    })
}

/// The sources of a [`StatusReport`].
#[derive(Clone, Copy)]
pub struct StatusSources<'a> {
    /// The roles of the process.
    pub roles: &'a [&'a str],
    /// The dependencies of the process.
    pub readiness: &'a Readiness,
    /// The series of the process.
    pub registry: &'a Registry,
    /// The counters of the last hour.
    pub history: &'a History,
    /// The configuration as it was loaded.
    pub loaded: &'a Loaded,
}

impl Operator {
    /// Returns the status of the process.
    pub fn status(&self, sources: StatusSources<'_>) -> StatusReport {
        let StatusSources {
            roles,
            readiness,
            registry,
            history,
            loaded,
        } = sources;
        let families = registry.gather();
        let (covers_seconds, last_hour) = history.since(&sums(&families), roles);
        let dependencies = readiness.report();
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            ready: dependencies.values().all(|up| *up),
            dependencies: dependencies
                .into_iter()
                .map(|(name, up)| (name.to_owned(), up))
                .collect(),
            warnings: self.warnings(loaded, &families),
            restart_needed: loaded.restart_needed.clone(),
            reload_refused: loaded.refused.clone(),
            queues: queues(&families),
            providers: self
                .providers()
                .map(|report| report.providers)
                .unwrap_or_default(),
            covers_seconds,
            last_hour,
        }
    }

    fn warnings(&self, loaded: &Loaded, families: &[MetricFamily]) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(error) = &loaded.refused {
            warnings.push(format!(
                "the last reload was refused, and the process keeps its earlier configuration: {error}"
            ));
        }
        if !loaded.restart_needed.is_empty() {
            warnings.push(format!(
                "the process keeps the earlier values of {} until it is restarted",
                loaded.restart_needed.join(", ")
            ));
        }
        if family(families, QUEUES).is_some() && !is_connected(families) {
            let text =
                "the process has no link to the queues, so how many messages they hold is unknown";
            warnings.push(text.to_owned());
        }
        warnings.extend(queues(families).iter().filter_map(unread));
        let now = self.clock.now();
        for channel in &self.channels {
            let standstills = channel.router.get().standstills(now);
            warnings.extend(standstills.iter().map(|one| one.sentence(channel.channel)));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use watchword_metrics::{Kind, Maker, Series};

    use super::*;

    const fn series(name: &'static str, kind: Kind, labels: &'static [&'static str]) -> Series {
        Series {
            name,
            kind,
            labels,
            help: "A series.",
            action: "",
        }
    }

    #[test]
    fn the_last_hour_is_what_was_counted_since_the_oldest_sample() {
        let registry = Registry::new();
        let make = Maker::new(&registry);
        let opened = series(OPENED, Kind::Counter, &["channel", "country"]);
        let opened = make.counters(&opened).unwrap();
        let approved = series(APPROVED, Kind::Counter, &["channel"]);
        let approved = make.counters(&approved).unwrap();
        let history = History::new();
        opened.with_label_values(&["sms", "DE"]).inc_by(5);
        let before = sums(&registry.gather());
        history
            .0
            .lock()
            .unwrap()
            .push_back((Instant::now(), before));
        opened.with_label_values(&["sms", "DE"]).inc_by(6);
        opened.with_label_values(&["sms", "FR"]).inc_by(2);
        opened.with_label_values(&["email", "none"]).inc();
        approved.with_label_values(&["sms"]).inc_by(2);
        let now = sums(&registry.gather());
        let (_, hours) = history.since(&now, &["issuer", "verifier"]);
        let sms = &hours[0];
        assert_eq!((sms.opened, sms.approved), (Some(8), Some(2)));
        assert_eq!(sms.conversion, Some(0.25));
        assert_eq!((sms.accepted, sms.not_delivered), (None, None));
        assert_eq!(hours[1].conversion, Some(0.0));
        // Without the verifier role there is no conversion: another process counts approvals.
        let (_, hours) = history.since(&now, &["issuer", "sms-worker"]);
        let sms = &hours[0];
        assert_eq!((sms.opened, sms.approved), (Some(8), None));
        assert_eq!((sms.conversion, sms.accepted), (None, Some(0)));
        assert_eq!(hours[1].accepted, None);
    }

    #[test]
    fn deliveries_are_summed_by_whether_a_provider_accepted_them() {
        let registry = Registry::new();
        let ended = series(ENDED, Kind::Counter, &["channel", "outcome", "class"]);
        let ended = Maker::fixed(&registry, "channel", "email").counters(&ended);
        let ended = ended.unwrap();
        ended.with_label_values(&["accepted", "accepted"]).inc_by(3);
        ended.with_label_values(&["failed", "transient"]).inc();
        let [sms, email] = sums(&registry.gather());
        assert_eq!(sms, Sums::default());
        assert_eq!((email.accepted, email.not_delivered), (3, 1));
    }

    #[test]
    fn queues_are_read_from_their_series_while_there_is_a_link() {
        let registry = Registry::new();
        let depths = series(QUEUES, Kind::Gauge, &["lane", "state"]);
        let depths = Maker::new(&registry).gauges(&depths).unwrap();
        let connected = series(CONNECTED, Kind::Gauge, &[]);
        let connected = Maker::new(&registry).gauge(&connected).unwrap();
        connected.set(1);
        assert!(queues(&Registry::new().gather()).is_empty());
        for (state, depth) in [("ready", 3), ("waiting", 2), ("parked", 1)] {
            depths.with_label_values(&["sms", state]).set(depth);
        }
        let queues = queues(&registry.gather());
        assert_eq!(queues.len(), 5);
        let sms = queues.iter().find(|queue| queue.queue == "sms").unwrap();
        let figures = |sms: &QueueReport| (sms.ready, sms.waiting, sms.dead_letters);
        assert_eq!(figures(sms), (Some(3), Some(2), Some(1)));
        assert_eq!(sms.consumers, None);

        // Without a connection the series keep stale values, so the report has no figures.
        connected.set(0);
        let queues = super::queues(&registry.gather());
        let sms = queues.iter().find(|queue| queue.queue == "sms").unwrap();
        assert_eq!(figures(sms), (None, None, None));
    }

    #[test]
    fn messages_that_nobody_reads_are_a_warning() {
        let queue = |ready, consumers| QueueReport {
            queue: "email".to_owned(),
            ready,
            waiting: Some(5),
            dead_letters: Some(0),
            consumers,
        };
        let warning = unread(&queue(Some(2), Some(0))).unwrap();
        assert!(
            warning.ends_with("start the role email-worker"),
            "{warning}"
        );
        for (ready, consumers) in [
            (Some(0), Some(0)),
            (Some(2), Some(1)),
            // The embedded engine counts no consumers.
            (Some(2), None),
            (None, None),
        ] {
            assert_eq!(unread(&queue(ready, consumers)), None);
        }
    }
}
