//! Canonical JSON (RFC 8785) in one pass over one buffer, for the events' hot path.
//!
//! The members of an object are written in the order in which they come and put in order when
//! the object ends. Floating-point text, the hard part of the format, is the canonicaliser
//! crate's; a test compares the whole with it.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::io;

use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter, Serializer};

use super::EncodeError;
use crate::limits::JSON_DEPTH;

/// Levels that events put around the values that they carry.
const EVENT_LEVELS: usize = 8;
const TOO_DEEP: &str = "nested too deep";
/// Integers up to here are doubles without loss.
const EXACT: u64 = 1 << 53;

/// Whether an integer keeps its value as a double.
pub(super) fn is_exact(number: i64) -> bool {
    number.unsigned_abs() <= EXACT
}

/// Whether a key is `$ref` or `$enc` behind any number of further `$`.
pub(super) fn is_reserved(key: &[u8]) -> bool {
    let name = key.iter().position(|byte| *byte != b'$').map_or(&key[..0], |at| &key[at..]);
    key.first() == Some(&b'$') && (name == b"ref" || name == b"enc")
}

/// Writes a value, leaving out the member `skip` of the outermost object and escaping reserved
/// keys.
pub(super) fn to_vec<T: Serialize>(value: &T, skip: Option<&str>) -> Result<Vec<u8>, EncodeError> {
    let mut output = Output { bytes: Vec::with_capacity(256), ..Output::default() };
    let mut serializer =
        Serializer::with_formatter(io::sink(), Canonical { output: &mut output, skip });
    value.serialize(&mut serializer).map_err(|error| {
        let text = error.to_string();
        if text == TOO_DEEP { EncodeError::TooDeep } else { EncodeError::NotJson(text) }
    })?;
    Ok(output.bytes)
}

/// A member of an object or an item of an array, in canonical bytes.
pub(super) struct Child<'a> {
    /// The key with its quotes; absent in an array.
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: &'a [u8],
}

/// The children of a canonical object or array.
pub(super) fn children(container: &[u8]) -> Vec<Child<'_>> {
    let mut found = Vec::new();
    let is_object = container[0] == b'{';
    let (mut at, end) = (1, container.len() - 1);
    while at < end {
        let mut key = None;
        if is_object {
            let after = value_end(container, at);
            key = Some(&container[at..after]);
            at = after + 1;
        }
        let after = value_end(container, at);
        found.push(Child { key, value: &container[at..after] });
        at = after + 1;
    }
    found
}

/// A member's name (none in a list) and its canonical bytes.
pub(super) type Part<'a> = (Option<&'a [u8]>, Cow<'a, [u8]>);

/// Puts children together again; `open` is `{` or `[`.
pub(super) fn assemble(open: u8, parts: &[Part<'_>], out: &mut Vec<u8>) {
    out.push(open);
    for (index, (key, value)) in parts.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        if let Some(key) = key {
            out.extend_from_slice(key);
            out.push(b':');
        }
        out.extend_from_slice(value);
    }
    out.push(if open == b'{' { b'}' } else { b']' });
}

/// The index after the value that begins at `start`.
fn value_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth, mut in_string) = (start, 0_usize, false);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => depth -= 1,
            b',' | b':' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    at
}

#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    /// The members of all open objects.
    members: Vec<Member>,
    objects: Vec<OpenObject>,
    depth: usize,
    scratch: Vec<u8>,
}

#[derive(Clone, Copy)]
struct OpenObject {
    /// Its first member in [`Output::members`].
    first: usize,
    /// The byte after its brace.
    start: usize,
}

/// Where a member stands in the output: key, `:`, value.
#[derive(Clone, Copy)]
struct Member {
    start: usize,
    key_end: usize,
    end: usize,
}

impl Member {
    fn key<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.start + 1..self.key_end - 1]
    }
}

impl Output {
    fn enter(&mut self) -> io::Result<()> {
        self.depth += 1;
        if self.depth > JSON_DEPTH + EVENT_LEVELS {
            return Err(io::Error::other(TOO_DEEP));
        }
        Ok(())
    }

    fn end_object(&mut self, skip: Option<&str>) {
        let Some(object) = self.objects.pop() else { return };
        let outermost = self.objects.is_empty() && self.depth == 1;
        let skip = skip.filter(|_| outermost).map(str::as_bytes);
        let (bytes, members) = (&self.bytes, &mut self.members[object.first..]);
        let in_order = members.is_sorted_by(|a, b| compare(a.key(bytes), b.key(bytes)).is_lt());
        if !in_order || skip.is_some() {
            members.sort_by(|a, b| compare(a.key(bytes), b.key(bytes)));
            self.scratch.clear();
            for member in members.iter().filter(|member| Some(member.key(bytes)) != skip) {
                if !self.scratch.is_empty() {
                    self.scratch.push(b',');
                }
                self.scratch.extend_from_slice(&bytes[member.start..member.end]);
            }
            self.bytes.truncate(object.start);
            self.bytes.extend_from_slice(&self.scratch);
        }
        self.members.truncate(object.first);
        self.depth -= 1;
        self.bytes.push(b'}');
    }
}

