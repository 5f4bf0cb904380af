//! The line level of an SMTP connection: commands out, replies in. An unexpected reply ends the
//! connection: it could be read as the answer to a later command (CVE-2011-0411).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::reply::{Parsed, Reply};

/// Replies of a few lines fit into one read.
const READ_BYTES: usize = 1_024;

/// The stream below the dialogue: TCP, or TLS on it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A stream with the bytes that were read and not yet taken.
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

    /// Sends `bytes`, a whole command or mail, in one write and reads the reply to it.
    pub(super) async fn ask(&mut self, bytes: &[u8]) -> io::Result<Reply> {
        if self.has_unread() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.stream.write_all(bytes).await?;
        self.stream.flush().await?;
        self.reply().await
    }

    /// Whether the relay sent more than the reply that was read.
    pub(super) const fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// The stream, for the TLS handshake; `None` if clear text is left that could be taken for
    /// replies inside TLS.
    pub(super) fn into_stream(self) -> Option<S> {
        (!self.has_unread()).then_some(self.stream)
    }
}
