//! The built-in model: no network, and always the same answer to the same request.
//!
//! Without a schema it answers with the first sentences of the prompt's longest paragraph. With
//! one, it makes a value that satisfies it, as far as a schema can be satisfied without search.

use serde_json::{Map, Value, json};

use super::Reply;
use super::profile::Profile;
use super::request::Request;

/// Words of a plain answer.
const WORDS: usize = 48;
/// Levels of a made value; deeper ones are `null`.
const LEVELS: usize = 12;

pub(super) fn ask(profile: &Profile, request: &Request) -> Reply {
    let said: Vec<&str> = request
        .messages
        .iter()
        .filter_map(|message| message.get("content").and_then(Value::as_str))
        .collect();
    let prompt = said.join("\n\n");
    let system = request.system.as_deref().unwrap_or_default();
    let seed = [profile.model.as_str(), system, prompt.as_str()]
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, text| fnv(fnv(hash, text.as_bytes()), &[0xff]));
    let gist = gist(&prompt);
    let text = match &request.schema {
        None => gist.clone(),
        Some(schema) => {
            let mut maker = Maker { root: schema, state: seed, gist: &gist };
            maker.value(schema, LEVELS).to_string()
        }
    };
    Reply {
        input_tokens: words(system) + words(&prompt),
        output_tokens: words(&text).max(1),
        text,
        finish_reason: "stop".to_owned(),
        model: profile.model.clone(),
        ..Reply::default()
    }
}

fn words(text: &str) -> u64 {
    text.split_whitespace().count() as u64
}

/// FNV-1a, 64 bits, continued from a hash.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The first sentences of the longest paragraph, at least one word.
fn gist(prompt: &str) -> String {
    let longest = prompt
        .split("\n\n")
        .map(str::trim)
        .fold("", |longest, next| if next.len() > longest.len() { next } else { longest });
    let mut gist = Vec::new();
    for word in longest.split_whitespace() {
        gist.push(word);
        let ends = word.ends_with(['.', '!', '?']);
        if gist.len() >= WORDS || (ends && gist.len() >= WORDS / 3) {
            break;
        }
    }
    if gist.is_empty() { "Nothing was asked.".to_owned() } else { gist.join(" ") }
}

/// Makes values by a schema; what is free to choose comes from the seed.
struct Maker<'a> {
    root: &'a Value,
    state: u64,
    gist: &'a str,
}

