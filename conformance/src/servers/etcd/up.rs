//! Seeing that a server is up, and giving it users.

use lockcore::BoxError;

use super::EtcdServer;
use crate::servers::host::ASK_LIMIT;
use crate::servers::http::{Answer, ask};

impl EtcdServer {
    pub(super) async fn wait_until_up(mut self) -> Result<Self, BoxError> {
        self.version = match self.host.is_ours() {
            true => self.up_with_users().await?,
            false => self.up().await?,
        };
        Ok(self)
    }

    /// Waits until the server answers requests, and returns its name and version.
    pub(super) async fn up(&self) -> Result<String, BoxError> {
        self.host.up(&self.origin, || self.answer()).await
    }

    /// The same for a server without data, which gets its users then.
    pub(super) async fn up_with_users(&self) -> Result<String, BoxError> {
        let version = self.up().await?;
        self.make_users().await?;
        Ok(version)
    }

    /// Asks once whether the server is up.
    async fn answer(&self) -> Result<String, BoxError> {
        let health = ask(self.addr, "/health", None, ASK_LIMIT).await?;
        if health.field("health") != Some("true") {
            return Err(format!("health: {}", health.body).into());
        }
        // Another server may have been quicker to take the port. One of ours that has users may
        // refuse to answer.
        let members = self.post("cluster/member_list", "{}").await?;
        let among = members.body.contains(&format!("\"{}\"", self.member));
        if self.host.is_ours() && members.status == 200 && !among {
            return Err("the port belongs to another server".into());
        }
        let version = ask(self.addr, "/version", None, ASK_LIMIT).await?;
        let version = version.field("etcdserver").unwrap_or_default();
        Ok(format!("etcd {version}"))
    }

    /// Makes the users of the options, root last: from then on everybody is asked who they are.
    async fn make_users(&self) -> Result<(), BoxError> {
        let Some(root) = &self.options.root else {
            return Ok(());
        };
        for user in &self.options.users {
            let (name, password) = (json(&user.name), json(&user.password));
            let key = user.prefix.as_bytes();
            let (key, end) = (base64(key), base64(&after_prefix(key)));
            self.auth("role/add", &format!(r#"{{"name":{name}}}"#)).await?;
            let permission =
                format!(r#"{{"permType":"READWRITE","key":"{key}","range_end":"{end}"}}"#);
            let grant = format!(r#"{{"name":{name},"perm":{permission}}}"#);
            self.auth("role/grant", &grant).await?;
            self.user(&name, &password, &name).await?;
        }
        self.auth("role/add", r#"{"name":"root"}"#).await?;
        self.user(r#""root""#, &json(root), r#""root""#).await?;
        self.auth("enable", "{}").await
    }

    async fn user(&self, name: &str, password: &str, role: &str) -> Result<(), BoxError> {
        self.auth("user/add", &format!(r#"{{"name":{name},"password":{password}}}"#)).await?;
        self.auth("user/grant", &format!(r#"{{"user":{name},"role":{role}}}"#)).await
    }

    async fn auth(&self, what: &str, body: &str) -> Result<(), BoxError> {
        let answer = self.post(&format!("auth/{what}"), body).await?;
        if answer.status != 200 {
            return Err(format!("{what}: {}", answer.body).into());
        }
        Ok(())
    }

    pub(super) async fn post(&self, what: &str, body: &str) -> Result<Answer, BoxError> {
        Ok(ask(self.addr, &format!("/v3/{what}"), Some(body), ASK_LIMIT).await?)
    }
}

/// The first key after all those with a prefix; one zero byte for the empty prefix, which means
/// the end of all keys.
fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

fn json(text: &str) -> String {
    let mut json = String::from('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => json.extend(['\\', char]),
            control if control < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => json.push(other),
        }
    }
    json + "\""
}

/// Of RFC 4648, as JSON has bytes.
pub(super) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut bits = 0;
        for place in 0..3 {
            bits = bits << 8 | u32::from(chunk.get(place).copied().unwrap_or(0));
        }
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_texts_are_written_as_json_has_them() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(json("a\"b\\\n"), r#""a\"b\\\u000a""#);
    }

    #[test]
    fn a_prefix_ends_where_no_key_has_it_any_more() {
        assert_eq!(after_prefix(b"a/"), b"a0");
        assert_eq!(after_prefix(b"a\xff"), b"b");
        assert_eq!(after_prefix(b""), [0]);
    }
}
