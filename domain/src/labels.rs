//! Labels of runs: what their keys and values may be.

use std::collections::BTreeMap;

use crate::limits;

/// Bytes of a label's key.
const KEY_BYTES: usize = 64;
/// Bytes of a label's value.
const VALUE_BYTES: usize = 256;

/// Checks a run's labels. Keys are 1 to 64 letters and digits of ASCII and `.`, `_`, `/`, `-`; values
/// have at most 256 bytes without control characters.
///
/// # Errors
/// The JSON Pointer within the labels, and what is wrong there.
pub fn check(labels: &BTreeMap<String, String>) -> Result<(), (String, String)> {
    if labels.len() > limits::LABELS {
        let message = format!("a run may have at most {} labels", limits::LABELS);
        return Err((String::new(), message));
    }
    for (key, value) in labels {
        let of_key = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'/' | b'-');
        let good_key = (1..=KEY_BYTES).contains(&key.len()) && key.bytes().all(of_key);
        let good_value = value.len() <= VALUE_BYTES && !value.chars().any(char::is_control);
        let message = match (good_key, good_value) {
            (true, true) => continue,
            (false, _) => format!(
                "a label's key takes 1 to {KEY_BYTES} letters and digits of ascii, and . _ / -"
            ),
            (true, false) => format!(
                "a label's value takes at most {VALUE_BYTES} bytes without control characters"
            ),
        };
        let key: String = key.chars().take(80).collect();
        return Err((format!("/{}", key.replace('~', "~0").replace('/', "~1")), message));
    }
    Ok(())
}
