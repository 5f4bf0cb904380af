//! Cost of single operations on the path of a code: their time, or with `--count` a fixed number of
//! calls for an instruction-counting simulator (`tests/counts`). Operations do no I/O;
//! `watchword-bench` measures everything that waits for peers.

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

/// Wipes freed memory, as the binary does. The allocator below it is the system's and not jemalloc,
/// whose housekeeping depends on the clock, so that each run does the same work.
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

/// Takes `--count`, or a prefix of the operations to time. cargo adds `--bench`.
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
