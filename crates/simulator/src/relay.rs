//! The SMTP relay, without TLS. Each outcome is replied at the verb where a real relay would reply
//! it.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::behaviour::Outcome;
use crate::world::{SimulatedMessage, World};

const CONNECTIONS: usize = 1_024;
const MAX_MAIL_BYTES: usize = 64 * 1024;
const HANG: Duration = Duration::from_secs(600);

pub(crate) async fn serve(listener: TcpListener, world: World) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (Ok((stream, _)), Ok(permit)) = (accepted, permits.clone().try_acquire_owned()) else {
                    continue;
                };
                let world = world.clone();
                tasks.spawn(async move {
                    // A client that disconnects ends only its own session.
                    let _ = dialogue(stream, &world).await;
                    drop(permit);
                });
            }
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
        }
    }
}

async fn dialogue(stream: TcpStream, world: &World) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    say(&mut stream, "220 simulator ESMTP").await?;
    let (mut to, mut fate) = (String::new(), (Outcome::Accepted, Duration::ZERO));
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 || line.len() > 4_096 {
            return Ok(());
        }
        let verb = line
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => {
                say(
                    &mut stream,
                    "250-simulator\r\n250-PIPELINING\r\n250 8BITMIME",
                )
                .await?;
            }
            "HELO" | "MAIL" | "RSET" | "NOOP" => say(&mut stream, "250 fine").await?,
            "RCPT" => {
                let address = line
                    .split_once('<')
                    .and_then(|(_, rest)| rest.split_once('>'));
                to = address.map_or_else(String::new, |(address, _)| address.to_owned());
                fate = world.mail_fate(&to);
                let reply = match fate.0 {
                    Outcome::RecipientInvalid => "550 5.1.1 no such person",
                    Outcome::RecipientBlocked => "550 5.7.1 refused by the recipient",
                    Outcome::DestinationRefused => "550 5.7.1 relaying to this domain is denied",
                    Outcome::ConfigFault => "530 5.7.0 log in first",
                    Outcome::Throttled => "450 4.2.0 greylisted, come again",
                    Outcome::DropBeforeAccept => return Ok(()),
                    _ => "250 fine",
                };
                say(&mut stream, reply).await?;
            }
            "DATA" => {
                say(&mut stream, "354 go on").await?;
                let Some(text) = read_mail(&mut stream).await? else {
                    return Ok(());
                };
                sleep(fate.1).await;
                match fate.0 {
                    Outcome::MessageRejected => {
                        say(&mut stream, "554 5.6.0 content refused").await?;
                    }
                    Outcome::Transient => say(&mut stream, "451 4.3.0 try later").await?,
                    Outcome::Hang => sleep(HANG).await,
                    outcome => {
                        world.keep(SimulatedMessage {
                            n: 0,
                            id: String::new(),
                            channel: "email",
                            to: to.clone(),
                            text,
                            reference: None,
                            callback: None,
                        });
                        if outcome == Outcome::DropAfterAccept {
                            return Ok(());
                        }
                        say(&mut stream, "250 2.0.0 taken").await?;
                    }
                }
            }
            "QUIT" => return say(&mut stream, "221 bye").await,
            _ => say(&mut stream, "502 5.5.1 not here").await?,
        }
    }
}

async fn read_mail(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<String>> {
    let mut mail = String::new();
    loop {
        let start = mail.len();
        if stream.read_line(&mut mail).await? == 0 || mail.len() > MAX_MAIL_BYTES {
            return Ok(None);
        }
        if &mail[start..] == ".\r\n" {
            mail.truncate(start);
            return Ok(Some(mail));
        }
    }
}

async fn say(stream: &mut BufReader<TcpStream>, reply: &str) -> std::io::Result<()> {
    stream
        .get_mut()
        .write_all(format!("{reply}\r\n").as_bytes())
        .await
}
