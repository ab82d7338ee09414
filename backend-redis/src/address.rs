//! Where the server is, and how to talk to it.

use std::time::Duration;

use lockcore::InvalidInput;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

const SCHEMES: [&str; 7] =
    ["redis", "rediss", "valkey", "valkeys", "unix", "redis+unix", "valkey+unix"];

/// How long a connection may be idle before the kernel asks the peer whether it is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
/// How long sent bytes may stay unacknowledged before the kernel gives a connection up.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// A server's address, checked, with the driver's client for either protocol.
#[derive(Clone)]
pub(crate) struct Address {
    /// Host and port, or the socket's path: for people, without user and password.
    pub(crate) shown: String,
    pub(crate) tls: bool,
    pub(crate) password: Option<String>,
    /// The protocol is the older one by the user's choice.
    pub(crate) resp2: bool,
    client: Client,
    client_resp2: Client,
}

impl Address {
    /// Reads a URL. No text of an error repeats any part of it: it may hold a password.
    pub(crate) fn parse(url: &str, roots: Option<&[u8]>) -> Result<Self, InvalidInput> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(wrong("it must start with `redis://` or another known scheme"));
        };
        let scheme = scheme.to_ascii_lowercase();
        if !SCHEMES.contains(&scheme.as_str()) {
            return Err(wrong(&format!("its scheme must be one of {}", SCHEMES.join(", "))));
        }
        if cfg!(not(feature = "tls")) && matches!(scheme.as_str(), "rediss" | "valkeys") {
            return Err(wrong("TLS needs the feature `tls` of lockcore-redis"));
        }
        // Before anything else is read: the beginning of a password that ends too early would
        // pass for a host or a port, and those are shown.
        if !scheme.ends_with("unix") && rest.contains('@') && !authority(rest).contains('@') {
            return Err(wrong("a `/`, `?` or `#` in its user or password needs a percent-escape"));
        }
        let Some(parsed) = redis::parse_redis_url(url) else {
            return Err(wrong(why_unparsed(&scheme, rest)));
        };
        if parsed.fragment().is_some() {
            return Err(wrong(
                "it must not have a `#`: certificates are always checked, and other text needs \
                 percent-escapes",
            ));
        }
        if parsed.port() == Some(0) {
            return Err(wrong("its port must lie in 1 to 65535"));
        }
        let resp2 = parsed.query_pairs().any(|(name, _)| name == "protocol");
        let info = parsed.into_connection_info().map_err(|error| {
            // The driver's words up to the dash are fixed text; what follows quotes the URL.
            let text = error.to_string();
            wrong(text.split(" - ").next().unwrap_or("the driver refuses it"))
        })?;
        if matches!(info.addr(), ConnectionAddr::Unix(path) if path.parent().is_none()) {
            return Err(wrong("it must name the path of a socket"));
        }
        if info.redis_settings().db() < 0 {
            return Err(wrong("its database number must not be negative"));
        }
        let resp2 = resp2 && info.redis_settings().protocol() == ProtocolVersion::RESP2;
        Self::new(info, resp2, roots)
    }

    /// Takes over the settings of a client of the driver's.
    pub(crate) fn of_client(client: &Client, roots: Option<&[u8]>) -> Result<Self, InvalidInput> {
        Self::new(client.get_connection_info().clone(), false, roots)
    }

    fn new(info: ConnectionInfo, resp2: bool, roots: Option<&[u8]>) -> Result<Self, InvalidInput> {
        let tcp = tcp_settings(info.tcp_settings());
        let info = info.set_tcp_settings(tcp);
        let settings = info.redis_settings().clone();
        let with = |protocol| {
            // Named when all is well: a word more in the handshake hides why it was refused.
            let settings = settings.clone().set_protocol(protocol);
            let settings = settings.set_skip_set_lib_name();
            open(info.clone().set_redis_settings(settings), roots)
        };
        Ok(Self {
            shown: info.addr().to_string(),
            tls: matches!(info.addr(), ConnectionAddr::TcpTls { .. }),
            password: settings.password().map(str::to_owned),
            resp2,
            client: with(ProtocolVersion::RESP3)?,
            client_resp2: with(ProtocolVersion::RESP2)?,
        })
    }

    pub(crate) fn client(&self, resp3: bool) -> &Client {
        if resp3 { &self.client } else { &self.client_resp2 }
    }
}

