//! The product as it runs: the built binary, as one process or one process per role, with its
//! configuration, keys and logs in a temporary folder, and an API client.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::process::Process;
use crate::wait::{free_port, until};

/// The API key of the service `test`.
pub const KEY: &str = "harness-key-0123456789abcdef";
/// The API key of the service `other`.
pub const OTHER_KEY: &str = "harness-key-fedcba9876543210";
/// An admin API key with the role `operator`.
pub const ADMIN_KEY: &str = "harness-admin-0123456789abcdef";
/// An admin API key with the role `viewer`.
pub const VIEWER_KEY: &str = "harness-viewer-0123456789abcdef";

/// The configuration of a pipeline.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// TOML of the engine: `engine = …` and its sections.
    pub engine: String,
    /// TOML of the providers.
    pub providers: String,
    /// TOML for the section of the service `test`.
    pub service: String,
    /// The log level.
    pub level: String,
}

impl Settings {
    /// Settings for these peers.
    pub fn distributed(amqp_url: &str, redis_url: &str) -> Self {
        // URLs with passwords come from the environment, see `launch`.
        let engine = "engine = \"distributed\"\n[rabbitmq]\nurl = \"amqp://replaced\"\n[redis]\nurl = \"redis://replaced\"\n";
        Self {
            engine: format!("{engine}#{amqp_url} {redis_url}"),
            level: "info".into(),
            ..Self::default()
        }
    }

    /// Adds an operator's and a viewer's key of the admin API.
    #[must_use]
    pub fn with_admin_keys(mut self) -> Self {
        let operator = admin_key("ops", ADMIN_KEY, "operator");
        let viewer = admin_key("desk", VIEWER_KEY, "viewer");
        self.providers.push_str(&operator);
        self.providers.push_str(&viewer);
        self
    }

    /// Settings for a `SQLite` file.
    pub fn embedded() -> Self {
        let engine = "engine = \"embedded\"\n[embedded]\npath = \"FOLDER/watchword.db\"\n";
        let providers =
            "[sms.providers.inbox]\nkind = \"inbox\"\n[email.providers.inbox]\nkind = \"inbox\"\n";
        Self {
            engine: engine.into(),
            providers: providers.into(),
            level: "info".into(),
            ..Self::default()
        }
    }
}

/// Returns the TOML section of an admin key.
pub fn admin_key(name: &str, key: &str, role: &str) -> String {
    let hash = HEXLOWER.encode(&Sha256::digest(key.as_bytes()));
    format!("[admin.keys.{name}]\nhash = \"{hash}\"\nrole = \"{role}\"\n")
}

/// Raises the limits of `service` above a load whose numbers all lie in one block, while every
/// message is still counted. Keys that `service` sets itself stay.
fn with_room(service: &str) -> String {
    const HEADER: &str = "[services.test.limits]\n";
    let most = [
        ("subject_per_hour", 10_000),
        ("number_block_per_hour", 10_000_000),
        ("country_per_day", 100_000_000),
        ("service_per_day", 100_000_000),
    ];
    let absent = most.iter().filter(|(key, _)| !service.contains(key));
    let lines: Vec<_> = absent
        .map(|(key, most)| format!("{key} = {most}\n"))
        .collect();
    let lines = lines.concat();
    if service.contains(HEADER) {
        service.replace(HEADER, &format!("{HEADER}{lines}"))
    } else {
        format!("{service}\n{HEADER}{lines}")
    }
}

/// A configured pipeline and its processes.
pub struct Pipeline {
    folder: TempDir,
    amqp_url: String,
    redis_url: String,
    /// The running processes by name.
    pub processes: BTreeMap<String, Role>,
    /// Environment variables for all processes.
    pub variables: Vec<(String, String)>,
    /// Environment variables for the process of this name.
    pub own_variables: BTreeMap<String, Vec<(String, String)>>,
    /// Ports (API, admin) by process name. A restarted process keeps them.
    ports: BTreeMap<String, (u16, u16)>,
    http: Client,
}

/// A process of the product.
pub struct Role {
    /// The operating system process.
    pub process: Process,
    /// Port of the API.
    pub http: u16,
    /// Port of the admin listener.
    pub admin: u16,
}

