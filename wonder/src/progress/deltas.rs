//! What models are answering, line by line as it comes.

use std::collections::HashMap;

use protocol::LlmDelta;

/// Bytes after which a line is broken off.
const LINE_BYTES: usize = 512;

/// The lines that aren't complete, by their tokens.
#[derive(Debug, Default)]
pub(crate) struct Deltas(HashMap<u64, Line>);

#[derive(Debug)]
struct Line {
    node: String,
    /// Attempt, step and answer.
    of: (u32, Option<String>, u32),
    /// The index of the next piece.
    next: u64,
    text: String,
}

impl Line {
    fn written(&mut self, token: u64) -> Option<String> {
        let text = std::mem::take(&mut self.text);
        (!text.is_empty()).then(|| format!("  {}#{token} │ {text}", self.node))
    }
}

impl Deltas {
    /// Takes a piece; gives the lines that are complete with it.
    pub(crate) fn take(&mut self, piece: &LlmDelta) -> Vec<String> {
        let of = (piece.attempt, piece.step.clone(), piece.answer);
        let mut lines = Vec::new();
        if self.0.get(&piece.token).is_some_and(|line| line.of != of) {
            // Another attempt or answer: what came of the last one doesn't count.
            lines.extend(self.end(piece.token));
        }
        let line = self.0.entry(piece.token).or_insert_with(|| {
            let node = match &piece.step {
                Some(step) => format!("{}.{step}", piece.node),
                None => piece.node.to_string(),
            };
            Line {
                node,
                of,
                next: if piece.answer == 1 { 0 } else { piece.index },
                text: String::new(),
            }
        });
        if line.next != piece.index {
            line.text.push_str(" […] ");
        }
        line.next = piece.index + 1;
        for part in piece.text.split_inclusive('\n') {
            // What a model says must not move the cursor of the terminal, or colour it.
            line.text.extend(part.chars().filter(|c| !c.is_control() || *c == '\t'));
            if part.ends_with('\n') || line.text.len() >= LINE_BYTES {
                lines.extend(line.written(piece.token));
            }
        }
        lines
    }

    /// An attempt of a token has ended; gives what is left of its last line.
    pub(crate) fn end(&mut self, token: u64) -> Option<String> {
        self.0.remove(&token)?.written(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(token: u64, attempt: u32, index: u64, text: &str) -> LlmDelta {
        let (node, step, text) = ("ask".into(), None, text.to_owned());
        LlmDelta { node, step, token, attempt, answer: 1, index, text }
    }

    #[test]
    fn pieces_become_lines_by_their_tokens() {
        let mut deltas = Deltas::default();
        assert_eq!(deltas.take(&piece(1, 1, 0, "One ")), [""; 0]);
        assert_eq!(deltas.take(&piece(2, 1, 0, "other\n")), ["  ask#2 │ other"]);
        let two = ["  ask#1 │ One line", "  ask#1 │ two"];
        assert_eq!(deltas.take(&piece(1, 1, 1, "line\n\ntwo\nthr")), two);
        assert_eq!(deltas.end(1).as_deref(), Some("  ask#1 │ thr"));
        assert_eq!((deltas.end(1), deltas.end(2)), (None, None));
    }

    #[test]
    fn gaps_other_attempts_and_long_lines_show_and_nothing_moves_the_cursor() {
        let mut deltas = Deltas::default();
        deltas.take(&piece(1, 1, 0, "a"));
        deltas.take(&piece(1, 1, 2, "b\u{1b}[2J\r"));
        assert_eq!(deltas.take(&piece(1, 2, 0, "again")), ["  ask#1 │ a […] b[2J"]);
        assert_eq!(deltas.take(&piece(1, 2, 1, &"x".repeat(600))).len(), 1);
        // The start was missed.
        assert_eq!(deltas.take(&piece(3, 1, 4, "end\n")), ["  ask#3 │  […] end"]);
    }
}
