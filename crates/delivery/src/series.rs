//! The metrics of the workers: names, meaning, and what an operator does about them.

use watchword_metrics::{Kind, LATENCY, Series};

pub(crate) const ATTEMPTS: Series = Series {
    name: "watchword_attempts_total",
    kind: Kind::Counter,
    labels: &["channel", "provider", "class"],
    help: "Provider calls, by outcome class.",
    action: "`config_fault`: account or configuration, `watchword provider test NAME`. `destination_refused`: the provider does not deliver to that country or mail domain for our account: enable it there, route it to another provider, or remove it from the service's `countries`. `transient`, `unknown_outcome`: the provider has a problem; its share falls by itself. `recipient_invalid`, `recipient_blocked`: wrong numbers; a burst means that someone is guessing numbers.",
};
pub(crate) const NOT_CALLED: Series = Series {
    name: "watchword_attempts_not_called_total",
    kind: Kind::Counter,
    labels: &["channel", "provider"],
    help: "Attempts that ended before the provider was called, because its request could not be built. They do not count as calls.",
    action: "The provider's section of the configuration is wrong: `watchword provider test NAME`, and the reason in the worker's log.",
};
pub(crate) const TEXT_FAULTS: Series = Series {
    name: "watchword_text_faults_total",
    kind: Kind::Counter,
    labels: &["channel"],
    help: "Messages that ended as `text_fault`: the worker could not render the text, or the text did not show the code. No provider was called.",
    action: "The worker's log names the template and the variable; `watchword config check`. The issuer refuses such requests, so check that issuer and worker have the same `templates`.",
};
pub(crate) const ATTEMPT_SECONDS: Series = Series {
    name: "watchword_attempt_seconds",
    kind: Kind::Histogram(LATENCY),
    labels: &["channel", "provider"],
    help: "Duration of provider calls.",
    action: "Slow: above 3 s a provider loses share. Contact it, or lower its weight.",
};
pub(crate) const COUNTRY_ATTEMPTS: Series = Series {
    name: "watchword_country_attempts_total",
    kind: Kind::Counter,
    labels: &["channel", "provider", "country", "result"],
    help: "Provider calls by the recipient's country (ISO 3166; `none` for mail): `accepted`, `refused` because of the recipient or the text, `failed`. A series starts with the first message to its country.",
    action: "If a single country fails, give it its own route. If a country grows and its codes are not used, it is probably SMS pumping fraud; remove it from the service's `countries`.",
};
pub(crate) const SHARE: Series = Series {
    name: "watchword_provider_share_tenths",
    kind: Kind::Gauge,
    labels: &["channel", "provider"],
    help: "The part of its share that a provider may get, in tenths: the lower of its own health score and the best one of the countries or mail domains it worked for before. 0: its circuit is open.",
    action: "0: `watchword provider test NAME`. The worker sends half-open probes by itself.",
};
pub(crate) const FAILURES_IN_A_ROW: Series = Series {
    name: "watchword_provider_failures_in_a_row",
    kind: Kind::Gauge,
    labels: &["channel", "provider"],
    help: "Provider calls that ended as `transient`, `unknown_outcome` or `config_fault` since it last accepted a message.",
    action: "Growing: the provider is down or refuses our account, even if it gets too few messages for its share to fall. `watchword provider test NAME --to ADDRESS`.",
};
pub(crate) const COUNTRY_SHARE: Series = Series {
    name: "watchword_provider_country_share_tenths",
    kind: Kind::Gauge,
    labels: &["channel", "provider", "country"],
    help: "The provider's health score in a country it was asked to send to, 0 to 10; for mail (`none`) the provider's share.",
    action: "0 in one country only: the provider does not deliver there, or its route is down; other providers get the messages.",
};
pub(crate) const RECEIPTS: Series = Series {
    name: "watchword_receipts_total",
    kind: Kind::Counter,
    labels: &["channel", "provider", "state", "result"],
    help: "Delivery receipts by state and effect: `counted` (news), `repeated` (already known), `unknown` (no such message).",
    action: "`delivered` falls while `accepted` attempts do not: messages are lost after the provider. `unknown`: receipts of another installation.",
};
pub(crate) const AGE: Series = Series {
    name: "watchword_handover_age_seconds",
    kind: Kind::Histogram(LATENCY),
    labels: &["channel"],
    help: "Age of an order when a provider accepted it, counted from the time it was sealed. The service level objective uses the 5 s bucket.",
    action: "Compare `watchword_order_wait_seconds` (queue) and `watchword_attempt_seconds` (provider): find which one grew.",
};
pub(crate) const WAIT: Series = Series {
    name: "watchword_order_wait_seconds",
    kind: Kind::Histogram(LATENCY),
    labels: &["channel"],
    help: "Age of an order when a worker first received it.",
    action: "Growing: too few workers, or `concurrency` too low for slow providers.",
};
pub(crate) const ENDED: Series = Series {
    name: "watchword_deliveries_ended_total",
    kind: Kind::Counter,
    labels: &["channel", "outcome", "class"],
    help: "Deliveries that ended, by outcome and by the class of the last attempt (`none` without one).",
    action: "`expired`: no provider accepted it in time. `failed`: see the class.",
};
pub(crate) const PARKED: Series = Series {
    name: "watchword_orders_parked_total",
    kind: Kind::Counter,
    labels: &["channel", "reason"],
    help: "Orders that were dead-lettered, by reason.",
    action: "`watchword dead-letters list`. `unknown_key`: the worker lacks a sealing key. `unknown_service`: configurations differ. `broken_seal`: something else publishes to the queue. `panic`: a bug in Watchword; report it.",
};
pub(crate) const RETRIES: Series = Series {
    name: "watchword_retries_total",
    kind: Kind::Counter,
    labels: &["channel"],
    help: "Orders moved to a wait queue.",
    action: "Check which class of `watchword_attempts_total` grows with it.",
};
pub(crate) const REDELIVERIES: Series = Series {
    name: "watchword_redeliveries_total",
    kind: Kind::Counter,
    labels: &["channel"],
    help: "Orders that the broker delivered again.",
    action: "Growing without restarts: workers crash while they hold orders; check their logs.",
};
pub(crate) const REPEATS: Series = Series {
    name: "watchword_repeats_total",
    kind: Kind::Counter,
    labels: &["channel"],
    help: "Orders whose delivery had already ended; the ledger recognized them, and they were not sent again.",
    action: "None: it shows that redeliveries send nothing twice.",
};
pub(crate) const POSSIBLE_DUPLICATES: Series = Series {
    name: "watchword_possible_duplicates_total",
    kind: Kind::Counter,
    labels: &["channel"],
    help: "Deliveries taken over from a worker that stopped responding: the person may get two messages.",
    action: "Growing: workers are killed during provider calls; extend their shutdown grace period.",
};
pub(crate) const PAST_DEADLINE: Series = Series {
    name: "watchword_sends_past_deadline_total",
    kind: Kind::Counter,
    labels: &["channel"],
    help: "Messages that a provider accepted after their deadline. Must stay 0.",
    action: "Clocks differ (compare `watchword_clock_seconds`), or a bug in Watchword: report it.",
};
pub(crate) const EVENTS_DROPPED: Series = Series {
    name: "watchword_outcome_events_dropped_total",
    kind: Kind::Counter,
    labels: &["channel"],
    help: "Outcome events that could not be published; the ledger has the outcome.",
    action: "Consumers missed events and can query the status instead. Check the broker.",
};
pub(crate) const IN_FLIGHT: Series = Series {
    name: "watchword_deliveries_in_flight",
    kind: Kind::Gauge,
    labels: &["channel"],
    help: "Orders being processed now.",
    action: "At `concurrency` for long: providers are slow, or more workers are needed.",
};
pub(crate) const FAILOVERS: Series = Series {
    name: "watchword_failovers_total",
    kind: Kind::Counter,
    labels: &["channel"],
    help: "Attempts that were followed at once by another provider.",
    action: "Check which provider's share fell.",
};
pub(crate) const NO_PROVIDER: Series = Series {
    name: "watchword_no_provider_total",
    kind: Kind::Counter,
    labels: &["channel"],
    help: "Orders that waited because no provider could be called.",
    action: "The circuits of all providers of a route are open, or that of the only provider that may already have the message: `watchword provider test NAME` for each.",
};

/// All metrics of this crate.
pub const SERIES: &[Series] = &[
    AGE,
    WAIT,
    ENDED,
    ATTEMPTS,
    NOT_CALLED,
    TEXT_FAULTS,
    ATTEMPT_SECONDS,
    COUNTRY_ATTEMPTS,
    SHARE,
    COUNTRY_SHARE,
    FAILURES_IN_A_ROW,
    RECEIPTS,
    FAILOVERS,
    NO_PROVIDER,
    RETRIES,
    REDELIVERIES,
    REPEATS,
    POSSIBLE_DUPLICATES,
    PAST_DEADLINE,
    IN_FLIGHT,
    PARKED,
    EVENTS_DROPPED,
];
