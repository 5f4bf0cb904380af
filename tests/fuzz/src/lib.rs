//! What takes bytes from outside, each as a target: a function of an input that panics where a
//! promise is broken. Refuses to know who makes the inputs: libFuzzer (`examples/fuzz.rs`) or the
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

/// Something that is fuzzed.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and its folder under `corpus` and `findings`.
    pub name: &'static str,
    /// Takes one input; panics where a promise is broken.
    pub run: fn(&[u8]),
}

/// Every target.
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
