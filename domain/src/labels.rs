//! Labels of runs: what their keys and values may be.

use std::collections::BTreeMap;

use crate::definition::problem::escaped;
use crate::limits;

/// Bytes of a label's key.
pub const KEY_BYTES: usize = 64;
/// Bytes of a label's value.
pub const VALUE_BYTES: usize = 256;

/// Whether a text can be a label's key: letters and digits of ASCII, and `. _ / -`.
pub fn is_key(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'/' | b'-');
    (1..=KEY_BYTES).contains(&text.len()) && text.bytes().all(fits)
}

/// Whether a text can be a label's value.
pub fn is_value(text: &str) -> bool {
    text.len() <= VALUE_BYTES && !text.chars().any(char::is_control)
}

/// Checks a run's labels: how many there are, their keys and their values.
///
/// # Errors
/// The JSON Pointer within the labels, and what is wrong there.
pub fn check(labels: &BTreeMap<String, String>) -> Result<(), (String, String)> {
    if labels.len() > limits::LABELS {
        let message = format!("a run may have at most {} labels", limits::LABELS);
        return Err((String::new(), message));
    }
    for (key, value) in labels {
        let message = match (is_key(key), is_value(value)) {
            (true, true) => continue,
            (false, _) => format!(
                "a label's key takes 1 to {KEY_BYTES} letters and digits of ascii, and . _ / -"
            ),
            (true, false) => format!(
                "a label's value takes at most {VALUE_BYTES} bytes without control characters"
            ),
        };
        let key: String = key.chars().take(80).collect();
        return Err((format!("/{}", escaped(&key)), message));
    }
    Ok(())
}
