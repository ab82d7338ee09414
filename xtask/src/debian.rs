//! Debian packages: installing them, and unpacking them without installing them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::processes::{find, output, shown, succeeds};

const LISTS: &str = "/var/lib/apt/lists";
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Whether this is Debian, or made from it.
pub(crate) fn is_here() -> bool {
    find(&["apt-get"]).is_some() && find(&["dpkg-deb"]).is_some()
}

/// Installs packages; needs root. Services in them are not started now.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let _policy = NoServices::new()?;
    let mut install = apt_get();
    install.args(["install", "--yes", "--no-install-recommends"]);
    install.args(packages);
    if !has_lists(Path::new(LISTS)) {
        run(apt_get().arg("update"))?;
        return run(&mut install);
    }
    // The lists may be older than what the archive still has.
    run(&mut install).or_else(|_| {
        run(apt_get().arg("update"))?;
        run(&mut install)
    })
}

/// Downloads packages with everything that they depend on, as if nothing were installed, and
/// unpacks them below `folder/root`. Needs no root, and touches nothing outside of `folder`.
/// Returns the version of the last package, as its authors count.
pub(crate) fn unpack(packages: &[&str], folder: &Path) -> Result<(PathBuf, String)> {
    let (archives, root) = (folder.join("archives"), folder.join("root"));
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(archives.join("partial"))?;
    fs::create_dir_all(&root)?;
    download(packages, folder, &archives)?;

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
    let last = files.iter().find(|file| is_of(file, last));
    let last = last.ok_or("the package is not among those downloaded")?;
    let version = output(Command::new("dpkg-deb").arg("--field").arg(last).arg("Version"))?;
    Ok((root, upstream(version.trim()).to_owned()))
}

/// The name of the release, such as `bookworm`.
pub(crate) fn release() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release")?;
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned());
    Ok(name.filter(|name| !name.is_empty()).unwrap_or_else(|| "debian".to_owned()))
}

fn download(packages: &[&str], folder: &Path, archives: &Path) -> Result<()> {
    // Nothing is installed, so everything is needed.
    let status = folder.join("status");
    File::create(&status)?;
    let lists = folder.join("lists");
    let with = |own_lists: bool| {
        let mut command = apt_get();
        let mut set = |name: &str, path: &Path| {
            command.arg("-o").arg(format!("{name}={}", path.display()));
        };
        set("Dir::State::status", &status);
        set("Dir::Cache", folder);
        set("Dir::Cache::archives", archives);
        if own_lists {
            set("Dir::State::lists", &lists);
        }
        // Without root there are no locks to be had, and nobody else to drop to.
        command.args(["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root"]);
        command
    };
    let get = |mut command: Command| {
        command.args(["install", "--yes", "--quiet=2", "--download-only"]);
        run(command.arg("--no-install-recommends").args(packages))
    };
    if has_lists(Path::new(LISTS)) && get(with(false)).is_ok() {
        return Ok(());
    }
    fs::create_dir_all(lists.join("partial"))?;
    run(with(true).args(["update", "--quiet=2"]))?;
    get(with(true))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn run(command: &mut Command) -> Result<()> {
    if succeeds(command)? { Ok(()) } else { Err(format!("failed: {}", shown(command)).into()) }
}

/// Whether apt knows of any packages.
fn has_lists(folder: &Path) -> bool {
    let Ok(files) = fs::read_dir(folder) else {
        return false;
    };
    files.flatten().any(|file| file.file_name().to_string_lossy().contains("_Packages"))
}

fn is_package(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "deb")
}

/// Whether this is a file of the package: `NAME_VERSION_ARCHITECTURE.deb`.
fn is_of(file: &Path, package: &str) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.split('_').next() == Some(package)
}

/// The version without what Debian has added: `5:7.0.15-1~deb12u1` is `7.0.15`.
fn upstream(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    let version = version.rsplit_once('-').map_or(version, |(rest, _)| rest);
    version.split(['~', '+']).next().unwrap_or(version)
}

/// Keeps packages from starting their services while they are installed.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn new() -> Result<Self> {
        match File::create_new(POLICY) {
            Ok(_) => {
                let this = Self { ours: true };
                fs::write(POLICY, "#!/bin/sh\nexit 101\n")?;
                run(Command::new("chmod").args(["755", POLICY]))?;
                Ok(this)
            }
            // The machine has a policy of its own.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Self { ours: false }),
            Err(error) => Err(format!("{POLICY}: {error}").into()),
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(POLICY);
        }
    }
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
    }
}
