//! Reloads the configuration at SIGHUP, when the admin API asks for it, and when the configuration
//! or a file that it names changed. The new configuration is validated first; if it has an error,
//! the process keeps the running one. Keys that need a restart ([`crate::restart`]) keep their
//! running values and are reported; all others are applied.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::Context;
use sha2::{Digest, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use watchword_admin::AdminKeys;
use watchword_admin::configuration::Loaded;
use watchword_admin::http::ReloadRequest;
use watchword_chassis::config::files_of;
use watchword_chassis::spans::DROPPED;
use watchword_chassis::{Services, telemetry};
use watchword_core::{Key, millis};
use watchword_metrics::prometheus::{Error, IntCounterVec, IntGauge, Registry};
use watchword_metrics::{Kind, Maker, Series};

use crate::config::environment;
use crate::needs::Needs;
use crate::otlp::Exporter;
use crate::restart::{Waiting, hold};
use crate::roles::{Shared, sealer_of};
use crate::run::log;
use crate::texts::Texts;
use crate::validation::{looked_at, one_line, validate};

/// How often the files are compared. Orchestrators take up to a minute to update a mounted secret.
const LOOK: Duration = Duration::from_secs(5);
/// How long the files must stay unchanged after a change before they are read.
const SETTLE: Duration = Duration::from_secs(2);
/// The largest file that is compared. A bundle of CA certificates has some hundred KiB.
const LARGEST: u64 = 4 * 1024 * 1024;

/// The SHA-256 of the files of a configuration, by path.
type Prints = BTreeMap<PathBuf, [u8; 32]>;

/// A watch on the files of a configuration, with their hashes when it was last read.
pub struct Reader {
    path: PathBuf,
    needs: Needs,
    settle: Duration,
    taken: Prints,
}

impl Reader {
    /// Hashes the files of the configuration in `path` for a process with these `needs`. Call it
    /// before reading the configuration, so that no change in between is missed.
    pub fn new(path: &Path, needs: Needs) -> Self {
        Self {
            path: path.to_owned(),
            needs,
            settle: SETTLE,
            taken: fingerprints(path, needs),
        }
    }

    /// Returns whether the files have changed and are complete. A file may be written in several
    /// steps and be valid after each, so a change counts only if a second read finds the same
    /// content.
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

    /// Takes the current files as those that were read.
    pub async fn take(&mut self) {
        if let Some(prints) = self.look().await {
            self.taken = prints;
        }
    }

    /// Hashes the files on the blocking pool, because reading them would block other tasks.
    async fn look(&self) -> Option<Prints> {
        let (path, needs) = (self.path.clone(), self.needs);
        spawn_blocking(move || fingerprints(&path, needs))
            .await
            .ok()
    }
}

/// The task that reloads the configuration.
pub struct Reloader {
    reader: Reader,
    shared: Arc<Shared>,
    asked: mpsc::Receiver<ReloadRequest>,
}

impl Reloader {
    /// Creates a reloader of the configuration that `shared` was made from, and the sender by which
    /// the admin API requests a reload.
    pub fn new(reader: Reader, shared: Arc<Shared>) -> (Self, mpsc::Sender<ReloadRequest>) {
        let (ask, asked) = mpsc::channel(1);
        let reloader = Self {
            reader,
            shared,
            asked,
        };
        (reloader, ask)
    }

    /// Reloads the configuration at SIGHUP, at requests of the admin API and when its files change,
    /// until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let Ok(mut hangups) = signal(SignalKind::hangup()) else {
            tracing::error!("the process cannot receive SIGHUP");
            return stop.cancelled().await;
        };
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // `has_changed` waits before its second read. A signal or request that arrives
            // meanwhile cancels it: the operator knows that the files are complete.
            let looked = async {
                looks.tick().await;
                self.reader.has_changed().await
            };
            let (has_changed, answer) = tokio::select! {
                () = stop.cancelled() => return,
                _ = hangups.recv() => (None, None),
                // The sender belongs to the admin listener, which may end first; then this branch
                // is disabled.
                Some(answer) = self.asked.recv() => (None, Some(answer)),
                has_changed = looked => (Some(has_changed), None),
            };
            let result = match has_changed {
                None => {
                    self.reader.take().await;
                    self.reload().await
                }
                Some(true) => self.reload().await,
                Some(false) => continue,
            };
            if let Some(answer) = answer {
                // An error means that the caller has disconnected.
                let _ = answer.send(result);
            }
        }
    }

    /// Reloads the configuration and returns the changed keys that need a restart. An error names
    /// the key and holds no value.
    async fn reload(&self) -> Result<Vec<String>, String> {
        let begun = Instant::now();
        let (shared, path) = (self.shared.clone(), self.reader.path.clone());
        let reloaded = spawn_blocking(move || shared.reload(&path)).await;
        let reloaded = reloaded.unwrap_or_else(|_| Err(anyhow::anyhow!("a panic")));
        self.shared.reloads.count(reloaded.as_ref().ok());
        let reloaded = reloaded.map_err(|error| one_line(&error));
        match &reloaded {
            Ok(waiting) => {
                tracing::info!(
                    took_ms = millis(begun.elapsed()),
                    "the configuration was reloaded"
                );
                if !waiting.keys().is_empty() {
                    tracing::warn!(
                        keys = waiting.keys().join(", "),
                        "these keys take a restart; until then the process keeps their running values"
                    );
                }
            }
            Err(error) => {
                let shown = &self.shared.shown;
                let mut loaded = Loaded::clone(&shown.get());
                loaded.refused = Some(error.clone());
                shown.replace(loaded);
                tracing::error!(
                    error,
                    "the changed configuration is wrong; the process keeps the one it has"
                );
            }
        }
        reloaded.map(|waiting| waiting.keys().iter().map(ToString::to_string).collect())
    }
}

