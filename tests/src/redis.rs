//! A private Redis server.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::Process;
use crate::wait::{free_port, until};

/// A private server.
pub struct RedisServer {
    process: Option<Process>,
    folder: TempDir,
    port: u16,
    /// The port of the cluster bus, used in cluster mode.
    cluster_port: u16,
    options: Vec<String>,
    /// Environment variables of the server; also applied when it is started again.
    pub variables: Vec<(String, String)>,
}

impl RedisServer {
    /// Starts a server with an append-only file.
    pub async fn start() -> Self {
        Self::with(&["--appendonly", "yes"]).await
    }

    /// Starts a server with these options.
    pub async fn with(options: &[&str]) -> Self {
        Self::within(&std::env::temp_dir(), options).await
    }

    /// Starts a server with these options that keeps its files below `parent`.
    pub async fn within(parent: &Path, options: &[&str]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("watchword-redis-")
            .tempdir_in(parent)
            .expect("a folder");
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = Self {
            process: None,
            folder,
            port: free_port(),
            cluster_port: free_port(),
            options,
            variables: Vec::new(),
        };
        server.launch().await;
        server
    }

    /// Starts the server again after [`RedisServer::kill`].
    pub async fn launch(&mut self) {
        let mut command = Command::new("redis-server");
        command
            .args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--port",
                &self.port.to_string(),
                "--dir",
            ])
            .arg(self.folder.path())
            .args(["--cluster-port", &self.cluster_port.to_string()])
            .args(&self.options)
            .envs(self.variables.iter().cloned());
        self.process = Some(Process::start(command, &self.folder.path().join("output")));
        until(10, "Redis answers", || async {
            self.try_command(&["PING"]).await
        })
        .await;
    }

    /// Returns the port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns the folder of the append-only file.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the content of every file the server has written.
    pub fn files(&self) -> Vec<Vec<u8>> {
        let mut open = vec![self.folder.path().to_owned()];
        let mut files = Vec::new();
        while let Some(path) = open.pop() {
            for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    open.push(entry.path());
                } else {
                    files.push(std::fs::read(entry.path()).unwrap_or_default());
                }
            }
        }
        files
    }

    /// Returns `redis://…`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Sends a command and returns the beginning of its raw reply.
    pub async fn command(&self, words: &[&str]) -> String {
        self.try_command(words).await.expect("Redis answers")
    }

    async fn try_command(&self, words: &[&str]) -> Option<String> {
        Self::ask(self.port, words).await
    }

    /// Sends a command to the server at `port`; `None` if it does not answer.
    pub async fn ask(port: u16, words: &[&str]) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            let _ = write!(request, "${}\r\n{word}\r\n", word.len());
        }
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut reply = vec![0; 1 << 20];
        let count = stream
            .read(&mut reply)
            .await
            .ok()
            .filter(|count| *count > 0)?;
        Some(String::from_utf8_lossy(&reply[..count]).into_owned())
    }

    /// Whether the process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.process
            .as_mut()
            .is_none_or(|process| process.ended().is_some())
    }

    /// Kills the server (SIGKILL).
    pub fn kill(&mut self) {
        // Dropping the process kills it.
        self.process = None;
    }

    /// Suspends or resumes the server (SIGSTOP, SIGCONT).
    pub fn pause(&self, paused: bool) {
        self.process
            .as_ref()
            .expect("a running server")
            .signal(if paused { "STOP" } else { "CONT" });
    }
}
