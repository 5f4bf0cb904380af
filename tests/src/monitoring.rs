//! A private Prometheus that scrapes a pipeline and evaluates the rules, the dashboards as files,
//! and the series that the program declares.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use reqwest::Client;
use serde_json::Value;
use tempfile::TempDir;

use crate::load::now_ms;
use crate::process::Process;
use crate::wait::{free_port, until};

/// The alert rules, relative to the root of the repository.
pub const RULES: &str = "helm/watchword/alerts/watchword.rules.yml";
/// The dashboards' folder, relative to the root of the repository.
pub const DASHBOARD_FOLDER: &str = "helm/watchword/dashboards";
/// The file names of the dashboards.
pub const DASHBOARDS: [&str; 4] = ["overview", "delivery", "funnel", "broker-and-store"];

/// Returns the root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Reads the dashboard `name`.
pub fn dashboard(name: &str) -> Value {
    let path = root().join(DASHBOARD_FOLDER).join(format!("{name}.json"));
    let text = fs::read_to_string(path).expect("a dashboard");
    serde_json::from_str(&text).expect("JSON")
}

/// Replaces Grafana's variables: all values, and short ranges, because a run takes seconds.
pub fn filled(expression: &str) -> String {
    let mut expression = expression.to_owned();
    for (variable, value) in [
        ("$__rate_interval", "15s"),
        ("$__range", "60s"),
        ("$channel", ".+"),
        ("$provider", ".+"),
        ("$instance", ".+"),
    ] {
        expression = expression.replace(variable, value);
    }
    assert!(!expression.contains('$'), "{expression}");
    expression
}

/// A series as the program declares it.
#[derive(Debug)]
pub struct Declared {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// The names of the labels.
    pub labels: Vec<String>,
}

/// Returns every series that `watchword metrics` prints, by name.
pub fn declared() -> BTreeMap<String, Declared> {
    let output = Command::new(crate::pipeline::binary())
        .arg("metrics")
        .output()
        .expect("the binary");
    let text = String::from_utf8(output.stdout).expect("text");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| {
        let mut cells = row.split(" | ");
        let name = cells.next()?.strip_suffix('`')?.to_owned();
        let kind = cells.next()?.to_owned();
        let labels = cells.next()?.split_whitespace();
        let labels = labels.map(|label| label.trim_matches('`').to_owned());
        let labels = labels.collect();
        Some((name, Declared { kind, labels }))
    })
    .collect()
}

/// A running Prometheus.
pub struct Prometheus {
    _process: Process,
    _folder: TempDir,
    port: u16,
    http: Client,
}

impl Prometheus {
    /// Starts a Prometheus that scrapes these processes (name and admin port) every second. Each
    /// process is a job of its name.
    pub async fn start(processes: &[(String, u16)]) -> Self {
        Self::with(processes, str::to_owned).await
    }

    /// Starts a Prometheus whose rules are passed through `change`.
    pub async fn with(processes: &[(String, u16)], change: impl Fn(&str) -> String) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let rules = folder.path().join("rules.yml");
        let text = fs::read_to_string(root().join(RULES)).expect("the rules");
        fs::write(&rules, change(&text)).expect("the rules");
        let mut config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\nrule_files: [\"{}\"]\nscrape_configs:\n",
            rules.display()
        );
        for (name, port) in processes {
            let target = format!("127.0.0.1:{port}");
            writeln!(config, "  - job_name: watchword-{name}\n    static_configs: [{{ targets: [\"{target}\"] }}]").expect("text");
        }
        let path = folder.path().join("prometheus.yml");
        fs::write(&path, config).expect("a config");
        let port = free_port();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ));
        let process = Process::start(command, &folder.path().join("output"));
        let http = Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(10))
            .build()
            .expect("a client");
        let prometheus = Self {
            _process: process,
            _folder: folder,
            port,
            http,
        };
        until(20, "Prometheus scrapes every process", || async {
            let up = prometheus.query("sum(up)").await.ok()?;
            let up = up.first()?["value"][1].as_str()?.parse::<usize>().ok()?;
            (up == processes.len()).then_some(())
        })
        .await;
        prometheus
    }

    /// Calls the HTTP API.
    ///
    /// # Errors
    ///
    /// The error text of Prometheus.
    pub async fn call(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, String> {
        let url = format!("http://127.0.0.1:{}/api/v1/{path}", self.port);
        let response = self.http.get(url).query(query).send().await;
        let response = response.map_err(|error| error.to_string())?;
        let mut answer: Value = response.json().await.map_err(|error| error.to_string())?;
        if answer["status"] == "success" {
            Ok(answer["data"].take())
        } else {
            Err(answer["error"].to_string())
        }
    }

    /// Returns the current series of an expression.
    ///
    /// # Errors
    ///
    /// The error text of Prometheus.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let data = self.call("query", &[("query", expression)]).await?;
        Ok(data["result"].as_array().cloned().unwrap_or_default())
    }

    /// Returns the series of an expression over the last `seconds`, one value per second.
    ///
    /// # Errors
    ///
    /// The error text of Prometheus.
    pub async fn range(&self, expression: &str, seconds: u64) -> Result<Vec<Value>, String> {
        let end = now_ms() / 1_000;
        let (start, end) = ((end - seconds).to_string(), end.to_string());
        let query = [
            ("query", expression),
            ("start", &start),
            ("end", &end),
            ("step", "1"),
        ];
        let data = self.call("query_range", &query).await?;
        Ok(data["result"].as_array().cloned().unwrap_or_default())
    }
}
