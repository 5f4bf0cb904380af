//! Framing of incoming SMPP commands: header and body, split by length (SMPP 3.4 section 3.2).
//! Bodies are parsed where they are used, so that an unreadable body affects one message and not
//! the whole bind. Only an impossible length ends the stream.

use std::io;

use bytes::{Buf, BytesMut};
use rusmpp::Command;
use rusmpp::tokio_codec::{CommandCodec, EncodeError};
use tokio_util::codec::{Decoder, Encoder};

/// Maximum length of a command in octets: `message_payload` may hold 64 KiB. A longer command ends
/// the bind.
const MAX_OCTETS: usize = 128 * 1024;
const HEADER_OCTETS: usize = 16;

/// The bit of a `command_id` that marks a response.
const RESPONSE: u32 = 0x8000_0000;
pub(super) const GENERIC_NACK: u32 = 0x8000_0000;
pub(super) const SUBMIT_SM_RESP: u32 = 0x8000_0004;
pub(super) const DELIVER_SM: u32 = 0x0000_0005;
pub(super) const UNBIND: u32 = 0x0000_0006;
pub(super) const OUTBIND: u32 = 0x0000_000b;
pub(super) const ENQUIRE_LINK: u32 = 0x0000_0015;
pub(super) const ALERT_NOTIFICATION: u32 = 0x0000_0102;

/// Incoming command: the three fields of its header and its body.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) id: u32,
    pub(super) status: u32,
    pub(super) sequence: u32,
    pub(super) body: BytesMut,
}

impl Frame {
    pub(super) const fn is_response(&self) -> bool {
        self.id & RESPONSE != 0
    }

    /// Returns the text at the start of the body, up to its NUL or to the end if the NUL is
    /// missing.
    pub(super) fn first_text(&self) -> String {
        let text = self.body.as_ref().split(|octet| *octet == 0).next();
        String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
    }
}

/// Codec that reads [`Frame`]s and writes [`Command`]s.
pub(super) struct FrameCodec(CommandCodec);

impl FrameCodec {
    pub(super) const fn new() -> Self {
        Self(CommandCodec::new())
    }
}

impl Encoder<Command> for FrameCodec {
    type Error = EncodeError;

    fn encode(&mut self, command: Command, octets: &mut BytesMut) -> Result<(), EncodeError> {
        self.0.encode(command, octets)
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = io::Error;

    fn decode(&mut self, octets: &mut BytesMut) -> Result<Option<Frame>, io::Error> {
        let Some(mut header) = octets.get(..HEADER_OCTETS) else {
            return Ok(None);
        };
        let length = usize::try_from(header.get_u32()).unwrap_or(usize::MAX);
        if !(HEADER_OCTETS..=MAX_OCTETS).contains(&length) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (id, status, sequence) = (header.get_u32(), header.get_u32(), header.get_u32());
        if octets.len() < length {
            octets.reserve(length - octets.len());
            return Ok(None);
        }
        let mut body = octets.split_to(length);
        body.advance(HEADER_OCTETS);
        Ok(Some(Frame {
            id,
            status,
            sequence,
            body,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(length: u32, body: &[u8]) -> BytesMut {
        let mut octets = BytesMut::new();
        for word in [length, SUBMIT_SM_RESP, 0x0b, 7] {
            octets.extend_from_slice(&word.to_be_bytes());
        }
        octets.extend_from_slice(body);
        octets
    }

    #[test]
    fn a_command_is_cut_out_by_its_length_whatever_its_body_holds() {
        let mut octets = command(20, b"\xff\xff\xff\xff");
        octets.extend_from_slice(&command(16, b""));
        let first = FrameCodec::new().decode(&mut octets).unwrap().unwrap();
        assert_eq!((first.id, first.status), (SUBMIT_SM_RESP, 0x0b));
        assert_eq!((first.sequence, first.body.len()), (7, 4));
        let second = FrameCodec::new().decode(&mut octets).unwrap().unwrap();
        assert_eq!((second.first_text().as_str(), octets.len()), ("", 0));
        let mut cut = command(20, b"ab");
        assert!(FrameCodec::new().decode(&mut cut).unwrap().is_none());
        assert_eq!(cut.len(), 18, "the rest is waited for");
    }

    #[test]
    fn a_length_that_cannot_be_right_ends_the_stream() {
        for length in [0, 15, 128 * 1024 + 1, u32::MAX] {
            let mut octets = command(length, b"");
            assert!(FrameCodec::new().decode(&mut octets).is_err(), "{length}");
        }
    }

    #[test]
    fn a_command_with_the_longest_payload_is_read() {
        let body = vec![b'x'; 64 * 1024 + 300];
        let mut octets = command(16 + u32::try_from(body.len()).unwrap(), &body);
        let frame = FrameCodec::new().decode(&mut octets).unwrap().unwrap();
        assert_eq!(frame.body.len(), body.len());
    }

    #[test]
    fn an_id_is_read_with_and_without_its_nul() {
        let long = "x".repeat(70);
        for (body, id) in [("A1\0", "A1"), ("A1", "A1"), ("A1\0\x06", "A1"), ("", "")] {
            let mut octets = command(16 + u32::try_from(body.len()).unwrap(), body.as_bytes());
            let frame = FrameCodec::new().decode(&mut octets).unwrap().unwrap();
            assert_eq!(frame.first_text(), id);
        }
        let mut octets = command(86, long.as_bytes());
        let frame = FrameCodec::new().decode(&mut octets).unwrap().unwrap();
        assert_eq!(frame.first_text(), long);
    }
}
