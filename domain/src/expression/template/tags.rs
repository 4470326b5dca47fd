//! What templates don't have, refused by a look at their tags.

use super::InvalidTemplate;

/// Operators that make a longer text of texts, in one whole template. Each one's operands are at
/// most as large as the context, so that this bounds the memory of a render.
const JOINING: usize = 64;

/// Words and signs that one tag may have, texts, commas and colons aside. A chain of them (`a.b.c`,
/// `a - b - c`, `a | f | g`) is a tree as deep as it is long, and whoever walks it needs that much
/// stack.
const PARTS: usize = 500;

/// `elif`s of one template, which are as deep a tree.
const ELIFS: usize = 100;

/// The statements that templates have.
const STATEMENTS: [&str; 11] =
    ["if", "elif", "else", "endif", "for", "endfor", "set", "raw", "endraw", "with", "endwith"];

/// Refuses statements that aren't in the table, text building inside `set`, and recursive loops.
pub(super) fn check(source: &str) -> Result<(), InvalidTemplate> {
    let (mut joining, mut elifs) = (0, 0);
    let mut at = 0;
    while let Some(start) = next_tag(source, at) {
        let Tag { words, operators, parts, length } = scan(&source[start..]);
        let is_statement = source[start..].starts_with("{%");
        let refused = |message: String| {
            let line = source[..start].matches('\n').count() + 1;
            InvalidTemplate { message, line: Some(line) }
        };
        if parts > PARTS {
            return Err(refused(format!("a tag of more than {PARTS} words and signs: split it")));
        }
        joining += operators;
        if joining > JOINING {
            return Err(refused(format!("more than {JOINING} of the operators ~ + *")));
        }
        if is_statement {
            let name = words.first().map_or("", String::as_str);
            if !STATEMENTS.contains(&name) {
                return Err(refused(format!(
                    "templates have no `{name}`; they have if, for, set, with and raw"
                )));
            }
            if matches!(name, "set" | "with")
                && (operators > 0 || !words.iter().any(|w| w == "="))
                && !(name == "with" && words.len() == 1)
            {
                return Err(refused(format!(
                    "`{name}` can only name a value, without the operators ~ + *: \
                     build texts where they are written, or in an expression"
                )));
            }
            if name == "for" && words.iter().any(|word| word == "recursive") {
                return Err(refused("loops can't be recursive".to_owned()));
            }
            elifs += usize::from(name == "elif");
            if elifs > ELIFS {
                return Err(refused(format!("more than {ELIFS} `elif`")));
            }
            if name == "raw" {
                at = end_of_raw(source, start + length);
                continue;
            }
        }
        at = start + length;
    }
    Ok(())
}

/// Where the next tag is; comments are passed over, as they may hold anything.
fn next_tag(source: &str, from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(found) = source[at..].find('{') {
        let start = at + found;
        match source.as_bytes().get(start + 1) {
            Some(b'%' | b'{') => return Some(start),
            Some(b'#') => at = start + 4 + source[start + 2..].find("#}")?,
            _ => at = start + 1,
        }
    }
    None
}

/// Where the tag is that ends a raw part, or the end of the source.
fn end_of_raw(source: &str, from: usize) -> usize {
    let ends = |start: &usize| {
        let tag = &source[*start + 2..];
        let tag = tag.strip_prefix(['-', '+']).unwrap_or(tag);
        let rest = tag.trim_ascii_start().strip_prefix("endraw").map(str::trim_ascii_start);
        let rest = rest.map(|rest| rest.strip_prefix(['-', '+']).unwrap_or(rest));
        rest.is_some_and(|rest| rest.starts_with("%}"))
    };
    let mut starts = source[from..].match_indices("{%").map(|(start, _)| from + start);
    starts.find(ends).unwrap_or(source.len())
}

/// What a look at a tag finds.
struct Tag {
    /// `=` counts as one.
    words: Vec<String>,
    /// Those that join texts.
    operators: usize,
    /// Words and signs.
    parts: usize,
    /// Its bytes, from its start to its end.
    length: usize,
}

/// Looks at the tag that a source starts with.
fn scan(source: &str) -> Tag {
    let (is_statement, tag) = (source.starts_with("{%"), &source[2..]);
    let mut signs = 0;
    let mut words = Vec::new();
    let mut word = String::new();
    let mut operators = 0;
    let mut quote = None;
    let mut escaped = false;
    let mut previous = ' ';
    let mut length = tag.len();
    let mut open = 0_usize;
    for (at, character) in tag.char_indices() {
        if let Some(open) = quote {
            if !escaped && character == open {
                quote = None;
            }
            escaped = !escaped && character == '\\';
            continue;
        }
        let closing = if is_statement { '%' } else { '}' };
        if character == '}' && previous == closing && open == 0 {
            length = at + 1;
            break;
        }
        match character {
            '{' => open += 1,
            '}' if open > 0 => {
                open -= 1;
                // This brace closed a map; it can't be half of the tag's end as well.
                previous = ' ';
                continue;
            }
            _ => {}
        }
        if character.is_alphanumeric() || character == '_' {
            word.push(character);
        } else {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            match character {
                '"' | '\'' => quote = Some(character),
                '~' | '+' | '*' if previous != '{' => {
                    operators += 1;
                    signs += 1;
                }
                '=' => words.push("=".to_owned()),
                ',' | ':' => {}
                sign => signs += usize::from(!sign.is_whitespace()),
            }
        }
        previous = character;
    }
    if !word.is_empty() {
        words.push(word);
    }
    let parts = words.len() + signs;
    Tag { words, operators, parts, length: length + 2 }
}
