//! Errors of commands: the problem, its place and the next step in a line, without a backtrace.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::output::error_line;

/// An error message for the person at the command line. As the context of an [`anyhow::Error`] it
/// replaces the messages of the causes, which only `--verbose` prints.
#[derive(Debug)]
pub struct Failure {
    text: String,
    is_usage: bool,
}

impl Failure {
    /// Creates a failure with exit code 1. `text` names the problem, its place and the next step.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            is_usage: false,
        }
    }

    /// Creates a usage error, with exit code 2.
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

/// Prints `error` to standard error, with its causes if `is_verbose`, and returns the exit code.
pub fn report(error: &anyhow::Error, is_verbose: bool) -> u8 {
    let failure = error.downcast_ref::<Failure>();
    // A failure says all by itself, but a context that was put around it does not.
    if failure.is_some_and(|failure| failure.text == error.to_string()) {
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

/// Returns the error of the configuration key `key`, whose `address` cannot be bound.
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
