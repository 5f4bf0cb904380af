//! The fuzz targets, one for each parser of outside input. A target is a function of an input that
//! panics if an invariant is broken. Inputs come from libFuzzer (`examples/fuzz.rs`) or from the
//! seeds and findings on disk (`tests/replay.rs`).

mod canary;
mod config;
mod events;
mod http;
mod letter;
mod receipts;
mod receivers;
mod recipients;
mod replies;
mod responses;
mod signer;
mod spoiled;
mod varied;

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name, and the folder under `corpus` and `findings`.
    pub name: &'static str,
    /// Processes one input; panics if an invariant is broken.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 7] = [
    Target {
        name: "config",
        run: config::run,
    },
    Target {
        name: "events",
        run: events::run,
    },
    Target {
        name: "http",
        run: http::run,
    },
    Target {
        name: "receipts",
        run: receipts::run,
    },
    Target {
        name: "recipients",
        run: recipients::run,
    },
    Target {
        name: "replies",
        run: replies::run,
    },
    Target {
        name: "responses",
        run: responses::run,
    },
];
