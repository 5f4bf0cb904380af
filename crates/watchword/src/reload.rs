//! What may change while a process runs: keys, services and their API keys, providers with their
//! routes, secrets and templates, the passwords of broker and store. Read anew at SIGHUP and when
//! one of the files changes; all of it is checked before any of it is used, and what is wrong
//! leaves everything as it was. Refuses to change where a process listens and what it stands on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use watchword_chassis::Services;
use watchword_chassis::config::files_of;
use watchword_chassis::spans::DROPPED;
use watchword_metrics::prometheus::{Error, IntCounterVec, Registry};
use watchword_metrics::{Kind, Maker, Series};

use crate::config::{Config, PeerConfig, environment};
use crate::roles::{Shared, sealer_of};
use crate::texts::{Texts, check_sms};

/// How often the files are looked at. Orchestrators take up to a minute to bring a changed secret.
const LOOK: Duration = Duration::from_secs(5);
/// A bundle of authorities has some hundred KiB.
const LARGEST: u64 = 4 * 1024 * 1024;

/// The files of a configuration, as they were when last looked at.
pub struct Reader {
    path: PathBuf,
    seen: BTreeMap<PathBuf, [u8; 32]>,
}

impl Reader {
    /// Looks at the configuration in `path`; before it is read, so that no change in between is missed.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            seen: fingerprints(path),
        }
    }

    /// Whether they are others by now. Files take their time, which the tasks of a thread have not.
    pub async fn has_changed(&mut self) -> bool {
        let path = self.path.clone();
        let Ok(seen) = spawn_blocking(move || fingerprints(&path)).await else {
            return false;
        };
        let has_changed = seen != self.seen;
        self.seen = seen;
        has_changed
    }
}

/// Watches the configuration until `stop`.
pub struct Reloader {
    reader: Reader,
    shared: Arc<Shared>,
}

impl Reloader {
    /// A reloader of the configuration that `shared` was made from.
    pub const fn new(reader: Reader, shared: Arc<Shared>) -> Self {
        Self { reader, shared }
    }

    /// Reads the configuration anew at SIGHUP and when a file of it changed.
    pub async fn run(mut self, stop: CancellationToken) {
        let Ok(mut hangups) = signal(SignalKind::hangup()) else {
            tracing::error!("the process cannot receive SIGHUP");
            return stop.cancelled().await;
        };
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_told = tokio::select! {
                () = stop.cancelled() => return,
                _ = hangups.recv() => true,
                _ = looks.tick() => false,
            };
            if self.reader.has_changed().await || is_told {
                self.reload().await;
            }
        }
    }

    async fn reload(&self) {
        let begun = Instant::now();
        let (shared, path) = (self.shared.clone(), self.reader.path.clone());
        let reloaded = spawn_blocking(move || shared.reload(&path)).await;
        let reloaded = reloaded.unwrap_or_else(|_| Err(anyhow::anyhow!("a panic")));
        self.shared.reloads.count(reloaded.is_ok());
        match reloaded {
            Ok(()) => tracing::info!(
                took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
                "the configuration was read anew"
            ),
            Err(error) => tracing::error!(
                error = format!("{error:#}"),
                "the changed configuration is wrong; the one before stays in use"
            ),
        }
    }
}

/// What stands in the file and in those it names. One that cannot be read has none, nor has one that is
/// no file (a pipe would hold us up) or larger than any secret or certificate.
fn fingerprints(path: &Path) -> BTreeMap<PathBuf, [u8; 32]> {
    std::iter::once(path.to_owned())
        .chain(files_of(path, environment()))
        .filter(|file| {
            let meta = std::fs::metadata(file);
            meta.is_ok_and(|meta| meta.is_file() && meta.len() <= LARGEST)
        })
        .filter_map(|file| {
            let bytes = zeroize::Zeroizing::new(std::fs::read(&file).ok()?);
            Some((file, Sha256::digest(&*bytes).into()))
        })
        .collect()
}

impl Shared {
    /// Reads `path` anew and uses it.
    fn reload(&self, path: &Path) -> anyhow::Result<()> {
        let config = crate::run::checked(path, self.engine.broker.is_some())?;
        let fixed = |differs: bool, key: &str| {
            anyhow::ensure!(!differs, "config key `{key}`: takes a restart to change");
            Ok(())
        };
        fixed(config.engine != self.config.engine, "engine")?;
        let url = |peer: &Option<PeerConfig>| peer.as_ref().map(|peer| peer.url.clone());
        let queues = self.engine.broker.is_some();
        for (key, is_used, next, now) in [
            ("redis.url", true, &config.redis, &self.config.redis),
            (
                "rabbitmq.url",
                queues,
                &config.rabbitmq,
                &self.config.rabbitmq,
            ),
        ] {
            fixed(is_used && url(next) != url(now), key)?;
        }
        // Receipts are verified over it, at a route that stands since the start.
        let public_url =
            |config: &Config| config.sms.as_ref().and_then(|sms| sms.public_url.clone());
        fixed(
            public_url(&config) != public_url(&self.config),
            "sms.public_url",
        )?;
        let keys = config.keys.resolve()?;
        fixed(keys.index.expose() != self.index.expose(), "keys.index")?;
        let services = Services::from_config(&config.services)?;
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let changes: Vec<_> = channels
            .iter()
            .map(|channel| channel.next(&config, &self.inbox, &self.clock))
            .collect::<Result<_, _>>()?;
        if !channels.is_empty() {
            check_sms(config.templates.as_deref(), &services)?;
        }
        let texts = self.texts.get();
        let texts = texts
            .map(|live| Ok::<_, anyhow::Error>((live, Texts::load(config.templates.as_deref())?)))
            .transpose()?;
        if let Some(peers) = &self.engine.peers {
            peers.redirect(&config)?;
        }
        // Nothing below can fail. What opens goes before what seals.
        self.digest_keys.replace(keys.digest);
        self.sealer.replace(sealer_of(keys.sealing));
        if let Some(metrics) = self.issuer_metrics.get() {
            metrics.serves(&services);
        }
        self.services.replace(services);
        if let Some((live, texts)) = texts {
            live.replace(Box::new(texts));
        }
        for (channel, change) in channels.iter().zip(changes) {
            channel.replace(change, self.clock.now());
        }
        Ok(())
    }
}

const RELOADS: Series = Series {
    name: "watchword_config_reloads_total",
    kind: Kind::Counter,
    labels: &["result"],
    help: "Times the configuration was read anew, by result: `ok`, or `wrong` and left as it was.",
    action: "`wrong`: the log names the key; `watchword config check`. The process runs on with the configuration before.",
};

/// What becomes of configuration and traces.
pub const SERIES: &[Series] = &[RELOADS, DROPPED];

/// Counts when the configuration was read anew.
#[derive(Debug, Clone)]
pub struct Reloads(IntCounterVec);

impl Reloads {
    /// Registers the counter.
    pub fn register(registry: &Registry) -> Result<Self, Error> {
        let counter = Maker::new(registry).counters(&RELOADS)?;
        for result in ["ok", "wrong"] {
            counter.with_label_values(&[result]);
        }
        Ok(Self(counter))
    }

    fn count(&self, is_ok: bool) {
        let result = if is_ok { "ok" } else { "wrong" };
        self.0.with_label_values(&[result]).inc();
    }
}