/// Returns the hashes of the configuration file and of the files that it names. Skips unreadable
/// files, files larger than [`LARGEST`], and everything that is not a regular file: reading a pipe
/// would block.
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
    /// Reads, validates and applies the configuration in `path`. Returns the changed keys that need
    /// a restart.
    fn reload(&self, path: &Path) -> anyhow::Result<Waiting> {
        let (next, mut warnings) = looked_at(path, self.needs)?;
        let keys = next.keys.resolve(self.needs.keys)?;
        let (config, mut waiting) = hold(&self.config, next, self.needs);
        let index = self.index.as_ref().map(Key::expose);
        let differs = keys.index.as_ref().map(Key::expose) != index;
        waiting.note("keys.index", self.needs.keys.index, differs);
        if !waiting.keys().is_empty() {
            // The running values of these keys may be invalid together with the new values of
            // others, so validate the combination.
            warnings = validate(&config, self.needs)
                .context("with the running values of the keys that take a restart")?;
        }
        let services = Services::from_config(&config.services)?;
        let exporter = self.exporter.as_ref().zip(config.traces.as_ref());
        let exporter = exporter
            .map(|(live, traces)| Ok::<_, anyhow::Error>((live, Exporter::new(traces)?)))
            .transpose()?;
        let admin_keys = AdminKeys::from_config(&config.admin)?;
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let changes: Vec<_> = channels
            .iter()
            .map(|channel| channel.next(&config, &self.inbox, &self.clock))
            .collect::<Result<_, _>>()?;
        let texts = self.texts.get();
        let texts = texts
            .map(|live| Ok::<_, anyhow::Error>((live, Texts::load(config.templates.as_deref())?)))
            .transpose()?;
        if let Some(peers) = &self.engine.peers {
            peers.redirect(&config)?;
        }
        // Nothing below can fail, so the reload is applied as a whole. Keys come first, before the
        // parts that use them.
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
        self.admin_keys.replace(admin_keys);
        let restart_needed = waiting.keys().iter().map(ToString::to_string).collect();
        self.shown
            .replace(Loaded::new(&config.source, restart_needed));
        if let Some((live, texts)) = texts {
            live.replace(Box::new(texts));
        }
        for (channel, change) in channels.iter().zip(changes) {
            channel.replace(change, self.clock.now());
        }
        if let Some((live, exporter)) = exporter {
            live.replace(exporter);
        }
        telemetry::set_level(config.log.level);
        log(&warnings);
        Ok(waiting)
    }
}

const RELOADS: Series = Series {
    name: "watchword_config_reloads_total",
    kind: Kind::Counter,
    labels: &["result"],
    help: "Reloads of the configuration, by result: `ok`, `restart_needed` (applied except the keys that take a restart), or `refused` (nothing was applied).",
    action: "`refused`: the log names the key; correct it and run `watchword config check`. `restart_needed`: the log names the keys; restart the process at a suitable time.",
};
const SUCCESSFUL: Series = Series {
    name: "watchword_config_last_reload_successful",
    kind: Kind::Gauge,
    labels: &[],
    help: "1 if the last reload was applied, or none was tried; 0 if it was refused.",
    action: "0: the process runs with an earlier configuration than the file, so a removed API key is still valid. The log names the key with the error; correct it and run `watchword config check`.",
};
const RESTART_NEEDED: Series = Series {
    name: "watchword_config_restart_needed",
    kind: Kind::Gauge,
    labels: &[],
    help: "Changed configuration keys that need a restart of this process.",
    action: "Above 0: the log of the last reload names the keys; restart the process, or revert the change.",
};

/// The series of reloads and traces.
pub const SERIES: &[Series] = &[RELOADS, SUCCESSFUL, RESTART_NEEDED, DROPPED];

/// The metrics of reloads.
#[derive(Debug, Clone)]
pub struct Reloads {
    results: IntCounterVec,
    successful: IntGauge,
    restart_needed: IntGauge,
}

impl Reloads {
    /// Registers the series, all with the value of a process that has not reloaded yet.
    pub fn register(registry: &Registry) -> Result<Self, Error> {
        let make = Maker::new(registry);
        let results = make.counters(&RELOADS)?;
        for result in ["ok", "restart_needed", "refused"] {
            results.with_label_values(&[result]);
        }
        let successful = make.gauge(&SUCCESSFUL)?;
        successful.set(1);
        Ok(Self {
            results,
            successful,
            restart_needed: make.gauge(&RESTART_NEEDED)?,
        })
    }

    /// Counts a reload; `None` means that it was refused.
    fn count(&self, waiting: Option<&Waiting>) {
        let result = match waiting {
            None => "refused",
            Some(waiting) if waiting.keys().is_empty() => "ok",
            Some(_) => "restart_needed",
        };
        self.results.with_label_values(&[result]).inc();
        self.successful.set(i64::from(waiting.is_some()));
        if let Some(waiting) = waiting {
            let count = i64::try_from(waiting.keys().len()).unwrap_or(i64::MAX);
            self.restart_needed.set(count);
        }
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
        // The file is valid TOML even after the first write.
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
