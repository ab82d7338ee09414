//! How a server is to be started.

use std::time::Duration;

use crate::servers::Files;
use crate::servers::address::Login;

/// How an [`EtcdServer`](super::EtcdServer) is to be started. The default asks for no password.
///
/// ```
/// # use std::time::Duration;
/// # use lockcore_conformance::servers::EtcdOptions;
/// let options = EtcdOptions::new()
///     .root("secret")
///     .user("locker", "hush", "locks/")
///     .auth_token_ttl(Duration::from_secs(1));
/// # drop(options);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct EtcdOptions {
    args: Vec<String>,
    files: Files,
    tls: bool,
    private: bool,
    pub(super) durable: bool,
    pub(super) root: Option<String>,
    pub(super) users: Vec<User>,
}

/// A user with rights to a part of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) password: String,
    pub(super) prefix: String,
}

/// Where a server listens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) client: u16,
    pub(super) peer: u16,
    pub(super) tls: Option<u16>,
}

/// One of those that make a cluster.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Its own, so that no server is taken for another.
    pub(super) name: String,
    pub(super) ports: Ports,
}

impl Member {
    fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.peer)
    }
}

const CERTIFICATE: &str = "tls-cert.pem";
const PRIVATE_KEY: &str = "tls-key.pem";
/// What a wipe removes.
pub(super) const DATA: &str = "data";

impl EtcdOptions {
    /// The default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds arguments for the server, such as `--quota-backend-bytes=16777216`.
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Asks for a server that nobody else uses: never one whose address is in the environment.
    /// For tests that look at all that a server holds, or change it for everybody.
    pub fn private(mut self) -> Self {
        self.private = true;
        self
    }

    /// Waits for the disk before it answers. Without this a server that is killed loses nothing
    /// either, but may when its machine crashes.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Speaks TLS with this certificate chain and private key, both PEM, on a second port:
    /// [`EtcdServer::tls_addr`](super::EtcdServer::tls_addr). Clients need no certificate.
    pub fn tls(mut self, certificate: impl Into<Vec<u8>>, private_key: impl Into<Vec<u8>>) -> Self {
        self.files.push((CERTIFICATE.to_owned(), certificate.into()));
        self.files.push((PRIVATE_KEY.to_owned(), private_key.into()));
        self.tls = true;
        self
    }

    /// Asks clients who they are, and gives the user `root`, who may do all, this password. It is
    /// in [`EtcdServer::url`](super::EtcdServer::url).
    pub fn root(mut self, password: impl Into<String>) -> Self {
        self.root = Some(password.into());
        self
    }

    /// Adds a user who may read and write the keys that begin with `prefix`, and nothing else.
    /// Needs [`root`](Self::root): without it nobody is asked who they are.
    pub fn user(
        mut self,
        name: impl Into<String>,
        password: impl Into<String>,
        prefix: impl Into<String>,
    ) -> Self {
        let (name, password, prefix) = (name.into(), password.into(), prefix.into());
        self.users.push(User { name, password, prefix });
        self
    }

    /// Forgets a client that was silent for this long, in whole seconds, and refuses its token
    /// from then on. The default is etcd's own, five minutes.
    pub fn auth_token_ttl(self, ttl: Duration) -> Self {
        self.args([format!("--auth-token-ttl={}", ttl.as_secs())])
    }

    /// Whether a server that was started by others will do.
    pub(super) fn are_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn wants_tls(&self) -> bool {
        self.tls
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    pub(super) fn login(&self) -> Option<Login> {
        let password = self.root.clone()?;
        Some(Login { user: Some("root".to_owned()), password })
    }

    /// The arguments of one member of a cluster. `bind` is where it listens for clients.
    pub(super) fn command(&self, me: &Member, cluster: &[Member], bind: &str) -> Vec<String> {
        let (ports, peer) = (me.ports, me.peer_url());
        let mut clients = format!("http://{bind}:{}", ports.client);
        let mut args = Vec::new();
        if let Some(tls) = ports.tls {
            clients.push_str(&format!(",https://{bind}:{tls}"));
            args.extend([
                format!("--cert-file={CERTIFICATE}"),
                format!("--key-file={PRIVATE_KEY}"),
            ]);
        }
        let all = cluster.iter().map(|member| format!("{}={}", member.name, member.peer_url()));
        args.extend([
            format!("--name={}", me.name),
            format!("--data-dir={DATA}"),
            format!("--listen-client-urls={clients}"),
            format!("--advertise-client-urls=http://127.0.0.1:{}", ports.client),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={}", all.collect::<Vec<_>>().join(",")),
            format!("--initial-cluster-token={}", cluster[0].name),
            "--logger=zap".to_owned(),
            "--log-outputs=stderr".to_owned(),
            "--log-level=warn".to_owned(),
        ]);
        args.extend(self.args.iter().cloned());
        args
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_a_cluster_of_its_own_and_own_arguments_come_last() {
        let options = EtcdOptions::new().auth_token_ttl(Duration::from_secs(2));
        let member = |name: &str, peer| {
            let ports = Ports { client: 1, peer, tls: Some(3) };
            Member { name: name.to_owned(), ports }
        };
        let alone = [member("m", 2)];
        let command = options.command(&alone[0], &alone, "127.0.0.1").join(" ");
        assert!(command.contains("--initial-cluster=m=http://127.0.0.1:2 "), "{command}");
        assert!(command.contains("=http://127.0.0.1:1,https://127.0.0.1:3 "), "{command}");
        assert!(command.ends_with("--auth-token-ttl=2"), "{command}");
        let two = [member("m", 2), member("n", 4)];
        let command = options.command(&two[1], &two, "127.0.0.1").join(" ");
        let all = "--initial-cluster=m=http://127.0.0.1:2,n=http://127.0.0.1:4 ";
        assert!(command.contains(all) && command.contains("--name=n "), "{command}");
        assert!(command.contains("--initial-cluster-token=m "), "{command}");
        assert!(!options.are_default() && EtcdOptions::new().are_default());
        assert!(!EtcdOptions::new().private().are_default());
    }
}
