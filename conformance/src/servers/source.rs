//! The choice of where a server comes from.

use std::env;
use std::future::Future;

use lockcore::BoxError;

/// Chooses where servers come from, see the [module](super).
const SOURCE: &str = "LOCKCORE_TEST_SOURCE";

/// A kind of server, and the ways to one.
pub(super) trait Start: Sized {
    /// The store's name, for errors.
    const NAME: &str;
    /// The environment variable with the address of a running server.
    const URL: &str;
    /// What to install for a program, as the end of a sentence.
    const INSTALL: &str;

    type Options: Sync;

    /// Whether a server that was started by others will do.
    fn anyones(options: &Self::Options) -> bool;

    /// A server that somebody else has started.
    fn at(url: &str) -> impl Future<Output = Result<Self, BoxError>> + Send;

    /// A container. An outer error: there are none here. An inner one: the server did not come
    /// up.
    fn container(
        options: &Self::Options,
    ) -> impl Future<Output = Result<Result<Self, BoxError>, BoxError>> + Send;

    /// A program on this machine; `None` if it is not there.
    fn local(
        options: &Self::Options,
    ) -> impl Future<Output = Result<Option<Self>, BoxError>> + Send;
}

/// Starts a server from the source that the environment chooses.
pub(super) async fn start<S: Start>(options: &S::Options) -> Result<S, BoxError> {
    let (name, variable, install) = (S::NAME, S::URL, S::INSTALL);
    let url = env::var(variable).ok().filter(|url| !url.is_empty());
    match Source::from_env()? {
        Source::Url => match url {
            None => Err(format!("{SOURCE}=url, but {variable} is not set").into()),
            Some(_) if !S::anyones(options) => Err(format!(
                "this test needs a server of its own options, which {SOURCE}=url forbids"
            )
            .into()),
            Some(url) => S::at(&url).await,
        },
        Source::Local => match S::local(options).await? {
            Some(server) => Ok(server),
            None => Err(format!("no program of {name} on this machine: {install}").into()),
        },
        Source::Container => S::container(options).await?,
        Source::Auto => match url {
            Some(url) if S::anyones(options) => S::at(&url).await,
            _ => auto::<S>(options).await,
        },
    }
}

/// The first of: a program, a container.
async fn auto<S: Start>(options: &S::Options) -> Result<S, BoxError> {
    if let Some(server) = S::local(options).await? {
        return Ok(server);
    }
    let error = match S::container(options).await {
        Ok(result) => return result,
        Err(error) => error,
    };
    let (name, variable, install) = (S::NAME, S::URL, S::INSTALL);
    Err(format!(
        "no {name} server for the tests. One of these gives one: {install}, start a Docker engine, \
         or set {variable} to the address of a running server. No container because: {error}"
    )
    .into())
}

/// Where servers are to come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Auto,
    Url,
    Container,
    Local,
}

impl Source {
    pub(super) fn from_env() -> Result<Self, BoxError> {
        match env::var(SOURCE) {
            Ok(name) => Self::from_name(&name),
            Err(env::VarError::NotPresent) => Ok(Self::Auto),
            Err(error) => Err(format!("{SOURCE}: {error}").into()),
        }
    }

    fn from_name(name: &str) -> Result<Self, BoxError> {
        match name {
            "" | "auto" => Ok(Self::Auto),
            "url" => Ok(Self::Url),
            "container" => Ok(Self::Container),
            "local" => Ok(Self::Local),
            other => {
                Err(format!("{SOURCE}={other}: expected auto, url, container or local").into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_have_names() {
        assert_eq!(Source::from_name("").unwrap(), Source::Auto);
        assert_eq!(Source::from_name("local").unwrap(), Source::Local);
        let error = Source::from_name("docker").unwrap_err().to_string();
        assert!(error.contains("docker") && error.contains("container"), "{error}");
    }
}
