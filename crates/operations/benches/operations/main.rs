//! What the operations on the way of a code cost, each alone: their time, or, with `--count`, calls
//! that a simulator of the processor counts instructions of (`tests/counts`). Refuses I/O: what
//! waits for peers is measured by the rounds.

#![expect(clippy::print_stdout, reason = "it prints a table")]

mod codes;
mod events;
mod limits;
mod messages;
mod operation;
mod orders;
mod recipients;
mod retries;
mod samples;

use std::alloc::System;

use operation::Operation;
use zeroizing_alloc::ZeroAlloc;

/// As in the binary, what is freed is wiped. Below it not jemalloc, whose housekeeping goes by the
/// clock, but the system's allocator, which does the same in each run.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn operations() -> anyhow::Result<Vec<Operation>> {
    let areas = [
        recipients::operations()?,
        codes::operations()?,
        orders::operations()?,
        events::operations()?,
        messages::operations()?,
        retries::operations(),
        limits::operations()?,
    ];
    Ok(areas.into_iter().flatten().collect())
}

/// `--count`, or the beginning of the names to time; cargo itself adds `--bench`.
fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_counting = arguments.iter().any(|argument| argument == "--count");
    let wanted = arguments
        .iter()
        .find(|argument| !argument.starts_with("--"));
    if !is_counting {
        println!("{:<32} {:>9} {:>9}", "ns a call", "least", "median");
    }
    for operation in operations()? {
        let name = operation.name();
        if wanted.is_some_and(|wanted| !name.starts_with(wanted)) {
            continue;
        }
        if is_counting {
            operation.count()?;
            println!("{name}");
        } else {
            let time = operation.time()?;
            println!("{name:<32} {:>9.1} {:>9.1}", time.least_ns, time.median_ns);
        }
    }
    Ok(())
}