fn open(info: ConnectionInfo, roots: Option<&[u8]>) -> Result<Client, InvalidInput> {
    #[cfg(feature = "tls")]
    if let Some(pem) = roots {
        if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            return Err(InvalidInput::new(
                "root certificates are of use with rediss:// and valkeys:// only",
            ));
        }
        const HEAD: &[u8] = b"-----BEGIN CERTIFICATE-----";
        if !pem.windows(HEAD.len()).any(|window| window == HEAD) {
            return Err(InvalidInput::new("no certificate in the PEM text"));
        }
        let certificates =
            redis::TlsCertificates { client_tls: None, root_cert: Some(pem.to_vec()) };
        return Client::build_with_tls(info, certificates)
            .map_err(|error| InvalidInput::new(format!("the root certificates: {error}")));
    }
    let _ = roots;
    Client::open(info).map_err(|_| wrong("the driver refuses it"))
}

/// What a client's settings leave open is set: small packets go out at once, and a peer that
/// vanished without a word is noticed while nobody asks.
fn tcp_settings(given: &TcpSettings) -> TcpSettings {
    let mut settings = given.clone().set_nodelay(true);
    if settings.keepalive().is_none() {
        let keepalive =
            TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_EVERY);
        settings = settings.set_keepalive(keepalive);
    }
    #[cfg(target_os = "linux")]
    if settings.user_timeout().is_none() {
        settings = settings.set_user_timeout(UNACKNOWLEDGED);
    }
    settings
}

fn wrong(what: &str) -> InvalidInput {
    InvalidInput::new(format!("the server's URL is not usable: {what}"))
}

/// User, password, host and port, as far as they go.
fn authority(rest: &str) -> &str {
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// The likeliest reason why the text after the scheme is not an address.
fn why_unparsed(scheme: &str, rest: &str) -> &'static str {
    if scheme.ends_with("unix") {
        return "it must name the path of a socket, as unix:///run/redis.sock does";
    }
    let host = authority(rest).rsplit('@').next().unwrap_or_default();
    let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
    if name.is_empty() {
        return "its host is missing";
    }
    if !port.is_empty() && port.parse::<u16>().is_err() {
        return "its port must lie in 1 to 65535";
    }
    "its host cannot be read"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_takes_is_taken() {
        for (url, shown) in [
            ("redis://localhost", "localhost:6379"),
            ("redis://me:secret@h:1/2", "h:1"),
            ("valkey://h/?protocol=resp3", "h:6379"),
            ("redis://[::1]:7/", "::1:7"),
            ("unix:///tmp/r.sock?db=1&user=u&pass=p", "/tmp/r.sock"),
            ("redis+unix:///tmp/r.sock", "/tmp/r.sock"),
            ("valkey+unix:///tmp/r.sock", "/tmp/r.sock"),
            #[cfg(feature = "tls")]
            ("rediss://h", "h:6379"),
            #[cfg(feature = "tls")]
            ("valkeys://h", "h:6379"),
        ] {
            let address = Address::parse(url, None).expect(url);
            assert_eq!(address.shown, shown, "{url}");
        }
    }

    #[test]
    fn the_older_protocol_is_a_choice() {
        for (url, resp2) in [
            ("redis://h", false),
            ("redis://h?protocol=resp3", false),
            ("redis://h?protocol=resp2", true),
            ("redis://h?protocol=2", true),
        ] {
            assert_eq!(Address::parse(url, None).expect(url).resp2, resp2, "{url}");
        }
    }
}
