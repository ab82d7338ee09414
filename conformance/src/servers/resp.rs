//! As much of the Redis protocol as it takes to see that a server is up, and to empty it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::address::Login;

/// An answer of the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// A simple or bulk string, or an integer as text.
    Text(String),
    /// The server refused: its words, which begin with a code such as `NOAUTH`.
    Error(String),
}

/// Opens a connection, authenticates where there is a password, sends one command and returns
/// the answer, or an error of kind `TimedOut` after `limit`.
pub(super) async fn ask(
    addr: SocketAddr,
    login: Option<&Login>,
    command: &[&str],
    limit: Duration,
) -> io::Result<Reply> {
    timeout(limit, async {
        let mut stream = BufReader::new(TcpStream::connect(addr).await?);
        if let Some(login) = login {
            let reply = match &login.user {
                Some(user) => exchange(&mut stream, &["AUTH", user, &login.password]).await?,
                None => exchange(&mut stream, &["AUTH", &login.password]).await?,
            };
            if let Reply::Error(_) = reply {
                return Ok(reply);
            }
        }
        exchange(&mut stream, command).await
    })
    .await
    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn exchange(stream: &mut BufReader<TcpStream>, command: &[&str]) -> io::Result<Reply> {
    stream.write_all(&encode(command)).await?;
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.trim_end();
    match line.split_at_checked(1) {
        Some(("+" | ":", text)) => Ok(Reply::Text(text.to_owned())),
        Some(("-", text)) => Ok(Reply::Error(text.to_owned())),
        Some(("$", length)) => {
            let length: usize = length.parse().map_err(|_| unknown(line))?;
            let mut bulk = vec![0; length + 2];
            stream.read_exact(&mut bulk).await?;
            bulk.truncate(length);
            Ok(Reply::Text(String::from_utf8_lossy(&bulk).into_owned()))
        }
        _ => Err(unknown(line)),
    }
}

fn unknown(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not an answer of a Redis server: {line:?}"))
}

fn encode(command: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for word in command {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        assert_eq!(encode(&["GET", "é"]), "*2\r\n$3\r\nGET\r\n$2\r\né\r\n".as_bytes());
    }

    #[tokio::test]
    async fn answers_are_read_and_silence_is_limited() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            for answer in ["+PONG\r\n", "-ERR no\r\n", "$3\r\na\r\n\r\n", "HTTP/1.1 400\r\n", ""] {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
            }
        });
        let long = Duration::from_secs(10);
        let ping = || ask(addr, None, &["PING"], long);
        assert_eq!(ping().await.unwrap(), Reply::Text("PONG".into()));
        assert_eq!(ping().await.unwrap(), Reply::Error("ERR no".into()));
        assert_eq!(ping().await.unwrap(), Reply::Text("a\r\n".into()));
        assert_eq!(ping().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let silent = ask(addr, None, &["PING"], Duration::from_millis(20)).await;
        assert_eq!(silent.unwrap_err().kind(), io::ErrorKind::TimedOut);
        server.await.unwrap();
    }
}
