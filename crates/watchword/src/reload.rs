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
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use watchword_chassis::Services;
use watchword_chassis::config::files_of;
use watchword_chassis::spans::DROPPED;
use watchword_core::Key;
use watchword_metrics::prometheus::{Error, IntCounterVec, Registry};
use watchword_metrics::{Kind, Maker, Series};

use crate::config::{Config, PeerConfig, environment};
use crate::needs::Needs;
use crate::roles::{Shared, sealer_of};
use crate::texts::{Texts, check_sms};

/// How often the files are looked at. Orchestrators take up to a minute to bring a changed secret.
const LOOK: Duration = Duration::from_secs(5);
/// How long the files must stay unchanged after a change before they are read.
const SETTLE: Duration = Duration::from_secs(2);
/// A bundle of authorities has some hundred KiB.
const LARGEST: u64 = 4 * 1024 * 1024;

/// The content of the files of a configuration, by path.
type Prints = BTreeMap<PathBuf, [u8; 32]>;

/// The files of a configuration, as they were when it was last read.
pub struct Reader {
    path: PathBuf,
    needs: Needs,
    settle: Duration,
    taken: Prints,
}

impl Reader {
    /// Looks at the configuration in `path` for a process with these `needs`. Call it before
    /// reading, so that no change in between is missed.
    pub fn new(path: &Path, needs: Needs) -> Self {
        Self {
            path: path.to_owned(),
            needs,
            settle: SETTLE,
            taken: fingerprints(path, needs),
        }
    }

    /// Whether the files have changed and are whole. A file may be written in several steps and be
    /// valid after each of them, so a change counts once a second look finds the same content.
    pub async fn has_changed(&mut self) -> bool {
        let Some(first) = self.look().await else {
            return false;
        };
        if first == self.taken {
            return false;
        }
        sleep(self.settle).await;
        let second = self.look().await;
        let is_whole = second.as_ref() == Some(&first);
        if is_whole {
            self.taken = first;
        }
        is_whole
    }

    /// Remembers the files as they are now.
    pub async fn take(&mut self) {
        if let Some(prints) = self.look().await {
            self.taken = prints;
        }
    }

    /// Reading files takes time, which the tasks of a thread do not have.
    async fn look(&self) -> Option<Prints> {
        let (path, needs) = (self.path.clone(), self.needs);
        spawn_blocking(move || fingerprints(&path, needs))
            .await
            .ok()
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
            // The second look waits: a signal may arrive meanwhile, and says that the files are
            // whole.
            let looked = async {
                looks.tick().await;
                self.reader.has_changed().await
            };
            let has_changed = tokio::select! {
                () = stop.cancelled() => return,
                _ = hangups.recv() => None,
                has_changed = looked => Some(has_changed),
            };
            match has_changed {
                None => {
                    self.reader.take().await;
                    self.reload().await;
                }
                Some(true) => self.reload().await,
                Some(false) => {}
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
fn fingerprints(path: &Path, needs: Needs) -> Prints {
    std::iter::once(path.to_owned())
        .chain(files_of(path, environment(), &needs.left_out()))
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
        let config = crate::run::checked(path, self.needs)?;
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
        let keys = config.keys.resolve(self.needs.keys)?;
        let index = self.index.as_ref().map(Key::expose);
        fixed(keys.index.as_ref().map(Key::expose) != index, "keys.index")?;
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
        if let (Some(live), Some(keys)) = (&self.digest_keys, keys.digest) {
            live.replace(keys);
        }
        if let (Some(live), Some(keys)) = (&self.sealer, keys.sealing) {
            live.replace(sealer_of(keys));
        }
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

#[cfg(test)]
mod tests {
    use std::fs::write;

    use tokio::join;

    use super::*;

    #[tokio::test]
    async fn a_file_counts_as_changed_once_two_looks_agree() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watchword.toml");
        write(&path, "a = 1").unwrap();
        let mut reader = Reader::new(&path, Needs::ALL);
        reader.settle = Duration::from_millis(600);
        assert!(!reader.has_changed().await);
        // The file is valid TOML after the first step already.
        write(&path, "a = 2").unwrap();
        let second_step = async {
            sleep(Duration::from_millis(200)).await;
            write(&path, "a = 2\nb = 3").unwrap();
        };
        let (has_changed, ()) = join!(reader.has_changed(), second_step);
        assert!(!has_changed);
        assert!(reader.has_changed().await);
        assert!(!reader.has_changed().await);
        // The watch ignores a secret that the process does not need.
        let secret = folder.path().join("sealing");
        let text = format!("[keys]\nsealing = [{{ id = \"s1\", file = {secret:?} }}]");
        write(&path, text).unwrap();
        write(&secret, "1").unwrap();
        assert!(reader.has_changed().await);
        let mut verifier = Reader::new(&path, Needs::of(&[crate::cli::Role::Verifier]));
        verifier.settle = reader.settle;
        write(&secret, "2").unwrap();
        assert!(reader.has_changed().await);
        assert!(!verifier.has_changed().await);
    }
}