impl Maker<'_> {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn pick<'v>(&mut self, values: &'v [Value]) -> Option<&'v Value> {
        let count = values.len() as u64;
        let at = self.next().checked_rem(count)?;
        values.get(usize::try_from(at).ok()?)
    }

    fn value(&mut self, schema: &Value, levels: usize) -> Value {
        if levels == 0 {
            return Value::Null;
        }
        if let Some(constant) = schema.get("const") {
            return constant.clone();
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return self.pick(values).cloned().unwrap_or(Value::Null);
        }
        let target = schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|reference| self.root.pointer(reference.strip_prefix('#')?).cloned());
        if let Some(target) = target {
            return self.value(&target, levels - 1);
        }
        for key in ["oneOf", "anyOf"] {
            if let Some(choice) = schema.get(key).and_then(Value::as_array) {
                let choice = self.pick(choice).cloned().unwrap_or(Value::Null);
                return self.value(&choice, levels - 1);
            }
        }
        if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
            return self.value(&merged(schema, parts), levels - 1);
        }
        match kind(schema) {
            "object" => self.object(schema, levels),
            "array" => self.array(schema, levels),
            "integer" => self.number(schema, true),
            "number" => self.number(schema, false),
            "boolean" => json!(self.next() & 1 == 1),
            "null" => Value::Null,
            _ => json!(self.text(schema)),
        }
    }

    fn object(&mut self, schema: &Value, levels: usize) -> Value {
        let mut members = Map::new();
        for (name, inner) in
            schema.get("properties").and_then(Value::as_object).into_iter().flatten()
        {
            members.insert(name.clone(), self.value(inner, levels - 1));
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        for name in required.filter_map(Value::as_str) {
            if !members.contains_key(name) {
                members.insert(name.to_owned(), json!(self.gist));
            }
        }
        Value::Object(members)
    }

    fn array(&mut self, schema: &Value, levels: usize) -> Value {
        let count = |key: &str| schema.get(key).and_then(Value::as_u64);
        let least = count("minItems").unwrap_or(1).min(1_000);
        let most = count("maxItems").unwrap_or(least + 2).clamp(least, 1_000);
        let items = least + self.next() % (most - least + 1).min(3);
        let inner = schema.get("items").cloned().unwrap_or_else(|| json!({"type": "string"}));
        (0..items).map(|_| self.value(&inner, levels - 1)).collect()
    }

    /// A multiple of `multipleOf` (integers: of 1, numbers: of a hundredth) within the bounds.
    fn number(&mut self, schema: &Value, whole: bool) -> Value {
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        let step = bound("multipleOf").filter(|step| *step > 0.0);
        let step = step.unwrap_or(if whole { 1.0 } else { 0.01 });
        let steps = |bound: f64, exclusive: bool, up: f64| {
            let at = bound / step;
            let at = if up > 0.0 { (at - 1e-9).ceil() } else { (at + 1e-9).floor() };
            if exclusive && (at * step - bound).abs() < 1e-9 { at + up } else { at }
        };
        let low = match (bound("minimum"), bound("exclusiveMinimum")) {
            (_, Some(bound)) => Some(steps(bound, true, 1.0)),
            (bound, None) => bound.map(|bound| steps(bound, false, 1.0)),
        };
        let high = match (bound("maximum"), bound("exclusiveMaximum")) {
            (_, Some(bound)) => Some(steps(bound, true, -1.0)),
            (bound, None) => bound.map(|bound| steps(bound, false, -1.0)),
        };
        let span = if whole { 100.0 } else { 100.0 / step };
        let low = low.unwrap_or_else(|| high.map_or(0.0, |high| (high - span).min(0.0)));
        let high = high.unwrap_or(low + span).max(low);
        let share = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let at = (low + (share * (high - low + 1.0)).floor()).min(high);
        if whole || (step.fract() == 0.0) {
            return json!((at * step) as i64);
        }
        let places = (1.0 / step).round();
        json!(if (places * step - 1.0).abs() < 1e-9 { at / places } else { at * step })
    }

    fn text(&mut self, schema: &Value) -> String {
        let number = self.next();
        let formatted = match schema.get("format").and_then(Value::as_str) {
            Some("date") => Some(format!("2024-{:02}-{:02}", number % 12 + 1, number % 28 + 1)),
            Some("date-time") => {
                Some(format!("2024-{:02}-{:02}T12:00:00Z", number % 12 + 1, number % 28 + 1))
            }
            Some("email") => Some(format!("person{}@example.com", number % 1_000)),
            Some("uri") => Some(format!("https://example.com/{}", number % 1_000)),
            Some("uuid") => Some(format!(
                "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
                number >> 32,
                number >> 16 & 0xffff,
                number & 0xfff,
                number >> 4 & 0xfff,
                number >> 8 & 0xffff_ffff_ffff
            )),
            _ => None,
        };
        if let Some(text) = formatted {
            return text;
        }
        let length = |key: &str| {
            schema.get(key).and_then(Value::as_u64).and_then(|length| usize::try_from(length).ok())
        };
        let least = length("minLength").unwrap_or(0).min(10_000);
        let mut text: String = self.gist.chars().take(length("maxLength").unwrap_or(400)).collect();
        let mut count = text.chars().count();
        while count < least {
            text.push('.');
            count += 1;
        }
        text
    }
}

fn kind(schema: &Value) -> &str {
    let declared = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().find(|kind| *kind != "null"),
        other => other,
    };
    match declared.and_then(Value::as_str) {
        Some(kind) => kind,
        None if schema.get("properties").is_some() => "object",
        None if schema.get("items").is_some() => "array",
        None => "string",
    }
}

/// The members of all parts, laid over each other; `properties` and `required` are joined.
fn merged(schema: &Value, parts: &[Value]) -> Value {
    let mut merged = schema.as_object().cloned().unwrap_or_default();
    merged.remove("allOf");
    for (key, value) in parts.iter().filter_map(Value::as_object).flatten() {
        match (merged.get_mut(key), value) {
            (Some(Value::Object(have)), Value::Object(more)) => have.extend(more.clone()),
            (Some(Value::Array(have)), Value::Array(more)) => have.extend(more.iter().cloned()),
            _ => {
                merged.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(merged)
}
