//! Where the servers are, and who asks.

use std::fmt;
use std::net::Ipv6Addr;

use lockcore::InvalidInput;

const PORT: u16 = 2379;

/// What a URL says, checked.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) tls: bool,
    pub(crate) user: Option<(String, String)>,
    pub(crate) prefix: Option<String>,
}

/// One server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// For a name or an IPv4 address as it is, for an IPv6 address without its brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Address {
    /// Reads a URL. No text of an error repeats any part of it: it may hold a password.
    pub(crate) fn parse(url: &str) -> Result<Self, InvalidInput> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(wrong("it must start with `etcd://` or `etcds://`"));
        };
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "etcd" => false,
            "etcds" => true,
            _ => return Err(wrong("its scheme must be etcd or etcds")),
        };
        if tls && cfg!(not(feature = "tls")) {
            return Err(wrong("TLS needs the feature `tls` of lockcore-etcd"));
        }
        if rest.contains(['?', '#']) {
            return Err(wrong(
                "it has no parameters: a `?` or `#` in a user or password needs a percent-escape",
            ));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // The beginning of a password that ends too early would pass for a host, and is shown.
        if path.contains('@') {
            return Err(wrong("a `/` in its user or password needs a percent-escape"));
        }
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(credentials(user)?), hosts),
            None => (None, authority),
        };
        let endpoints: Vec<_> = hosts.split(',').map(endpoint).collect::<Result<_, _>>()?;
        for (n, one) in endpoints.iter().enumerate() {
            if endpoints[..n].contains(one) {
                return Err(wrong("it names a server twice"));
            }
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        let prefix = (!path.is_empty()).then(|| path.to_owned());
        Ok(Self { endpoints, tls, user, prefix })
    }

    /// All servers, for people.
    pub(crate) fn shown(&self) -> String {
        let all: Vec<_> = self.endpoints.iter().map(Endpoint::to_string).collect();
        all.join(",")
    }
}

fn credentials(text: &str) -> Result<(String, String), InvalidInput> {
    if text.contains('@') {
        return Err(wrong("a `@` in its user or password needs a percent-escape"));
    }
    let Some((user, password)) = text.split_once(':') else {
        return Err(wrong("a user needs a password: etcd://user:password@host"));
    };
    let (user, password) = (decode(user)?, decode(password)?);
    if user.is_empty() || password.is_empty() {
        return Err(wrong("neither its user nor its password may be empty"));
    }
    Ok((user, password))
}

fn decode(text: &str) -> Result<String, InvalidInput> {
    let broken = || wrong("a `%` in its user or password must start an escape of two digits");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let (Some(high), Some(low)) = (digit(after.first()), digit(after.get(1))) else {
                return Err(broken());
            };
            bytes.push(high * 16 + low);
            rest = &after[2..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong("its user and password must be UTF-8"))
}

fn digit(byte: Option<&u8>) -> Option<u8> {
    let digit = char::from(*byte?).to_digit(16)?;
    u8::try_from(digit).ok()
}

fn endpoint(text: &str) -> Result<Endpoint, InvalidInput> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((host, port)) = rest.split_once(']') else {
            return Err(wrong("a `[` in it lacks its `]`"));
        };
        let port = match port.strip_prefix(':') {
            None if !port.is_empty() => return Err(wrong("what follows `]` must be a port")),
            port => port,
        };
        if host.parse::<Ipv6Addr>().is_err() {
            return Err(wrong("what stands in brackets must be an IPv6 address"));
        }
        (host, port)
    } else {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        if port.is_some_and(|port| port.contains(':')) {
            return Err(wrong("an IPv6 address in it needs brackets"));
        }
        if host.is_empty() {
            return Err(wrong("a host is missing"));
        }
        if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
            return Err(wrong("a host in it cannot be read"));
        }
        (host, port)
    };
    let port = match port {
        None => PORT,
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => port.parse().unwrap_or(0),
        Some(_) => 0,
    };
    if port == 0 {
        return Err(wrong("a port in it must lie in 1 to 65535"));
    }
    Ok(Endpoint { host: host.to_owned(), port })
}

fn wrong(what: &str) -> InvalidInput {
    InvalidInput::new(format!("the store's URL is not usable: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_used_is_taken() {
        for (url, shown, prefix) in [
            ("etcd://h", "h:2379", None),
            ("ETCD://h:1/", "h:1", None),
            ("etcd://h1,h2:7,10.0.0.1/locks", "h1:2379,h2:7,10.0.0.1:2379", Some("locks")),
            ("etcd://[::1],[fe80::2]:9/p/", "[::1]:2379,[fe80::2]:9", Some("p")),
            ("etcd://me:secret@h", "h:2379", None),
            #[cfg(feature = "tls")]
            ("etcds://h", "h:2379", None),
        ] {
            let address = Address::parse(url).expect(url);
            assert_eq!(address.shown(), shown, "{url}");
            assert_eq!(address.prefix.as_deref(), prefix, "{url}");
            assert_eq!(address.tls, url.starts_with("etcds"), "{url}");
        }
    }

    #[test]
    fn users_and_passwords_are_decoded() {
        let address = Address::parse("etcd://m%40e:s%2Fe%3ac%25@h").expect("valid");
        assert_eq!(address.user, Some(("m@e".to_owned(), "s/e:c%".to_owned())));
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_being_repeated() {
        for url in [
            "",
            "h:2379",
            "http://h",
            "etcd://",
            "etcd:///p",
            "etcd://h,",
            "etcd://,h",
            "etcd://h,h",
            "etcd://h:0",
            "etcd://h:65536",
            "etcd://h:+1",
            "etcd://h:",
            "etcd://::1",
            "etcd://[::1",
            "etcd://[::1]x",
            "etcd://[h]",
            "etcd://h h",
            "etcd://hé",
            "etcd://hunter2@h",
            "etcd://:hunter2@h",
            "etcd://me:@h",
            "etcd://me:hunter2%@h",
            "etcd://me:hunter2%fg@h",
            "etcd://me:hunter2%ff@h",
            "etcd://me:hunt@er2@h",
            "etcd://me:hunt/er2@h",
            "etcd://me:hunt?er2@h",
            "etcd://me:hunt#er2@h",
            "etcd://h?x=1",
        ] {
            let Err(error) = Address::parse(url) else { panic!("{url:?} was taken") };
            let text = format!("{error} {error:?}");
            assert!(!text.contains("hunt") && !text.contains("er2"), "{url:?}: {text}");
        }
    }
}