impl Pipeline {
    /// Writes configuration and keys, without starting a process.
    pub fn configure(settings: &Settings) -> Self {
        crate::tls();
        let folder = tempfile::Builder::new()
            .prefix("watchword-test-")
            .tempdir()
            .expect("a folder");
        for (name, byte) in [("sealing", 1_u8), ("digest", 2), ("index", 3)] {
            let mut key = [byte; 32];
            // A key whose bytes are all equal is refused.
            key[0] = 0;
            secret(folder.path(), name, &BASE64.encode(&key));
        }
        let hash = |key: &str| HEXLOWER.encode(&Sha256::digest(key.as_bytes()));
        let (engine, urls) = settings
            .engine
            .split_once('#')
            .unwrap_or((&settings.engine, ""));
        let (amqp_url, redis_url) = urls.split_once(' ').unwrap_or_default();
        let text = format!(
            "{engine}\n[log]\nlevel = \"{}\"\n{}\n[keys]\nsealing = [{{ id = \"s1\", file = \"FOLDER/sealing\" }}]\n\
             digest = [{{ id = \"d1\", file = \"FOLDER/digest\" }}]\nindex = {{ file = \"FOLDER/index\" }}\n\
             [services.test]\napp = \"Test\"\nhost = \"login.example.org\"\ncountries = [\"*\"]\nbroker_users = [\"portal\"]\n\
             api_keys = [{{ id = \"k1\", sha256 = \"{}\" }}]\n{}\n\
             [services.other]\napp = \"Other\"\ncountries = [\"DE\"]\napi_keys = [{{ id = \"k2\", sha256 = \"{}\" }}]\n",
            settings.level,
            settings.providers,
            hash(KEY),
            with_room(&settings.service),
            hash(OTHER_KEY),
        );
        let text = text.replace("FOLDER", &folder.path().display().to_string());
        fs::write(folder.path().join("watchword.toml"), text).expect("a config");
        let http = Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(20))
            .build()
            .expect("a client");
        Self {
            folder,
            amqp_url: amqp_url.into(),
            redis_url: redis_url.into(),
            processes: BTreeMap::new(),
            variables: Vec::new(),
            own_variables: BTreeMap::new(),
            ports: BTreeMap::new(),
            http,
        }
    }

    /// Returns the folder of configuration, keys and logs.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Returns a command of the binary with this configuration. It is pointed away from the default
    /// admin port, where another installation may listen.
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.env("WATCHWORD_ADMIN__LISTEN", "127.0.0.1:1");
        command.env(
            "WATCHWORD_CONFIG",
            self.folder.path().join("watchword.toml"),
        );
        if !self.amqp_url.is_empty() {
            command
                .env("WATCHWORD_RABBITMQ__URL", &self.amqp_url)
                .env("WATCHWORD_REDIS__URL", &self.redis_url);
        }
        command.envs(self.variables.iter().cloned());
        command
    }

    /// Starts `roles` (all, if empty) as the process `name` and waits until it is ready.
    pub async fn start(&mut self, name: &str, roles: &[&str]) {
        self.launch(name, roles);
        self.ready(name).await;
    }

    /// Starts a process without waiting.
    pub fn launch(&mut self, name: &str, roles: &[&str]) {
        let (http, admin) = self.ports(name);
        let mut command = self.command();
        command
            .env("WATCHWORD_HTTP__LISTEN", format!("127.0.0.1:{http}"))
            .env("WATCHWORD_ADMIN__LISTEN", format!("127.0.0.1:{admin}"))
            .env(
                "WATCHWORD_SMS__PUBLIC_URL",
                format!("http://127.0.0.1:{http}"),
            )
            .envs(self.own_variables.get(name).into_iter().flatten().cloned())
            .arg("run")
            .args(roles);
        let output = self.folder.path().join(format!("{name}.log"));
        // Keep the log of an earlier process of this name.
        if output.exists() {
            let earlier = (1..).map(|n| self.folder.path().join(format!("{name}.{n}.log")));
            let free = earlier.into_iter().find(|path| !path.exists());
            let _ = free.map(|path| fs::rename(&output, path));
        }
        let process = Process::start(command, &output);
        self.processes.insert(
            name.to_owned(),
            Role {
                process,
                http,
                admin,
            },
        );
    }

    /// Returns the ports of the API and of the admin listener of the process `name`.
    pub fn ports(&mut self, name: &str) -> (u16, u16) {
        let ports = self.ports.entry(name.to_owned());
        *ports.or_insert_with(|| (free_port(), free_port()))
    }

    /// Waits until the process is ready.
    pub async fn ready(&self, name: &str) {
        let role = &self.processes[name];
        let url = format!("http://127.0.0.1:{}/readyz", role.admin);
        until(
            30,
            &format!("{name} is ready; {}", role.process.output()),
            || async {
                self.http
                    .get(&url)
                    .send()
                    .await
                    .ok()
                    .filter(|response| response.status().is_success())
                    .map(|_| ())
            },
        )
        .await;
    }

    /// Calls the API of the process `name` with `key`.
    pub async fn call(
        &self,
        name: &str,
        key: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let url = format!("http://127.0.0.1:{}{path}", self.processes[name].http);
        let mut request = self.http.request(method, url).bearer_auth(key);
        if let Some(body) = body {
            request = request.json(&body);
        }
        Answer::of(request.send().await.expect("an answer")).await
    }

    /// Sends a `POST` with the key of the service `test`.
    pub async fn post(&self, name: &str, path: &str, body: Value) -> Answer {
        self.call(name, KEY, Method::POST, path, Some(body)).await
    }

    /// Requests a code.
    pub async fn ask(&self, name: &str, channel: &str, to: &str) -> Answer {
        self.post(
            name,
            "/v1/verifications",
            json!({ "channel": channel, "to": to }),
        )
        .await
    }

    /// Checks a code.
    pub async fn check(&self, name: &str, id: &str, code: &str) -> Answer {
        self.post(
            name,
            &format!("/v1/verifications/{id}/check"),
            json!({ "code": code }),
        )
        .await
    }

    /// Requests the status of a verification.
    pub async fn status(&self, name: &str, id: &str) -> Answer {
        self.call(
            name,
            KEY,
            Method::GET,
            &format!("/v1/verifications/{id}"),
            None,
        )
        .await
    }

    /// Calls the admin API of the process `name`; without a key if `key` is empty.
    pub async fn admin(
        &self,
        name: &str,
        key: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let url = format!(
            "http://127.0.0.1:{}/admin/v1{path}",
            self.processes[name].admin
        );
        let mut request = self.http.request(method, url);
        if !key.is_empty() {
            request = request.bearer_auth(key);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        Answer::of(request.send().await.expect("an answer")).await
    }

    /// Returns the HTTP client and the base URL, for requests that the helpers do not cover.
    pub fn raw(&self, name: &str) -> (&Client, String) {
        (
            &self.http,
            format!("http://127.0.0.1:{}", self.processes[name].http),
        )
    }

    /// Returns the metrics of the process `name`, by series.
    pub async fn metrics(&self, name: &str) -> BTreeMap<String, f64> {
        let url = format!("http://127.0.0.1:{}/metrics", self.processes[name].admin);
        let text = self
            .http
            .get(url)
            .send()
            .await
            .expect("metrics")
            .text()
            .await
            .expect("metrics");
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(series, value)| Some((series.to_owned(), value.parse().ok()?)))
            .collect()
    }

    /// Returns the sum over all processes of the series that start with `name` and contain all
    /// `labels`.
    pub async fn total(&self, name: &str, labels: &[&str]) -> u64 {
        let mut sum = 0.0;
        for process in self.processes.keys() {
            sum += self
                .metrics(process)
                .await
                .iter()
                .filter(|(series, _)| series.split('{').next() == Some(name))
                .filter(|(series, _)| labels.iter().all(|label| series.contains(label)))
                .map(|(_, value)| value)
                .sum::<f64>();
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counters are small whole numbers"
        )]
        let sum = sum as u64;
        sum
    }

    /// Returns the logs of all processes, including ended ones.
    pub fn logs(&self) -> String {
        let mut logs = String::new();
        for entry in fs::read_dir(self.folder.path())
            .expect("a folder")
            .flatten()
        {
            if entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "log")
            {
                logs.push_str(&fs::read_to_string(entry.path()).unwrap_or_default());
            }
        }
        logs
    }
}

