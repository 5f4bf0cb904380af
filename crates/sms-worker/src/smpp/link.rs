//! One bind, shared by all messages: commands out, answers matched by number, receipts passed on,
//! life signs kept. Ends at the first fault; whoever waits then has an unknown outcome. Refuses to
//! reconnect by itself: the next message dials.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rusmpp::pdus::{BindTransceiver, DeliverSmResp, SubmitSm};
use rusmpp::tokio_codec::CommandCodec;
use rusmpp::types::COctetString;
use rusmpp::values::MessageType;
use rusmpp::{Command, CommandStatus, Pdu};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{interval, timeout};
use tokio_util::codec::Framed;
use watchword_core::SecretString;

use super::receipt::{Told, read};

const WRITE_DEADLINE: Duration = Duration::from_secs(5);
const MAX_COMMAND_BYTES: usize = 8 * 1024;

/// The answer to a submit: its status and the message's id.
pub(super) type Answer = (u32, String);
pub(super) type Job = (Box<SubmitSm>, oneshot::Sender<Answer>);

/// Who binds where.
pub(super) struct Account {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) system_id: String,
    pub(super) password: SecretString,
    pub(super) system_type: String,
    pub(super) enquire_link: Duration,
}

/// Why there is no bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unbound {
    Away,
    /// The peer's `command_status`.
    Refused(u32),
}

/// Connects and binds; the link lives until a fault or until the sender is dropped.
pub(super) async fn bind(
    account: &Account,
    told: mpsc::Sender<Told>,
) -> Result<mpsc::Sender<Job>, Unbound> {
    let stream = watchword_dial::connect(&account.host, account.port)
        .await
        .map_err(|_| Unbound::Away)?;
    let codec = CommandCodec::new().with_max_length(MAX_COMMAND_BYTES);
    let mut framed = Framed::new(stream, codec);
    let bind = BindTransceiver::builder()
        .system_id(text(&account.system_id)?)
        .password(text(account.password.expose())?)
        .system_type(text(&account.system_type)?)
        .build();
    let command = Command::new(CommandStatus::EsmeRok, 1, bind);
    framed.send(command).await.map_err(|_| Unbound::Away)?;
    loop {
        let answer = framed
            .next()
            .await
            .and_then(Result::ok)
            .ok_or(Unbound::Away)?;
        if answer.sequence_number() == 1 {
            let status = u32::from(answer.status());
            if status != 0 {
                return Err(Unbound::Refused(status));
            }
            break;
        }
    }
    let (jobs, inbox) = mpsc::channel(64);
    tokio::spawn(run(framed, inbox, told, account.enquire_link));
    Ok(jobs)
}

fn text<const MIN: usize, const MAX: usize>(text: &str) -> Result<COctetString<MIN, MAX>, Unbound> {
    // What does not fit was refused with the configuration.
    COctetString::from_str(text).map_err(|_| Unbound::Refused(0x0f))
}

const fn is_receipt(kind: MessageType) -> bool {
    matches!(
        kind,
        MessageType::ShortMessageContainsMCDeliveryReceipt
            | MessageType::ShortMessageContainsIntermediateDeliveryNotification
    )
}

async fn run(
    mut framed: Framed<TcpStream, CommandCodec>,
    mut jobs: mpsc::Receiver<Job>,
    told: mpsc::Sender<Told>,
    enquire_link: Duration,
) {
    let mut waiting: HashMap<u32, oneshot::Sender<Answer>> = HashMap::new();
    let (mut number, mut is_alive) = (1_u32, true);
    let mut signs = interval(enquire_link);
    signs.tick().await;
    loop {
        let out = tokio::select! {
            job = jobs.recv() => {
                let Some((submit, answer)) = job else { return };
                number = if number >= 0x7fff_fff0 { 2 } else { number + 1 };
                waiting.retain(|_, answer| !answer.is_closed());
                waiting.insert(number, answer);
                Command::new(CommandStatus::EsmeRok, number, *submit)
            }
            _ = signs.tick() => {
                if !is_alive {
                    return;
                }
                is_alive = false;
                number = if number >= 0x7fff_fff0 { 2 } else { number + 1 };
                Command::new(CommandStatus::EsmeRok, number, Pdu::EnquireLink)
            }
            command = framed.next() => {
                let Some(Ok(command)) = command else { return };
                is_alive = true;
                let (sequence, status) = (command.sequence_number(), u32::from(command.status()));
                match command.pdu() {
                    Some(Pdu::SubmitSmResp(answer)) => {
                        if let Some(waiting) = waiting.remove(&sequence) {
                            // Whoever gave up waiting has counted it as unknown.
                            let _ = waiting.send((status, answer.message_id().to_string()));
                        }
                        continue;
                    }
                    Some(Pdu::DeliverSm(deliver)) => {
                        // By its class, not by its text: anybody's text can look like a receipt.
                        if is_receipt(deliver.esm_class.message_type)
                            && let Some(receipt) = read(deliver.short_message().as_ref())
                        {
                            // Full: the receipt is lost, as receipts may be.
                            let _ = told.try_send(receipt);
                        }
                        Command::new(CommandStatus::EsmeRok, sequence, DeliverSmResp::default())
                    }
                    Some(Pdu::EnquireLink) => {
                        Command::new(CommandStatus::EsmeRok, sequence, Pdu::EnquireLinkResp)
                    }
                    Some(Pdu::Unbind) => return,
                    _ => {
                        // A refusal without a body, or something that is not for us.
                        if let Some(waiting) = waiting.remove(&sequence)
                            && status != 0
                        {
                            let _ = waiting.send((status, String::new()));
                        }
                        continue;
                    }
                }
            }
        };
        match timeout(WRITE_DEADLINE, framed.send(out)).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
}
