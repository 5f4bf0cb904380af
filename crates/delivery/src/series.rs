//! The series of the workers: names, meanings, and what to do. Refuses to count.

use watchword_metrics::{Kind, LATENCY, Series};

pub(crate) const ATTEMPTS: Series = Series {
    name: "watchword_attempts_total",
    kind: Kind::Counter,
    labels: &["channel", "provider", "class"],
    help: "Calls of a provider, by how they ended.",
    action: "`config_fault`: account or configuration, `watchword provider test NAME`. `destination_refused`: the provider does not deliver to that country or mail domain for our account: enable it there, route it to another provider, or take it from the service's `countries`. `transient`, `unknown_outcome`: the provider's trouble; its share falls by itself. `recipient_invalid`, `recipient_blocked`: wrong numbers; many at once are someone trying numbers.",
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
    action: "The worker's log names the template and the variable; `watchword config check`. The issuer refuses such requests, so look whether issuer and worker have the same `templates`.",
};
pub(crate) const ATTEMPT_SECONDS: Series = Series {
    name: "watchword_attempt_seconds",
    kind: Kind::Histogram(LATENCY),
    labels: &["channel", "provider"],
    help: "How long a provider's call took.",
    action: "Slow: above 3 s a provider loses share. Ask it, or move its weight.",
};
pub(crate) const COUNTRY_ATTEMPTS: Series = Series {
    name: "watchword_country_attempts_total",
    kind: Kind::Counter,
    labels: &["channel", "provider", "country", "result"],
    help: "Calls of a provider by the recipient's country (ISO 3166; `none` for mail): `accepted`, `refused` for the recipient's or the text's own sake, `failed`. Begins with the first message to a country.",
    action: "One country fails: a route of its own. One country grows and its codes are not used: someone earns by your messages; take it from the service's `countries`.",
};
pub(crate) const SHARE: Series = Series {
    name: "watchword_provider_share_tenths",
    kind: Kind::Gauge,
    labels: &["channel", "provider"],
    help: "What a provider may get of its share, 0 to 10: the lesser of its own level and that of the best country or mail domain it worked for before. 0: its circuit is open.",
    action: "0: `watchword provider test NAME`; the worker probes it by itself.",
};
pub(crate) const FAILURES_IN_A_ROW: Series = Series {
    name: "watchword_provider_failures_in_a_row",
    kind: Kind::Gauge,
    labels: &["channel", "provider"],
    help: "Calls of a provider that ended as `transient`, `unknown_outcome` or `config_fault` since it last accepted a message.",
    action: "Growing: the provider is dead or refuses us, also if it gets too few messages for its share to fall. `watchword provider test NAME --to ADDRESS`.",
};
pub(crate) const COUNTRY_SHARE: Series = Series {
    name: "watchword_provider_country_share_tenths",
    kind: Kind::Gauge,
    labels: &["channel", "provider", "country"],
    help: "The level of a provider in one country it was asked to send to, 0 to 10; for mail (`none`) the share of the provider.",
    action: "0 in one country only: the provider does not deliver there, or its route is down; other providers get the messages.",
};
pub(crate) const RECEIPTS: Series = Series {
    name: "watchword_receipts_total",
    kind: Kind::Counter,
    labels: &["channel", "provider", "state", "result"],
    help: "Receipts by what they said, and whether that `counted`, `repeated` what was known, or was about an `unknown` message.",
    action: "`delivered` falls while `accepted` attempts do not: messages vanish behind the provider. `unknown`: receipts of another installation.",
};
pub(crate) const AGE: Series = Series {
    name: "watchword_handover_age_seconds",
    kind: Kind::Histogram(LATENCY),
    labels: &["channel"],
    help: "Age of an order when a provider accepted it, from the moment it was sealed for an accepted request. The objective is read at 5.",
    action: "Compare `watchword_order_wait_seconds` (queue) and `watchword_attempt_seconds` (provider): one of them grew.",
};
pub(crate) const WAIT: Series = Series {
    name: "watchword_order_wait_seconds",
    kind: Kind::Histogram(LATENCY),
    labels: &["channel"],
    help: "Age of an order when a worker first took it.",
    action: "Growing: too few workers, or `concurrency` too small for slow providers.",
};
pub(crate) const ENDED: Series = Series {
    name: "watchword_deliveries_ended_total",
    kind: Kind::Counter,
    labels: &["channel", "outcome", "class"],
    help: "Deliveries that ended, by outcome and by the class of the last attempt (`none` without one).",
    action: "`expired`: nobody took it in time. `failed`: see its class.",
};
pub(crate) const PARKED: Series = Series {
    name: "watchword_orders_parked_total",
    kind: Kind::Counter,
    labels: &["channel", "reason"],
    help: "Orders put aside, by reason.",
    action: "`watchword dead-letters list`. `unknown_key`: the worker lacks a sealing key. `unknown_service`: configurations differ. `broken_seal`: someone else publishes. `panic`: a fault of ours; report it.",
};
pub(crate) const RETRIES: Series = Series {
    name: "watchword_retries_total",
    kind: Kind::Counter,
    labels: &["channel"],
    help: "Orders put into a wait queue.",
    action: "See which class of attempt grows with it.",
};
pub(crate) const REDELIVERIES: Series = Series {
    name: "watchword_redeliveries_total",
    kind: Kind::Counter,
    labels: &["channel"],
    help: "Orders handed out by the broker again.",
    action: "Growing without restarts: workers die in the middle of work; look at their logs.",
};
pub(crate) const REPEATS: Series = Series {
    name: "watchword_repeats_total",
    kind: Kind::Counter,
    labels: &["channel"],
    help: "Orders whose delivery had ended already: recognised by the ledger, not sent again.",
    action: "None: it shows that redeliveries send nothing twice.",
};
pub(crate) const POSSIBLE_DUPLICATES: Series = Series {
    name: "watchword_possible_duplicates_total",
    kind: Kind::Counter,
    labels: &["channel"],
    help: "Deliveries taken over from a worker that went silent: the person may get two messages.",
    action: "Growing: workers are killed in the middle of calls; give them longer to stop.",
};
pub(crate) const PAST_DEADLINE: Series = Series {
    name: "watchword_sends_past_deadline_total",
    kind: Kind::Counter,
    labels: &["channel"],
    help: "Messages a provider accepted after their deadline. Must stay 0.",
    action: "A fault of ours, or clocks that differ: compare `watchword_clock_seconds`, then report it.",
};
pub(crate) const EVENTS_DROPPED: Series = Series {
    name: "watchword_outcome_events_dropped_total",
    kind: Kind::Counter,
    labels: &["channel"],
    help: "Outcome events that could not be published; the ledger has the outcome.",
    action: "Listeners missed news: they can ask for the status. Look at the broker.",
};
pub(crate) const IN_FLIGHT: Series = Series {
    name: "watchword_deliveries_in_flight",
    kind: Kind::Gauge,
    labels: &["channel"],
    help: "Orders in work now.",
    action: "At `concurrency` for long: providers are slow, or more workers are needed.",
};
pub(crate) const FAILOVERS: Series = Series {
    name: "watchword_failovers_total",
    kind: Kind::Counter,
    labels: &["channel"],
    help: "Attempts that were followed by another provider at once.",
    action: "See whose share fell.",
};
pub(crate) const NO_PROVIDER: Series = Series {
    name: "watchword_no_provider_total",
    kind: Kind::Counter,
    labels: &["channel"],
    help: "Orders that waited because no provider could be asked.",
    action: "All providers of a route are closed off, or the one that may have the message already: `watchword provider test NAME` for each.",
};

/// Everything this crate counts.
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
