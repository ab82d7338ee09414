//! Debian packages, unpacked without installing them, from this machine's release or another.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::debian::{LISTS, apt_get, has_lists, release, run};
use crate::processes::output;
use crate::sources::Mirror;

/// Packages below a folder of their own.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) root: PathBuf,
    /// The package that all is about, its name and version.
    pub(crate) package: String,
    /// Its version, as its authors count.
    pub(crate) version: String,
}

/// Downloads packages of a release with everything that they depend on, as if nothing were
/// installed, and unpacks them below `folder`. Needs no root, and touches nothing outside of
/// `folder`. All is about the last package.
pub(crate) fn unpack(packages: &[&str], suite: &str, folder: &Path) -> Result<Unpacked> {
    let (archives, root) = (folder.join("archives"), folder.join("root"));
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(archives.join("partial"))?;
    fs::create_dir_all(&root)?;
    download(packages, suite, folder, &archives)?;

    let mut files: Vec<PathBuf> = fs::read_dir(&archives)?
        .map(|entry| Ok(entry?.path()))
        .filter(|path| path.as_ref().map_or(true, |path| is_package(path)))
        .collect::<io::Result<_>>()?;
    // First the links from /bin and the like, which newer releases have: other packages put
    // files through them.
    files.sort_by_key(|file| !is_of(file, "base-files"));
    for file in &files {
        run(Command::new("dpkg-deb").arg("--extract").arg(file).arg(&root))?;
    }
    let last = packages.last().ok_or("no packages")?;
    let last = files.iter().find(|file| is_version_of(file, last)).or_else(|| {
        // There may be none with a version in its name.
        files.iter().find(|file| is_of(file, last))
    });
    let last = last.ok_or("the package is not among those downloaded")?;
    let field = |name| output(Command::new("dpkg-deb").arg("--field").arg(last).arg(name));
    let (name, version) = (field("Package")?, field("Version")?);
    Ok(Unpacked {
        root,
        package: format!("{} {}", name.trim(), version.trim()),
        version: upstream(version.trim()).to_owned(),
    })
}

fn download(packages: &[&str], suite: &str, folder: &Path, archives: &Path) -> Result<()> {
    // Nothing is installed, so everything is needed.
    let status = folder.join("status");
    File::create(&status)?;
    let private = || -> Command {
        let mut command = apt_get();
        for (name, path) in [
            ("State::status", &status),
            ("Cache", &folder.into()),
            ("Cache::archives", &archives.into()),
        ] {
            command.arg("-o").arg(format!("Dir::{name}={}", path.display()));
        }
        // Without root there are no locks to be had, and nobody else to drop to.
        command.args(["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root"]);
        command
    };
    let get = |mut command: Command| {
        command.args(["install", "--yes", "--quiet=2", "--download-only"]);
        run(command.arg("--no-install-recommends").args(packages))
    };
    let here = suite == release()?;
    if here && has_lists(Path::new(LISTS)) && get(private()).is_ok() {
        return Ok(());
    }
    let (lists, sources) = (folder.join("lists"), folder.join("sources"));
    fs::create_dir_all(lists.join("partial"))?;
    fs::create_dir_all(&sources)?;
    if !here {
        let mirror = Mirror::of_this_machine()?;
        fs::write(sources.join("suite.sources"), mirror.source(suite))?;
    }
    let with_lists = || {
        let mut command = private();
        command.arg("-o").arg(format!("Dir::State::lists={}", lists.display()));
        if !here {
            command.args(["-o", "Dir::Etc::sourcelist=/dev/null"]);
            command.arg("-o").arg(format!("Dir::Etc::sourceparts={}", sources.display()));
            // What this machine prefers is about its own release.
            command.args(["-o", "Dir::Etc::preferences=/dev/null"]);
            command.args(["-o", "Dir::Etc::preferencesparts=/dev/null"]);
        }
        command
    };
    // An archive that is not signed by a key of this machine is an error, not a warning.
    let unsigned = ["-o", "Acquire::AllowInsecureRepositories=false"];
    let mut update = with_lists();
    update.args(unsigned).args(["update", "--quiet=2", "--error-on=any"]);
    run(&mut update).map_err(|error| {
        format!("{error}\nthe packages of {suite} cannot be had, or not be trusted")
    })?;
    get(with_lists())
}

fn is_package(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "deb")
}

/// Whether this is a file of the package: `NAME_VERSION_ARCHITECTURE.deb`.
fn is_of(file: &Path, package: &str) -> bool {
    name(file) == package
}

/// Whether this is a file of a package that is named after its version: `NAME-17`.
fn is_version_of(file: &Path, package: &str) -> bool {
    let version = name(file).strip_prefix(package).and_then(|rest| rest.strip_prefix('-'));
    version
        .is_some_and(|version| !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit()))
}

fn name(file: &Path) -> &str {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.split('_').next().unwrap_or_default()
}

/// The version without what Debian has added: `5:7.0.15-1~deb12u1` is `7.0.15`.
fn upstream(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    let version = version.rsplit_once('-').map_or(version, |(rest, _)| rest);
    version.split(['~', '+']).next().unwrap_or(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_authors() {
        assert_eq!(upstream("5:7.0.15-1~deb12u10"), "7.0.15");
        assert_eq!(upstream("8.1.1+dfsg1-3"), "8.1.1");
        assert_eq!(upstream("3.4.23"), "3.4.23");
    }

    #[test]
    fn packages_are_known_by_their_files() {
        let file = Path::new("/x/redis-server_5%3a7.0.15-1_amd64.deb");
        assert!(is_package(file) && is_of(file, "redis-server") && !is_of(file, "redis"));
        assert!(!is_package(Path::new("/x/lock")));
        let file = Path::new("/x/postgresql-17_17.11-0_amd64.deb");
        assert!(is_version_of(file, "postgresql") && !is_of(file, "postgresql"));
        assert!(!is_version_of(Path::new("/x/postgresql-common_1_all.deb"), "postgresql"));
    }
}
