//! Line level of an SMTP connection: writes commands and reads replies. A surplus reply ends the
//! connection, because it would be read as the reply to a later command (CVE-2011-0411).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::reply::{Parsed, Reply};

/// Bytes per read, enough for replies of a few lines.
const READ_BYTES: usize = 1_024;

/// Transport of the conversation: TCP, or TLS over it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Stream with the received bytes that are not parsed yet.
pub(super) struct Wire<S> {
    stream: S,
    unread: Vec<u8>,
}

impl<S: Stream> Wire<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// Reads one reply.
    pub(super) async fn reply(&mut self) -> io::Result<Reply> {
        loop {
            match Reply::parse(&self.unread) {
                Parsed::Whole(reply, taken) => {
                    self.unread.drain(..taken);
                    return Ok(reply);
                }
                Parsed::Malformed => return Err(io::ErrorKind::InvalidData.into()),
                Parsed::Incomplete => {}
            }
            self.unread.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Sends `bytes`, a whole command or mail, in one write and reads the reply.
    pub(super) async fn ask(&mut self, bytes: &[u8]) -> io::Result<Reply> {
        if self.has_unread() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.stream.write_all(bytes).await?;
        self.stream.flush().await?;
        self.reply().await
    }

    /// Whether the relay sent more bytes than the last reply.
    pub(super) const fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Returns the stream for the TLS handshake; `None` if clear text is left that would be read as
    /// replies inside TLS.
    pub(super) fn into_stream(self) -> Option<S> {
        (!self.has_unread()).then_some(self.stream)
    }
}
