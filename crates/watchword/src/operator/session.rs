//! Execution of an operator's command: through the admin API of a running process or, if nothing
//! listens there, on the store directly.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use reqwest::header::HeaderValue;
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;
use watchword_admin::operate::{ChangeRequest, Operator};
use watchword_admin::trail::{TrailRecord, check_reason};
use watchword_chassis::Problem;
use watchword_chassis::http::NO_PATH;
use zeroize::Zeroizing;

use super::read;
use crate::cli::AdminArguments;
use crate::config::EngineKind;
use crate::failure::Failure;
use crate::needs::Needs;
use crate::reach::Unreached;
use crate::roles::Shared;
use crate::run::operator;
use crate::validation::checked;

/// The deadline of an audit, which takes minutes on a large store.
const AUDIT_DEADLINE: Duration = Duration::from_secs(600);
const DEADLINE: Duration = Duration::from_secs(30);
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// The key name that the audit trail records for a command that worked on the store directly.
const DIRECT: &str = "(command line)";

/// The place where a command is executed.
pub(super) struct Session {
    path: PathBuf,
    needs: Needs,
    api: Option<AdminClient>,
    /// The reason why `api` is `None`.
    absence: String,
    /// Whether the store may be used although a process listens, because it runs other roles or
    /// its admin API is off.
    may_be_direct: bool,
}

/// The action and the reason of a command, for the audit trail.
pub(super) struct Note<'a> {
    pub(super) action: &'static str,
    pub(super) reason: &'a str,
}

impl Session {
    /// Finds the admin API. If nothing listens there, the session works on the store with these
    /// `needs`.
    pub(super) async fn open(
        path: &Path,
        needs: Needs,
        arguments: &AdminArguments,
    ) -> anyhow::Result<Self> {
        let session = |api, absence, may_be_direct| Self {
            path: path.to_owned(),
            needs,
            api,
            absence,
            may_be_direct,
        };
        let key = key(arguments)?;
        if let Some(url) = &arguments.admin_url {
            let api = AdminClient::new(url, key, false)?;
            return Ok(session(Some(api), String::new(), false));
        }
        // Secrets are read only if the store is used directly.
        let config = checked(path, Needs::default()).map_err(|error| {
            let text = match error.downcast_ref::<Failure>() {
                Some(failure) => failure.to_string(),
                None => format!("{error:#}"),
            };
            let text = text.trim_end_matches('.');
            anyhow::anyhow!(
                "{text}. A running process keeps its own configuration: name its admin listener with \
                 --admin-url"
            )
        })?;
        let Some(listen) = local(config.admin.listen) else {
            let absence = "admin.listen has port 0, so its process cannot be found".to_owned();
            return Ok(session(None, absence, true));
        };
        let is_distributed = config.engine == EngineKind::Distributed;
        ensure!(
            is_of_this_machine(listen.ip()),
            elsewhere(listen, is_distributed)
        );
        let api = AdminClient::new(&format!("http://{listen}"), key, true)?;
        let (api, absence) = match api.look().await? {
            Found::Watchword => (Some(api), String::new()),
            Found::Nobody => (None, format!("nothing answers at {listen} (admin.listen)")),
            Found::Other => {
                let absence = format!("another program answers at {listen} (admin.listen)");
                (None, absence)
            }
        };
        // A process on the embedded engine locks the file, so its store cannot be used directly.
        Ok(session(api, absence, is_distributed))
    }

    /// Calls the admin API. Returns `None` if the store must be used instead.
    async fn call<T: DeserializeOwned>(
        &self,
        (method, path): (Method, &str),
        body: Option<Value>,
        may_be_direct: bool,
    ) -> anyhow::Result<Option<T>> {
        let Some(api) = &self.api else {
            return Ok(None);
        };
        match api.call(method, path, body).await? {
            Answer::Report(report) => Ok(Some(report)),
            Answer::NotServedHere(_) | Answer::Off(_) if may_be_direct => Ok(None),
            Answer::NotServedHere(detail) => bail!("{detail}, and name it with --admin-url"),
            Answer::Off(why) => bail!(
                "the admin API of the process at {} is off: {why}. Then set WATCHWORD_ADMIN_KEY to \
                 the key",
                api.base
            ),
        }
    }

