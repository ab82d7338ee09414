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
