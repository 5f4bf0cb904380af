//! A real Kannel (bearerbox and smsbox) on free ports. A client of Kannel's fake SMSC protocol
//! takes the place of the telephone network and records the messages.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;

use crate::process::Process;
use crate::wait::{free_port, until};

const BEARERBOX: &str = "/usr/sbin/bearerbox";
const SMSBOX: &str = "/usr/sbin/smsbox";

/// The password of the sendsms user `watchword`.
pub const PASSWORD: &str = "kannel-secret";

/// A message that reached the network.
#[derive(Debug, Clone)]
pub struct Sms {
    /// The recipient's number.
    pub to: String,
    /// The decoded text.
    pub text: String,
}

/// A running Kannel.
pub struct Gateway {
    _smsbox: Process,
    _bearerbox: Process,
    _folder: TempDir,
    port: u16,
    received: Arc<Mutex<Vec<Sms>>>,
}

impl Gateway {
    /// Starts bearerbox, smsbox and the fake SMSC.
    pub async fn start() -> Self {
        assert!(
            Path::new(BEARERBOX).exists(),
            "kannel not found; tests/run installs it"
        );
        let folder = tempfile::Builder::new()
            .prefix("watchword-kannel-")
            .tempdir()
            .expect("a folder");
        let [admin, boxes, smsc, port] = [free_port(), free_port(), free_port(), free_port()];
        let config = format!(
            "group = core\nadmin-port = {admin}\nadmin-password = {PASSWORD}\n\
             smsbox-port = {boxes}\nbox-allow-ip = 127.0.0.1\nlog-level = 2\n\n\
             group = smsc\nsmsc = fake\nsmsc-id = fake\nport = {smsc}\nconnect-allow-ip = 127.0.0.1\n\n\
             group = smsbox\nbearerbox-host = 127.0.0.1\nsendsms-port = {port}\nlog-level = 2\n\n\
             group = sendsms-user\nusername = watchword\npassword = {PASSWORD}\nmax-messages = 2\nconcatenation = true\n\n\
             group = sms-service\nkeyword = default\ntext = none\n"
        );
        let path = folder.path().join("kannel.conf");
        fs::write(&path, config).expect("a config");
        let start = |program: &str, name: &str| {
            let mut command = Command::new(program);
            command.arg(&path);
            Process::start(command, &folder.path().join(name))
        };
        let bearerbox = start(BEARERBOX, "bearerbox");
        let stream = until(20, "Kannel's SMSC port is open", || async {
            TcpStream::connect(("127.0.0.1", smsc)).await.ok()
        })
        .await;
        until(20, "Kannel's box port is open", || async {
            TcpStream::connect(("127.0.0.1", boxes)).await.ok()
        })
        .await;
        let smsbox = start(SMSBOX, "smsbox");
        until(20, "Kannel's sendsms port is open", || async {
            TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        let received = Arc::<Mutex<Vec<Sms>>>::default();
        tokio::spawn(receive(stream, received.clone()));
        Self {
            _smsbox: smsbox,
            _bearerbox: bearerbox,
            _folder: folder,
            port,
            received,
        }
    }

    /// Returns the sendsms URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/cgi-bin/sendsms", self.port)
    }

    /// Returns the messages that reached the network.
    pub fn received(&self) -> Vec<Sms> {
        self.received.lock().expect("messages").clone()
    }
}

/// Reads the fake SMSC protocol: `sender receiver text …`. It does not encode line breaks in a
/// text, so a line that does not begin with two numbers belongs to the previous message.
async fn receive(stream: TcpStream, received: Arc<Mutex<Vec<Sms>>>) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut words = line.splitn(4, ' ');
        let (_, to, kind, text) = (words.next(), words.next(), words.next(), words.next());
        let mut received = received.lock().expect("messages");
        match (to, kind, text) {
            (Some(to), Some("text"), Some(text)) if to.starts_with('+') => {
                received.push(Sms {
                    to: to.to_owned(),
                    text: text.to_owned(),
                });
            }
            _ => {
                if let Some(last) = received.last_mut() {
                    last.text.push('\n');
                    last.text.push_str(&line);
                }
            }
        }
    }
}
