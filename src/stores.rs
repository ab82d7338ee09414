//! Stores by URL.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use lockcore::{Error, ErrorKind, InvalidInput, LockBackend, LockManager, MemoryBackend};
use lockcore_combinators::Switchover;

use crate::combined;

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
/// | `quorum+redis://H1,H2,H3/0` | a [`Quorum`](crate::Quorum) of independent stores, one per host; also with the other schemes that have hosts; `max_ttl_seconds=60` may follow a `?` | that of the scheme |
/// | `switchover:?old=URL&new=URL&phase=both` | a [`Switchover`] from one store to another, the URLs percent-escaped; `floor`, `label`, `max_ttl_seconds`, `gone=yes` and `assume=alone` may follow | those of the URLs |
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
        Store::Served(open) => (open.connect)(url).await,
        Store::Quorum(nodes) => combined::quorum(nodes).await,
        Store::Switchover(query) => Ok(Arc::new(combined::switchover(query).await?)),
    }
}

/// The switch that a `switchover:` URL names, for programs that end or look at it: the registration
/// of this process is taken back by [`leave`](Switchover::leave), and
/// [`status`](Switchover::status) says who is where.
///
/// # Errors
///
/// Those of [`connect`]; [`ErrorKind::InvalidInput`] for a URL of anything else.
///
/// # Cancel safety
///
/// Cancel safe: a registration that was made is taken back.
///
/// # Examples
///
/// ```
/// use leaselock::LockManager;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), leaselock::Error> {
/// let url = "switchover:?old=memory://from&new=memory://to&phase=both&label=web-1";
/// let switch = leaselock::switchover(url).await?;
/// let locks = LockManager::new(switch.clone());
/// locks.lock("reports/daily")?.acquire().await?.release().await?;
/// switch.leave().await;
/// # Ok(())
/// # }
/// ```
pub async fn switchover(url: &str) -> Result<Switchover, Error> {
    match Store::of(url)? {
        Store::Switchover(query) => combined::switchover(query).await,
        _ => Err(InvalidInput::new("this is not the URL of a switch: `switchover:?…`").into()),
    }
}

/// The store that a URL names, which need not be reached yet: a part of a combination.
pub(crate) fn part(url: &str) -> Opening<'_> {
    Box::pin(async move {
        match Store::of(url)? {
            Store::Memory(None) => Err(InvalidInput::new(
                "a memory store in a combination has a name, by which all of it meet",
            )
            .into()),
            Store::Memory(Some(name)) => Ok(Arc::new(memory_named(name)) as _),
            Store::Served(open) => match (open.connect)(url).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => (open.build)(url),
                done => done,
            },
            Store::Quorum(nodes) => combined::quorum_part(nodes).await,
            Store::Switchover(_) => Err(InvalidInput::new(
                "a switch is between stores, and no part of another combination",
            )
            .into()),
        }
    })
}

/// What a URL names.
enum Store<'a> {
    /// A store in this process, of this name, or a fresh one.
    Memory(Option<&'a str>),
    /// A store of this family, which reads the rest of the URL itself.
    Served(Open),
    /// A quorum; what is left is the URL of its stores, with all of their hosts.
    Quorum(&'a str),
    /// A switch between two stores, with these parameters.
    Switchover(&'a str),
}

pub(crate) type Opened = Result<Arc<dyn LockBackend>, Error>;
pub(crate) type Opening<'a> = Pin<Box<dyn Future<Output = Opened> + Send + 'a>>;

/// How a family opens the store at a URL.
#[derive(Clone, Copy)]
struct Open {
    connect: for<'a> fn(&'a str) -> Opening<'a>,
    /// Without reaching it: it connects when it is asked.
    build: fn(&str) -> Opened,
}

/// The stores that a feature adds.
struct Family {
    feature: &'static str,
    schemes: &'static [&'static str],
    /// `None`: this build leaves them out.
    open: Option<Open>,
}

const FAMILIES: [Family; 3] = [
    Family {
        feature: "etcd",
        schemes: &["etcd", "etcds"],
        #[cfg(feature = "etcd")]
        open: Some(Open {
            connect: |url| {
                Box::pin(async move { Ok(shared(lockcore_etcd::EtcdBackend::connect(url).await?)) })
            },
            build: |url| Ok(shared(lockcore_etcd::EtcdBackend::builder(url).build()?)),
        }),
        #[cfg(not(feature = "etcd"))]
        open: None,
    },
    Family {
        feature: "postgres",
        schemes: &["postgres", "postgresql"],
        #[cfg(feature = "postgres")]
        open: Some(Open {
            connect: |url| {
                Box::pin(async move {
                    Ok(shared(lockcore_postgres::PostgresBackend::connect(url).await?))
                })
            },
            build: |url| {
                let store = lockcore_postgres::PostgresBackend::builder(url).build()?;
                Ok(shared(crate::late::Late::new(store)))
            },
        }),
        #[cfg(not(feature = "postgres"))]
        open: None,
    },
    Family {
        feature: "redis",
        schemes: &["redis", "rediss", "valkey", "valkeys", "unix", "redis+unix", "valkey+unix"],
        #[cfg(feature = "redis")]
        open: Some(Open {
            connect: |url| {
                Box::pin(
                    async move { Ok(shared(lockcore_redis::RedisBackend::connect(url).await?)) },
                )
            },
            build: |url| Ok(shared(lockcore_redis::RedisBackend::builder(url).build()?)),
        }),
        #[cfg(not(feature = "redis"))]
        open: None,
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
        if scheme == "switchover" {
            return match rest.strip_prefix('?') {
                Some(query) => Ok(Self::Switchover(query)),
                None => Err(InvalidInput::new(
                    "a switch is `switchover:?old=URL&new=URL&phase=old|both|new`, the URLs \
                     percent-escaped",
                )),
            };
        }
        if let Some(of) = scheme.strip_prefix("quorum+") {
            // Is this one there? The rest is looked at host by host.
            let nodes = &url["quorum+".len()..];
            return match Self::of(nodes)? {
                Self::Served(_) => Ok(Self::Quorum(nodes)),
                _ => Err(InvalidInput::new(format!("no quorum is made of stores of `{of}:`"))),
            };
        }
        let family = FAMILIES.iter().find(|family| family.schemes.contains(&scheme.as_str()));
        match family.map(|family| (family.open, family.feature)) {
            Some((Some(open), _)) => Ok(Self::Served(open)),
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
    let built = FAMILIES.iter().filter(|family| family.open.is_some());
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
mod tests;
