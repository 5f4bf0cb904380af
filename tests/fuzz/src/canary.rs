//! A marker that is planted in refused input and must not appear in the error.

use serde_json::Value;

use crate::varied::leaves;

/// Letters and digits only, so that no grammar refuses it at once, and no word of the product.
pub const CANARY: &str = "zq7canaryq9xk";

/// A number that the product does not use itself.
pub const NUMBER: &str = "7340912856";

/// Panics if `shown` contains a planted value.
pub fn assert_absent(shown: &str, what: &str) {
    assert!(
        !shown.contains(CANARY) && !shown.contains(NUMBER),
        "{what} shows a value: {shown}"
    );
}

/// Derives a number from the whole input, which selects the place to plant in.
pub fn pick(input: &[u8]) -> usize {
    input.iter().fold(5_381, |sum: usize, byte| {
        sum.wrapping_mul(33) ^ usize::from(*byte)
    })
}

/// Puts the canary into leaf `place` (modulo the number of leaves): appended to a text, replacing
/// any other value.
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
