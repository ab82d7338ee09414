//! Seeing that a server is up.

use std::io;
use std::net::SocketAddr;

use lockcore::BoxError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::options::{DATA, DATABASE, USER};
use super::{Inner, PostgresServer};
use crate::servers::host::{ASK_LIMIT, Host};

impl Inner {
    pub(super) async fn wait_until_up(mut self) -> Result<PostgresServer, BoxError> {
        self.up().await?;
        let version = match self.psql("SHOW server_version").await {
            // It may be somebody's who needs no psql here.
            Err(_) if !self.host.is_ours() => String::new(),
            version => version?,
        };
        // `15.20 (Debian 15.20-0+deb12u1)`.
        let version = version.split(' ').next().unwrap_or_default();
        self.version = format!("Postgres {version}").trim_end().to_owned();
        Ok(PostgresServer(self.into()))
    }

    /// Waits until the server takes connections.
    pub(super) async fn up(&self) -> Result<(), BoxError> {
        self.host.up(&self.origin, || self.answer()).await
    }

    async fn answer(&self) -> Result<(), BoxError> {
        // Another server may have been quicker to take the port: ours would end then, and never
        // write that it is ready.
        if let Host::Local(process) = &self.host {
            let file = process.folder().join(DATA).join("postmaster.pid");
            let file = std::fs::read_to_string(file)?;
            let ours = process.pid().map(|pid| pid.to_string());
            if file.lines().next().map(str::trim) != ours.as_deref()
                || file.lines().nth(7).map(str::trim) != Some("ready")
            {
                return Err("it is starting".into());
            }
        }
        takes_connections(self.addr).await
    }
}

/// Begins to log in, as far as the server asks for the password.
pub(in super::super) async fn takes_connections(addr: SocketAddr) -> Result<(), BoxError> {
    let begin = async {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all(&startup(USER, DATABASE)).await?;
        let kind = stream.read_u8().await?;
        let length = stream.read_u32().await?.clamp(4, 1000) as usize;
        let mut rest = vec![0; length - 4];
        stream.read_exact(&mut rest).await?;
        Ok::<_, io::Error>((kind, rest))
    };
    match timeout(ASK_LIMIT, begin).await?? {
        (b'R', _) => Ok(()),
        (_, rest) => Err(String::from_utf8_lossy(&rest).replace('\0', " ").into()),
    }
}

/// The first message of a connection: its length, the protocol's version, names and values.
fn startup(user: &str, database: &str) -> Vec<u8> {
    let body = format!("user\0{user}\0database\0{database}\0\0");
    let length = u32::try_from(8 + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_be_bytes().to_vec();
    message.extend(0x0003_0000_u32.to_be_bytes());
    message.extend(body.as_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_begin_with_their_user() {
        let message = startup("u", "d");
        assert_eq!(message[..8], [0, 0, 0, 27, 0, 3, 0, 0]);
        assert_eq!(message[8..], *b"user\0u\0database\0d\0\0");
        assert_eq!(message.len(), 27);
    }
}