/// The order of two keys: by UTF-16 code units of the unescaped text.
fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let plain = |key: &[u8]| key.iter().all(|byte| byte.is_ascii() && *byte != b'\\');
    if plain(a) && plain(b) {
        return a.cmp(b);
    }
    units(a).cmp(&units(b))
}

fn units(key: &[u8]) -> Vec<u16> {
    let quoted = [b"\"", key, b"\""].concat();
    let text: String = serde_json::from_slice(&quoted).unwrap_or_default();
    text.encode_utf16().collect()
}

struct Canonical<'a> {
    output: &'a mut Output,
    skip: Option<&'a str>,
}

impl Canonical<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// Everything goes to the buffer of the formatter; the writer that serde_json passes is a sink.
impl Formatter for Canonical<'_> {
    fn write_null<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.write(b"null")
    }

    fn write_bool<W: ?Sized + io::Write>(&mut self, _: &mut W, value: bool) -> io::Result<()> {
        self.write(if value { b"true" } else { b"false" })
    }

    fn write_i8<W: ?Sized + io::Write>(&mut self, w: &mut W, value: i8) -> io::Result<()> {
        self.write_i64(w, i64::from(value))
    }

    fn write_i16<W: ?Sized + io::Write>(&mut self, w: &mut W, value: i16) -> io::Result<()> {
        self.write_i64(w, i64::from(value))
    }

    fn write_i32<W: ?Sized + io::Write>(&mut self, w: &mut W, value: i32) -> io::Result<()> {
        self.write_i64(w, i64::from(value))
    }

    fn write_i64<W: ?Sized + io::Write>(&mut self, w: &mut W, value: i64) -> io::Result<()> {
        if is_exact(value) {
            return CompactFormatter.write_i64(&mut self.output.bytes, value);
        }
        self.write_f64(w, value as f64)
    }

    fn write_u8<W: ?Sized + io::Write>(&mut self, w: &mut W, value: u8) -> io::Result<()> {
        self.write_u64(w, u64::from(value))
    }

    fn write_u16<W: ?Sized + io::Write>(&mut self, w: &mut W, value: u16) -> io::Result<()> {
        self.write_u64(w, u64::from(value))
    }

    fn write_u32<W: ?Sized + io::Write>(&mut self, w: &mut W, value: u32) -> io::Result<()> {
        self.write_u64(w, u64::from(value))
    }

    fn write_u64<W: ?Sized + io::Write>(&mut self, w: &mut W, value: u64) -> io::Result<()> {
        if value <= EXACT {
            return CompactFormatter.write_u64(&mut self.output.bytes, value);
        }
        self.write_f64(w, value as f64)
    }

    fn write_i128<W: ?Sized + io::Write>(&mut self, w: &mut W, value: i128) -> io::Result<()> {
        self.write_f64(w, value as f64)
    }

    fn write_u128<W: ?Sized + io::Write>(&mut self, w: &mut W, value: u128) -> io::Result<()> {
        self.write_f64(w, value as f64)
    }

    fn write_f32<W: ?Sized + io::Write>(&mut self, w: &mut W, value: f32) -> io::Result<()> {
        self.write_f64(w, f64::from(value))
    }

    fn write_f64<W: ?Sized + io::Write>(&mut self, _: &mut W, value: f64) -> io::Result<()> {
        let text = serde_json_canonicalizer::to_vec(&value)?;
        self.write(&text)
    }

    fn write_number_str<W: ?Sized + io::Write>(&mut self, w: &mut W, text: &str) -> io::Result<()> {
        let value: f64 = text.parse().map_err(io::Error::other)?;
        self.write_f64(w, value)
    }

    fn begin_string<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.write(b"\"")
    }

    fn end_string<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.write(b"\"")
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        _: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        self.write(fragment.as_bytes())
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        _: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        CompactFormatter.write_char_escape(&mut self.output.bytes, escape)
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.output.enter()?;
        self.write(b"[")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.output.depth -= 1;
        self.write(b"]")
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        _: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { self.write(b",") }
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.output.enter()?;
        self.write(b"{")?;
        let object =
            OpenObject { first: self.output.members.len(), start: self.output.bytes.len() };
        self.output.objects.push(object);
        Ok(())
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.output.end_object(self.skip);
        Ok(())
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        _: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if !first {
            self.write(b",")?;
        }
        let start = self.output.bytes.len();
        self.output.members.push(Member { start, key_end: start, end: start });
        Ok(())
    }

    fn end_object_key<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        let Some(member) = self.output.members.last_mut() else { return Ok(()) };
        let start = member.start + 1;
        if is_reserved(&self.output.bytes[start..self.output.bytes.len() - 1]) {
            self.output.bytes.insert(start, b'$');
        }
        member.key_end = self.output.bytes.len();
        Ok(())
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.write(b":")
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        let end = self.output.bytes.len();
        if let Some(member) = self.output.members.last_mut() {
            member.end = end;
        }
        Ok(())
    }

    /// Raw JSON can't be put in order without being read.
    fn write_raw_fragment<W: ?Sized + io::Write>(&mut self, _: &mut W, _: &str) -> io::Result<()> {
        Err(io::Error::other("raw JSON values can't be stored"))
    }
}
