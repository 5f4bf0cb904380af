//! How a command fails: what is wrong, where, and what to do next, on one line. Never a backtrace.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::output::error_line;

/// A failure in words for the person at the command line. As the context of an [`anyhow::Error`] it
/// replaces the error's own words, which `--verbose` shows below it.
#[derive(Debug)]
pub struct Failure {
    text: String,
    is_usage: bool,
}

impl Failure {
    /// Says what is wrong, where, and what to do next.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            is_usage: false,
        }
    }

    /// The same about the command line.
    pub fn usage(text: impl Into<String>) -> Self {
        Self {
            is_usage: true,
            ..Self::new(text)
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// Prints `error` to standard error, with `is_verbose` each of its causes as well, and returns the
/// exit code.
pub fn report(error: &anyhow::Error, is_verbose: bool) -> u8 {
    let failure = error.downcast_ref::<Failure>();
    if failure.is_some() {
        error_line(format_args!("error: {error}"));
    } else {
        error_line(format_args!("error: {error:#}"));
    }
    if is_verbose {
        for cause in error.chain().skip(1) {
            error_line(format_args!("  caused by: {cause}"));
        }
    }
    if failure.is_some_and(|failure| failure.is_usage) {
        2
    } else {
        1
    }
}

/// Listens on the address of the configuration key `key`.
pub async fn listen(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| cannot_listen(key, address, error))
}

/// The error of `key`, whose `address` cannot be listened on.
pub fn cannot_listen(key: &str, address: SocketAddr, error: io::Error) -> anyhow::Error {
    let text = match error.kind() {
        ErrorKind::AddrInUse => format!(
            "{key}: {address} is already in use. Stop the program that listens there, or set another {key}."
        ),
        ErrorKind::AddrNotAvailable => format!(
            "{key}: no network interface of this machine has the address {}. Set another {key}.",
            address.ip()
        ),
        ErrorKind::PermissionDenied => format!(
            "{key}: this user may not listen on port {}. Set a {key} with a port from 1024.",
            address.port()
        ),
        _ => format!("{key}: cannot listen on {address}: {error}"),
    };
    anyhow::Error::new(error).context(Failure::new(text))
}
