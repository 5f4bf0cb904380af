//! A real Postfix with its own configuration, queue and folders, on one loopback port. It stores
//! every mail in one Maildir or relays everything to another server. Postfix needs root.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::process::{Process, descendants, signal};
use crate::wait::{free_port, until};

const MASTER: &str = "/usr/lib/postfix/sbin/master";

/// The Postfix services that one relay needs, none in a chroot: name, type, process limit, program.
const SERVICES: [(&str, &str, &str, &str); 14] = [
    ("cleanup", "unix", "0", "cleanup"),
    ("qmgr", "unix", "1", "qmgr"),
    ("rewrite", "unix", "-", "trivial-rewrite"),
    ("bounce", "unix", "0", "bounce"),
    ("defer", "unix", "0", "bounce"),
    ("trace", "unix", "0", "bounce"),
    ("smtp", "unix", "-", "smtp"),
    ("relay", "unix", "-", "smtp"),
    ("error", "unix", "-", "error"),
    ("retry", "unix", "-", "error"),
    ("anvil", "unix", "1", "anvil"),
    ("scache", "unix", "1", "scache"),
    ("proxymap", "unix", "-", "proxymap"),
    ("postlog", "unix-dgram", "1", "postlogd"),
];

/// A running Postfix.
pub struct Postfix {
    process: Process,
    folder: TempDir,
    port: u16,
}

impl Postfix {
    /// Starts a server that stores the mails it gets; see [`Postfix::mails`].
    pub async fn start() -> Self {
        Self::launch("").await
    }

    /// Starts a server that relays everything to `port` on loopback and retries every second.
    pub async fn relaying_to(port: u16) -> Self {
        Self::launch(&format!(
            "virtual_mailbox_domains =\nrelayhost = [127.0.0.1]:{port}\n\
             minimal_backoff_time = 1s\nmaximal_backoff_time = 1s\nqueue_run_delay = 1s\n"
        ))
        .await
    }

    async fn launch(last_lines: &str) -> Self {
        assert!(
            Path::new(MASTER).exists(),
            "postfix not found; tests/run installs it"
        );
        let folder = tempfile::Builder::new()
            .prefix("watchword-postfix-")
            .tempdir()
            .expect("a folder");
        let port = free_port();
        configure(folder.path(), port, last_lines);
        let etc = folder.path().join("etc");
        // Creates the queue's folders with their owners.
        let check = Command::new("postfix")
            .arg("-c")
            .arg(&etc)
            .arg("check")
            .output()
            .expect("postfix check");
        assert!(
            check.status.success(),
            "postfix check, as root? {}",
            String::from_utf8_lossy(&check.stderr)
        );
        // `-d` keeps `master` in the process group of the test, so that it ends with the test.
        let mut command = Command::new(MASTER);
        command.arg("-c").arg(&etc).arg("-d");
        let postfix = Self {
            process: Process::start(command, &folder.path().join("output")),
            folder,
            port,
        };
        until(20, "Postfix answers", || async {
            TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        postfix
    }

    /// Returns the SMTP port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns the delivered mails, in no particular order.
    pub fn mails(&self) -> Vec<String> {
        let inbox = self.folder.path().join("mail/inbox/new");
        fs::read_dir(inbox)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| fs::read_to_string(entry.path()).ok())
            .collect()
    }

    /// Returns the mail log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log/maillog")).unwrap_or_default()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // Kill the services first: once `master` is gone they cannot be found as its children.
        for id in descendants(self.process.id()) {
            signal(id, "KILL");
        }
    }
}

/// Writes `main.cf` and `master.cf`, and the folders with the owners that Postfix requires.
fn configure(folder: &Path, port: u16, last_lines: &str) {
    let path = folder.display();
    for (name, owner) in [
        ("etc", None),
        ("queue", None),
        ("log", None),
        ("data", Some("postfix")),
        ("mail", Some("nobody")),
    ] {
        fs::create_dir(folder.join(name)).expect("a folder");
        if let Some(owner) = owner {
            let (user, _) = ids(owner);
            std::os::unix::fs::chown(folder.join(name), Some(user), None).expect("an owner: root?");
        }
    }
    // The services run as other users and must be able to enter the folder.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("a mode");
    let (user, group) = ids("nobody");
    let main = format!(
        "compatibility_level = 3.6\nqueue_directory = {path}/queue\ndata_directory = {path}/data\n\
         maillog_file = {path}/log/maillog\nmaillog_file_prefixes = {path}\n\
         inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmyhostname = relay.example.org\n\
         mydestination =\nmynetworks = 127.0.0.0/8\nalias_maps =\nsmtputf8_enable = yes\n\
         virtual_mailbox_domains = static:ALL\nvirtual_mailbox_base = {path}/mail\n\
         virtual_mailbox_maps = static:inbox/\nvirtual_uid_maps = static:{user}\n\
         virtual_gid_maps = static:{group}\n{last_lines}"
    );
    let mut master =
        format!("127.0.0.1:{port} inet n - n - - smtpd\nvirtual unix - n n - - virtual\n");
    for (name, kind, most, program) in SERVICES {
        let private = match name {
            "cleanup" | "qmgr" | "postlog" => "n",
            _ => "-",
        };
        // The queue manager looks at deferred mail every second.
        let wake = if name == "qmgr" { "1" } else { "-" };
        let _ = writeln!(
            master,
            "{name} {kind} {private} - n {wake} {most} {program}"
        );
    }
    fs::write(folder.join("etc/main.cf"), main).expect("a config");
    fs::write(folder.join("etc/master.cf"), master).expect("a config");
}

/// Returns the user and group ids of `name`.
fn ids(name: &str) -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").expect("the users");
    let mut fields = users
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields[0] == name)
        .unwrap_or_else(|| panic!("no user {name}"))
        .into_iter()
        .skip(2);
    let mut id = || fields.next().and_then(|id| id.parse().ok()).expect("an id");
    (id(), id())
}
