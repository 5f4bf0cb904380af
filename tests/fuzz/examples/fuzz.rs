//! The fuzzer: libFuzzer around the target named by `WATCHWORD_FUZZ_TARGET`. All targets share one
//! binary, because linking is slow. Started by `tests/fuzz/run`.
#![no_main]

use std::sync::LazyLock;

use watchword_fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("WATCHWORD_FUZZ_TARGET").unwrap_or_default();
    let known = TARGETS.into_iter().find(|target| target.name == name);
    known.unwrap_or_else(|| panic!("WATCHWORD_FUZZ_TARGET names no target: {name:?}"))
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| (TARGET.run)(input));
