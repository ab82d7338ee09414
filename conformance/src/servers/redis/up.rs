//! Seeing that a server is up.

use std::io;

use lockcore::BoxError;

use super::RedisServer;
use crate::servers::host::{ASK_LIMIT, Host};
use crate::servers::resp::{Reply, ask};

impl RedisServer {
    pub(super) async fn wait_until_up(mut self) -> Result<Self, BoxError> {
        self.version = self.up().await?;
        Ok(self)
    }

    /// Waits until the server answers commands, and returns its name and version.
    pub(super) async fn up(&self) -> Result<String, BoxError> {
        self.host.up(&self.origin, || async { Ok(self.answer().await?) }).await
    }

    /// Asks once whether the server is up.
    async fn answer(&self) -> io::Result<String> {
        let login = self.address.login.as_ref();
        match ask(self.addr, login, &["PING"], ASK_LIMIT).await? {
            Reply::Text(_) => {}
            // It answers, if only to refuse us: who may do what is the test's affair.
            Reply::Error(error) if is_refusal(&error) => return Ok("Redis".to_owned()),
            Reply::Error(error) => return Err(io::Error::other(error)),
        }
        let info = match ask(self.addr, login, &["INFO", "server"], ASK_LIMIT).await? {
            Reply::Text(info) => info,
            Reply::Error(_) => return Ok("Redis".to_owned()),
        };
        // Another server may have been quicker to take the port.
        if let Host::Local(process) = &self.host
            && let (Some(ours), Some(theirs)) = (process.pid(), field(&info, "process_id"))
            && ours.to_string() != theirs
        {
            return Err(io::Error::other("the port belongs to another server"));
        }
        Ok(name_and_version(&info))
    }
}

fn is_refusal(error: &str) -> bool {
    ["NOAUTH", "NOPERM", "WRONGPASS"].iter().any(|code| error.starts_with(code))
}

/// A line of the answer to `INFO`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Valkey also names the version of Redis that it began from.
fn name_and_version(info: &str) -> String {
    match (field(info, "valkey_version"), field(info, "redis_version")) {
        (Some(version), _) => format!("Valkey {version}"),
        (None, Some(version)) => format!("Redis {version}"),
        (None, None) => "Redis".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions_are_read() {
        let redis = "# Server\r\nredis_version:7.0.15\r\nprocess_id:7\r\n";
        assert_eq!(name_and_version(redis), "Redis 7.0.15");
        assert_eq!(field(redis, "process_id"), Some("7"));
        let valkey = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\n";
        assert_eq!(name_and_version(valkey), "Valkey 8.1.1");
    }
}
