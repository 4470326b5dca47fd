//! Secrets that somebody has typed in where they don't belong: found in texts and JSON by their
//! shapes, and masked.
//!
//! What has no known shape isn't found: passwords, keys that are plain letters and digits, what is
//! encoded or cut into pieces, and anything that tells of people.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::LazyLock;

use regex::{Regex, RegexSet};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::definition::problem::escaped;

#[cfg(test)]
mod tests;

/// Rounds of masking: what stands together after one is looked at again.
const ROUNDS: usize = 8;

/// What a secret looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// A key of a provider of models.
    ProviderKey,
    AwsKey,
    GithubToken,
    GitlabToken,
    SlackToken,
    StripeKey,
    PrivateKey,
    /// A JSON web token.
    Jwt,
    /// The value of an `Authorization` or `x-api-key` header.
    Authorization,
    /// An API key of this platform, or the secret of a webhook.
    WonderKey,
    /// A password in an address.
    UrlPassword,
}

impl Shape {
    /// The text in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ProviderKey => "provider_key",
            Self::AwsKey => "aws_key",
            Self::GithubToken => "github_token",
            Self::GitlabToken => "gitlab_token",
            Self::SlackToken => "slack_token",
            Self::StripeKey => "stripe_key",
            Self::PrivateKey => "private_key",
            Self::Jwt => "jwt",
            Self::Authorization => "authorization",
            Self::WonderKey => "wonder_key",
            Self::UrlPassword => "url_password",
        }
    }

    /// What stands where one was masked.
    fn mask(self) -> String {
        format!("[masked {self}]")
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The shapes, in the order in which they are looked for: of two that overlap the first counts.
const SHAPES: &[(Shape, &str)] = &[
    (
        Shape::PrivateKey,
        r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\z)",
    ),
    (
        Shape::Authorization,
        r#"(?i)\b(?:proxy-)?authorization\\?["']?\s*[:=]\s*\\?["']?(?:(?:bearer|basic|token|apikey)\s+)?[A-Za-z0-9._~+/=-]{12,}"#,
    ),
    (Shape::Authorization, r#"(?i)\bx-api-key\\?["']?\s*[:=]\s*\\?["']?[A-Za-z0-9._~+/=-]{12,}"#),
    (Shape::Authorization, r"(?i)\bbearer\s+[A-Za-z0-9._~+/=-]{20,}"),
    (Shape::Jwt, r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"),
    (Shape::StripeKey, r"\b(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}"),
    (Shape::ProviderKey, r"\bsk-[A-Za-z0-9_-]{20,}"),
    (Shape::ProviderKey, r"\bgsk_[A-Za-z0-9]{20,}"),
    (Shape::ProviderKey, r"\bxai-[A-Za-z0-9]{20,}"),
    (Shape::ProviderKey, r"\bpplx-[A-Za-z0-9]{20,}"),
    (Shape::ProviderKey, r"\br8_[A-Za-z0-9]{20,}"),
    (Shape::ProviderKey, r"\bhf_[A-Za-z0-9]{30,}"),
    (Shape::ProviderKey, r"\bAIza[A-Za-z0-9_-]{35}"),
    (Shape::AwsKey, r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b"),
    (
        Shape::AwsKey,
        r#"(?i)\baws_?secret_?(?:access_?)?key\\?["']?\s*[:=]\s*\\?["']?[A-Za-z0-9/+=]{40}"#,
    ),
    (Shape::GithubToken, r"\bgh[pousr]_[A-Za-z0-9]{36,}"),
    (Shape::GithubToken, r"\bgithub_pat_[A-Za-z0-9_]{22,}"),
    (Shape::GitlabToken, r"\bglpat-[A-Za-z0-9_-]{20,}"),
    (Shape::SlackToken, r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    (Shape::SlackToken, r"\bxapp-[A-Za-z0-9-]{10,}"),
    (Shape::SlackToken, r"\bhooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/_-]{10,}"),
    (Shape::WonderKey, r"\bwonder_[0-9a-v]{26}_[0-9a-v]{52}"),
    (Shape::WonderKey, r"\bwhsec_[A-Za-z0-9+/=]{16,}"),
    (Shape::UrlPassword, r"\b[a-z][a-z0-9+.-]*://[^\s/:@\[\]]{0,200}:[^\s/@\[\]]{3,200}@"),
];

/// Members whose text is a secret whatever it looks like.
const MEMBERS: [&str; 4] =
    ["authorization", "proxy-authorization", "x-api-key", "aws_secret_access_key"];

struct Compiled {
    any: RegexSet,
    each: Vec<(Shape, Regex)>,
}

static COMPILED: LazyLock<Option<Compiled>> = LazyLock::new(|| {
    let any = RegexSet::new(SHAPES.iter().map(|(_, text)| text)).ok()?;
    let each = SHAPES.iter().map(|(shape, text)| Some((*shape, Regex::new(text).ok()?)));
    Some(Compiled { any, each: each.collect::<Option<_>>()? })
});

/// Secrets in a text: their shapes and where they stand, in order, none within another.
pub fn find(text: &str) -> Vec<(Shape, Range<usize>)> {
    let Some(compiled) = &*COMPILED else { return Vec::new() };
    let mut found: Vec<(Shape, Range<usize>)> = Vec::new();
    for number in compiled.any.matches(text) {
        let Some((shape, regex)) = compiled.each.get(number) else { continue };
        for one in regex.find_iter(text) {
            let is_apart = |(_, other): &(Shape, Range<usize>)| {
                other.end <= one.start() || one.end() <= other.start
            };
            if is_secret(*shape, one.as_str()) && found.iter().all(is_apart) {
                found.push((*shape, one.range()));
            }
        }
    }
    found.sort_by_key(|(_, range)| range.start);
    found
}

/// Words with hyphens have the shape of some keys; keys have digits.
fn is_secret(shape: Shape, text: &str) -> bool {
    match shape {
        Shape::ProviderKey | Shape::SlackToken | Shape::Authorization => {
            text.bytes().any(|byte| byte.is_ascii_digit())
        }
        _ => true,
    }
}

/// A text with a mask where a secret stands; as it is where there is none.
pub fn mask(text: &str) -> Cow<'_, str> {
    let mut masked = Cow::Borrowed(text);
    for _ in 0..ROUNDS {
        let found = find(&masked);
        if found.is_empty() {
            return masked;
        }
        let (mut next, mut upto) = (String::with_capacity(masked.len()), 0);
        for (shape, range) in found {
            next.push_str(&masked[upto..range.start]);
            next.push_str(&shape.mask());
            upto = range.end;
        }
        next.push_str(&masked[upto..]);
        masked = Cow::Owned(next);
    }
    // What still isn't clean isn't worth keeping.
    if find(&masked).is_empty() { masked } else { Cow::Owned("[masked]".to_owned()) }
}

/// Tells of each secret in a value, by the pointer of its text, also of names of members.
pub fn scan(value: &Value, found: &mut impl FnMut(&str, Shape)) {
    scan_at(value, &mut String::new(), found);
}

fn scan_at(value: &Value, at: &mut String, found: &mut impl FnMut(&str, Shape)) {
    match value {
        Value::String(text) => find(text).into_iter().for_each(|(shape, _)| found(at, shape)),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                below(at, &index.to_string(), |at| scan_at(item, at, found));
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                below(at, name, |at| {
                    find(name).into_iter().for_each(|(shape, _)| found(at, shape));
                    match named(name, member) {
                        Some(shape) => found(at, shape),
                        None => scan_at(member, at, found),
                    }
                });
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn below(at: &mut String, name: &str, then: impl FnOnce(&mut String)) {
    let length = at.len();
    at.push('/');
    at.push_str(&escaped(name));
    then(at);
    at.truncate(length);
}

/// What the value of a member is by its name alone. An expression isn't a secret, nor is a mask.
fn named(name: &str, member: &Value) -> Option<Shape> {
    let text = member.as_str()?;
    let is_plain = text.len() >= 8 && !text.contains("${") && !text.contains("[masked");
    let is_member = MEMBERS.iter().any(|known| known.eq_ignore_ascii_case(name));
    (is_plain && is_member).then_some(Shape::Authorization)
}

/// Masks each secret in a value, and counts the texts that are others now.
pub fn mask_value(value: &mut Value) -> u64 {
    match value {
        Value::String(text) => match mask(text) {
            Cow::Borrowed(_) => 0,
            Cow::Owned(masked) => {
                *text = masked;
                1
            }
        },
        Value::Array(items) => items.iter_mut().map(mask_value).sum(),
        Value::Object(members) => {
            let mut count = 0;
            if members.keys().any(|name| !find(name).is_empty()) {
                let mut renamed = Map::new();
                for (name, member) in std::mem::take(members) {
                    let masked = mask(&name);
                    count += u64::from(*masked != name);
                    let mut unique = masked.clone().into_owned();
                    let mut number = 1;
                    while renamed.contains_key(&unique) {
                        number += 1;
                        unique = format!("{masked} {number}");
                    }
                    renamed.insert(unique, member);
                }
                *members = renamed;
            }
            for (name, member) in members {
                count += match named(name, member) {
                    Some(shape) => {
                        *member = Value::String(shape.mask());
                        1
                    }
                    None => mask_value(member),
                };
            }
            count
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}
