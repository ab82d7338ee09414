//! URLs: what is ours in them, what is the driver's, and what neither takes.

use lockcore::InvalidInput;

pub(crate) fn wrong(what: &str) -> InvalidInput {
    InvalidInput::new(format!("the server's URL is not usable: {what}"))
}

/// A URL taken apart.
#[derive(Default)]
pub(crate) struct Url {
    /// What the driver gets to read.
    pub(crate) plain: String,
    pub(crate) schema: Option<String>,
    pub(crate) table: Option<String>,
    pub(crate) pooled: Option<bool>,
    pub(crate) root_file: Option<String>,
}

impl Url {
    /// Reads a URL. No text of an error repeats any part of it: it may hold a password.
    pub(crate) fn parse(url: &str) -> Result<Self, InvalidInput> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(wrong("it must start with `postgres://` or `postgresql://`"));
        };
        if !matches!(scheme.to_ascii_lowercase().as_str(), "postgres" | "postgresql") {
            return Err(wrong("its scheme must be postgres or postgresql"));
        }
        // Before anything else is read: the beginning of a password that ends too early would
        // pass for a host or a port, and those are shown.
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if rest.contains('@') && authority.matches('@').count() != 1 {
            return Err(wrong(
                "a `/`, `?`, `#` or `@` in its user, its password or behind its host \
                              needs a percent-escape",
            ));
        }
        if rest.contains('#') {
            return Err(wrong("a `#` needs a percent-escape"));
        }
        let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut parsed = Self::default();
        let mut left = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                wrong("each of its parameters is a name and a value, with `=` between them")
            })?;
            if let Some(pair) = parsed.take(name, value)? {
                left.push(pair);
            }
        }
        let query = if left.is_empty() { String::new() } else { format!("?{}", left.join("&")) };
        parsed.plain = format!("postgresql://{before}{query}");
        Ok(parsed)
    }

    /// Keeps a parameter of ours, and gives back what is left for the driver.
    fn take(&mut self, name: &str, value: &str) -> Result<Option<String>, InvalidInput> {
        match name {
            "schema" => self.schema = Some(decoded(value)?),
            "table" => self.table = Some(decoded(value)?),
            "pooler" if value == "transaction" => self.pooled = Some(true),
            "pooler" => return Err(wrong("pooler is `transaction` or left out")),
            // The certificate is checked whenever TLS is spoken, and the name with it.
            "sslmode" if matches!(value, "verify-ca" | "verify-full") => {
                return Ok(Some("sslmode=require".to_owned()));
            }
            "sslmode" if value == "allow" => {
                return Err(wrong(
                    "sslmode is disable, prefer, require or verify-full: allow would send the \
                     password before it tries TLS",
                ));
            }
            "sslrootcert" if value == "system" => {}
            "sslrootcert" => self.root_file = Some(decoded(value)?),
            "sslcert" | "sslkey" | "sslcrl" | "sslpassword" => {
                return Err(wrong(
                    "client certificates and lists of revoked ones go through a pool or a \
                     connection of the caller's",
                ));
            }
            _ => return Ok(Some(format!("{name}={value}"))),
        }
        Ok(None)
    }
}

/// Text with its percent-escapes undone.
fn decoded(text: &str) -> Result<String, InvalidInput> {
    let bad = || wrong("a `%` is followed by two hexadecimal digits, and the whole is UTF-8");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2).ok_or_else(bad)?;
        let value = digits.iter().try_fold(0, |value, &digit| {
            let digit = char::from(digit).to_digit(16)?;
            u8::try_from(digit).ok().map(|digit| value << 4 | digit)
        });
        bytes.push(value.ok_or_else(bad)?);
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_parameters_are_taken_out() {
        let url = "postgres://me:p%40ss@h/db?table=t&sslmode=verify-full&application_name=a%20b\
                   &schema=s&pooler=transaction&sslrootcert=%2Fa%20b.pem";
        let url = Url::parse(url).expect("valid");
        assert_eq!(url.plain, "postgresql://me:p%40ss@h/db?sslmode=require&application_name=a%20b");
        assert_eq!(url.schema.as_deref(), Some("s"));
        assert_eq!(url.table.as_deref(), Some("t"));
        assert_eq!(url.pooled, Some(true));
        assert_eq!(url.root_file.as_deref(), Some("/a b.pem"));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_url() {
        for url in [
            "localhost",
            "mysql://me:secret@h/db",
            "postgres://me:sec/ret@h/db",
            "postgres://me:sec@ret@h/db",
            "postgres://me:sec?ret@h/db",
            "postgres://me:sec#ret@h/db",
            "postgres://h/db#secret",
            "postgres://h/db?secret",
            "postgres://h/db?pooler=secret",
            "postgres://h/db?sslmode=allow",
            "postgres://h/db?sslkey=secret",
            "postgres://h/db?table=%secret",
            "postgres://h/db?table=%e9",
            "postgres://h/db?table=%+1",
        ] {
            let error = Url::parse(url).err().expect(url).to_string();
            assert!(!error.contains("sec") && !error.contains("ret"), "{url}: {error}");
        }
    }
}