/// Writes a secret to a file and returns the reference for the configuration.
pub fn secret(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).expect("a secret");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    format!("file = \"{}\"", path.display())
}

/// A response of the API.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The response headers.
    pub headers: reqwest::header::HeaderMap,
    /// The JSON body; null if it is not JSON.
    pub body: Value,
}

impl Answer {
    /// Reads a response.
    pub async fn of(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap_or_default();
        Self {
            status,
            headers,
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
        }
    }

    /// Returns the field `name` as text, or an empty string.
    pub fn text(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or_default()
    }
}

/// Returns the path of the built binary: beside this program, or one folder above a test's.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("WATCHWORD_BIN") {
        return path.into();
    }
    let us = std::env::current_exe().expect("a path");
    let folders = us.ancestors().skip(1).take(2);
    folders
        .map(|folder| folder.join("watchword"))
        .find(|path| path.exists())
        .expect("the binary is not built: cargo build -p watchword, or use tests/run")
}

/// Returns the code in a message: the first run of exactly six digits.
pub fn code_in(text: &str) -> String {
    let runs = text.split(|c: char| !c.is_ascii_digit());
    runs.into_iter()
        .find(|run| run.len() == 6)
        .unwrap_or_else(|| panic!("no code in {text:?}"))
        .to_owned()
}
