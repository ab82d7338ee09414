//! The address of a server that somebody else has started.

use std::net::SocketAddr;

use lockcore::BoxError;

use super::super::resp::Login;
use super::URL;

/// `redis://[user[:password]@]host[:port][/database][?parameters]`, in parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    scheme: String,
    /// As written, with the `@`.
    userinfo: String,
    /// `host:port`.
    pub(super) authority: String,
    /// As written, from the slash or question mark.
    tail: String,
    pub(super) login: Option<Login>,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, BoxError> {
        // Never shows the address: it may hold a password.
        let invalid =
            |why: &str| format!("{URL}: expected redis://[user:password@]host[:port][/db]: {why}");
        let (scheme, rest) = url.split_once("://").ok_or_else(|| invalid("no scheme"))?;
        if scheme != "redis" && scheme != "valkey" {
            return Err(invalid("the tests speak plain TCP to this server").into());
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (before, tail) = rest.split_at(end);
        let (userinfo, host) = match before.rsplit_once('@') {
            Some((_, host)) => before.split_at(before.len() - host.len()),
            None => ("", before),
        };
        let port_follows =
            host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if host.is_empty() {
            return Err(invalid("no host").into());
        }
        let login = userinfo.trim_end_matches('@').split_once(':');
        let login = login.map(|(user, password)| Login {
            user: Some(decode(user)).filter(|user| !user.is_empty()),
            password: decode(password),
        });
        Ok(Self {
            scheme: scheme.to_owned(),
            userinfo: userinfo.to_owned(),
            authority: if port_follows { host.to_owned() } else { format!("{host}:6379") },
            tail: tail.to_owned(),
            login,
        })
    }

    /// The address of a server of our own.
    pub(super) fn own(at: SocketAddr, login: Option<Login>) -> Self {
        Self {
            scheme: "redis".to_owned(),
            userinfo: match &login {
                Some(login) => format!(":{}@", encode(&login.password)),
                None => String::new(),
            },
            authority: at.to_string(),
            tail: String::new(),
            login,
        }
    }

    /// The same address with another host and port, such as those of a proxy.
    pub(super) fn at(&self, at: SocketAddr) -> String {
        format!("{}://{}{at}{}", self.scheme, self.userinfo, self.tail)
    }
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let decoded = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        (rest, _) = match (first, decoded) {
            (b'%', Some(byte)) => (&tail[2..], bytes.push(byte)),
            _ => (tail, bytes.push(*first)),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_are_kept() {
        let address = Address::parse("redis://u:p%40w@h.example:7/3?protocol=resp3").unwrap();
        assert_eq!(address.authority, "h.example:7");
        assert_eq!(address.login, Some(Login { user: Some("u".into()), password: "p@w".into() }));
        let elsewhere = address.at("127.0.0.1:9".parse().unwrap());
        assert_eq!(elsewhere, "redis://u:p%40w@127.0.0.1:9/3?protocol=resp3");
    }

    #[test]
    fn most_parts_may_be_missing() {
        let address = Address::parse("valkey://localhost").unwrap();
        assert_eq!(address.authority, "localhost:6379");
        assert_eq!(address.login, None);
        assert_eq!(Address::parse("redis://[::1]/1").unwrap().authority, "[::1]:6379");
        let login = Address::parse("redis://:p@h").unwrap().login.unwrap();
        assert_eq!((login.user, login.password.as_str()), (None, "p"));
    }

    #[test]
    fn errors_keep_the_password_secret() {
        for url in ["rediss://:hush@h", ":hush@h", "redis://:hush@", "unix:///hush"] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains(URL) && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn passwords_survive_encoding() {
        let at = "127.0.0.1:1".parse().unwrap();
        let login = Login { user: None, password: "a b@/:%é".into() };
        let url = Address::own(at, Some(login.clone())).at(at);
        assert_eq!(Address::parse(&url).unwrap().login, Some(login));
    }
}
