//! Stores by URL.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use lockcore::{Error, InvalidInput, LockBackend, LockManager, MemoryBackend};

/// Locks on the store that a URL names, with the default settings.
///
/// | URL | Store | Feature |
/// |---|---|---|
/// | `memory:` | a fresh store in this process, nobody else's | |
/// | `memory://NAME` | the store of that name in this process | |
/// | `etcd://H1:2379,H2:2379/PREFIX` | etcd, by any number of its endpoints | `etcd` |
/// | `etcds://` | the same over TLS | `etcd` |
/// | `postgres://`, `postgresql://` | Postgres | `postgres` |
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
        Store::Served(connect) => connect(url).await,
    }
}

/// What a URL names.
enum Store<'a> {
    /// A store in this process, of this name, or a fresh one.
    Memory(Option<&'a str>),
    /// A store of this family, which reads the rest of the URL itself.
    Served(Connect),
}

type Connect = for<'a> fn(&'a str) -> Connecting<'a>;
type Connecting<'a> =
    Pin<Box<dyn Future<Output = Result<Arc<dyn LockBackend>, Error>> + Send + 'a>>;

/// The stores that a feature adds.
struct Family {
    feature: &'static str,
    schemes: &'static [&'static str],
    /// `None`: this build leaves them out.
    connect: Option<Connect>,
}

const FAMILIES: [Family; 3] = [
    Family {
        feature: "etcd",
        schemes: &["etcd", "etcds"],
        #[cfg(feature = "etcd")]
        connect: Some(|url| {
            Box::pin(async move { Ok(shared(lockcore_etcd::EtcdBackend::connect(url).await?)) })
        }),
        #[cfg(not(feature = "etcd"))]
        connect: None,
    },
    Family {
        feature: "postgres",
        schemes: &["postgres", "postgresql"],
        #[cfg(feature = "postgres")]
        connect: Some(|url| {
            Box::pin(
                async move { Ok(shared(lockcore_postgres::PostgresBackend::connect(url).await?)) },
            )
        }),
        #[cfg(not(feature = "postgres"))]
        connect: None,
    },
    Family {
        feature: "redis",
        schemes: &["redis", "rediss", "valkey", "valkeys", "unix", "redis+unix", "valkey+unix"],
        #[cfg(feature = "redis")]
        connect: Some(|url| {
            Box::pin(async move { Ok(shared(lockcore_redis::RedisBackend::connect(url).await?)) })
        }),
        #[cfg(not(feature = "redis"))]
        connect: None,
    },
];

#[cfg(any(feature = "etcd", feature = "postgres", feature = "redis"))]
fn shared(backend: impl LockBackend) -> Arc<dyn LockBackend> {
    Arc::new(backend)
}

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
        let family = FAMILIES.iter().find(|family| family.schemes.contains(&scheme.as_str()));
        match family.map(|family| (family.connect, family.feature)) {
            Some((Some(connect), _)) => Ok(Self::Served(connect)),
            Some((None, feature)) => Err(InvalidInput::new(format!(
                "this build leaves out the stores of `{scheme}:`; enable the feature `{feature}` \
                 of leaselock"
            ))),
            None if rest.starts_with("//") => {
                Err(InvalidInput::new(format!("no store has the scheme `{scheme}`; {}", known())))
            }
            // `user:password@host` has no scheme, though it looks like one up to here.
            None => Err(InvalidInput::new(format!("a store is named by a URL; {}", known()))),
        }
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
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

fn known() -> String {
    let built = FAMILIES.iter().filter(|family| family.connect.is_some());
    let schemes = ["memory"].into_iter().chain(built.flat_map(|family| family.schemes).copied());
    let schemes: Vec<_> = schemes.map(|scheme| format!("`{scheme}`")).collect();
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
        match Store::of(url) {
            Ok(_) => panic!("{url} names a store"),
            Err(refusal) => refusal.to_string(),
        }
    }

    #[test]
    fn memory_urls() {
        let name = |url| match Store::of(url) {
            Ok(Store::Memory(name)) => name,
            _ => panic!("{url} names no memory store"),
        };
        assert_eq!(name("memory:"), None);
        assert_eq!(name("MEMORY:"), None);
        assert_eq!(name("memory://a"), Some("a"));
        assert_eq!(name("memory://A-1.b_c"), Some("A-1.b_c"));
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
    fn urls_of_features() {
        let built = [
            ("etcd", cfg!(feature = "etcd")),
            ("postgres", cfg!(feature = "postgres")),
            ("redis", cfg!(feature = "redis")),
        ];
        assert_eq!(FAMILIES.each_ref().map(|family| family.feature), built.map(|(name, _)| name));
        for (family, (feature, built)) in FAMILIES.iter().zip(built) {
            for scheme in family.schemes {
                for url in [format!("{scheme}://h"), format!("{}://h", scheme.to_uppercase())] {
                    if built {
                        assert!(matches!(Store::of(&url), Ok(Store::Served(_))), "{url}");
                    } else {
                        let hint = format!("enable the feature `{feature}`");
                        assert!(refusal(&url).contains(&hint), "{url}");
                    }
                }
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
            for (scheme, built) in [
                ("`valkey+unix`", cfg!(feature = "redis")),
                ("`etcd`", cfg!(feature = "etcd")),
                ("`postgres`", cfg!(feature = "postgres")),
            ] {
                assert_eq!(message.contains(scheme), built, "{url}: {message}");
            }
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
            #[cfg(not(feature = "etcd"))]
            "etcd://user:secret@host",
            #[cfg(not(feature = "postgres"))]
            "postgres://user:secret@host",
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

    #[cfg(any(feature = "etcd", feature = "postgres", feature = "redis"))]
    #[tokio::test]
    async fn a_store_that_cannot_be_used_says_why_without_the_password() {
        for (url, kind) in [
            #[cfg(feature = "redis")]
            ("redis://:secret@localhost:port", ErrorKind::InvalidInput),
            #[cfg(feature = "redis")]
            ("redis:secret", ErrorKind::InvalidInput),
            // Nothing listens on the port of the TCP multiplexer.
            #[cfg(feature = "redis")]
            ("redis://:secret@127.0.0.1:1", ErrorKind::Unavailable),
            #[cfg(feature = "redis")]
            ("unix:///no/such/secret.sock", ErrorKind::Unavailable),
            #[cfg(feature = "etcd")]
            ("etcd://user:secret@localhost:port", ErrorKind::InvalidInput),
            #[cfg(feature = "etcd")]
            ("etcd:secret", ErrorKind::InvalidInput),
            #[cfg(feature = "etcd")]
            ("etcd://user:secret@127.0.0.1:1", ErrorKind::Unavailable),
            #[cfg(feature = "postgres")]
            ("postgres://user:secret@localhost:port", ErrorKind::InvalidInput),
            #[cfg(feature = "postgres")]
            ("postgres:secret", ErrorKind::InvalidInput),
            #[cfg(feature = "postgres")]
            ("postgres://user:secret@127.0.0.1:1/db", ErrorKind::Unavailable),
        ] {
            let error = connect(url).await.expect_err(url);
            assert_eq!(error.kind(), kind, "{url}: {error}");
            let shown = format!("{error} {error:?}");
            assert!(url.starts_with("unix") || !shown.contains("secret"), "{shown}");
        }
    }
}
