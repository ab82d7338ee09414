//! How a server is to be started.

use std::io;

use crate::servers::Files;
use crate::servers::address::Login;
use crate::servers::host::free_ports;

/// How a [`RedisServer`](super::RedisServer) is to be started. The default keeps nothing on disk
/// and asks for no password.
///
/// ```
/// # use lockcore_conformance::servers::RedisOptions;
/// let options = RedisOptions::new()
///     .durable()
///     .args(["--requirepass", "secret", "--maxmemory-policy", "allkeys-lru"]);
/// # drop(options);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct RedisOptions {
    args: Vec<String>,
    files: Files,
    durable: bool,
    tls: bool,
    unix_socket: bool,
    private: bool,
}

const CERTIFICATE: &str = "tls-cert.pem";
const PRIVATE_KEY: &str = "tls-key.pem";
pub(super) const SOCKET: &str = "redis.sock";

impl RedisOptions {
    /// The default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds arguments for the server, such as `--maxmemory-policy` and `noeviction`.
    ///
    /// The server starts in its data folder: names of files are relative to it. The port, the
    /// folder and persistence are set already. A password given by `--requirepass` is also used
    /// to see that the server is up, to wipe it, and in
    /// [`RedisServer::url`](super::RedisServer::url).
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Puts a file into the server's data folder before it starts.
    pub fn file(mut self, name: impl Into<String>, contents: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.into(), contents.into()));
        self
    }

    /// Asks for a server that nobody else uses: never one whose address is in the environment.
    /// For tests that look at all that a server holds, or change it for everybody.
    pub fn private(mut self) -> Self {
        self.private = true;
        self
    }

    /// Has every write on disk before it is answered, so that a killed server that is started
    /// again has lost nothing.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Speaks TLS with this certificate chain and private key, both PEM, on a second port:
    /// [`RedisServer::tls_addr`](super::RedisServer::tls_addr). Clients need no certificate.
    pub fn tls(self, certificate: impl Into<Vec<u8>>, private_key: impl Into<Vec<u8>>) -> Self {
        let mut options = self.file(CERTIFICATE, certificate).file(PRIVATE_KEY, private_key);
        options.tls = true;
        options
    }

    /// Also listens on a Unix socket: [`RedisServer::unix_socket`](super::RedisServer). A server
    /// in a container cannot offer it to its tests.
    pub fn unix_socket(mut self) -> Self {
        self.unix_socket = true;
        self
    }

    /// Whether a server that was started by others will do.
    pub(super) fn are_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn wants_unix_socket(&self) -> bool {
        self.unix_socket
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// The password that the arguments set.
    pub(super) fn login(&self) -> Option<Login> {
        let at = self.args.iter().position(|arg| arg == "--requirepass")?;
        Some(Login { user: None, password: self.args.get(at + 1)?.clone() })
    }

    /// Finds free ports, for plain connections and for TLS.
    pub(super) fn free_ports(&self) -> io::Result<(u16, Option<u16>)> {
        let [plain, tls] = free_ports()?;
        Ok((plain, self.tls.then_some(tls)))
    }

    /// The server's arguments.
    pub(super) fn command(&self, bind: &str, port: u16, tls_port: Option<u16>) -> Vec<String> {
        let port = port.to_string();
        let mut args = vec!["--bind", bind, "--port", &port, "--protected-mode", "no"];
        args.extend(["--save", "", "--appendonly"]);
        if self.durable {
            args.extend(["yes", "--appendfsync", "always"]);
        } else {
            args.push("no");
        }
        let tls_port = tls_port.map(|port| port.to_string());
        if let Some(port) = &tls_port {
            args.extend(["--tls-port", port, "--tls-auth-clients", "no"]);
            args.extend(["--tls-cert-file", CERTIFICATE]);
            args.extend(["--tls-key-file", PRIVATE_KEY]);
        }
        if self.unix_socket {
            args.extend(["--unixsocket", SOCKET]);
        }
        args.extend(self.args.iter().map(String::as_str));
        args.into_iter().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_arguments_come_last_and_passwords_are_found() {
        let options = RedisOptions::new().args(["--requirepass", "p w"]);
        let command = options.command("127.0.0.1", 7, None);
        assert_eq!(command[..4], ["--bind", "127.0.0.1", "--port", "7"]);
        assert_eq!(command[command.len() - 2..], ["--requirepass", "p w"]);
        assert_eq!(options.login().unwrap().password, "p w");
        assert!(!options.are_default() && RedisOptions::new().durable().login().is_none());
        assert!(RedisOptions::new().are_default() && !RedisOptions::new().private().are_default());
    }
}
