//! The keys that need a restart: a reload keeps their running values. [`hold`] destructures every
//! section field by field, so that a new key does not compile until it is handled here.

use watchword_chassis::config::{AdminConfig, HttpConfig, KeysConfig, LogConfig};
use watchword_email_worker::EmailConfig;
use watchword_sms_worker::SmsConfig;

use crate::config::{Config, EmbeddedConfig, EngineKind, LedgerConfig, PeerConfig, TracesConfig};
use crate::needs::Needs;

/// The keys whose new value differs from the running one and needs a restart of this process.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Waiting(Vec<&'static str>);

impl Waiting {
    /// Returns the keys, in the order of [`Config`].
    pub fn keys(&self) -> &[&'static str] {
        &self.0
    }

    /// Adds `key` if the process uses it and its value differs.
    pub fn note(&mut self, key: &'static str, is_used: bool, differs: bool) {
        if is_used && differs {
            self.0.push(key);
        }
    }

    /// Returns the running value, and adds `key` if the next value differs.
    fn keep<T: PartialEq + Clone>(
        &mut self,
        key: &'static str,
        is_used: bool,
        running: &T,
        next: &T,
    ) -> T {
        self.note(key, is_used, running != next);
        running.clone()
    }
}

/// Returns the configuration that a process with these `needs` uses after a reload: `next` with the
/// `running` values of the keys that need a restart.
pub fn hold(running: &Config, next: Config, needs: Needs) -> (Config, Waiting) {
    let mut waiting = Waiting::default();
    let is_distributed = running.engine == EngineKind::Distributed;
    let Config {
        engine,
        http,
        admin,
        log,
        embedded,
        rabbitmq,
        redis,
        keys,
        services,
        ledger,
        templates,
        traces,
        sms,
        email,
        source,
    } = next;
    let config = Config {
        engine: waiting.keep("engine", true, &running.engine, &engine),
        http: hold_http(&mut waiting, running, &http, needs),
        admin: hold_admin(&mut waiting, &running.admin, &admin),
        log: hold_log(&mut waiting, running.log, log),
        embedded: hold_embedded(&mut waiting, running, embedded),
        rabbitmq: {
            let is_used = is_distributed && needs.queues;
            let held = ("rabbitmq.url", running.rabbitmq.as_ref());
            hold_peer(&mut waiting, held, rabbitmq, is_used)
        },
        redis: {
            let held = ("redis.url", running.redis.as_ref());
            hold_peer(&mut waiting, held, redis, is_distributed)
        },
        keys: hold_keys(keys),
        services,
        ledger: hold_ledger(&mut waiting, running.ledger, ledger),
        templates,
        traces: hold_traces(&mut waiting, running.traces.as_ref(), traces),
        sms: hold_sms(&mut waiting, running.sms.as_ref(), sms, needs.sms),
        email: hold_email(&mut waiting, running.email.as_ref(), email, needs.email),
        source,
    };
    (config, waiting)
}

fn hold_http(
    waiting: &mut Waiting,
    running: &Config,
    next: &HttpConfig,
    needs: Needs,
) -> HttpConfig {
    let HttpConfig {
        listen,
        max_in_flight,
    } = &running.http;
    let serves_api = needs.keys.digest;
    let takes_receipts =
        needs.sms && (running.sms.as_ref()).is_some_and(|it| it.public_url.is_some());
    let listens = serves_api || takes_receipts;
    HttpConfig {
        listen: waiting.keep("http.listen", listens, listen, &next.listen),
        max_in_flight: waiting.keep(
            "http.max_in_flight",
            serves_api,
            max_in_flight,
            &next.max_in_flight,
        ),
    }
}

fn hold_admin(waiting: &mut Waiting, running: &AdminConfig, next: &AdminConfig) -> AdminConfig {
    let AdminConfig {
        listen,
        behind_tls: _,
        keys: _,
    } = running;
    AdminConfig {
        listen: waiting.keep("admin.listen", true, listen, &next.listen),
        behind_tls: next.behind_tls,
        keys: next.keys.clone(),
    }
}

