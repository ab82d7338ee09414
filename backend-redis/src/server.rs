//! What a server says about itself when it is connected.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, Value, aio::ConnectionLike};

/// Facts as of the moment of connecting.
#[derive(Debug)]
pub(crate) struct Facts {
    uptime: Duration,
    at: Instant,
    pub(crate) evicts: Option<String>,
    /// The server is one of a cluster's.
    pub(crate) clustered: bool,
}

impl Facts {
    /// Asks in one round trip. A user who may not ask gets no facts; one whom the server does not
    /// serve at all gets the error.
    pub(crate) async fn ask(connection: &mut MultiplexedConnection) -> Result<Self, RedisError> {
        let mut questions = Pipeline::new();
        // One section each: servers before version 7 take no more.
        questions.cmd("INFO").arg("server");
        questions.cmd("INFO").arg("memory");
        for (what, value) in
            [("LIB-NAME", env!("CARGO_PKG_NAME")), ("LIB-VER", env!("CARGO_PKG_VERSION"))]
        {
            let name = questions.cmd("CLIENT").arg("SETINFO");
            name.arg(what).arg(value);
        }
        let answers = connection.req_packed_commands(&questions, 0, questions.len());
        let mut text = String::new();
        // Servers before 7.2 do not know the rest, and nobody minds.
        for answer in answers.await?.into_iter().take(2) {
            match answer.extract_error() {
                Ok(value) => text.push_str(&redis::from_redis_value::<String>(value)?),
                Err(error) if error.code() == Some("NOAUTH") => return Err(error),
                Err(error) => tracing::debug!(%error, "the server does not tell about itself"),
            }
        }
        Ok(Self::read(&text, Instant::now()))
    }

    fn read(info: &str, at: Instant) -> Self {
        // Where it is not told, all that is known is that it runs since it was asked.
        let mut facts = Self { uptime: Duration::ZERO, at, evicts: None, clustered: false };
        let (mut limited, mut policy) = (false, "noeviction");
        for line in info.lines() {
            match line.split_once(':') {
                Some(("uptime_in_seconds", seconds)) => {
                    // Counted from the arrival of the answer and cut to seconds: never too large.
                    facts.uptime = Duration::from_secs(seconds.parse().unwrap_or(0));
                }
                // Valkey says `server_mode`.
                Some(("redis_mode" | "server_mode", mode)) => facts.clustered = mode == "cluster",
                Some(("maxmemory", bytes)) => limited = bytes != "0",
                Some(("maxmemory_policy", name)) => policy = name,
                _ => {}
            }
        }
        facts.evicts = (limited && policy != "noeviction").then(|| policy.to_owned());
        facts
    }

    /// For how long the server process has run, at least: it ends with the connection.
    pub(crate) fn uptime(&self) -> Duration {
        self.uptime + self.at.elapsed()
    }
}

/// The text of a reply, wherever the protocol's version puts it.
pub(crate) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_info() {
        let info = "# Server\r\nredis_version:7.0.15\r\n\
                    uptime_in_seconds:12\r\n# Memory\r\nmaxmemory:1024\r\n\
                    maxmemory_policy:allkeys-lru\r\n";
        let facts = Facts::read(info, Instant::now());
        assert!(facts.uptime() >= Duration::from_secs(12));
        assert_eq!(facts.evicts.as_deref(), Some("allkeys-lru"));
        assert!(!facts.clustered);
        for mode in ["redis_mode:cluster", "server_mode:cluster"] {
            assert!(Facts::read(mode, Instant::now()).clustered, "{mode}");
        }
        let facts = Facts::read("maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n", Instant::now());
        assert_eq!(facts.evicts, None);
        assert!(facts.uptime() < Duration::from_secs(12));
    }
}
