//! JSON from outside: checked in one pass over the bytes before it becomes a value.
//!
//! Refused are depth over 64, `\u0000` and lone surrogates (PostgreSQL's JSON refuses both),
//! duplicate keys (readers disagree on which one counts), integers beyond ±(2^53 - 1), which
//! canonical JSON (RFC 8785) and browsers would change silently, and keys that the JSON library
//! keeps for itself. Each refusal names its place.

use std::borrow::Cow;

use axum::http::StatusCode;
use domain::limits::JSON_DEPTH;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::problem::Problem;

mod wording;

/// An object with such a first key would be read as what its text holds, unchecked.
const RESERVED: &str = "$serde_json::private::";

/// Reads a body, which is an object, as `T`. A syntax error is a 400, a value that doesn't fit a
/// 422 with its place.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        let detail = "the body is empty; send a JSON document";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_json", detail));
    }
    check(bytes)?;
    demand_object(bytes)?;
    serde_json::from_slice(bytes).map_err(|error| explain::<T>(bytes, &error))
}

/// A list would be taken for an object with its members in order.
fn demand_object(bytes: &[u8]) -> Result<(), Problem> {
    if bytes.trim_ascii_start().starts_with(b"{") {
        return Ok(());
    }
    match serde_json::from_slice::<IgnoredAny>(bytes) {
        Err(error) => Err(explain::<IgnoredAny>(bytes, &error)),
        Ok(_) => {
            let detail = "the body has to be a JSON object, in braces";
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", detail).at(""))
        }
    }
}

