//! Stores by URL.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use lockcore::{Error, InvalidInput, LockBackend, LockManager, MemoryBackend};

/// Locks on the store that a URL names, with the default settings.
///
/// | URL | Store | Feature |
/// |---|---|---|
/// | `memory:` | a fresh store in this process, nobody else's | |
/// | `memory://NAME` | the store of that name in this process | |
/// | `redis://`, `valkey://` | Redis or Valkey over TCP | `redis` |
/// | `rediss://`, `valkeys://` | the same over TLS | `redis` |
/// | `unix://`, `redis+unix://`, `valkey+unix://` | the same over a Unix socket | `redis` |
///
/// For other settings, build the manager: `LockManager::builder(backend(url).await?)`.
///
/// # Errors
///
/// As [`backend`].
///
/// # Cancel safety
///
/// Cancel safe: nothing is taken in the store.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), leaselock::Error> {
/// let locks = leaselock::connect("memory:").await?;
/// let guard = locks.lock("orders/42")?.acquire().await?;
/// guard.release().await?;
/// # Ok(())
/// # }
/// ```
pub async fn connect(url: &str) -> Result<LockManager, Error> {
    Ok(LockManager::new(backend(url).await?))
}

/// The store that a URL names; see [`connect`] for the URLs.
///
/// A store named by `memory://NAME` lives as long as the process.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`](lockcore::ErrorKind::InvalidInput) when the URL is malformed, or
/// names no store, or one that this build leaves out: then the message names the feature to
/// enable. [`ErrorKind::Unavailable`](lockcore::ErrorKind::Unavailable) when the store was not
/// reached within the connect limit, [`ErrorKind::Rejected`](lockcore::ErrorKind::Rejected) when
/// it refused, for example the password. No message shows a password.
///
/// # Cancel safety
///
/// Cancel safe: nothing is taken in the store.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use leaselock::LockManager;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), leaselock::Error> {
/// let store = leaselock::backend("memory://jobs").await?;
/// let locks = LockManager::builder(store).ttl(Duration::from_secs(10)).build()?;
/// # Ok(())
/// # }
/// ```
pub async fn backend(url: &str) -> Result<Arc<dyn LockBackend>, Error> {
    match Store::of(url)? {
        Store::Memory(None) => Ok(Arc::new(MemoryBackend::new())),
        Store::Memory(Some(name)) => Ok(Arc::new(memory_named(name))),
        #[cfg(feature = "redis")]
        Store::Redis => Ok(Arc::new(lockcore_redis::RedisBackend::connect(url).await?)),
    }
}

/// What a URL names.
#[derive(Debug, PartialEq, Eq)]
enum Store<'a> {
    /// A store in this process, of this name, or a fresh one.
    Memory(Option<&'a str>),
    #[cfg(feature = "redis")]
    Redis,
}

const REDIS_SCHEMES: [&str; 7] =
    ["redis", "rediss", "valkey", "valkeys", "unix", "redis+unix", "valkey+unix"];

impl<'a> Store<'a> {
    /// Looks at no more of the URL than tells the stores apart. A URL may contain a password, so
    /// of a wrong one no message repeats anything but the scheme.
    fn of(url: &'a str) -> Result<Self, InvalidInput> {
        let Some((scheme, rest)) = url.split_once(':').filter(|(s, _)| is_scheme(s)) else {
            return Err(InvalidInput::new(format!("a store is named by a URL; {}", known())));
        };
        let scheme = scheme.to_ascii_lowercase();
        if scheme == "memory" {
            return Self::memory(rest);
        }
        if REDIS_SCHEMES.contains(&scheme.as_str()) {
            return Self::redis(&scheme);
        }
        // `user:password@host` has no scheme, though it looks like one up to here.
        Err(InvalidInput::new(if rest.starts_with("//") {
            format!("no store has the scheme `{scheme}`; {}", known())
        } else {
            format!("a store is named by a URL; {}", known())
        }))
    }

    fn memory(rest: &'a str) -> Result<Self, InvalidInput> {
        let name = rest.strip_prefix("//");
        match name {
            None if rest.is_empty() => Ok(Self::Memory(None)),
            Some(name) if is_name(name) => Ok(Self::Memory(Some(name))),
            _ => Err(InvalidInput::new(
                "a memory store is `memory:` or `memory://NAME`, the name of letters, digits, \
                 `.`, `-` and `_`",
            )),
        }
    }

    #[cfg(feature = "redis")]
    fn redis(_scheme: &str) -> Result<Self, InvalidInput> {
        Ok(Self::Redis)
    }

