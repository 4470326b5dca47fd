//! The leanest client that speaks HTTP/1.1: one kept connection, prepared bytes out, status and
//! body in. The measured machine's CPU should go to the server.

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MAX_HEAD: usize = 64 << 10;
const MAX_BODY: usize = 64 << 20;

/// A request, ready to be written.
#[derive(Debug, Clone)]
pub(super) struct Prepared(Vec<u8>);

impl Prepared {
    /// A `POST` of JSON with more header lines (each ending in `\r\n`).
    pub(super) fn post(host: &str, path: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self(
            format!(
                "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
                 content-length: {length}\r\n{headers}\r\n{body}"
            )
            .into_bytes(),
        )
    }
}

/// A kept connection.
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// Where things are in the buffer.
struct Head {
    status: u16,
    length: usize,
    body: usize,
}

impl Connection {
    pub(super) async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.context("the bench client can't connect")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(8 << 10) })
    }

    /// Sends a request and reads its answer: status and body.
    pub(super) async fn ask(&mut self, request: &Prepared) -> anyhow::Result<(u16, &[u8])> {
        self.buffer.clear();
        self.stream.write_all(&request.0).await?;
        let head = loop {
            self.fill().await?;
            if let Some(head) = head(&self.buffer)? {
                break head;
            }
            ensure!(self.buffer.len() <= MAX_HEAD, "the answer's head is over {MAX_HEAD} bytes");
        };
        ensure!(head.length <= MAX_BODY, "the answer is over {MAX_BODY} bytes");
        while self.buffer.len() < head.body + head.length {
            self.fill().await?;
        }
        Ok((head.status, &self.buffer[head.body..head.body + head.length]))
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        let read = self.stream.read_buf(&mut self.buffer).await?;
        ensure!(read > 0, "the server closed the connection");
        Ok(())
    }
}

/// The head of an answer, once it is whole.
fn head(buffer: &[u8]) -> anyhow::Result<Option<Head>> {
    let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&buffer[..end]).context("the answer's head isn't text")?;
    let mut lines = text.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .context("the answer isn't HTTP/1.1")?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok());
    let Some(length) = length else { bail!("the answer has no content-length") };
    Ok(Some(Head { status, length, body: end + 4 }))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn answers_are_read_whole_and_the_connection_is_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client comes");
            let mut seen = Vec::new();
            for body in ["{\"a\":1}", ""] {
                while !seen.ends_with(b"{}") {
                    stream.read_buf(&mut seen).await.expect("a request comes");
                }
                seen.clear();
                let head = format!("HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r", body.len());
                stream.write_all(head.as_bytes()).await.expect("written");
                stream.flush().await.expect("flushed");
                stream.write_all(format!("\n{body}").as_bytes()).await.expect("written");
            }
        });
        let request = Prepared::post(&address, "/x", "prefer: wait=1\r\n", "{}");
        let mut connection = Connection::open(&address).await.expect("it connects");
        let first = connection.ask(&request).await.expect("an answer");
        assert_eq!(first, (201, &b"{\"a\":1}"[..]));
        assert_eq!(connection.ask(&request).await.expect("another").1, b"");
        server.await.expect("the server ends");
    }

    #[test]
    fn an_answer_without_a_length_is_refused() {
        assert!(head(b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n").is_err());
        assert!(head(b"HTTP/1.1 200 OK\r\n").expect("not whole yet").is_none());
    }
}
