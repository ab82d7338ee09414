//! As much of HTTP as it takes to ask a server how it is and to give it users.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An answer: its status, and its body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

impl Answer {
    /// The first value of a key in a body of JSON: a text without escapes, or a word.
    pub(super) fn field(&self, key: &str) -> Option<&str> {
        let rest = self.body.split_once(&format!("\"{key}\":"))?.1.trim_start();
        match rest.strip_prefix('"') {
            Some(text) => text.split('"').next(),
            None => rest.split([',', '}']).next().map(str::trim),
        }
    }
}

/// `GET`, or `POST` of a body of JSON, on a connection of its own; an error of kind `TimedOut`
/// after `limit`.
pub(super) async fn ask(
    addr: SocketAddr,
    path: &str,
    json: Option<&str>,
    limit: Duration,
) -> io::Result<Answer> {
    let exchange = async {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all(request(path, json).as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        parse(&answer).ok_or_else(|| {
            let what = format!("not an HTTP answer: {answer:?}");
            io::Error::new(io::ErrorKind::InvalidData, what)
        })
    };
    timeout(limit, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// By HTTP/1.0 the body of the answer is in one piece, and ends where the connection does.
fn request(path: &str, json: Option<&str>) -> String {
    match json {
        None => format!("GET {path} HTTP/1.0\r\n\r\n"),
        Some(json) => {
            let length = json.len();
            format!("POST {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{json}")
        }
    }
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/")?.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let answer = parse("HTTP/1.0 200 OK\r\nA: b\r\n\r\n{\"a\":\"x\", \"b\": 7}").unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!((answer.field("a"), answer.field("b")), (Some("x"), Some("7")));
        assert_eq!(answer.field("c"), None);
        assert_eq!(parse("+PONG\r\n\r\n"), None);
    }

    #[test]
    fn requests_say_how_long_they_are() {
        assert_eq!(request("/x", None), "GET /x HTTP/1.0\r\n\r\n");
        assert!(request("/x", Some("{}")).ends_with("Content-Length: 2\r\n\r\n{}"));
    }
}
