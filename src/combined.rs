//! Combinations of stores by URL.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{Error, InvalidInput, LockBackend, LockKey};
use lockcore_combinators::{Phase, Quorum, Switchover};

use crate::stores::part;

/// A quorum of the stores at the hosts of a URL, a majority of which must be there and let us look.
pub(crate) async fn quorum(nodes: &str) -> Result<Arc<dyn LockBackend>, Error> {
    let quorum = quorum_part(nodes).await?;
    quorum.inspect(&LockKey::new("leaselock.quorum")?).await?;
    Ok(quorum)
}

/// The quorum alone, which need not be reached yet: each host with all else that the URL says.
pub(crate) async fn quorum_part(nodes: &str) -> Result<Arc<dyn LockBackend>, Error> {
    let (nodes, max_ttl) = max_ttl(nodes)?;
    let mut opening = tokio::task::JoinSet::new();
    let urls = hosts(&nodes)?;
    for (index, (_, url)) in urls.iter().enumerate() {
        let url = url.clone();
        opening.spawn(async move { (index, part(&url).await) });
    }
    let mut stores: Vec<_> = urls.iter().map(|_| None).collect();
    while let Some(opened) = opening.join_next().await {
        let opened = opened.map_err(lockcore::BackendError::unavailable)?;
        if let Some(store) = stores.get_mut(opened.0) {
            *store = Some(opened.1?);
        }
    }
    let mut builder = Quorum::builder();
    if let Some(max_ttl) = max_ttl {
        builder = builder.max_ttl(max_ttl);
    }
    for ((host, _), store) in urls.into_iter().zip(stores) {
        if let Some(store) = store {
            builder = builder.node(host, store);
        }
    }
    Ok(Arc::new(builder.build()?))
}

/// The parameter of a URL that is the quorum's own, and the URL without it.
fn max_ttl(url: &str) -> Result<(String, Option<Duration>), InvalidInput> {
    let Some((before, query)) = url.split_once('?') else { return Ok((url.to_owned(), None)) };
    let is_ours = |pair: &&str| pair.split('=').next() == Some("max_ttl_seconds");
    let (ours, rest): (Vec<_>, Vec<_>) = query.split('&').partition(is_ours);
    let value = match ours[..] {
        [] => return Ok((url.to_owned(), None)),
        [one] => one.split_once('=').and_then(|(_, value)| value.parse().ok()),
        _ => None,
    };
    let seconds = value
        .ok_or_else(|| InvalidInput::new("max_ttl_seconds of a quorum is a number, given once"))?;
    let mark = if rest.is_empty() { "" } else { "?" };
    Ok((format!("{before}{mark}{}", rest.join("&")), Some(Duration::from_secs(seconds))))
}

/// The hosts of a URL, each with a URL of its own.
fn hosts(url: &str) -> Result<Vec<(String, String)>, InvalidInput> {
    let wrong = || InvalidInput::new("a quorum is `quorum+SCHEME://HOST,HOST,HOST/…`");
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // The beginning of a password that ends too early would pass for a host, and is shown.
    if path.contains('@') {
        return Err(InvalidInput::new(
            "a `/`, `?` or `#` in a user or password of a URL needs a percent-escape",
        ));
    }
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    if user.trim_end_matches('@').contains('@') {
        return Err(InvalidInput::new(
            "the stores of a quorum's URL have one user and password, before the first host: an \
             `@` in those needs a percent-escape",
        ));
    }
    if hosts.split(',').any(str::is_empty) {
        return Err(wrong());
    }
    // Before anything is sent to what may be one host of a URL that was meant otherwise.
    if hosts.split(',').count() < 3 {
        return Err(InvalidInput::new(
            "a quorum needs three stores or more: `quorum+SCHEME://HOST,HOST,HOST/…`",
        ));
    }
    let each = |host: &str| (host.to_owned(), format!("{scheme}://{user}{host}{path}"));
    Ok(hosts.split(',').map(each).collect())
}

