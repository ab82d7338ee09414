//! The address of a server that somebody else has started.

use std::net::SocketAddr;

use lockcore::BoxError;

/// How addresses of a store are written.
#[derive(Debug)]
pub(super) struct Form {
    /// The environment variable that they come from.
    pub(super) variable: &'static str,
    pub(super) schemes: &'static [&'static str],
    /// The port where an address names none.
    pub(super) port: u16,
}

/// Who to be for a server that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: String,
}

/// `scheme://[user[:password]@]host[:port][/database][?parameters]`, in parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    scheme: String,
    /// As written, with the `@`.
    userinfo: String,
    /// `host:port`.
    authority: String,
    /// As written, from the slash or question mark.
    tail: String,
    pub(super) login: Option<Login>,
}

impl Address {
    pub(super) fn parse(form: &Form, url: &str) -> Result<Self, BoxError> {
        let (variable, scheme) = (form.variable, form.schemes[0]);
        // Never shows the address: it may hold a password.
        let invalid = |why: &str| {
            format!("{variable}: expected {scheme}://[user:password@]host[:port][/…]: {why}")
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| invalid("no scheme"))?;
        if !form.schemes.contains(&scheme) {
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
            authority: if port_follows { host.to_owned() } else { format!("{host}:{}", form.port) },
            tail: tail.to_owned(),
            login,
        })
    }

    /// The address of a server of our own.
    pub(super) fn own(form: &Form, at: SocketAddr, login: Option<Login>, tail: &str) -> Self {
        let userinfo = login.as_ref().map(|login| {
            let user = login.user.as_deref().unwrap_or_default();
            format!("{}:{}@", encode(user), encode(&login.password))
        });
        Self {
            scheme: form.schemes[0].to_owned(),
            userinfo: userinfo.unwrap_or_default(),
            authority: at.to_string(),
            tail: tail.to_owned(),
            login,
        }
    }

    /// The database, for stores whose addresses name one.
    pub(super) fn database(&self) -> &str {
        let path = self.tail.split('?').next().unwrap_or_default();
        path.trim_start_matches('/')
    }

    /// Where that is, by name or number.
    pub(super) async fn resolve(&self, form: &Form) -> Result<SocketAddr, BoxError> {
        let mut addrs = tokio::net::lookup_host(&self.authority).await?;
        Ok(addrs.next().ok_or_else(|| format!("{}: no such host", form.variable))?)
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

    const REDIS: Form = Form { variable: "THE_URL", schemes: &["redis", "valkey"], port: 6379 };

    #[test]
    fn all_parts_are_kept() {
        let address =
            Address::parse(&REDIS, "redis://u:p%40w@h.example:7/3?protocol=resp3").unwrap();
        assert_eq!(address.authority, "h.example:7");
        assert_eq!(address.login, Some(Login { user: Some("u".into()), password: "p@w".into() }));
        let elsewhere = address.at("127.0.0.1:9".parse().unwrap());
        assert_eq!(elsewhere, "redis://u:p%40w@127.0.0.1:9/3?protocol=resp3");
    }

    #[test]
    fn most_parts_may_be_missing() {
        let address = Address::parse(&REDIS, "valkey://localhost").unwrap();
        assert_eq!(address.authority, "localhost:6379");
        assert_eq!(address.login, None);
        assert_eq!(Address::parse(&REDIS, "redis://[::1]/1").unwrap().authority, "[::1]:6379");
        let login = Address::parse(&REDIS, "redis://:p@h").unwrap().login.unwrap();
        assert_eq!((login.user, login.password.as_str()), (None, "p"));
    }

    #[test]
    fn errors_keep_the_password_secret() {
        for url in ["rediss://:hush@h", ":hush@h", "redis://:hush@", "unix:///hush"] {
            let error = Address::parse(&REDIS, url).unwrap_err().to_string();
            assert!(error.contains("THE_URL") && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn passwords_survive_encoding() {
        let at = "127.0.0.1:1".parse().unwrap();
        let login = Login { user: None, password: "a b@/:%é".into() };
        let url = Address::own(&REDIS, at, Some(login.clone()), "/db?x").at(at);
        let address = Address::parse(&REDIS, &url).unwrap();
        assert_eq!((address.database(), &address.login), ("db", &Some(login)));
    }
}
