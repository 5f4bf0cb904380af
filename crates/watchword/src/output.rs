//! Standard output of the commands. If the reader closes the pipe, as in `watchword metrics |
//! head`, the process exits with 141, where the standard macros would panic.

use std::fmt::{Arguments, Display};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

/// The exit status that shells report for a program killed by SIGPIPE: 128 + 13.
const CLOSED_PIPE: i32 = 141;

static QUIET: AtomicBool = AtomicBool::new(false);

/// Makes [`line`] print nothing (`--quiet`).
pub fn set_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Prints a line for people, unless `--quiet` is set. The crate's `println!` calls it.
pub fn line(arguments: Arguments<'_>) {
    if !QUIET.load(Ordering::Relaxed) {
        write(arguments, "\n");
    }
}

/// Prints requested data, even with `--quiet`. Adds no line break.
pub fn data(text: &str) {
    write(format_args!("{text}"), "");
}

/// Prints `value` as JSON, even with `--quiet`.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    write(format_args!("{text}"), "\n");
    Ok(())
}

/// Returns `count` with the noun in singular or plural: `1 error`, `2 errors`.
pub fn counted<N: Copy + Display + PartialEq + From<u8>>(count: N, noun: &str) -> String {
    let plural = if count == N::from(1) { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// Whether to print colors: standard output is a terminal and `NO_COLOR` is not set.
pub fn has_colors() -> bool {
    let is_off = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !is_off && io::stdout().is_terminal()
}

/// Prints a line to standard error. Ignores errors, because there is no place left to report them.
pub fn error_line(arguments: Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{arguments}");
}

fn write(arguments: Arguments<'_>, end: &str) {
    let mut out = io::stdout().lock();
    let written = write!(out, "{arguments}{end}").and_then(|()| out.flush());
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => exit(CLOSED_PIPE),
        Err(error) => {
            error_line(format_args!(
                "error: standard output cannot be written: {error}"
            ));
            exit(1);
        }
    }
}
