//! How a server is to be started.

use crate::servers::Files;
use crate::servers::address::Login;

/// How a [`PostgresServer`](super::PostgresServer) is to be started.
///
/// ```
/// # use lockcore_conformance::servers::PostgresOptions;
/// let options = PostgresOptions::new()
///     .setting("default_transaction_isolation", "serializable")
///     .setting("shared_preload_libraries", "pg_stat_statements");
/// # drop(options);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct PostgresOptions {
    settings: Vec<(String, String)>,
    files: Files,
    private: bool,
}

/// Who the clients are, and where they go: one more superuser, and a database as initdb makes it.
pub(in super::super) const USER: &str = "lockcore";
const PASSWORD: &str = "lockcore";
pub(in super::super) const DATABASE: &str = "postgres";

const CERTIFICATE: &str = "tls-cert.pem";
const PRIVATE_KEY: &str = "tls-key.pem";

/// The data folder, inside the server's folder.
pub(super) const DATA: &str = "data";

/// What no test asks for. Nothing waits for the disk: a killed server has lost nothing, as what
/// it has written is the operating system's by then. Commits still wait until it is
/// (`synchronous_commit` stays on). Shared memory in files goes with the folder.
const SETTINGS: [(&str, &str); 5] = [
    ("max_connections", "500"),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("shared_buffers", "32MB"),
    ("dynamic_shared_memory_type", "mmap"),
];

impl PostgresOptions {
    /// The default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a parameter of the server, as a line of its configuration file would.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Asks for a server that nobody else uses: never one whose address is in the environment.
    /// For tests that look at all that a server holds, or change it for everybody.
    pub fn private(mut self) -> Self {
        self.private = true;
        self
    }

    /// Also speaks TLS with this certificate chain and private key, both PEM, at the same port.
    /// Clients need no certificate.
    pub fn tls(mut self, certificate: impl Into<Vec<u8>>, private_key: impl Into<Vec<u8>>) -> Self {
        self.files.push((CERTIFICATE.to_owned(), certificate.into()));
        self.files.push((PRIVATE_KEY.to_owned(), private_key.into()));
        // Names of files are relative to the data folder.
        self.setting("ssl", "on")
            .setting("ssl_cert_file", format!("../{CERTIFICATE}"))
            .setting("ssl_key_file", format!("../{PRIVATE_KEY}"))
    }

    /// Whether a server that was started by others will do.
    pub(super) fn are_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// The server's arguments.
    pub(super) fn command(&self, bind: &str, port: u16, socket: &str) -> Vec<String> {
        let port = port.to_string();
        let place =
            [("listen_addresses", bind), ("port", &port), ("unix_socket_directories", socket)];
        let own = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut args = vec!["-D".to_owned(), DATA.to_owned()];
        for (name, value) in place.into_iter().chain(SETTINGS).chain(own) {
            args.extend(["-c".to_owned(), format!("{name}={value}")]);
        }
        args
    }
}

pub(in super::super) fn login() -> Login {
    Login { user: Some(USER.to_owned()), password: PASSWORD.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_settings_come_last() {
        let options = PostgresOptions::new().setting("max_connections", "7");
        let command = options.command("127.0.0.1", 1, "/s");
        assert_eq!(command[..4], ["-D", "data", "-c", "listen_addresses=127.0.0.1"]);
        assert_eq!(command[command.len() - 2..], ["-c", "max_connections=7"]);
        assert!(!options.are_default() && PostgresOptions::new().are_default());
        assert!(!PostgresOptions::new().private().are_default());
    }
}
