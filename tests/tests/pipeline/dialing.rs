//! Peers with one dead address: broker, store and relay are reached at the other address. The
//! product runs in its own mount namespace, whose hosts file gives `localhost` two addresses.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use watchword_tests::{Pipeline, RabbitMq, RedisServer, Settings, Sink};

/// The address that `localhost` resolves to first.
const DEAD: Ipv4Addr = Ipv4Addr::LOCALHOST;
const LIVE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A port that is served by a peer at the live address and is dead at the other: the accept queue
/// there is full, so the kernel drops further connection requests.
struct HalfDead {
    port: u16,
    _queue: (TcpListener, Vec<TcpStream>),
}

impl HalfDead {
    async fn before(peer: u16) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((DEAD, 0))).unwrap();
        let deaf = socket.listen(1).unwrap();
        let port = deaf.local_addr().unwrap().port();
        let mut queued = Vec::new();
        while let Ok(stream) =
            timeout(Duration::from_millis(300), TcpStream::connect((DEAD, port))).await
        {
            queued.push(stream.unwrap());
            assert!(queued.len() < 16, "the queue does not fill");
        }
        let listener = TcpListener::bind((LIVE, port)).await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut to = TcpStream::connect((DEAD, peer)).await.unwrap();
                    let _ = copy_bidirectional(&mut from, &mut to).await;
                });
            }
        });
        Self {
            port,
            _queue: (deaf, queued),
        }
    }
}

fn port_of(url: &str) -> u16 {
    reqwest::Url::parse(url).unwrap().port().unwrap()
}

/// Wraps `command` so that `localhost` resolves to both addresses.
fn with_two_addresses(command: &Command, hosts: &std::path::Path) -> Command {
    let mut wrapped = Command::new("unshare");
    let mount = "mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"";
    wrapped.args(["--mount", "sh", "-c", mount, "sh"]);
    wrapped.arg(hosts).arg(command.get_program());
    wrapped.args(command.get_args());
    for (name, value) in command.get_envs() {
        wrapped.env(name, value.unwrap_or_default());
    }
    wrapped
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_address_costs_a_quarter_of_a_second() {
    let (rabbitmq, redis, relay) = (
        RabbitMq::start().await,
        RedisServer::start().await,
        Sink::start().await,
    );
    let broker = HalfDead::before(port_of(&rabbitmq.url())).await;
    let store = HalfDead::before(port_of(&redis.url())).await;
    let mails = HalfDead::before(relay.port()).await;
    let at = |url: &str, port: u16| {
        let mut url = reqwest::Url::parse(url).unwrap();
        url.set_host(Some("localhost")).unwrap();
        url.set_port(Some(port)).unwrap();
        url.to_string()
    };
    let mut settings = Settings::distributed(
        &at(&rabbitmq.url(), broker.port),
        &at(&redis.url(), store.port),
    );
    settings.providers = format!(
        "[sms.providers.inbox]\nkind = \"inbox\"\n[email.providers.relay]\nkind = \"smtp\"\nhost = \"localhost\"\n\
         port = {}\ntls = \"none\"\nfrom = \"Test <no-reply@mail.example.org>\"\n",
        mails.port
    );
    let pipeline = Pipeline::configure(&settings);
    let hosts = pipeline.folder().join("hosts");
    std::fs::write(&hosts, format!("{DEAD} localhost\n{LIVE} localhost\n")).unwrap();
    let mut command = pipeline.command();
    command.arg("doctor");
    let mut command = with_two_addresses(&command, &hosts);
    let begun = Instant::now();
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    for about in ["rabbitmq", "redis", "email relay"] {
        let reached = |line: &str| line.starts_with("ok") && line.contains(about);
        assert!(text.lines().any(reached), "{about} in\n{text}");
    }
    // The standard `connect` would spend the whole deadline of 5 s per peer on the dead address.
    assert!(begun.elapsed() < Duration::from_secs(5), "{text}");
}