/// A switch with the parameters of a URL.
pub(crate) async fn switchover(query: &str) -> Result<Switchover, Error> {
    let given = Given::parse(query)?;
    let (old, new) = tokio::join!(part(&given.old), part(&given.new));
    let mut builder = Switchover::builder(old?, new?, given.phase);
    builder = builder.settings(format!("{} to {}", shown(&given.old), shown(&given.new)));
    if given.gone {
        builder = builder.gone();
    }
    if given.alone {
        builder = builder.assume_alone();
    }
    if let Some(floor) = given.floor {
        builder = builder.floor(floor);
    }
    if let Some(max_ttl) = given.max_ttl {
        builder = builder.max_ttl(max_ttl);
    }
    if let Some(label) = given.label {
        builder = builder.label(label);
    }
    builder.start().await
}

/// The parameters of a switch.
struct Given {
    old: String,
    new: String,
    phase: Phase,
    floor: Option<u64>,
    max_ttl: Option<Duration>,
    label: Option<String>,
    /// The other store is gone.
    gone: bool,
    /// No process without a switch runs.
    alone: bool,
}

impl Given {
    /// No text of an error repeats a value: it may hold a password.
    fn parse(query: &str) -> Result<Self, InvalidInput> {
        let (mut old, mut new, mut phase) = (None, None, None);
        let (mut floor, mut max_ttl, mut label) = (None, None, None);
        let (mut gone, mut alone) = (None, None);
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                wrong("each of its parameters is a name and a value, with `=` between them")
            })?;
            let value = decoded(value)?;
            let number = || value.parse().map_err(|_| wrong(&format!("{name} is a number")));
            let twice = match name {
                "old" => old.replace(value).is_some(),
                "new" => new.replace(value).is_some(),
                "phase" => {
                    let known = value.parse().map_err(|_| wrong("phase is `old`, `both` or `new`"));
                    phase.replace(known?).is_some()
                }
                "floor" => floor.replace(number()?).is_some(),
                "label" => label.replace(value).is_some(),
                "gone" if value == "yes" => gone.replace(()).is_some(),
                "assume" if value == "alone" => alone.replace(()).is_some(),
                "max_ttl_seconds" => max_ttl.replace(Duration::from_secs(number()?)).is_some(),
                _ => {
                    return Err(wrong(
                        "its parameters are old, new, phase, floor, label, max_ttl_seconds, \
                         gone=yes and assume=alone: an `&` in a URL needs a percent-escape",
                    ));
                }
            };
            if twice {
                return Err(wrong(&format!("{name} is given twice")));
            }
        }
        let (Some(old), Some(new), Some(phase)) = (old, new, phase) else {
            return Err(wrong("old, new and phase are needed"));
        };
        let (gone, alone) = (gone.is_some(), alone.is_some());
        Ok(Self { old, new, phase, floor, max_ttl, label, gone, alone })
    }
}

/// What names the store in a URL, without the user and all that may be secret.
fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}:{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host))
}

fn wrong(what: &str) -> InvalidInput {
    InvalidInput::new(format!("the switch's URL is not usable: {what}"))
}

