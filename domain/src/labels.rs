//! Labels of runs: what they may be.

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
