//! Plain words for what the readers of YAML and JSON say.

use crate::limits;

/// What is wrong with a source, for people who don't know the reader's insides.
pub(super) fn plain(message: &str) -> String {
    let (said, place) = split_place(message);
    let words = if let Some(rest) = said.strip_prefix("duplicate mapping key: ") {
        let key = rest.split(", set ").next().unwrap_or(rest);
        format!("duplicate key {key:?}: leave one of them out")
    } else if said.starts_with("cannot deserialize null into string") {
        "a key is empty (null): keys are texts, quote it".to_owned()
    } else if said.starts_with("expected string scalar") {
        "a key is a list or a mapping: keys are texts".to_owned()
    } else if said.starts_with("recursive references") {
        "an alias stands inside of what it names: write the value out".to_owned()
    } else if said.contains("merge keys are not allowed") {
        "merge keys (`<<`) are not read here: write the members out".to_owned()
    } else if said.starts_with("budget breached: Documents") {
        "there are several documents (`---`): a definition stands alone in its file".to_owned()
    } else if said.starts_with("budget breached: Depth") {
        format!("the definition nests deeper than {}", limits::JSON_DEPTH)
    } else if said.starts_with("budget breached") || said.starts_with("alias replay limit") {
        "the source is too large when its aliases are written out: use fewer".to_owned()
    } else if let Some(rest) = said.strip_prefix("non-finite float ") {
        let value = rest.split(' ').next().unwrap_or(rest);
        format!("{value} is no value: infinities and NaN aren't numbers of JSON")
    } else if said == "alias references unknown anchor" {
        "an alias (`*name`) names no anchor (`&name`) above it: quote it where it is a text"
            .to_owned()
    } else {
        return message.to_owned();
    };
    format!("{words}{place}")
}

/// What is said, and ` at line …` behind it.
fn split_place(message: &str) -> (&str, &str) {
    message.split_at(message.find(" at line ").unwrap_or(message.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_kept() {
        let said = "duplicate mapping key: name, set DuplicateKeyPolicy in Options if acceptable \
                    at line 2, column 1";
        let wanted = "duplicate key \"name\": leave one of them out at line 2, column 1";
        assert_eq!(plain(said), wanted);
        assert_eq!(plain("unclosed quote at line 1"), "unclosed quote at line 1");
    }
}