    /// Calls the admin API, or runs `direct` on the store and records it in the audit trail.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        to: (Method, &str),
        body: Option<Value>,
        note: Option<Note<'_>>,
        direct: impl AsyncFnOnce(&Operator) -> Result<(T, String), Problem>,
    ) -> anyhow::Result<T> {
        let path = to.1;
        if let Some(report) = self.call(to, body.clone(), self.may_be_direct).await? {
            return Ok(report);
        }
        if let Some(note) = &note {
            check_reason(note.reason).map_err(|problem| error_of(&problem))?;
        }
        let shared = self.shared().await?;
        let operator = shared.operator();
        // Compute the target first, so that the trail also names the target of a failed change.
        let target = target_of(&operator, path, &body.unwrap_or_default());
        let answer = direct(&operator).await;
        let recorded = match note {
            Some(note) => record(&shared, &note, target, answer.as_ref().err()).await,
            None => Ok(()),
        };
        shared.engine.close().await;
        let (report, _) = answer.map_err(|problem| error_of(&problem))?;
        recorded?;
        Ok(report)
    }

    /// Calls the admin API at `path`, or runs `direct` on the store without a record in the trail.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        direct: impl AsyncFnOnce(&Shared) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let to = (Method::GET, path);
        if let Some(report) = self.call(to, None, self.may_be_direct).await? {
            return Ok(report);
        }
        let shared = self.shared().await?;
        let read = direct(&shared).await;
        shared.engine.close().await;
        read
    }

    /// Calls the admin API for a report that only a running process can give.
    pub(super) async fn ask_process<T: DeserializeOwned>(
        &self,
        to: (Method, &str),
        body: Option<Value>,
    ) -> anyhow::Result<T> {
        let absence = &self.absence;
        self.call(to, body, false).await?.with_context(|| {
            format!(
                "{absence}: start Watchword with 'watchword run', or name the admin listener of its process \
                 with --admin-url"
            )
        })
    }

    /// Opens the store without a running process.
    async fn shared(&self) -> anyhow::Result<Shared> {
        operator(&self.path, self.needs).await.with_context(|| {
            let absence = match &self.api {
                Some(api) => format!("the process at {} does not serve it", api.base),
                None => self.absence.clone(),
            };
            format!(
                "{absence}, and the store cannot be used directly: if a process runs, name its admin \
                 listener with --admin-url"
            )
        })
    }
}

/// Returns the target of a command for the trail; empty if it has none or the request is invalid.
fn target_of(operator: &Operator, path: &str, body: &Value) -> String {
    let found = match path {
        "/verifications/find" => read(body).and_then(|request| operator.find_target(&request)),
        "/unlock" => read(body).and_then(|request| operator.unlock_target(&request)),
        "/dead-letters/replay" | "/dead-letters/discard" => {
            read(body).map(|request: ChangeRequest| request.target())
        }
        _ => {
            let id = path.strip_prefix("/verifications/");
            let id = id.and_then(|rest| rest.split('/').next());
            Ok(id.map_or_else(String::new, |id| format!("verification {id}")))
        }
    };
    found.unwrap_or_default()
}

/// Logs a command that worked on the store directly, and adds it to the trail.
async fn record(
    shared: &Shared,
    note: &Note<'_>,
    target: String,
    problem: Option<&Problem>,
) -> anyhow::Result<()> {
    let now = shared.clock.now();
    let record = TrailRecord {
        at: now.to_rfc3339(),
        key: DIRECT.to_owned(),
        action: note.action.to_owned(),
        target,
        reason: note.reason.to_owned(),
        result: problem
            .map_or("ok", |problem| problem.code.as_str())
            .to_owned(),
    };
    record.log();
    let appended = shared.engine.trail.append(&record, now).await;
    appended.with_context(|| {
        let done = if problem.is_none() { "done" } else { "tried" };
        format!(
            "'{}' was {done}, but the audit trail cannot be written; keep the log line above as its \
             record",
            note.action
        )
    })
}

/// Converts a problem to an error of the command line.
fn error_of(problem: &Problem) -> anyhow::Error {
    anyhow::anyhow!("{}", problem.detail)
}

/// Returns the error if `admin.listen` is an address of another machine.
fn elsewhere(listen: SocketAddr, is_distributed: bool) -> String {
    let direct = if is_distributed {
        ", or to work on RabbitMQ and Redis directly, set WATCHWORD_ADMIN__LISTEN=127.0.0.1:0"
    } else {
        ""
    };
    format!(
        "admin.listen is {listen}, an address of another machine, to which the key would go in clear: run the \
         command there, or name a front with TLS by --admin-url https://…{direct}"
    )
}