fn hold_log(waiting: &mut Waiting, running: LogConfig, next: LogConfig) -> LogConfig {
    let LogConfig { format, level } = next;
    LogConfig {
        format: waiting.keep("log.format", true, &running.format, &format),
        level,
    }
}

fn hold_embedded(
    waiting: &mut Waiting,
    running: &Config,
    next: Option<EmbeddedConfig>,
) -> Option<EmbeddedConfig> {
    let path = |section: EmbeddedConfig| {
        let EmbeddedConfig { path } = section;
        path
    };
    let is_used = running.engine == EngineKind::Embedded;
    let (running, next) = (running.embedded.clone().map(path), next.map(path));
    let path = waiting.keep("embedded.path", is_used, &running, &next);
    path.map(|path| EmbeddedConfig { path })
}

/// Keeps the running section as a whole if the URL differs: the new password belongs to the new
/// URL.
fn hold_peer(
    waiting: &mut Waiting,
    (key, running): (&'static str, Option<&PeerConfig>),
    next: Option<PeerConfig>,
    is_used: bool,
) -> Option<PeerConfig> {
    let url = |section: Option<&PeerConfig>| {
        section.map(|section| {
            let PeerConfig {
                url,
                password: _,
                allow_cleartext: _,
            } = section;
            url.clone()
        })
    };
    let differs = url(running) != url(next.as_ref());
    waiting.note(key, is_used, differs);
    if differs { running.cloned() } else { next }
}

/// Returns `next` unchanged. `Shared::reload` compares the content of `index`, not its place.
fn hold_keys(next: KeysConfig) -> KeysConfig {
    let KeysConfig {
        sealing,
        digest,
        index,
    } = next;
    KeysConfig {
        sealing,
        digest,
        index,
    }
}

fn hold_ledger(waiting: &mut Waiting, running: LedgerConfig, next: LedgerConfig) -> LedgerConfig {
    let LedgerConfig { retention_hours } = running;
    LedgerConfig {
        retention_hours: waiting.keep(
            "ledger.retention_hours",
            true,
            &retention_hours,
            &next.retention_hours,
        ),
    }
}

fn hold_traces(
    waiting: &mut Waiting,
    running: Option<&TracesConfig>,
    next: Option<TracesConfig>,
) -> Option<TracesConfig> {
    waiting.note("traces", true, running.is_some() != next.is_some());
    let running = running?;
    let Some(next) = next else {
        return Some(running.clone());
    };
    let TracesConfig {
        url,
        share,
        headers,
    } = next;
    Some(TracesConfig {
        url,
        share: waiting.keep("traces.share", true, &running.share, &share),
        headers,
    })
}

fn hold_sms(
    waiting: &mut Waiting,
    running: Option<&SmsConfig>,
    next: Option<SmsConfig>,
    is_used: bool,
) -> Option<SmsConfig> {
    // If the worker runs here, a missing section is an error that the reload reports later.
    let next = next?;
    let Some(running) = running else {
        return Some(next);
    };
    let SmsConfig {
        concurrency,
        public_url,
        receipt_grace_minutes,
        unknown_retries,
        rejected_elsewhere,
        providers,
        routes,
    } = next;
    Some(SmsConfig {
        concurrency: waiting.keep(
            "sms.concurrency",
            is_used,
            &running.concurrency,
            &concurrency,
        ),
        public_url: waiting.keep("sms.public_url", is_used, &running.public_url, &public_url),
        receipt_grace_minutes,
        unknown_retries,
        rejected_elsewhere,
        providers,
        routes,
    })
}

fn hold_email(
    waiting: &mut Waiting,
    running: Option<&EmailConfig>,
    next: Option<EmailConfig>,
    is_used: bool,
) -> Option<EmailConfig> {
    let next = next?;
    let Some(running) = running else {
        return Some(next);
    };
    let EmailConfig {
        concurrency,
        unknown_retries,
        rejected_elsewhere,
        providers,
        routes,
    } = next;
    Some(EmailConfig {
        concurrency: waiting.keep(
            "email.concurrency",
            is_used,
            &running.concurrency,
            &concurrency,
        ),
        unknown_retries,
        rejected_elsewhere,
        providers,
        routes,
    })
}

#[cfg(test)]
mod tests;
