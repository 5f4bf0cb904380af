//! Task that owns one bind: writes commands, matches responses by sequence number, passes on
//! receipts, and sends `enquire_link`. The task ends at the first fault, and callers still waiting
//! get an unknown outcome. It does not reconnect; the next message dials.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rusmpp::pdus::{BindTransceiver, DeliverSmResp, SubmitSm};
use rusmpp::types::COctetString;
use rusmpp::{Command, CommandStatus, Pdu};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{interval, timeout};
use tokio_util::codec::Framed;
use watchword_core::SecretString;

use super::frame::{
    ALERT_NOTIFICATION, DELIVER_SM, ENQUIRE_LINK, Frame, FrameCodec, GENERIC_NACK, OUTBIND,
    SUBMIT_SM_RESP, UNBIND,
};
use super::receipt::{MessageIds, Told, read};
use super::status::INVALID_COMMAND;
use crate::receipt::Unread;

const WRITE_DEADLINE: Duration = Duration::from_secs(5);

/// Response to a `submit_sm`.
pub(super) struct Answer {
    pub(super) status: u32,
    /// Whether the peer answered with a `generic_nack`.
    pub(super) is_nack: bool,
    /// Message id as the peer writes it; empty if it gave none.
    pub(super) id: String,
}

pub(super) type Job = (Box<SubmitSm>, oneshot::Sender<Answer>);

/// Peer and credentials of a bind.
pub(super) struct Account {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) system_id: String,
    pub(super) password: SecretString,
    pub(super) system_type: String,
    pub(super) enquire_link: Duration,
    pub(super) message_ids: MessageIds,
}

/// Error of binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unbound {
    Away,
    /// The peer's `command_status`.
    Refused(u32),
}

/// Connects and binds. The bind lives until a fault or until the returned sender is dropped.
pub(super) async fn bind(
    account: &Account,
    told: mpsc::Sender<Result<Told, Unread>>,
) -> Result<mpsc::Sender<Job>, Unbound> {
    let stream = watchword_dial::connect(&account.host, account.port)
        .await
        .map_err(|_| Unbound::Away)?;
    let mut framed = Framed::new(stream, FrameCodec::new());
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
        if answer.is_response() && answer.sequence == 1 {
            if answer.status != 0 || answer.id == GENERIC_NACK {
                return Err(Unbound::Refused(answer.status));
            }
            break;
        }
    }
    let (jobs, inbox) = mpsc::channel(64);
    let (enquire_link, ids) = (account.enquire_link, account.message_ids);
    tokio::spawn(run(framed, inbox, told, enquire_link, ids));
    Ok(jobs)
}

fn text<const MIN: usize, const MAX: usize>(text: &str) -> Result<COctetString<MIN, MAX>, Unbound> {
    // The configuration was checked, so this cannot fail for a configured account.
    COctetString::from_str(text).map_err(|_| Unbound::Refused(0x0f))
}

type Waiting = HashMap<u32, oneshot::Sender<Answer>>;

