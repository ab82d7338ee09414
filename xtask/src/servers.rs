//! Finding, making and installing the servers that the tests start.

use std::env;

use crate::engine::Engine;
use crate::processes::{find, output};
use crate::{Result, debian, image};

/// A store that the tests run on.
#[derive(Debug)]
pub(crate) struct Store {
    /// What conformance reports begin with, the store's own name first.
    pub(crate) names: &'static [&'static str],
    /// The server's program, any of these.
    programs: &'static [&'static str],
    /// The Debian package that has the program.
    pub(crate) package: &'static str,
    /// The environment variable with the address of a running server.
    url: &'static str,
    /// The environment variable with the image to use.
    pub(crate) image_variable: &'static str,
    /// The image in the registry, and its tag.
    pub(crate) image: (&'static str, &'static str),
    /// The image that is made from the Debian package.
    pub(crate) own_image: &'static str,
}

pub(crate) const STORES: [Store; 1] = [Store {
    names: &["Redis", "Valkey"],
    programs: &["redis-server", "valkey-server"],
    package: "redis-server",
    url: "LOCKCORE_TEST_REDIS_URL",
    image_variable: "LOCKCORE_TEST_REDIS_IMAGE",
    image: ("redis", "8"),
    own_image: "leaselock-test-redis",
}];

/// Where servers are to come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Auto,
    Container,
    Local,
    Url,
}

impl Source {
    pub(crate) fn from_name(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "container" => Ok(Self::Container),
            "local" => Ok(Self::Local),
            "url" => Ok(Self::Url),
            _ => Err(format!("{name}: expected auto, container, local or url").into()),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Container => "container",
            Self::Local => "local",
            Self::Url => "url",
        }
    }
}

/// How the tests get their servers.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// The tests' environment.
    pub(crate) variables: Vec<(String, String)>,
    /// The engine that runs the servers.
    pub(crate) engine: Option<Engine>,
}

/// Sets up what the tests need, and says what it does.
///
/// # Errors
///
/// What is missing, and exactly how to get it.
pub(crate) fn prepare(source: Source, install: bool) -> Result<Plan> {
    need("cc", &["cc"], &["gcc", "libc6-dev"], install)?;
    let addresses = STORES.iter().all(|store| env::var_os(store.url).is_some());
    let mut plan = match source {
        Source::Url if !addresses => {
            let missing: Vec<_> = STORES.iter().map(|store| store.url).collect();
            return Err(format!("--source url needs {}", missing.join(", ")).into());
        }
        Source::Url => Plan::default(),
        Source::Local => local(install)?,
        Source::Container => match Engine::find() {
            Some(engine) => containers(engine)?,
            None => return Err("no Docker engine answers: start one, or set DOCKER_HOST".into()),
        },
        Source::Auto => match Engine::find().map(containers) {
            Some(Ok(plan)) => plan,
            Some(Err(error)) => {
                println!("a Docker engine answers, but cannot be used: {error}");
                local(install)?
            }
            None => {
                println!("no Docker engine answers: using programs on this machine");
                local(install)?
            }
        },
    };
    // The tests' own order puts a running server first. Tests that need a server with options of
    // its own still come to what has been set up here.
    let source = match (source, &plan.engine) {
        (Source::Auto, _) if addresses => Source::Auto,
        (Source::Auto, Some(_)) => Source::Container,
        (Source::Auto, None) => Source::Local,
        (chosen, _) => chosen,
    };
    plan.set("LOCKCORE_TEST_SOURCE", source.name());
    Ok(plan)
}

impl Plan {
    pub(crate) fn set(&mut self, variable: &str, value: &str) {
        self.variables.push((variable.to_owned(), value.to_owned()));
    }
}

fn containers(engine: Engine) -> Result<Plan> {
    let mut plan = Plan::default();
    plan.set("DOCKER_HOST", &engine.address());
    for store in &STORES {
        let image = image::obtain(&engine, store)?;
        println!("{}: containers of the image {image}", store.names[0]);
        plan.set(store.image_variable, &image);
    }
    plan.engine = Some(engine);
    Ok(plan)
}

fn local(install: bool) -> Result<Plan> {
    for store in &STORES {
        need(store.names[0], store.programs, &[store.package], install)?;
    }
    Ok(Plan::default())
}

/// Makes sure that one of the programs is there, by installing packages where that is possible.
fn need(what: &str, programs: &[&str], packages: &[&str], install: bool) -> Result<()> {
    if find(programs).is_some() {
        return Ok(());
    }
    let command = format!("apt-get install {}", packages.join(" "));
    let missing = format!("{what}: no {} on the PATH", programs.join(" or "));
    if !debian::is_here() {
        return Err(format!("{missing}. Install one, or start a Docker engine.").into());
    }
    if !install || !is_root() {
        return Err(format!("{missing}. As root: apt-get update && {command}").into());
    }
    println!("{missing}; installing: {command}");
    debian::install(packages)?;
    match find(programs) {
        Some(_) => Ok(()),
        None => Err(format!("{missing}, even after {command}").into()),
    }
}

fn is_root() -> bool {
    let mut id = std::process::Command::new("id");
    output(id.arg("-u")).is_ok_and(|id| id.trim() == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_have_names() {
        for source in [Source::Auto, Source::Container, Source::Local, Source::Url] {
            assert_eq!(Source::from_name(source.name()).unwrap(), source);
        }
        assert!(Source::from_name("docker").is_err());
    }

    #[test]
    fn what_is_there_is_not_installed() {
        need("a shell", &["no-such-program", "sh"], &["no-such-package"], false).unwrap();
        let error = need("x", &["no-such-program"], &["no-such-package"], false).unwrap_err();
        assert!(error.to_string().contains("no-such-program"), "{error}");
    }
}
