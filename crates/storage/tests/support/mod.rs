//! Private Redis servers, a proxy that can swallow replies, and waiting for a condition.
#![allow(dead_code)]

use std::net::TcpListener as StdListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use watchword_core::SecretString;
use watchword_storage::{Redis, RedisSettings};

pub fn free_port() -> u16 {
    // Below the bus port limit of a cluster (port + 10000) and outside the ephemeral range.
    for _ in 0..1000 {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let port = 12_000
            + ((std::process::id() as usize * 37 + NEXT.fetch_add(1, Ordering::Relaxed) * 7)
                % 10_000) as u16;
        if StdListener::bind(("127.0.0.1", port)).is_ok()
            && StdListener::bind(("127.0.0.1", port + 10_000)).is_ok()
        {
            return port;
        }
    }
    panic!("no free port");
}

pub struct Server {
    pub port: u16,
    child: Option<Child>,
    folder: TempDir,
    args: Vec<String>,
    sentinel: bool,
}

impl Server {
    pub fn start(args: &[&str]) -> Self {
        Self::start_on(free_port(), args)
    }
    pub fn start_on(port: u16, args: &[&str]) -> Self {
        let mut server = Self {
            port,
            child: None,
            folder: TempDir::new().unwrap(),
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            sentinel: false,
        };
        server.launch();
        server
    }
    pub fn sentinel(primary: u16) -> Self {
        let mut server = Self {
            port: free_port(),
            child: None,
            folder: TempDir::new().unwrap(),
            args: vec![],
            sentinel: true,
        };
        std::fs::write(server.folder.path().join("s.conf"), format!(
            "port {}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {primary} 1\nsentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n", server.port)).unwrap();
        server.launch();
        server
    }
    pub fn launch(&mut self) {
        let mut command;
        if self.sentinel {
            command = Command::new("redis-sentinel");
            command.arg(self.folder.path().join("s.conf"));
        } else {
            command = Command::new("redis-server");
            command
                .args([
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                    "--port",
                    &self.port.to_string(),
                    "--dir",
                ])
                .arg(self.folder.path())
                .args(&self.args);
        }
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is missing: install redis-server and redis-sentinel");
        self.child = Some(child);
        let start = Instant::now();
        while self
            .try_cli(&["PING"])
            .is_none_or(|out| !out.contains("PONG") && !out.contains("NOAUTH"))
        {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "the server does not come up"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
    fn try_cli(&self, args: &[&str]) -> Option<String> {
        let out = Command::new("redis-cli")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(args)
            .output()
            .expect("redis-cli is missing: install redis-server");
        out.status
            .success()
            .then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    }
    pub fn cli(&self, args: &[&str]) -> String {
        self.try_cli(args).expect("redis-cli failed")
    }
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
    pub fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }
}
impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A proxy that passes bytes both ways. While `mute` is set, it swallows the replies of open and
/// new connections.
pub struct Proxy {
    pub port: u16,
    pub accepts: Arc<AtomicUsize>,
    pub mute_first: Arc<AtomicBool>,
}
impl Proxy {
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepts = Arc::new(AtomicUsize::new(0));
        let mute_first = Arc::new(AtomicBool::new(false));
        let (count, mute) = (accepts.clone(), mute_first.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let mute = mute.clone();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else {
                        return;
                    };
                    let (mut cr, mut cw) = client.into_split();
                    let (mut sr, mut sw) = server.into_split();
                    let up = async {
                        let _ = tokio::io::copy(&mut cr, &mut sw).await;
                    };
                    let down = async {
                        let mut buffer = vec![0; 65_536];
                        while let Ok(n) = sr.read(&mut buffer).await {
                            if n == 0 {
                                break;
                            }
                            if number == 0 && mute.load(Ordering::SeqCst) {
                                continue;
                            }
                            if cw.write_all(&buffer[..n]).await.is_err() {
                                break;
                            }
                        }
                    };
                    tokio::select! { () = up => {}, () = down => {} }
                });
            }
        });
        Self {
            port,
            accepts,
            mute_first,
        }
    }
}

pub fn settings(url: &str, command_timeout_ms: u64) -> RedisSettings {
    RedisSettings {
        command_timeout_ms,
        ..RedisSettings::new(SecretString::new(url.to_owned()))
    }
}
pub async fn connect(url: &str, command_timeout_ms: u64) -> Redis {
    Redis::connect(settings(url, command_timeout_ms))
        .await
        .unwrap()
}

/// Polls until the condition holds; returns the time that took.
pub async fn until(seconds: u64, what: &str, mut condition: impl AsyncFnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition().await {
        assert!(
            start.elapsed() < Duration::from_secs(seconds),
            "not within {seconds} s: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}
