//! What the deserializer says of a value that doesn't fit, in words of JSON instead of Rust.

/// Parts of its messages after "expected", and what a client reads instead.
const WORDS: &[(&str, &str)] = &[
    ("internally tagged enum", "an object"),
    ("adjacently tagged enum", "an object"),
    ("struct variant", "an object"),
    ("struct", "an object"),
    ("tuple struct", "a list"),
    ("tuple variant", "a list"),
    ("newtype variant", "a value"),
    ("unit variant", "a value without members"),
    ("enum", "a text or an object"),
];

/// Whole expectations that are Rust's names for kinds of JSON.
const KINDS: &[(&[&str], &str)] = &[
    (&["u8", "u16", "u32", "u64", "usize"], "a whole number, 0 or more"),
    (&["i8", "i16", "i32", "i64", "isize"], "a whole number"),
    (&["f32", "f64"], "a number"),
    (&["a map"], "an object"),
    (&["a sequence"], "a list"),
];

/// The message without the names of types.
pub(super) fn plain(message: &str) -> String {
    let message = match message.strip_prefix("data did not match any variant of untagged enum ") {
        Some(rest) => format!("it has none of the forms that are taken here{}", place(rest)),
        None => message.to_owned(),
    };
    let message = replaced(&message, "invalid type: map,", "invalid type: object,");
    let message = replaced(&message, "invalid type: sequence,", "invalid type: list,");
    // The text of the value stands before, and may hold the same words.
    let Some((found, wanted)) = message.rsplit_once(", expected ") else { return message };
    let (wanted, place) = wanted.split_at(wanted.len() - place(wanted).len());
    for (names, kind) in KINDS {
        if names.contains(&wanted) {
            return format!("{found}, expected {kind}{place}");
        }
    }
    for (word, kind) in WORDS {
        let rest = wanted.strip_prefix(word).and_then(|rest| rest.strip_prefix(' '));
        // A name of a type follows, and perhaps how many members it has.
        if rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_uppercase())) {
            return format!("{found}, expected {kind}{place}");
        }
    }
    message
}

fn replaced(message: &str, start: &str, by: &str) -> String {
    match message.strip_prefix(start) {
        Some(rest) => format!("{by}{rest}"),
        None => message.to_owned(),
    }
}

/// ` at line 1 column 2` at the end, or nothing.
fn place(message: &str) -> &str {
    message.rfind(" at line ").map_or("", |at| &message[at..])
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn names_of_types_become_kinds_of_json() {
        for (said, told) in [
            (
                "invalid type: integer `5`, expected struct LimitSpec at line 1 column 9",
                "invalid type: integer `5`, expected an object at line 1 column 9",
            ),
            (
                "invalid type: string \", expected struct X\", expected u32 at line 1 column 2",
                "invalid type: string \", expected struct X\", expected a whole number, 0 or more \
                 at line 1 column 2",
            ),
            ("invalid type: map, expected a string", "invalid type: object, expected a string"),
            ("invalid type: null, expected a sequence", "invalid type: null, expected a list"),
            (
                "invalid length 2, expected struct Limit with 3 elements",
                "invalid length 2, expected an object",
            ),
            (
                "data did not match any variant of untagged enum Bind at line 3 column 4",
                "it has none of the forms that are taken here at line 3 column 4",
            ),
            ("missing field `name`", "missing field `name`"),
            ("invalid value: 1, expected structure", "invalid value: 1, expected structure"),
        ] {
            assert_eq!(plain(said), told);
        }
    }
}