/// Text with its percent-escapes undone.
fn decoded(text: &str) -> Result<String, InvalidInput> {
    let bad = || wrong("a `%` is followed by two hexadecimal digits, and the whole is UTF-8");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let escaped = digit().zip(digit()).map(|(high, low)| high * 16 + low);
                escaped.and_then(|byte| u8::try_from(byte).ok()).ok_or_else(bad)?
            }
            plain => plain,
        });
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_get_urls_of_their_own() {
        let urls = hosts("redis://:secret@a,b:7,[::1]:9/3?protocol=resp2").expect("valid");
        let expected = [
            ("a", "redis://:secret@a/3?protocol=resp2"),
            ("b:7", "redis://:secret@b:7/3?protocol=resp2"),
            ("[::1]:9", "redis://:secret@[::1]:9/3?protocol=resp2"),
        ];
        let urls: Vec<_> = urls.iter().map(|(host, url)| (host.as_str(), url.as_str())).collect();
        assert_eq!(urls, expected);
        for wrong in [
            "redis:a,b,c",
            "redis://",
            "redis://a,b",
            "redis://a,,b",
            "redis://a,b,",
            "redis://:sec/ret@a,b,c",
            "redis://:secret@a,:secret@b,:secret@c",
        ] {
            let error = hosts(wrong).expect_err(wrong).to_string();
            assert!(!error.contains("sec"), "{error}");
        }
    }

    #[test]
    fn a_quorum_has_a_parameter_of_its_own() {
        for (url, rest, seconds) in [
            ("redis://a,b,c/0", "redis://a,b,c/0", None),
            ("redis://a,b,c?protocol=resp2", "redis://a,b,c?protocol=resp2", None),
            ("redis://a,b,c?max_ttl_seconds=7", "redis://a,b,c", Some(7)),
            ("redis://a,b,c?x=1&max_ttl_seconds=7&y=2", "redis://a,b,c?x=1&y=2", Some(7)),
        ] {
            let expected = (rest.to_owned(), seconds.map(Duration::from_secs));
            assert_eq!(max_ttl(url), Ok(expected), "{url}");
        }
        for wrong in
            ["max_ttl_seconds", "max_ttl_seconds=secret", "max_ttl_seconds=1&max_ttl_seconds=1"]
        {
            let error = max_ttl(&format!("redis://a,b,c?{wrong}")).expect_err(wrong).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn switches_are_read() {
        let query = "old=redis%3A%2F%2Fh%3Fa%26b&new=memory://n&phase=both&floor=7&\
                     max_ttl_seconds=5&label=web%201&gone=yes&assume=alone";
        let given = Given::parse(query).expect("valid");
        assert_eq!((given.old.as_str(), given.new.as_str()), ("redis://h?a&b", "memory://n"));
        assert_eq!((given.phase, given.floor), (Phase::Both, Some(7)));
        assert_eq!(given.max_ttl, Some(Duration::from_secs(5)));
        assert_eq!(given.label.as_deref(), Some("web 1"));
        assert!(given.gone && given.alone);
        for (url, name) in [
            ("redis://me:secret@h:1/2?password=secret", "redis:h:1/2"),
            ("postgres://h/d", "postgres://h/d"),
            ("memory:", "memory:"),
        ] {
            assert_eq!(shown(url), name);
        }
        for wrong in [
            "",
            "old=a&new=b",
            "old=a&phase=both",
            "old=a&new=b&phase=secret",
            "old=a&new=b&phase=both&floor=secret",
            "old=a&new=b&phase=both&secret=1",
            "old=a&new=b&phase=both&gone=secret",
            "old=a&new=b&phase=both&gone=yes&gone=yes",
            "old=a&new=b&phase=both&secret",
            "old=a&old=secret&new=b&phase=both",
            "old=%secret&new=b&phase=both",
            "old=%ff&new=b&phase=both",
        ] {
            let error = Given::parse(wrong).err().expect(wrong).to_string();
            assert!(!error.contains("secret"), "{wrong}: {error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_switch_between_memory_stores_is_opened() -> Result<(), Error> {
        let url = |phase: &str| {
            format!("switchover:?old=memory://combined-old&new=memory://combined-new&phase={phase}")
        };
        let switch = crate::switchover(&url("both")).await?;
        let both = crate::LockManager::new(switch.clone());
        let _held = both.lock("k")?.acquire().await?;
        assert_eq!(switch.status().await?.held().count(), 1);
        let new = crate::connect(&url("new")).await?;
        assert!(new.lock("k")?.try_acquire().await?.is_none());
        let error = crate::connect(&url("old")).await.expect_err("somebody is in the new phase");
        assert_eq!(error.kind(), lockcore::ErrorKind::Rejected);
        let error = crate::switchover("memory:").await.expect_err("no switch");
        assert_eq!(error.kind(), lockcore::ErrorKind::InvalidInput);
        Ok(())
    }
}