async fn run(
    mut framed: Framed<TcpStream, FrameCodec>,
    mut jobs: mpsc::Receiver<Job>,
    told: mpsc::Sender<Result<Told, Unread>>,
    enquire_link: Duration,
    ids: MessageIds,
) {
    let mut waiting = Waiting::new();
    let (mut number, mut is_alive) = (1_u32, true);
    let mut signs = interval(enquire_link);
    signs.tick().await;
    loop {
        let out = tokio::select! {
            job = jobs.recv() => {
                let Some((submit, answer)) = job else { return };
                // The caller gave up while an earlier command was being written. Drop the message:
                // it must not be sent after its deadline.
                if answer.is_closed() {
                    continue;
                }
                number = next(number);
                waiting.retain(|_, answer| !answer.is_closed());
                waiting.insert(number, answer);
                Command::new(CommandStatus::EsmeRok, number, *submit)
            }
            _ = signs.tick() => {
                if !is_alive {
                    return;
                }
                is_alive = false;
                number = next(number);
                Command::new(CommandStatus::EsmeRok, number, Pdu::EnquireLink)
            }
            frame = framed.next() => {
                let Some(Ok(frame)) = frame else { return };
                is_alive = true;
                if frame.id == UNBIND {
                    return;
                }
                match reply(&frame, &mut waiting, &told, ids) {
                    Some(command) => command,
                    None => continue,
                }
            }
        };
        match timeout(WRITE_DEADLINE, framed.send(out)).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
}

const fn next(number: u32) -> u32 {
    if number >= 0x7fff_fff0 { 2 } else { number + 1 }
}

/// Delivers a response to the caller that waits for it, or a receipt to its channel. Returns the
/// reply to a request.
fn reply(
    frame: &Frame,
    waiting: &mut Waiting,
    told: &mpsc::Sender<Result<Told, Unread>>,
    ids: MessageIds,
) -> Option<Command> {
    let ok = |pdu: Pdu| Some(Command::new(CommandStatus::EsmeRok, frame.sequence, pdu));
    match frame.id {
        DELIVER_SM => {
            if let Some(receipt) = read(&frame.body, ids) {
                // If the channel is full the receipt is lost; the outcome of its message then stays
                // unknown.
                let _ = told.try_send(receipt);
            }
            // Acknowledge unreadable receipts as well, otherwise the SMSC resends them forever.
            ok(DeliverSmResp::default().into())
        }
        ENQUIRE_LINK => ok(Pdu::EnquireLinkResp),
        ALERT_NOTIFICATION | OUTBIND => None,
        _ if !frame.is_response() => Some(Command::new(
            CommandStatus::EsmeRinvcmdid,
            frame.sequence,
            Pdu::GenericNack,
        )),
        // Some peers refuse a message with a response of another type.
        id => {
            let status = match (id, frame.status) {
                (GENERIC_NACK, 0) => INVALID_COMMAND,
                (SUBMIT_SM_RESP, status) => status,
                (_, 0) => return None,
                (_, status) => status,
            };
            // A caller that gave up has already recorded an unknown outcome.
            let _ = waiting.remove(&frame.sequence)?.send(Answer {
                status,
                is_nack: id == GENERIC_NACK,
                id: frame.first_text(),
            });
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use rusmpp::CommandId;
    use tokio::net::TcpListener;

    use super::*;

    fn submit(to: &str) -> Box<SubmitSm> {
        let to = COctetString::from_str(to).unwrap();
        Box::new(SubmitSm::builder().destination_addr(to).build())
    }

    #[tokio::test]
    async fn a_message_whose_caller_gave_up_is_not_written() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let (peer, _) = listener.accept().await.unwrap();
        let (jobs, inbox) = mpsc::channel(4);
        let (told, _heard) = mpsc::channel(4);
        let (gone, _) = oneshot::channel();
        let (answer, answered) = oneshot::channel();
        jobs.send((submit("4915100000001"), gone)).await.unwrap();
        jobs.send((submit("4915100000002"), answer)).await.unwrap();
        let framed = Framed::new(stream, FrameCodec::new());
        let minute = Duration::from_secs(60);
        tokio::spawn(run(framed, inbox, told, minute, MessageIds::Same));
        let mut peer = Framed::new(peer, FrameCodec::new());
        let first = peer.next().await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&first.body).contains("4915100000002"));
        let refusal = CommandStatus::EsmeRinvbndsts;
        let nack = Command::new(refusal, first.sequence, Pdu::GenericNack);
        peer.send(nack).await.unwrap();
        let answered = answered.await.unwrap();
        assert_eq!((answered.status, answered.is_nack), (0x04, true));
    }

    /// Returns the reply to a frame and the response passed to the caller that waits for sequence
    /// number 7.
    fn replied(id: u32, status: u32, body: &[u8]) -> (Option<CommandId>, Option<(u32, String)>) {
        let (answer, mut answered) = oneshot::channel();
        let mut waiting = Waiting::from([(7, answer)]);
        let (told, _heard) = mpsc::channel(4);
        let frame = Frame {
            id,
            status,
            sequence: 7,
            body: BytesMut::from(body),
        };
        let command = reply(&frame, &mut waiting, &told, MessageIds::Same);
        let answer = answered.try_recv().ok();
        (
            command.map(|command| command.id()),
            answer.map(|answer| (answer.status, answer.id)),
        )
    }

    #[test]
    fn every_command_has_its_reply_whatever_its_body() {
        let answer = |status, id: &str| Some((status, id.to_owned()));
        for (id, status, body, expected) in [
            (SUBMIT_SM_RESP, 0, &b"A1\0"[..], (None, answer(0, "A1"))),
            (SUBMIT_SM_RESP, 0, b"", (None, answer(0, ""))),
            (SUBMIT_SM_RESP, 0x45, b"", (None, answer(0x45, ""))),
            (GENERIC_NACK, 0, b"", (None, answer(INVALID_COMMAND, ""))),
            (GENERIC_NACK, 0x02, b"", (None, answer(0x02, ""))),
            (0x8000_0103, 0x08, b"", (None, answer(0x08, ""))),
            // The response to an `enquire_link` has a sequence number of its own.
            (0x8000_0015, 0, b"", (None, None)),
            (
                DELIVER_SM,
                0,
                b"\xff",
                (Some(CommandId::DeliverSmResp), None),
            ),
            (
                ENQUIRE_LINK,
                0,
                b"xx",
                (Some(CommandId::EnquireLinkResp), None),
            ),
            (ALERT_NOTIFICATION, 0, b"", (None, None)),
            (0x0000_0103, 0, b"", (Some(CommandId::GenericNack), None)),
            (0x0001_0200, 0, b"x", (Some(CommandId::GenericNack), None)),
        ] {
            assert_eq!(replied(id, status, body), expected, "{id:#x} {status:#x}");
        }
    }
}