    #[cfg(not(feature = "redis"))]
    fn redis(scheme: &str) -> Result<Self, InvalidInput> {
        Err(InvalidInput::new(format!(
            "this build leaves out the stores of `{scheme}:`; enable the feature `redis` of \
             leaselock"
        )))
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

fn known() -> String {
    let mut schemes = vec!["memory"];
    if cfg!(feature = "redis") {
        schemes.extend(REDIS_SCHEMES);
    }
    let schemes: Vec<_> = schemes.iter().map(|scheme| format!("`{scheme}`")).collect();
    format!("the schemes of this build are {}", schemes.join(", "))
}

fn memory_named(name: &str) -> MemoryBackend {
    static NAMED: LazyLock<Mutex<BTreeMap<String, MemoryBackend>>> = LazyLock::new(Mutex::default);

    let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
    named.entry(name.to_owned()).or_default().clone()
}

#[cfg(test)]
mod tests {
    use lockcore::ErrorKind;

    use super::*;

    fn refusal(url: &str) -> String {
        Store::of(url).expect_err(url).to_string()
    }

    #[test]
    fn memory_urls() {
        assert_eq!(Store::of("memory:"), Ok(Store::Memory(None)));
        assert_eq!(Store::of("MEMORY:"), Ok(Store::Memory(None)));
        assert_eq!(Store::of("memory://a"), Ok(Store::Memory(Some("a"))));
        assert_eq!(Store::of("memory://A-1.b_c"), Ok(Store::Memory(Some("A-1.b_c"))));
        for wrong in [
            "memory://",
            "memory:a",
            "memory:/a",
            "memory:///a",
            "memory://a/b",
            "memory://a?b=c",
            "memory://a b",
        ] {
            assert!(refusal(wrong).contains("`memory://NAME`"), "{wrong}");
        }
    }

    #[test]
    fn redis_urls() {
        for scheme in REDIS_SCHEMES {
            for url in [format!("{scheme}://h"), format!("{}://h", scheme.to_uppercase())] {
                #[cfg(feature = "redis")]
                assert_eq!(Store::of(&url), Ok(Store::Redis));
                #[cfg(not(feature = "redis"))]
                assert!(refusal(&url).contains("enable the feature `redis`"));
            }
        }
    }

    #[test]
    fn other_urls_are_told_the_schemes_of_this_build() {
        for url in
            ["", ":", "memory", " memory:", "localhost:6379", "mysql://h", "1a://h", "//h", "é://h"]
        {
            let message = refusal(url);
            assert!(message.contains("`memory`"), "{url}: {message}");
            let redis = message.contains("`valkey+unix`");
            assert_eq!(redis, cfg!(feature = "redis"), "{url}: {message}");
        }
        assert!(refusal("mysql://h").contains("`mysql`"));
    }

    #[test]
    fn no_refusal_shows_a_password() {
        for url in [
            "mysql://user:secret@host",
            "secret:6379",
            "user:secret@host",
            "secret@host:6379",
            "memory://user:secret@host",
            "memory:secret",
            #[cfg(not(feature = "redis"))]
            "redis://:secret@host",
        ] {
            assert!(!refusal(url).contains("secret"), "{url}");
        }
    }

    #[tokio::test]
    async fn memory_is_private_without_a_name_and_shared_by_name() -> Result<(), Error> {
        let (one, two) = (connect("memory:").await?, connect("memory:").await?);
        let _held = one.lock("k")?.acquire().await?;
        assert!(two.lock("k")?.try_acquire().await?.is_some());

        let one = connect("memory://stores-test").await?;
        let two = connect("memory://stores-test").await?;
        let _held = one.lock("k")?.acquire().await?;
        assert!(two.lock("k")?.try_acquire().await?.is_none());
        Ok(())
    }

    #[tokio::test]
    async fn a_wrong_url_is_invalid_input() {
        let error = connect("mysql://h").await.expect_err("no such store");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }

    #[cfg(feature = "redis")]
    #[tokio::test]
    async fn a_redis_that_cannot_be_used_says_why_without_the_password() {
        for (url, kind) in [
            ("redis://:secret@localhost:port", ErrorKind::InvalidInput),
            ("redis:secret", ErrorKind::InvalidInput),
            // Nothing listens on the port of the TCP multiplexer.
            ("redis://:secret@127.0.0.1:1", ErrorKind::Unavailable),
            ("unix:///no/such/secret.sock", ErrorKind::Unavailable),
        ] {
            let error = connect(url).await.expect_err(url);
            assert_eq!(error.kind(), kind, "{url}: {error}");
            let shown = format!("{error} {error:?}");
            assert!(url.starts_with("unix") || !shown.contains("secret"), "{shown}");
        }
    }
}
