//! JSON documents with one extreme value. Random mutation rarely finds these, because the rest must
//! remain valid JSON.

use serde_json::{Value, json};

/// Returns the document with leaf `place` (modulo the number of leaves) replaced; `None` if `bytes`
/// are not JSON.
pub fn varied(bytes: &[u8], place: usize) -> Option<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(bytes).ok()?;
    let count = leaves(&mut document, &mut |_| {});
    let wanted = place.checked_rem(count)?;
    let mut at = 0;
    leaves(&mut document, &mut |leaf| {
        if at == wanted {
            *leaf = extreme(place / count, leaf);
        }
        at += 1;
    });
    serde_json::to_vec(&document).ok()
}

fn extreme(choice: usize, leaf: &Value) -> Value {
    match choice % 9 {
        0 => json!(""),
        1 => Value::Null,
        2 => json!([leaf]),
        3 => json!({ "": leaf }),
        4 => json!(u64::MAX),
        5 => json!(-1),
        6 => json!(1e300),
        7 => json!("\0\u{202e}\u{10ffff}"),
        _ => json!("9".repeat(2_000)),
    }
}

/// Visits every leaf; returns their number.
pub fn leaves(value: &mut Value, visit: &mut dyn FnMut(&mut Value)) -> usize {
    match value {
        Value::Array(values) => values.iter_mut().map(|value| leaves(value, visit)).sum(),
        Value::Object(members) => members.values_mut().map(|value| leaves(value, visit)).sum(),
        leaf => {
            visit(leaf);
            1
        }
    }
}
