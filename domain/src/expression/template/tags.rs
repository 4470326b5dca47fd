//! What templates don't have, refused by a look at their tags.

use super::InvalidTemplate;

/// Operators that make a longer text of texts, in one whole template. Each one's operands are at
/// most as large as the context, so that this bounds the memory of a render.
const JOINING: usize = 64;

/// The statements that templates have.
const STATEMENTS: [&str; 11] =
    ["if", "elif", "else", "endif", "for", "endfor", "set", "raw", "endraw", "with", "endwith"];

/// Refuses statements that aren't in the table, text building inside `set`, and recursive loops.
pub(super) fn check(source: &str) -> Result<(), InvalidTemplate> {
    let mut joining = 0;
    let mut at = 0;
    while let Some(found) = source[at..].find("{%").into_iter().chain(source[at..].find("{{")).min()
    {
        let start = at + found;
        let is_statement = source[start..].starts_with("{%");
        let (words, operators, length) = scan(&source[start + 2..], is_statement);
        let line = source[..start].matches('\n').count() + 1;
        let refused = |message: String| InvalidTemplate { message, line: Some(line) };
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
            if name == "raw"
                && let Some(end) = source[start..].find("endraw")
            {
                at = start + end + "endraw".len();
                continue;
            }
        }
        at = start + 2 + length;
    }
    Ok(())
}

/// The words of a tag (`=` counts as one), its joining operators, and its length.
fn scan(tag: &str, is_statement: bool) -> (Vec<String>, usize, usize) {
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
                '~' | '+' | '*' if previous != '{' => operators += 1,
                '=' => words.push("=".to_owned()),
                _ => {}
            }
        }
        previous = character;
    }
    if !word.is_empty() {
        words.push(word);
    }
    (words, operators, length)
}
