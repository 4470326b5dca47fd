//! W3C trace context in and out.

use axum::http::HeaderMap;

use crate::environment::Environment;

/// The trace that a request belongs to, and the span that it is.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    /// 32 hexadecimal digits.
    pub(crate) trace_id: String,
    /// `00-<trace id>-<span id>-<flags>`, with a span id of our own.
    pub(crate) traceparent: String,
}

impl Trace {
    /// Goes on with the caller's trace where it sent a valid `traceparent`, and starts one
    /// otherwise.
    pub(crate) fn of(headers: &HeaderMap, environment: &dyn Environment) -> Self {
        let given = headers.get("traceparent").and_then(|value| value.to_str().ok());
        let (high, low) = environment.random().as_u64_pair();
        match given.and_then(parse) {
            Some((trace_id, flags)) => Self::new(trace_id.to_owned(), low, flags),
            None => Self::new(environment.random().simple().to_string(), high ^ low, "01"),
        }
    }

    fn new(trace_id: String, span_id: u64, flags: &str) -> Self {
        let traceparent = format!("00-{trace_id}-{:016x}-{flags}", span_id.max(1));
        Self { trace_id, traceparent }
    }
}

/// Trace id and flags of a version 00 header.
fn parse(text: &str) -> Option<(&str, &str)> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, length: usize| {
        part.len() == length
            && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let zero = |part: &str| part.bytes().all(|b| b == b'0');
    let fits = version == "00" && parts.next().is_none();
    let fits = fits && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
    (fits && !zero(trace) && !zero(span)).then_some((trace, flags))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_valid_header_is_taken_and_others_are_not() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let valid = format!("00-{trace}-00f067aa0ba902b7-01");
        assert_eq!(parse(&valid), Some((trace, "01")));
        let long = format!("{valid}-x");
        let zero = valid.replace(trace, &"0".repeat(32));
        let upper = valid.to_uppercase();
        for bad in ["", "00", long.as_str(), zero.as_str(), upper.as_str(), "01-a-b-c"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
