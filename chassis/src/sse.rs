//! Server-sent events, parsed as they come: the event stream format of the HTML standard, without
//! what nobody here has a use for (`id`, `retry`, lines that end with a carriage return alone).

/// One message of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Its `event`; empty where it has none.
    pub event: String,
    /// Its `data`, of several lines with `\n` between them.
    pub data: String,
}

/// Finds messages in bytes, however these are cut. Memory: see [`Parser::held`].
#[derive(Debug, Default)]
pub struct Parser {
    buffer: Vec<u8>,
    /// Bytes of the buffer in which no line ends.
    scanned: usize,
    message: Message,
}

impl Parser {
    /// Takes bytes, and gives the messages that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Message> {
        self.buffer.extend_from_slice(bytes);
        let mut complete = Vec::new();
        let mut start = 0;
        while let Some(end) = self.line_end() {
            let line = &self.buffer[start..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            start = end + 1;
            self.scanned = start;
            let line = String::from_utf8_lossy(line);
            if line.is_empty() {
                let message = std::mem::take(&mut self.message);
                if !message.data.is_empty() {
                    complete.push(message);
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => self.message.event = value.to_owned(),
                "data" if self.message.data.is_empty() => self.message.data = value.to_owned(),
                "data" => {
                    self.message.data.push('\n');
                    self.message.data.push_str(value);
                }
                _ => {}
            }
        }
        self.buffer.drain(..start);
        self.scanned = self.buffer.len();
        complete
    }

    /// Bytes that are kept of a message that isn't complete; who reads from others bounds them.
    pub fn held(&self) -> usize {
        self.buffer.len() + self.message.event.len() + self.message.data.len()
    }

    fn line_end(&self) -> Option<usize> {
        let rest = self.buffer.get(self.scanned..)?;
        rest.iter().position(|byte| *byte == b'\n').map(|at| self.scanned + at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_the_bytes_are_cut() {
        let text =
            ": hello\n\nid: 1\nevent: run_started\ndata: {\"a\":\ndata: 1}\r\n\r\ndata:x\n\n";
        let wanted = [
            Message { event: "run_started".to_owned(), data: "{\"a\":\n1}".to_owned() },
            Message { event: String::new(), data: "x".to_owned() },
        ];
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let got: Vec<_> =
                text.as_bytes().chunks(size).flat_map(|chunk| parser.push(chunk)).collect();
            assert_eq!(got, wanted, "chunks of {size}");
            assert_eq!(parser.held(), 0);
        }
    }

    #[test]
    fn what_has_no_end_yet_is_kept_back_and_counted() {
        let mut parser = Parser::default();
        assert!(parser.push(b"data: {}\nda").is_empty());
        assert_eq!(parser.held(), 4);
        assert!(parser.push(b"ta: 1\n").is_empty());
        assert_eq!(parser.push(b"\n"), [Message { data: "{}\n1".into(), ..Message::default() }]);
    }
}
