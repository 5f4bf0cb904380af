//! Process hardening: no core files, no ptrace or reading of the process's memory, a raised file
//! descriptor limit, and panic messages that name the location but not the text.

use std::io::{self, Write};
use std::panic::PanicHookInfo;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior};

/// File descriptors to ask for: enough for two full listeners and the connections to peers.
const DESCRIPTORS: u64 = 16_384;

/// Hardens the process, so that no secret leaves its memory through a core file, a debugger or a
/// panic message. Call it first in `main`: descriptors that are open already are not affected.
///
/// # Errors
///
/// Fails if core files cannot be disabled or the process cannot be made non-dumpable.
pub fn harden() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(Resource::Core, none)?;
    // A core pattern that pipes into a crash handler ignores the limit, but the kernel does not
    // dump a process that is not dumpable. The same flag denies ptrace and /proc/PID/mem to
    // everyone but root.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    raise_descriptors();
    std::panic::set_hook(Box::new(|info| tell(&panic_line(info))));
    Ok(())
}

/// Raises the soft limit: many systems start processes with 1,024 descriptors and allow far more.
/// If that fails, the limit stays as it is.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit
        .maximum
        .map_or(DESCRIPTORS, |most| most.min(DESCRIPTORS));
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: limit.maximum,
        };
        let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    }
}

/// Returns the soft limit of file descriptors.
pub fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(DESCRIPTORS)
}

/// Returns the location of a panic without its message, because a message may quote a secret:
/// slicing a string at the wrong place quotes the string.
fn panic_line(info: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let place = info.location().map_or_else(String::new, |place| {
        format!(" at {}:{}:{}", place.file(), place.line(), place.column())
    });
    format!("panic in {}{place}", thread.name().unwrap_or("a thread"))
}

fn tell(line: &str) {
    if tracing::dispatcher::has_been_set() {
        tracing::error!("{line}");
    } else {
        let _ = writeln!(io::stderr(), "{line}");
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const CHILD: &str = "WATCHWORD_TEST_PANICS";

    /// Runs in a child process of the test below; does nothing by itself.
    #[test]
    fn child() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        harden().unwrap();
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        assert_eq!(
            rustix::process::dumpable_behavior(),
            Ok(DumpableBehavior::NotDumpable)
        );
        let recipient = "+49151é2345678".to_owned();
        let cut = std::panic::catch_unwind(|| recipient[..7].to_owned());
        assert!(cut.is_err());
        std::panic::catch_unwind(|| panic!("a code: 123456")).unwrap_err();
    }

    #[test]
    fn a_hardened_process_panics_without_its_secrets() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["process::tests::child", "--exact", "--nocapture"])
            .env(CHILD, "1")
            .env("RUST_BACKTRACE", "full")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
        assert_eq!(text.matches("panic in ").count(), 2, "{text}");
        assert!(text.contains("process.rs:"), "{text}");
        assert!(
            !text.contains("49151") && !text.contains("123456"),
            "{text}"
        );
    }
}
