//! Bodies that are larger than a message may be.

use async_nats::{HeaderName, Message};
use bytes::Bytes;

/// Bytes of the largest body.
pub(in crate::bus) const LARGEST: usize = 16 * 1024 * 1024;
/// Bytes that our headers may take of a message.
const HEADERS: usize = 1_024;

const PART: HeaderName = HeaderName::from_static("Part");

/// Which part of a body a message holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bus) struct Part {
    /// From 0.
    pub(in crate::bus) index: usize,
    pub(in crate::bus) count: usize,
    /// Of all parts.
    pub(in crate::bus) bytes: usize,
}

impl Part {
    /// What is no part of anything that is taken.
    const NONSENSE: Self = Self { index: usize::MAX, count: 0, bytes: 0 };

    /// Nothing where the message holds a whole body.
    pub(in crate::bus) fn of(message: &Message) -> Option<Self> {
        let text = message.headers.as_ref()?.get(PART)?.as_str();
        Some(Self::parse(text).unwrap_or(Self::NONSENSE))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(' ').map(str::parse);
        let mut next = || numbers.next()?.ok();
        let part = Self { index: next()?, count: next()?, bytes: next()? };
        (part.index < part.count && part.bytes <= LARGEST).then_some(part)
    }

    pub(in crate::bus) fn header(self) -> (HeaderName, String) {
        (PART, format!("{} {} {}", self.index, self.count, self.bytes))
    }
}

/// Bytes of a body that fit into one message.
pub(super) fn room(max_payload: usize) -> usize {
    max_payload.saturating_sub(HEADERS).max(HEADERS)
}

/// The parts of a body, at least one.
pub(in crate::bus) fn split(
    body: &Bytes,
    room: usize,
) -> impl ExactSizeIterator<Item = (Part, Bytes)> {
    let (bytes, count) = (body.len(), body.len().div_ceil(room).max(1));
    (0..count).map(move |index| {
        let end = ((index + 1) * room).min(bytes);
        (Part { index, count, bytes }, body.slice(index * room..end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_cannot_be_is_no_part() {
        assert_eq!(Part::parse("1 3 40"), Some(Part { index: 1, count: 3, bytes: 40 }));
        for text in ["", "1", "3 3 40", "1 3 16777217", "-1 3 40", "a b c"] {
            assert_eq!(Part::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn parts_make_the_whole() {
        for (bytes, room, count) in [(0, 4, 1), (4, 4, 1), (5, 4, 2), (12, 4, 3)] {
            let body = Bytes::from(vec![7_u8; bytes]);
            let parts: Vec<(Part, Bytes)> = split(&body, room).collect();
            assert_eq!(parts.len(), count, "{bytes}");
            assert!(parts.iter().all(|(part, piece)| part.bytes == bytes && piece.len() <= room));
            let whole: Vec<u8> = parts.into_iter().flat_map(|(_, piece)| piece).collect();
            assert_eq!(whole, body);
        }
    }
}
