//! Hostile inputs for parsers: any bytes, any text, and valid inputs that were cut, repeated,
//! swapped and filled with what parsers stumble over.

use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Bytes that an input has at most: mutations that repeat parts would else multiply.
const MOST: usize = 32 * 1024;

/// What is put into valid inputs: characters and escapes that stores refuse, numbers beyond what is
/// exact, deep nesting, halves of pairs, and the punctuation of the languages that are read here.
fn odd() -> Vec<Vec<u8>> {
    let texts = [
        "\0",
        "\\u0000",
        "\\ud800",
        "\\udc00\\ud83d",
        "\\",
        "\\\"",
        "\"",
        "'",
        "\"\"\"",
        "`",
        "e\u{301}\u{301}",
        "\u{202e}",
        "\u{feff}",
        "\u{2028}",
        "\u{85}",
        "ß",
        "💥",
        "\u{7f}",
        "9007199254740993",
        "18446744073709551616",
        "1e999",
        "-0",
        "-0.0",
        "0x",
        "1_000",
        "00",
        "1e-400",
        ".5",
        "5.",
        "+1",
        "NaN",
        ".inf",
        "null",
        "~",
        "true",
        "-9223372036854775808",
        "${",
        "}",
        "$${",
        "${}",
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "#}",
        "[]",
        "{}",
        "[",
        "]",
        "{",
        "(",
        ")",
        ":",
        ": ",
        ",",
        "- ",
        "\n",
        "\r\n",
        "\n\n  ",
        "\t",
        "#",
        "|",
        ">-",
        "&a ",
        "*a",
        "<<: *a",
        "!!binary ",
        "---\n",
        "%YAML",
        "?",
        "/",
        "~1",
        "~0",
        ".",
        "..",
        "..=",
        "*/0",
        "L",
        "60",
        "#5",
        "W",
        "whsec_",
        "v1,",
        "$ref",
        "$serde_json::private::Number",
        "__proto__",
        "",
    ];
    let mut odd: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    odd.extend([
        vec![0xff],
        vec![0xc0, 0x80],
        vec![0xed, 0xa0, 0x80],
        vec![0xf0, 0x9f],
        b"7".repeat(400),
        b"[".repeat(70),
        b"(".repeat(70),
        b"{\"a\":".repeat(70),
        b"!".repeat(100),
        b"a.".repeat(100),
        b"x".repeat(5_000),
    ]);
    odd
}

/// One change of an input; places are taken modulo its length.
#[derive(Debug, Clone)]
enum Change {
    Cut { from: Index, bytes: usize },
    Repeat { from: Index, bytes: usize, times: usize },
    Swap { one: Index, other: Index, bytes: usize },
    Insert { at: Index, what: Vec<u8> },
    Overwrite { at: Index, what: Vec<u8> },
    Flip { at: Index, bits: u8 },
}

impl Change {
    fn any() -> impl Strategy<Value = Self> {
        let index = any::<Index>;
        prop_oneof![
            (index(), 1..40_usize).prop_map(|(from, bytes)| Self::Cut { from, bytes }),
            (index(), 1..40_usize, 1..80_usize).prop_map(|(from, bytes, times)| Self::Repeat {
                from,
                bytes,
                times
            }),
            (index(), index(), 1..20_usize).prop_map(|(one, other, bytes)| Self::Swap {
                one,
                other,
                bytes
            }),
            (index(), select(odd())).prop_map(|(at, what)| Self::Insert { at, what }),
            (index(), select(odd())).prop_map(|(at, what)| Self::Overwrite { at, what }),
            (index(), any::<u8>()).prop_map(|(at, bits)| Self::Flip { at, bits }),
        ]
    }

    fn apply(self, input: &mut Vec<u8>) {
        let length = input.len();
        let at = |index: Index| index.index(length + 1);
        let part = |from: Index, bytes: usize| at(from)..(at(from) + bytes).min(length);
        match self {
            Self::Cut { from, bytes } => drop(input.drain(part(from, bytes))),
            Self::Repeat { from, bytes, times } => {
                let part = part(from, bytes);
                let again = input[part.clone()].repeat(times);
                input.splice(part.end..part.end, again);
            }
            Self::Swap { one, other, bytes } => {
                let (one, other) = (at(one), at(other));
                for step in 0..bytes {
                    if one.max(other) + step < length {
                        input.swap(one + step, other + step);
                    }
                }
            }
            Self::Insert { at: index, what } => drop(input.splice(at(index)..at(index), what)),
            Self::Overwrite { at: index, what } => {
                drop(input.splice(part(index, what.len()), what));
            }
            Self::Flip { at: index, bits } => {
                if let Some(byte) = input.get_mut(at(index)) {
                    *byte ^= bits;
                }
            }
        }
        input.truncate(MOST);
    }
}

/// Hostile inputs, most of them made of one of the valid ones by a few changes.
pub fn hostile(valid: &[&str]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let valid: Vec<String> = valid.iter().map(|text| (*text).to_owned()).collect();
    let changed = (select(valid), prop::collection::vec(Change::any(), 0..5));
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..200),
        1 => any::<String>().prop_map(String::into_bytes),
        8 => changed.prop_map(|(text, changes)| {
            let mut input = text.into_bytes();
            changes.into_iter().for_each(|change| change.apply(&mut input));
            input
        }),
    ]
}

/// The same as text, for parsers that are given one: broken bytes become U+FFFD.
pub fn hostile_text(valid: &[&str]) -> impl Strategy<Value = String> + use<> {
    hostile(valid).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}
