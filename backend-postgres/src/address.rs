//! Where the servers are, and how to talk to them.

use std::time::Duration;

use lockcore::InvalidInput;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use crate::url::{Url, wrong};

/// How long a connection may be idle before the kernel asks the peer whether it is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
/// How long sent bytes may stay unacknowledged before the kernel gives a connection up.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// One or several servers, checked. The first that can grant leases is asked.
#[derive(Clone)]
pub(crate) struct Address {
    /// Hosts and ports: for people, without user and password.
    pub(crate) shown: String,
    /// Each with its name for people.
    pub(crate) servers: Vec<(String, Config)>,
    pub(crate) tls: Tls,
}

/// Whether and how TLS is spoken.
#[derive(Clone)]
pub(crate) struct Tls {
    mode: SslMode,
    #[cfg(feature = "tls")]
    connector: crate::tls::Connector,
}

impl Tls {
    fn new(mode: SslMode, roots: Option<&[u8]>) -> Result<Self, InvalidInput> {
        #[cfg(not(feature = "tls"))]
        if mode == SslMode::Require {
            return Err(wrong("TLS needs the feature `tls` of lockcore-postgres"));
        }
        if roots.is_some() && mode == SslMode::Disable {
            return Err(InvalidInput::new("root certificates are of no use with sslmode=disable"));
        }
        Ok(Self {
            mode,
            #[cfg(feature = "tls")]
            connector: crate::tls::Connector::new(roots)?,
        })
    }

    pub(crate) fn is_required(&self) -> bool {
        self.mode == SslMode::Require
    }

    #[cfg(feature = "tls")]
    pub(crate) fn connector(&self) -> Option<crate::tls::Connector> {
        (self.mode != SslMode::Disable).then(|| self.connector.clone())
    }
}

impl Address {
    pub(crate) fn of_url(url: &Url, roots: Option<&[u8]>) -> Result<Self, InvalidInput> {
        // No text of an error repeats any part of the URL: it may hold a password. The driver
        // names the parameter that it does not know or cannot read, and nothing else.
        let config = url.plain.parse::<Config>();
        let config = config.map_err(|error| wrong(&crate::error::words(&error)))?;
        let read;
        let roots = match (&url.root_file, roots) {
            (Some(path), None) => {
                read = std::fs::read(path).map_err(|error| {
                    InvalidInput::new(format!("the file of sslrootcert cannot be read: {error}"))
                })?;
                Some(read.as_slice())
            }
            (_, given) => given,
        };
        Self::of_config(&config, roots)
    }

    pub(crate) fn of_config(config: &Config, roots: Option<&[u8]>) -> Result<Self, InvalidInput> {
        if config.get_target_session_attrs() == TargetSessionAttrs::ReadOnly {
            return Err(wrong("target_session_attrs=read-only finds no server that grants leases"));
        }
        let (hosts, addrs, ports) =
            (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
        let count = hosts.len().max(addrs.len());
        if count == 0 || hosts.iter().any(|host| matches!(host, Host::Tcp(name) if name.is_empty()))
        {
            return Err(wrong("its host is missing"));
        }
        let fits = |len: usize| len <= 1 || len == count;
        if !fits(ports.len())
            || (!hosts.is_empty() && !addrs.is_empty() && hosts.len() != addrs.len())
        {
            return Err(wrong("it names more or fewer ports or addresses than hosts"));
        }
        if ports.contains(&0) {
            return Err(wrong("its port must lie in 1 to 65535"));
        }
        let mut servers = Vec::with_capacity(count);
        for n in 0..count {
            let port = ports.get(n).or(ports.first()).copied().unwrap_or(5432);
            let mut server = without_hosts(config);
            server.port(port);
            let mut shown = String::new();
            if let Some(addr) = addrs.get(n) {
                server.hostaddr(*addr);
                shown = addr.to_string();
            }
            match hosts.get(n) {
                Some(Host::Tcp(host)) => {
                    server.host(host);
                    shown.clone_from(host);
                }
                #[cfg(unix)]
                Some(Host::Unix(path)) => {
                    server.host_path(path);
                    shown = path.display().to_string();
                }
                None => {}
            }
            servers.push((format!("{shown}:{port}"), server));
        }
        let shown = servers.iter().map(|(shown, _)| shown.as_str()).collect::<Vec<_>>().join(",");
        Ok(Self { shown, servers, tls: Tls::new(config.get_ssl_mode(), roots)? })
    }
}

/// The same settings for another server. What the settings leave open is set: a peer that
/// vanished without a word is noticed while nobody asks. To tell a primary from a standby is our
/// own task.
fn without_hosts(config: &Config) -> Config {
    let mut server = Config::new();
    if let Some(user) = config.get_user() {
        server.user(user);
    }
    if let Some(password) = config.get_password() {
        server.password(password);
    }
    if let Some(dbname) = config.get_dbname() {
        server.dbname(dbname);
    }
    if let Some(options) = config.get_options() {
        server.options(options);
    }
    server
        .application_name(config.get_application_name().unwrap_or("leaselock"))
        .ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .channel_binding(config.get_channel_binding())
        .tcp_user_timeout(*config.get_tcp_user_timeout().unwrap_or(&UNACKNOWLEDGED))
        .keepalives(config.get_keepalives())
        .keepalives_interval(config.get_keepalives_interval().unwrap_or(KEEPALIVE_EVERY));
    let idle = config.get_keepalives_idle();
    let unset = Config::new().get_keepalives_idle();
    server.keepalives_idle(if idle == unset { KEEPALIVE_IDLE } else { idle });
    if let Some(retries) = config.get_keepalives_retries() {
        server.keepalives_retries(retries);
    }
    if let Some(limit) = config.get_connect_timeout() {
        server.connect_timeout(*limit);
    }
    server
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> Result<String, InvalidInput> {
        Address::of_url(&Url::parse(url)?, None).map(|address| address.shown)
    }

    #[test]
    fn what_the_driver_takes_is_taken() {
        for (url, expected) in [
            ("postgres://localhost", "localhost:5432"),
            ("postgresql://me:secret@h:1/db", "h:1"),
            ("postgres://[::1]:7/", "::1:7"),
            ("postgres://me@a:1,b,c:3/db?target_session_attrs=read-write", "a:1,b:5432,c:3"),
            ("postgres:///db?host=/run/postgresql&user=u", "/run/postgresql:5432"),
            ("postgres://me@%2Frun%2Fpostgresql/db", "/run/postgresql:5432"),
            ("postgres://h/db?hostaddr=127.0.0.1&sslmode=disable", "h:5432"),
        ] {
            assert_eq!(shown(url).as_deref(), Ok(expected), "{url}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_url() {
        for url in [
            "postgres://",
            "postgres:///db",
            "postgres://me:secret@/db",
            "postgres://me:secret@h:0/db",
            "postgres://me:secret@h:70000/db",
            "postgres://me:secret@h:x/db",
            "postgres://me:secret@h/db?connect_timeout=secret",
            "postgres://me:secret@h/db?unknown=secret",
            "postgres://me:secret@h/db?target_session_attrs=read-only",
            "postgres://me:secret@a,b/db?port=1,2,3",
        ] {
            let error = shown(url).expect_err(url).to_string();
            assert!(!error.contains("secret"), "{url}: {error}");
        }
    }
}
