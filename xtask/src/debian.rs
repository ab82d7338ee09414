//! Installing Debian packages.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;

use crate::Result;
use crate::processes::{find, shown, succeeds};

pub(crate) const LISTS: &str = "/var/lib/apt/lists";
const CLUSTER: &str = "/etc/postgresql-common/createcluster.conf";
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Whether this is Debian, or made from it.
pub(crate) fn is_here() -> bool {
    find(&["apt-get"]).is_some() && find(&["dpkg-deb"]).is_some()
}

/// Installs packages; needs root. Services in them are not started now.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let _policy = NoServices::new()?;
    // Else it would make a database cluster for everybody, which starts with the machine.
    let cluster = packages.contains(&"postgresql");
    let _no_cluster = if cluster {
        install_now(&["postgresql-common"])?;
        Some(NoCluster::new()?)
    } else {
        None
    };
    install_now(packages)
}

fn install_now(packages: &[&str]) -> Result<()> {
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

/// The name of the release, such as `bookworm`.
pub(crate) fn release() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release")?;
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned());
    Ok(name.filter(|name| !name.is_empty()).unwrap_or_else(|| "debian".to_owned()))
}

pub(crate) fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

pub(crate) fn run(command: &mut Command) -> Result<()> {
    if succeeds(command)? { Ok(()) } else { Err(format!("failed: {}", shown(command)).into()) }
}

/// Whether apt knows of any packages.
pub(crate) fn has_lists(folder: &Path) -> bool {
    let Ok(files) = fs::read_dir(folder) else {
        return false;
    };
    files.flatten().any(|file| file.file_name().to_string_lossy().contains("_Packages"))
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

/// Keeps Postgres from making a cluster when it is installed. The file is as before afterwards.
struct NoCluster {
    before: Vec<u8>,
}

impl NoCluster {
    fn new() -> Result<Self> {
        let before = fs::read(CLUSTER).map_err(|error| format!("{CLUSTER}: {error}"))?;
        let mut with = before.clone();
        with.extend_from_slice(b"\ncreate_main_cluster = false\n");
        fs::write(CLUSTER, with)?;
        Ok(Self { before })
    }
}

impl Drop for NoCluster {
    fn drop(&mut self) {
        let _ = fs::write(CLUSTER, &self.before);
    }
}
