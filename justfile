# Short names for the commands of CONTRIBUTING.md. `just` lists them.

_list:
    @just --list --unsorted

# Format, lint and run the unit tests: the loop while you write.
quick:
    cargo fmt --all
    cargo clippy --workspace --all-targets --quiet -- -D warnings
    cargo test --workspace --lib --quiet

# Run one suite against real peers: a module (just suite embedded) or a test binary (just suite cli).
suite NAME *FILTER:
    tests/run {{ if path_exists("tests/tests" / NAME) == "true" { "--test " + NAME } else { "-E 'package(watchword-tests) and test(/^" + NAME + "::/)'" } }} {{FILTER}}

# Run all that a change must pass before it lands.
gate:
    .ci/run

# Write the generated files: docs/metrics.md and the expected output of the commands.
write:
    WATCHWORD_WRITE=1 cargo test --workspace --lib --quiet metrics
    WATCHWORD_WRITE=1 tests/run --test cli

# Count the instructions of the operations on the way of a code, and record them.
counts:
    tests/counts --record

# Measure the cost of a code beside the leanest pipeline (2 minutes, a quiet machine).
bench:
    cargo run --release --package watchword-bench -- --quick
