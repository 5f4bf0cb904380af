//! A value that must not come back: planted in what is refused, looked for in the refusal.

use serde_json::Value;

use crate::varied::leaves;

/// No word of ours, and nothing a grammar refuses at once: letters and digits.
pub const CANARY: &str = "zq7canaryq9xk";

/// A number that is no number of ours.
pub const NUMBER: &str = "7340912856";

/// Panics if `shown` holds a planted value.
pub fn assert_absent(shown: &str, what: &str) {
    assert!(
        !shown.contains(CANARY) && !shown.contains(NUMBER),
        "{what} shows a value: {shown}"
    );
}

/// A number that depends on all of an input: which place is planted in.
pub fn pick(input: &[u8]) -> usize {
    input.iter().fold(5_381, |sum: usize, byte| {
        sum.wrapping_mul(33) ^ usize::from(*byte)
    })
}

/// Puts the canary into the `place`-th leaf of a document, counted round: behind a text, instead
/// of anything else.
pub fn plant(document: &mut Value, place: usize) {
    let count = leaves(document, &mut |_| {});
    if count == 0 {
        return;
    }
    let (mut at, wanted) = (0, place % count);
    leaves(document, &mut |leaf| {
        if at == wanted {
            match leaf {
                Value::String(text) => text.push_str(CANARY),
                other => *other = Value::String(CANARY.to_owned()),
            }
        }
        at += 1;
    });
}
