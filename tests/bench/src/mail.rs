//! Mail transport alone: Watchword's mails over pooled connections into `smtp-sink`, in turns with
//! `smtp-source`, the load generator by the same authors, over as many connections. Both tools
//! belong to Postfix. A mail that is not accepted fails the measurement.

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use serde_json::json;
use watchword_chassis::SystemClock;
use watchword_core::{AttemptClass, Channel, Clock, Recipient, Variables};
use watchword_delivery::{Dispatch, Inbox, Provider, Sender};
use watchword_email_worker::EmailConfig;
use watchword_tests::{Process, free_port, until};

use crate::figures::Figures;
use crate::mailbox::Mailbox;
use crate::provider::Provider as Load;

/// Number of connections, for Watchword and for the generator.
const CONNECTIONS: usize = 16;
/// Approximate size of the body of Watchword's mail.
const BODY_BYTES: &str = "1500";

/// Relay that accepts every mail.
pub struct Relay {
    port: u16,
    process: Process,
    _mailbox: Option<Mailbox>,
}

impl Relay {
    /// Starts a relay.
    pub async fn start() -> anyhow::Result<Self> {
        Self::launch(None).await
    }

    /// Starts a relay that reports each mail to `provider`.
    pub async fn telling(provider: &Arc<Load>) -> anyhow::Result<Self> {
        Self::launch(Some(Mailbox::open(provider)?)).await
    }

    /// Returns the TCP port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    async fn launch(mailbox: Option<Mailbox>) -> anyhow::Result<Self> {
        let port = free_port();
        let mut command = Command::new("/usr/sbin/smtp-sink");
        if std::fs::metadata("/proc/self")?.uid() == 0 {
            // `smtp-sink` refuses to run as root without `-u`.
            command.args(["-u", "nobody"]);
        }
        if let Some(mailbox) = &mailbox {
            command.arg("-D").arg(mailbox.path());
        }
        command.arg(format!("127.0.0.1:{port}")).arg("256");
        let output = std::env::temp_dir().join(format!("watchword-smtp-sink-{port}.log"));
        let process = Process::start(command, &output);
        until(10, "smtp-sink listens", || async {
            tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .ok()
        })
        .await;
        let _ = std::fs::remove_file(output);
        Ok(Self {
            port,
            process,
            _mailbox: mailbox,
        })
    }

    /// Sends single mails first, then `count` mails by Watchword and `count` by the generator.
    pub async fn compare(&self, count: u32, figures: &mut Figures) -> anyhow::Result<()> {
        let provider = self.provider()?;
        let dispatch = dispatch()?;
        send(&provider, &dispatch).await?;
        let begun = Instant::now();
        for _ in 0..100 {
            send(&provider, &dispatch).await?;
        }
        figures.add("email.one_mail_ms", begun.elapsed().as_secs_f64() * 10.0);
        let left = AtomicU32::new(count);
        let next = |left: u32| left.checked_sub(1);
        let begun = Instant::now();
        let users = (0..CONNECTIONS).map(async |_| {
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
                .is_ok()
            {
                send(&provider, &dispatch).await?;
            }
            anyhow::Ok(())
        });
        try_join_all(users).await?;
        let ours = f64::from(count) / begun.elapsed().as_secs_f64();
        let source = self.source(count)?;
        figures.add("email.per_s", ours);
        figures.add("email.smtp_source_per_s", source);
        figures.add("smtp_ratio", ours / source);
        Ok(())
    }

    fn provider(&self) -> anyhow::Result<Arc<dyn Provider>> {
        let config: EmailConfig = serde_json::from_value(json!({ "providers": { "relay": {
            "kind": "smtp", "host": "127.0.0.1", "port": self.port, "tls": "none",
            "from": "no-reply@example.org",
            // Mails to one domain use at most a quarter of them.
            "max_connections": CONNECTIONS * 4,
        } } }))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let built = watchword_email_worker::build(&config, None, &Inbox::default(), &clock)
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        built.providers.first().cloned().context("a provider")
    }

    fn source(&self, count: u32) -> anyhow::Result<f64> {
        let mut command = Command::new("/usr/sbin/smtp-source");
        // -d keeps connections open; -N gives each mail another recipient.
        command
            .args(["-d", "-N", "-l", BODY_BYTES])
            .args(["-s", &CONNECTIONS.to_string(), "-m", &count.to_string()])
            .args(["-f", "no-reply@example.org", "-t", "jane@example.org"])
            .arg(format!("127.0.0.1:{}", self.port))
            .stdout(Stdio::null());
        let begun = Instant::now();
        let status = command.status().context("smtp-source")?;
        ensure!(status.success(), "smtp-source failed");
        Ok(f64::from(count) / begun.elapsed().as_secs_f64())
    }
}

async fn send(provider: &Arc<dyn Provider>, dispatch: &Dispatch) -> anyhow::Result<()> {
    let attempted = provider.attempt(dispatch).await;
    ensure!(
        attempted.class == AttemptClass::Accepted,
        "a mail was not accepted: {}",
        attempted.reason
    );
    Ok(())
}

fn dispatch() -> anyhow::Result<Dispatch> {
    let invalid = |error: watchword_core::Malformed| anyhow::anyhow!("{error}");
    Ok(Dispatch {
        delivery_id: format!("{}-1", "a".repeat(32)).parse().map_err(invalid)?,
        recipient: Recipient::parse(Channel::Email, "jane@example.org").map_err(invalid)?,
        code: "012345".parse().map_err(invalid)?,
        sender: Sender {
            app: "Bench".to_owned(),
            host: None,
        },
        locale: None,
        variables: Variables::default(),
        remaining: Duration::from_secs(300),
    })
}
