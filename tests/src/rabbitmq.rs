//! A private `RabbitMQ` with its own ports, node name, cookie, port mapper and folders. Also users,
//! virtual hosts and alarms, through the management API and `rabbitmqctl`.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Process, descendants, signal};
use crate::wait::{free_port, until};

const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const CONTROL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";

/// The administrator of private brokers.
pub const USER: &str = "watchword";
/// The password of [`USER`].
pub const PASSWORD: &str = "harness-secret";

/// The environment variable with the address of the broker that `tests/run` starts for all suites,
/// as [`RabbitMq::address`] returns it.
pub const SHARED: &str = "WATCHWORD_TEST_BROKER";

/// A private broker, or a virtual host of the shared one.
pub struct RabbitMq {
    process: Option<Process>,
    port_mapper: Option<Process>,
    folder: PathBuf,
    /// The folder of a private broker, removed with it.
    owned_folder: Option<TempDir>,
    /// The virtual host, percent-encoded.
    vhost: String,
    port: u16,
    management: u16,
    distribution: u16,
    mapper: u16,
    http: Client,
}

impl RabbitMq {
    /// Starts a broker and waits until it answers.
    pub async fn start() -> Self {
        Self::within(&std::env::temp_dir()).await
    }

    /// Creates a virtual host on the shared broker, or starts a private broker if there is none.
    /// Only for tests that neither stop the broker nor raise its alarms.
    pub async fn shared() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let Ok(address) = std::env::var(SHARED) else {
            return Self::start().await;
        };
        crate::tls();
        let mut words = address.splitn(5, ' ');
        let mut number = || -> u16 {
            let word = words.next().expect("four ports and a folder");
            word.parse().expect("a port")
        };
        let (port, management, distribution, mapper) = (number(), number(), number(), number());
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let broker = Self {
            process: None,
            port_mapper: None,
            folder: words.next().expect("a folder").into(),
            owned_folder: None,
            vhost: format!("test-{}-{next}", std::process::id()),
            port,
            management,
            distribution,
            mapper,
            http: client(),
        };
        let path = format!("vhosts/{}", broker.vhost);
        let made = broker.call(Method::PUT, &path, Some(json!({}))).await;
        made.expect("a virtual host");
        broker.allow(USER).await;
        broker
    }

    /// Returns the ports and the folder of this broker, for [`SHARED`].
    pub fn address(&self) -> String {
        format!(
            "{} {} {} {} {}",
            self.port,
            self.management,
            self.distribution,
            self.mapper,
            self.folder.display()
        )
    }

    /// Starts a cluster of `count` nodes. All use the port mapper of the first.
    pub async fn cluster(count: usize) -> Vec<Self> {
        let mut nodes = vec![Self::start().await];
        for _ in 1..count {
            let mut node = Self::made(&std::env::temp_dir());
            let cookie = ".erlang.cookie";
            let path = node.folder.join(cookie);
            fs::copy(nodes[0].folder.join(cookie), &path).expect("a cookie");
            node.mapper = nodes[0].mapper;
            node.launch().await;
            let first = nodes[0].node_name();
            node.control(&["stop_app"]);
            node.control(&["join_cluster", &first]);
            node.control(&["start_app"]);
            nodes.push(node);
        }
        nodes
    }

    /// Returns the node name in a cluster.
    pub fn node_name(&self) -> String {
        format!("watchword{}@localhost", self.port)
    }

    /// Starts a broker that keeps its files below `parent`.
    pub async fn within(parent: &Path) -> Self {
        let mut broker = Self::made(parent);
        broker.launch().await;
        broker
    }

    fn made(parent: &Path) -> Self {
        assert!(
            Path::new(SERVER).exists(),
            "rabbitmq-server not found; tests/run installs it"
        );
        crate::tls();
        let folder = tempfile::Builder::new()
            .prefix("watchword-rabbitmq-")
            .tempdir_in(parent)
            .expect("a folder");
        let broker = Self {
            process: None,
            port_mapper: None,
            folder: folder.path().to_owned(),
            owned_folder: Some(folder),
            vhost: "%2f".to_owned(),
            port: free_port(),
            management: free_port(),
            distribution: free_port(),
            mapper: free_port(),
            http: client(),
        };
        let config = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {}\n\
             raft.wal_max_size_bytes = 67108864\ndisk_free_limit.absolute = 50MB\nvm_memory_high_watermark.absolute = 4GB\n\
             default_user = {USER}\ndefault_pass = {PASSWORD}\nlog.console = false\ncollect_statistics_interval = 1000\n",
            broker.port, broker.management
        );
        fs::write(broker.folder.join("rabbitmq.conf"), config).expect("a config");
        fs::write(broker.folder.join("plugins"), "[rabbitmq_management].").expect("a plugin list");
        broker
    }

    /// Starts the broker again after [`RabbitMq::kill`].
    pub async fn launch(&mut self) {
        let mapper = ("127.0.0.1", self.mapper);
        if self.port_mapper.is_none() && tokio::net::TcpStream::connect(mapper).await.is_err() {
            // The broker would start one as a daemon, which outlives an interrupted test.
            let mut command = Command::new("epmd");
            command.args(["-address", "127.0.0.1", "-port", &self.mapper.to_string()]);
            let output = self.folder.join("port-mapper");
            self.port_mapper = Some(Process::start(command, &output));
            until(10, "the port mapper answers", || async {
                let address = ("127.0.0.1", self.mapper);
                tokio::net::TcpStream::connect(address).await.ok()
            })
            .await;
        }
        let mut command = Command::new(SERVER);
        self.environment(&mut command);
        self.process = Some(Process::start(command, &self.folder.join("output")));
        let begun = Instant::now();
        while self.call(Method::GET, "overview", None).await.is_none() {
            let waits = !self.has_ended() && begun.elapsed() < Duration::from_secs(60);
            let output = || {
                self.process
                    .as_ref()
                    .map(Process::output)
                    .unwrap_or_default()
            };
            assert!(waits, "RabbitMQ does not answer:\n{}", output());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        until(30, "RabbitMQ listens", || async {
            tokio::net::TcpStream::connect(("127.0.0.1", self.port))
                .await
                .ok()
                .map(|_| ())
        })
        .await;
    }

    fn environment(&self, command: &mut Command) {
        let folder = &self.folder;
        command
            .env("HOME", folder)
            .env("RABBITMQ_NODENAME", self.node_name())
            .env("RABBITMQ_DIST_PORT", self.distribution.to_string())
            .env("ERL_EPMD_PORT", self.mapper.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_MNESIA_BASE", folder.join("db"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_PID_FILE", folder.join("pid"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins"))
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            // No such file: it keeps settings of the machine's own broker out.
            .env("RABBITMQ_CONF_ENV_FILE", folder.join("none"));
    }

    /// Returns the port of the AMQP listener.
    pub const fn port(&self) -> u16 {
        self.port
    }

    fn vhost_name(&self) -> &str {
        if self.process.is_some() {
            "/"
        } else {
            &self.vhost
        }
    }

    /// Returns the management API path of an object of the virtual host, below `kind`.
    pub fn path(&self, kind: &str, rest: &str) -> String {
        format!("{kind}/{}/{rest}", self.vhost)
    }

    /// Returns the administrator's `amqp://…`.
    pub fn url(&self) -> String {
        self.url_of(USER, PASSWORD)
    }

    /// Returns `amqp://…` of `user`.
    pub fn url_of(&self, user: &str, password: &str) -> String {
        let (port, vhost) = (self.port, &self.vhost);
        format!("amqp://{user}:{password}@127.0.0.1:{port}/{vhost}")
    }

    /// Adds a user with all permissions.
    pub async fn add_user(&self, name: &str, password: &str) {
        let body = json!({ "password": password, "tags": "" });
        self.call(Method::PUT, &format!("users/{name}"), Some(body))
            .await
            .expect("a user");
        self.allow(name).await;
    }

    async fn allow(&self, user: &str) {
        let body = json!({ "configure": ".*", "write": ".*", "read": ".*" });
        self.call(Method::PUT, &self.path("permissions", user), Some(body))
            .await
            .expect("rights");
    }

    /// Calls the management API.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Option<Value> {
        let url = format!("http://127.0.0.1:{}/api/{path}", self.management);
        let mut request = self
            .http
            .request(method, url)
            .basic_auth(USER, Some(PASSWORD));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request
            .send()
            .await
            .ok()
            .filter(|response| response.status().is_success())?;
        let text = response.text().await.ok()?;
        Some(if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).ok()?
        })
    }

    /// Runs `rabbitmqctl`.
    pub fn control(&self, arguments: &[&str]) {
        let mut command = Command::new(CONTROL);
        self.environment(&mut command);
        let output = command.args(arguments).output().expect("rabbitmqctl");
        assert!(
            output.status.success(),
            "rabbitmqctl {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Raises or clears the disk alarm.
    pub fn disk_alarm(&self, raised: bool) {
        self.control(&[
            "set_disk_free_limit",
            if raised { "1000GB" } else { "50MB" },
        ]);
    }

    /// Raises or clears the memory alarm.
    pub fn memory_alarm(&self, raised: bool) {
        let mark = if raised { "0.000001" } else { "absolute" };
        let mut arguments = vec!["set_vm_memory_high_watermark", mark];
        arguments.extend((!raised).then_some("4GB"));
        self.control(&arguments);
    }

    /// Whether the process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.process
            .as_mut()
            .is_none_or(|process| process.ended().is_some())
    }

    /// Returns the number of messages in `queue`, ready and unacknowledged, as reported by the
    /// queue itself.
    pub fn messages(&self, queue: &str) -> u64 {
        let mut command = Command::new(CONTROL);
        self.environment(&mut command);
        let output = command
            .args(["--silent", "--vhost", self.vhost_name(), "list_queues"])
            .args(["name", "messages"])
            .output()
            .expect("rabbitmqctl");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let count = text
            .lines()
            .find_map(|line| line.strip_prefix(queue)?.trim().parse().ok());
        count.unwrap_or_else(|| panic!("{queue} is not in:\n{text}"))
    }

    /// Returns the number of messages of every queue, as reported by the queues themselves.
    pub fn all_messages(&self) -> Vec<(String, u64)> {
        let mut command = Command::new(CONTROL);
        self.environment(&mut command);
        let output = command
            .args(["--silent", "--vhost", self.vhost_name(), "list_queues"])
            .args(["name", "messages"])
            .output()
            .expect("rabbitmqctl");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines()
            .filter_map(|line| line.split_once('\t'))
            .filter_map(|(name, count)| Some((name.to_owned(), count.trim().parse().ok()?)))
            .collect()
    }

    /// Returns the same from the management API, up to a second old but much cheaper; `None` if the
    /// API does not answer.
    pub async fn queue_lengths(&self) -> Option<Vec<(String, u64)>> {
        let path = format!("queues/{}?columns=name,messages", self.vhost);
        let queues = self.call(Method::GET, &path, None).await?;
        let queues = queues.as_array()?.iter();
        queues
            .map(|queue| {
                Some((
                    queue["name"].as_str()?.to_owned(),
                    queue["messages"].as_u64()?,
                ))
            })
            .collect()
    }

    /// Returns the messages of `queue` and leaves them there.
    pub async fn peek(&self, queue: &str) -> Value {
        let body = json!({ "count": 100, "ackmode": "ack_requeue_true", "encoding": "auto" });
        let path = self.path("queues", &format!("{queue}/get"));
        until(15, "the queue can be read", || async {
            let messages = self.call(Method::POST, &path, Some(body.clone())).await;
            // The statistics lag behind: retry an empty answer while the queue itself reports
            // messages.
            messages.filter(|messages| {
                !messages.as_array().is_some_and(Vec::is_empty) || self.messages(queue) == 0
            })
        })
        .await
    }

    /// Returns the broker's logs.
    pub fn logs(&self) -> String {
        let entries = fs::read_dir(self.folder.join("log"))
            .into_iter()
            .flatten()
            .flatten();
        entries
            .filter_map(|entry| fs::read_to_string(entry.path()).ok())
            .collect()
    }

    /// Returns the id of the Erlang VM, if it runs.
    fn beam(&self) -> Option<u32> {
        let id = self.process.as_ref()?.id();
        descendants(id).into_iter().find(|id| {
            fs::read_to_string(format!("/proc/{id}/comm"))
                .is_ok_and(|name| name.starts_with("beam"))
        })
    }

    /// Kills the broker (SIGKILL).
    pub fn kill(&mut self) {
        // `rabbitmq-server` is a shell script; a signal to it would not reach the broker.
        signal(self.beam().expect("a running broker"), "KILL");
        if let Some(mut process) = self.process.take() {
            process.wait(20);
        }
    }

    /// Suspends or resumes the broker (SIGSTOP, SIGCONT).
    pub fn pause(&self, paused: bool) {
        let beam = self.beam().expect("a running broker");
        signal(beam, if paused { "STOP" } else { "CONT" });
    }
}

fn client() -> Client {
    Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(5))
        .build()
        .expect("a client")
}

impl RabbitMq {
    /// Deletes the virtual host, so that its queues cost later tests nothing. Uses a blocking
    /// socket, because a runtime that is shutting down polls no future. Errors are ignored: the
    /// queues left behind are read by no test.
    fn delete_vhost(&self) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.management))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let user = BASE64.encode(format!("{USER}:{PASSWORD}").as_bytes());
        write!(
            stream,
            "DELETE /api/vhosts/{} HTTP/1.0\r\nAuthorization: Basic {user}\r\n\r\n",
            self.vhost
        )?;
        stream.read_to_end(&mut Vec::new()).map(|_| ())
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        if self.owned_folder.is_none() {
            let _ = self.delete_vhost();
        }
        // Kill the broker's helper processes too; after a panic it may be only half started.
        let Some(process) = &self.process else { return };
        for id in descendants(process.id()) {
            signal(id, "KILL");
        }
    }
}