/// Returns the address at which this machine reaches `listen`, or `None` if the port is 0.
fn local(listen: SocketAddr) -> Option<SocketAddr> {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    (listen.port() != 0).then(|| SocketAddr::new(ip, listen.port()))
}

/// Whether `ip` is an address of this machine. A socket can only be bound to such an address.
fn is_of_this_machine(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

/// Reads the admin key from the file or the environment. Returns `None` if there is none.
fn key(arguments: &AdminArguments) -> anyhow::Result<Option<Zeroizing<String>>> {
    let text = match &arguments.key_file {
        Some(file) => {
            let text = std::fs::read_to_string(file);
            Some(text.with_context(|| format!("{} cannot be read", file.display()))?)
        }
        None => std::env::var("WATCHWORD_ADMIN_KEY").ok(),
    };
    let text = text.map(Zeroizing::new);
    let trimmed = text.map(|text| Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()));
    let key = trimmed.filter(|text| !text.is_empty());
    let is_sendable = |key: &Zeroizing<String>| HeaderValue::from_str(key).is_ok();
    if !key.as_ref().is_none_or(is_sendable) {
        let text = "The admin key holds a line break or another character that no key has; check \
             WATCHWORD_ADMIN_KEY or --key-file.";
        return Err(Failure::usage(text).into());
    }
    Ok(key)
}

/// The program that listens at an address.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Watchword,
    Other,
    Nobody,
}

enum Answer<T> {
    Report(T),
    /// Another role serves the request; the text names it.
    NotServedHere(String),
    /// The admin API is off, for this reason.
    Off(String),
}

/// A client of the admin API of a process.
struct AdminClient {
    base: String,
    key: Option<Zeroizing<String>>,
    http: Client,
}

impl AdminClient {
    /// Creates a client of `url`. An `http` URL beyond loopback is an error unless `may_be_clear`,
    /// which callers set only for addresses of this machine.
    fn new(url: &str, key: Option<Zeroizing<String>>, may_be_clear: bool) -> anyhow::Result<Self> {
        let base = url.trim().trim_end_matches('/').to_owned();
        let parsed = Url::parse(&base).ok();
        let parsed = parsed.filter(|url| matches!(url.scheme(), "http" | "https"));
        let parsed = parsed.ok_or_else(|| {
            Failure::usage("--admin-url is not a URL; it looks like http://127.0.0.1:9090.")
        })?;
        if !may_be_clear && parsed.scheme() == "http" && !is_loopback(&parsed) {
            let text = "--admin-url is http:// beyond loopback, where the key would cross the network in clear: \
                use https://, or a tunnel that ends on this machine.";
            return Err(Failure::usage(text).into());
        }
        let http = Client::builder()
            .connect_timeout(CONNECT_DEADLINE)
            .timeout(DEADLINE)
            .redirect(Policy::none())
            .no_proxy()
            .build()
            .context("cannot create an HTTP client")?;
        Ok(Self { base, key, http })
    }