/// Says where: only a body that doesn't fit is read a second time, with its path on record.
fn explain<T: DeserializeOwned>(bytes: &[u8], error: &serde_json::Error) -> Problem {
    if !error.is_data() {
        return Problem::new(StatusCode::BAD_REQUEST, "invalid_json", error.to_string());
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let pointer = match serde_path_to_error::deserialize::<_, T>(&mut reader) {
        Ok(_) => String::new(),
        Err(error) => pointer_of(error.path()),
    };
    let detail = wording::plain(&error.to_string());
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", detail).at(pointer)
}

fn pointer_of(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => push_key(&mut pointer, key),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

fn push_key(pointer: &mut String, key: &str) {
    pointer.push('/');
    pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
}

/// An object or list that is open at the place of reading.
struct Frame {
    object: bool,
    wants_key: bool,
    index: usize,
    /// Where its keys start in the list of all open objects' keys.
    keys: usize,
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    frames: Vec<Frame>,
    keys: Vec<Cow<'a, [u8]>>,
}

/// Checks what a parser would let through. Malformed text is left to the parser to refuse.
pub(crate) fn check(bytes: &[u8]) -> Result<(), Problem> {
    let mut scanner = Scanner { bytes, at: 0, frames: Vec::new(), keys: Vec::new() };
    while let Some(&byte) = bytes.get(scanner.at) {
        match byte {
            b'"' => scanner.string()?,
            b'{' | b'[' => scanner.open(byte == b'{')?,
            b'}' | b']' => scanner.close()?,
            b',' => scanner.next(),
            b'-' | b'0'..=b'9' => scanner.number()?,
            _ => scanner.at += 1,
        }
    }
    Ok(())
}

impl<'a> Scanner<'a> {
    fn refuse(&self, code: &'static str, detail: &str) -> Problem {
        let mut pointer = String::new();
        for frame in &self.frames {
            if !frame.object {
                pointer.push_str(&format!("/{}", frame.index));
            } else if self.keys.len() > frame.keys {
                let next = self.frames.iter().map(|f| f.keys).find(|keys| *keys > frame.keys);
                let last = next.unwrap_or(self.keys.len()) - 1;
                push_key(&mut pointer, &String::from_utf8_lossy(&self.keys[last]));
            }
        }
        Problem::new(StatusCode::BAD_REQUEST, code, detail).at(pointer)
    }

    fn open(&mut self, object: bool) -> Result<(), Problem> {
        if self.frames.len() >= JSON_DEPTH {
            let detail = format!("values are nested deeper than {JSON_DEPTH}; flatten them");
            return Err(self.refuse("json_too_deep", &detail));
        }
        let keys = self.keys.len();
        self.frames.push(Frame { object, wants_key: object, index: 0, keys });
        self.at += 1;
        Ok(())
    }

    fn next(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.wants_key = frame.object;
            frame.index += 1;
        }
        self.at += 1;
    }

    fn close(&mut self) -> Result<(), Problem> {
        self.at += 1;
        let Some(frame) = self.frames.pop() else {
            return Ok(());
        };
        let mut keys = self.keys.split_off(frame.keys);
        keys.sort_unstable();
        let twice = keys.windows(2).find(|pair| pair[0] == pair[1]);
        let Some(pair) = twice else { return Ok(()) };
        let mut problem =
            self.refuse("duplicate_key", "the same key stands twice in an object; keep one");
        let mut pointer = problem.pointer.take().unwrap_or_default();
        push_key(&mut pointer, &String::from_utf8_lossy(&pair[0]));
        Err(problem.at(pointer))
    }

    fn string(&mut self) -> Result<(), Problem> {
        let start = self.at + 1;
        let mut at = start;
        let mut escaped = false;
        loop {
            match self.bytes.get(at) {
                None => {
                    self.at = at;
                    return Ok(());
                }
                Some(b'"') => break,
                Some(b'\\') if self.bytes.get(at + 1) == Some(&b'u') => {
                    escaped = true;
                    at = self.escape(at)?;
                }
                Some(b'\\') => {
                    escaped = true;
                    at += 2;
                }
                Some(_) => at += 1,
            }
        }
        self.at = at + 1;
        if let Some(frame) = self.frames.last_mut().filter(|frame| frame.wants_key) {
            frame.wants_key = false;
            let raw = &self.bytes[start..at];
            let decoded = escaped
                .then(|| serde_json::from_slice::<String>(&self.bytes[start - 1..=at]).ok())
                .flatten();
            let key = decoded.map_or(Cow::Borrowed(raw), |text| Cow::Owned(text.into_bytes()));
            let reserved = key.starts_with(RESERVED.as_bytes());
            self.keys.push(key);
            if reserved {
                let detail = format!("keys that start with {RESERVED:?} are reserved; rename it");
                return Err(self.refuse("reserved_key", &detail));
            }
        }
        Ok(())
    }

    /// Checks a `\uXXXX` and answers where to go on.
    fn escape(&self, at: usize) -> Result<usize, Problem> {
        let unit = |at: usize| {
            let prefix = self.bytes.get(at..at + 2)? == b"\\u";
            let digits = self.bytes.get(at + 2..at + 6).filter(|_| prefix)?;
            u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
        };
        match unit(at) {
            Some(0) => {
                let detail =
                    "a text holds the character \\u0000, which can't be stored; leave it out";
                Err(self.refuse("nul_character", detail))
            }
            Some(0xD800..=0xDBFF) if matches!(unit(at + 6), Some(0xDC00..=0xDFFF)) => Ok(at + 12),
            Some(0xD800..=0xDFFF) => {
                let detail = "a text holds half of a surrogate pair; send the whole character";
                Err(self.refuse("lone_surrogate", detail))
            }
            _ => Ok(at + 6),
        }
    }

    fn number(&mut self) -> Result<(), Problem> {
        let rest = &self.bytes[self.at..];
        let length = rest
            .iter()
            .take_while(|b| matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'))
            .count();
        let text = &rest[..length];
        let whole = !text.iter().any(|b| matches!(b, b'.' | b'e' | b'E'));
        if whole && length > 15 {
            let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
            if number.is_none_or(|number| number.unsigned_abs() > (1 << 53) - 1) {
                let detail = "an integer is beyond ±9007199254740991 and would lose digits; \
                              send it as a string";
                return Err(self.refuse("number_out_of_range", detail));
            }
        }
        self.at += length;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{check, decode};

    fn refused(text: &str) -> (String, Option<String>) {
        let checked = check(text.as_bytes()).and_then(|()| decode::<Value>(text.as_bytes()));
        match checked {
            Ok(value) => panic!("{text} was taken as {value}"),
            Err(problem) => (problem.code.into_owned(), problem.pointer),
        }
    }

    #[track_caller]
    fn check_refused(text: &str, code: &str, pointer: &str) {
        assert_eq!(refused(text), (code.to_owned(), Some(pointer.to_owned())), "{text}");
    }

    #[test]
    fn each_refusal_names_its_place() {
        check_refused(r#"{"a":[1,{"b":"x\u0000"}]}"#, "nul_character", "/a/1/b");
        check_refused(r#"{"a":"\ud800"}"#, "lone_surrogate", "/a");
        check_refused(r#"["\udc00\ud800"]"#, "lone_surrogate", "/0");
        check_refused(r#"{"a":{"b":1,"b":2}}"#, "duplicate_key", "/a/b");
        check_refused(r#"{"a~/":1,"a\u007e/":2}"#, "duplicate_key", "/a~0~1");
        check_refused(r#"{"n":[9007199254740992]}"#, "number_out_of_range", "/n/0");
        check_refused(r#"[-123456789012345678901234567890]"#, "number_out_of_range", "/0");
        check_refused(&"[".repeat(65), "json_too_deep", &"/0".repeat(64));
    }

    #[test]
    fn reserved_keys_are_refused_wherever_and_however_they_stand() {
        let magic = "$serde_json::private::RawValue";
        let place = "/v/$serde_json::private::RawValue";
        check_refused(&format!(r#"{{"v":{{"{magic}":"\"\\u0000\""}}}}"#), "reserved_key", place);
        check_refused(&format!(r#"{{"v":{{"a":1,"{magic}":"1"}}}}"#), "reserved_key", place);
        let escaped = magic.replace('$', "\\u0024");
        check_refused(&format!(r#"{{"v":{{"{escaped}":"1"}}}}"#), "reserved_key", place);
        let number = r#"[{"$serde_json::private::Number":"1"}]"#;
        check_refused(number, "reserved_key", "/0/$serde_json::private::Number");
        assert!(check(format!(r#"{{"a":"{magic}"}}"#).as_bytes()).is_ok());
    }

    #[test]
    fn only_objects_are_bodies() {
        for text in ["[]", r#"["evil",["read"],null]"#, "1", "null", r#" "{" "#] {
            check_refused(text, "invalid_body", "");
        }
    }

    #[test]
    fn what_only_looks_alike_is_taken() {
        for text in [
            r#"{"a":"\\u0000","b":"\\\\ud800"}"#,
            r#""\ud83d\ude00""#,
            r#"{"a":{"k":1},"b":{"k":2},"k":3}"#,
            "[9007199254740991,-9007199254740991,1.5e300,12345678901234567.5]",
            "[\"[[[[{{{{\"]",
        ] {
            assert!(check(text.as_bytes()).is_ok(), "{text}");
        }
        let deep = format!("{}{}", "[".repeat(64), "]".repeat(64));
        assert!(check(deep.as_bytes()).is_ok());
    }

    /// Whether a pointer is made of indexes and of keys that stand in the body. (It can't be looked
    /// up in what serde reads of a body with duplicate keys.)
    fn is_of(body: &str, pointer: &str) -> bool {
        let plain = |segment: &str| segment.replace("~1", "/").replace("~0", "~");
        let is_key = |segment: &str| body.contains(&plain(segment)) || body.contains('\\');
        pointer.is_empty()
            || pointer.strip_prefix('/').is_some_and(|rest| {
                let is_index = |segment: &str| segment.parse::<usize>().is_ok();
                rest.split('/').all(|segment| is_index(segment) || is_key(segment))
            })
    }

    fn depth(value: &Value) -> usize {
        let deepest = match value {
            Value::Array(items) => items.iter().map(depth).max(),
            Value::Object(members) => members.values().map(depth).max(),
            _ => return 0,
        };
        deepest.unwrap_or(0) + 1
    }

    #[test]
    fn a_hostile_body_is_taken_as_it_can_be_stored_or_refused_with_its_place() {
        let valid = [
            r#"{"definition":"judge-panel@2","input":{"n":1.50,"l":[1,"\ud83d\ude00",{"a":null}]}}"#,
            r#"{"a":{"b":[[[{"c":"\u00e9\\u0000"}]]]},"labels":{"k":"v"},"e":[],"f":{},"g":-0.0}"#,
            r#"{"big":[9007199254740991,-9007199254740991,1e300,12345678901234567.5],"":{"":""}}"#,
        ];
        let taken = std::cell::Cell::new(0);
        graphs::holds(2_000, graphs::hostile(&valid), |bytes| match decode::<Value>(&bytes) {
            Ok(mut value) => {
                taken.set(taken.get() + 1);
                assert!(depth(&value) <= super::JSON_DEPTH);
                let printed = serde_json::to_vec(&value).expect("it is JSON");
                assert_eq!(decode::<Value>(&printed).ok().as_ref(), Some(&value));
                assert_eq!(domain::codec::normalise(&mut value), Ok(()), "it can be stored");
            }
            Err(problem) => {
                assert!((400..500).contains(&problem.status.as_u16()) && !problem.code.is_empty());
                let body = String::from_utf8_lossy(&bytes);
                let pointer = problem.pointer.as_deref().unwrap_or_default();
                assert!(is_of(&body, pointer), "{problem:?} in {body}");
            }
        });
        assert!(taken.get() > 0, "some mutations leave a body valid");
    }

    #[test]
    fn malformed_text_is_a_syntax_error_and_never_a_panic() {
        for text in
            ["", "{", "\"\\", "\"\\u", "\"\\u12", "]", "{]", "[1,", "{\"a\"", "nul", "\u{0}"]
        {
            assert_eq!(refused(text).0, "invalid_json", "{text:?}");
        }
    }
}
