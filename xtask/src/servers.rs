//! Finding, making and installing what the tests need.

use std::env;

use std::path::{Path, PathBuf};

use crate::engine::Engine;
use crate::processes::{find, output};
use crate::stores::{C, PGBOUNCER_PROGRAMS, PROTOC, Programs, STORES, Store};
use crate::{Result, debian, image};

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
    let has_address = |store: &Store| env::var_os(store.url).is_some();
    let addresses = STORES.iter().any(has_address);
    let mut plan = match source {
        Source::Url if !STORES.iter().all(has_address) => {
            let missing = STORES.iter().filter(|store| !has_address(store));
            let missing: Vec<_> = missing.map(|store| store.url).collect();
            return Err(format!("--source url needs {}", missing.join(", ")).into());
        }
        Source::Url => Plan::default(),
        Source::Local => local(install)?,
        Source::Container => match Engine::find() {
            Some(engine) => containers(engine)?,
            None => return Err("no Docker engine answers: start one, or set DOCKER_HOST".into()),
        },
        Source::Auto => match (local(install), Engine::find()) {
            (Ok(plan), _) => plan,
            (Err(missing), Some(engine)) => {
                println!("{missing}\nUsing containers.");
                containers(engine)?
            }
            (Err(missing), None) => return Err(missing),
        },
    };
    for (name, programs) in &PGBOUNCER_PROGRAMS {
        need(name, programs, install)?;
    }
    // The tests' own order puts a running server first.
    let source = match (source, &plan.engine) {
        (Source::Auto, _) if addresses => Source::Auto,
        (Source::Auto, Some(_)) => Source::Container,
        (Source::Auto, None) => Source::Local,
        (chosen, _) => chosen,
    };
    plan.set("LOCKCORE_TEST_SOURCE", source.name());
    Ok(plan)
}

/// What the tests on all versions need: an engine, and what building and the tests themselves do.
pub(crate) fn prepare_matrix() -> Result<Engine> {
    if !debian::is_here() {
        return Err("the servers come from Debian's packages: run this on Debian".into());
    }
    need("a C compiler", &C, true)?;
    need_protoc(true)?;
    for (name, programs) in &PGBOUNCER_PROGRAMS {
        need(name, programs, true)?;
    }
    Engine::find().ok_or_else(|| "no Docker engine answers: start one, or set DOCKER_HOST".into())
}

/// What the bench needs: programs of all stores on this machine.
pub(crate) fn prepare_bench() -> Result<()> {
    need("a C compiler", &C, true)?;
    need_protoc(true)?;
    local(true).map(drop)
}

impl Plan {
    pub(crate) fn set(&mut self, variable: &str, value: &str) {
        self.variables.push((variable.to_owned(), value.to_owned()));
    }
}

fn containers(engine: Engine) -> Result<Plan> {
    let mut plan = Plan::default();
    for store in &STORES {
        let image = image::obtain(engine, store)?;
        println!("{}: containers of the image {image}", store.names[0]);
        plan.set(store.image_variable, &image);
    }
    plan.engine = Some(engine);
    Ok(plan)
}

fn local(install: bool) -> Result<Plan> {
    for store in &STORES {
        need(store.names[0], &store.programs, install)?;
    }
    Ok(Plan::default())
}

/// What the tests are built with, beside Rust.
pub(crate) fn need_compilers(install: bool) -> Result<()> {
    need("a C compiler", &C, install)?;
    need_protoc(install)
}

/// What the client of etcd is built with.
pub(crate) fn need_protoc(install: bool) -> Result<()> {
    if env::var_os("PROTOC").is_some_and(|protoc| Path::new(&protoc).is_file()) {
        return Ok(());
    }
    need("protoc, for building etcd's client", &PROTOC, install)
}

/// Makes sure that one of the programs is there, by installing packages where that is possible.
fn need(what: &str, programs: &Programs, install: bool) -> Result<()> {
    if found(programs) {
        return Ok(());
    }
    let command = format!("apt-get install {}", programs.packages.join(" "));
    let missing = format!("{what}: no {} on this machine", programs.names.join(" or "));
    if !debian::is_here() {
        return Err(format!("{missing}. Install it.").into());
    }
    if !install || !is_root() {
        return Err(format!("{missing}. As root: apt-get update && {command}").into());
    }
    println!("{missing}; installing: {command}");
    debian::install(programs.packages)?;
    if found(programs) { Ok(()) } else { Err(format!("{missing}, even after {command}").into()) }
}

fn found(programs: &Programs) -> bool {
    let folders = programs.folders.iter().flat_map(|folder| expand(folder));
    let in_folders =
        |folder: PathBuf| programs.names.iter().any(|program| folder.join(program).is_file());
    find(programs.names).is_some() || folders.into_iter().any(in_folders)
}

/// The folders that a path means, in which `*` is any folder.
fn expand(path: &str) -> Vec<PathBuf> {
    let Some((before, after)) = path.split_once("/*/") else {
        return vec![PathBuf::from(path)];
    };
    let entries = std::fs::read_dir(before).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().join(after)).collect()
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
        let packages = &["no-such-package"];
        let shell = Programs { names: &["no-such-program", "sh"], folders: &[], packages };
        need("a shell", &shell, false).unwrap();
        let inside = Programs { names: &["Cargo.toml"], folders: &["../*/"], packages };
        need("a manifest", &inside, false).unwrap();
        let missing = Programs { names: &["no-such-program"], folders: &["/usr/*/bin"], packages };
        let error = need("x", &missing, false).unwrap_err();
        assert!(error.to_string().contains("no-such-program"), "{error}");
    }
}