    /// Identifies the program that listens, before it is sent a key or a recipient.
    async fn look(&self) -> anyhow::Result<Found> {
        const ALIVE: &[u8] = b"alive\n";
        let request = self.http.get(format!("{}/livez", self.base));
        match request.timeout(CONNECT_DEADLINE).send().await {
            Ok(mut response) => {
                // Another program may send an endless body, so stop once it differs in length.
                let mut text = Vec::new();
                while text.len() <= ALIVE.len()
                    && let Ok(Some(bytes)) = response.chunk().await
                {
                    text.extend_from_slice(&bytes);
                }
                Ok(if text == ALIVE {
                    Found::Watchword
                } else {
                    Found::Other
                })
            }
            Err(error) if error.is_connect() && !error.is_timeout() => Ok(Found::Nobody),
            Err(error) => match Unreached::of(&error) {
                Unreached::NotHttp => Ok(Found::Other),
                reason => bail!("{}", reason.advice(&self.base, "admin.listen")),
            },
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<Answer<T>> {
        let url = format!("{}/admin/v1{path}", self.base);
        let mut request = self.http.request(method, url);
        if path == "/audit" {
            request = request.timeout(AUDIT_DEADLINE);
        }
        if let Some(key) = &self.key {
            request = request.bearer_auth(key.as_str());
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let base = &self.base;
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => bail!("{}", Unreached::of(&error).advice(base, "--admin-url")),
        };
        ensure!(
            !response.status().is_redirection(),
            "the address {base} redirects; name its target with --admin-url"
        );
        if response.status().is_success() {
            let report = response.json().await;
            let other = "the process runs another version of Watchword; use the same version";
            return Ok(Answer::Report(report.context(other)?));
        }
        let (code, detail) = problem_of(response).await;
        match code.as_str() {
            "not_served_here" => Ok(Answer::NotServedHere(detail)),
            "admin_off" => Ok(Answer::Off(detail)),
            "unauthorized" if self.key.is_none() => bail!(
                "a Watchword process runs at {base}: set WATCHWORD_ADMIN_KEY, or --key-file, to a \
                 key whose hash is under [admin.keys] of its configuration"
            ),
            "unauthorized" => bail!(
                "the process at {base} does not know this admin key; check WATCHWORD_ADMIN_KEY or \
                 --key-file"
            ),
            "" => bail!(
                "{base} is not the admin listener of a Watchword process: set --admin-url to its \
                 admin.listen"
            ),
            "not_found" if detail == NO_PATH => bail!(
                "{base} is the public listener of a Watchword process: set --admin-url to its \
                 admin.listen"
            ),
            _ => bail!("{detail}"),
        }
    }
}

/// Whether the host of `url` is a loopback address or `localhost`.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    host == "localhost" || ip.is_some_and(|ip| ip.to_canonical().is_loopback())
}

/// Returns code and detail of a problem document; both are empty if the body is not one.
async fn problem_of(response: reqwest::Response) -> (String, String) {
    let body: Value = response.json().await.unwrap_or_default();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    (text("code"), text("detail"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_key_crosses_no_network_in_clear() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        for (url, is_fine) in [
            ("http://127.0.0.1:9090/", true),
            ("http://localhost:9090", true),
            ("http://[::1]:9090", true),
            ("https://admin.example.org", true),
            ("http://admin.example.org", false),
            ("http://10.0.0.1:9090", false),
            ("http://127.0.0.1.example.org", false),
            ("nonsense", false),
        ] {
            let client = AdminClient::new(url, None, false);
            assert_eq!(client.is_ok(), is_fine, "{url}");
        }
        assert!(AdminClient::new("http://10.0.0.1:9090", None, true).is_ok());
    }

    /// A server that answers each request with `answer`; returns its URL.
    async fn server(answer: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
        });
        url
    }

    #[tokio::test]
    async fn a_redirect_is_an_error_and_is_not_followed() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = server(
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/\r\n\
             content-length: 0\r\n\r\n"
                .to_owned(),
        );
        let client = AdminClient::new(&url.await, None, false).unwrap();
        let answer = client.call::<Value>(Method::GET, "/status", None).await;
        let error = answer.err().unwrap().to_string();
        assert!(error.contains("redirects; name its target"), "{error}");
    }

    #[tokio::test]
    async fn a_probe_of_another_program_ends_soon() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n";
        for (body, limit) in [("endless text", 1), ("alive", 7)] {
            let url = server(format!("{head}{body}")).await;
            let client = AdminClient::new(&url, None, false).unwrap();
            let begun = std::time::Instant::now();
            assert_eq!(client.look().await.unwrap(), Found::Other);
            assert!(begun.elapsed() < Duration::from_secs(limit), "{body}");
        }
        let alive = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nalive\n".to_owned();
        let client = AdminClient::new(&server(alive).await, None, false).unwrap();
        assert_eq!(client.look().await.unwrap(), Found::Watchword);
    }

    #[test]
    fn an_address_of_another_machine_is_known() {
        for (ip, is_here) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            // Documentation addresses (RFC 5737, RFC 3849).
            ("192.0.2.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_of_this_machine(ip.parse().unwrap()), is_here, "{ip}");
        }
    }

    #[test]
    fn a_listener_is_reached_from_this_machine() {
        for (listen, expected) in [
            ("127.0.0.1:9090", Some("127.0.0.1:9090")),
            ("0.0.0.0:9090", Some("127.0.0.1:9090")),
            ("[::]:9090", Some("[::1]:9090")),
            ("10.0.0.1:9090", Some("10.0.0.1:9090")),
            ("127.0.0.1:0", None),
        ] {
            let reached = local(listen.parse().unwrap());
            assert_eq!(reached.map(|to| to.to_string()).as_deref(), expected);
        }
    }
}
