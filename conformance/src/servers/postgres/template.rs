//! Data folders for new servers.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use lockcore::BoxError;
use tokio::process::Command;
use tokio::sync::OnceCell;

use super::options::{DATA, USER, login};
use crate::servers::local::{self, Folder, Launch, Place, User};

/// The programs of one version of Postgres.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Programs(PathBuf);

impl Programs {
    /// Those on the search path, else the newest of those that Debian keeps side by side.
    pub(super) fn find() -> Option<Self> {
        let here =
            |folder: &PathBuf| folder.join("postgres").is_file() && folder.join("initdb").is_file();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut all: Vec<PathBuf> = std::env::split_paths(&path).filter(here).collect();
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let mut versions: Vec<_> = versions
            .filter_map(|entry| Some((version(&entry.path())?, entry.path().join("bin"))))
            .collect();
        versions.sort_by(|a, b| b.0.total_cmp(&a.0));
        all.extend(versions.into_iter().map(|(_, folder)| folder).filter(here));
        all.into_iter().next().map(Self)
    }

    pub(super) fn get(&self, program: &str) -> PathBuf {
        self.0.join(program)
    }
}

/// The client, which may be elsewhere.
pub(super) fn psql() -> Option<PathBuf> {
    let beside = Programs::find().map(|programs| programs.get("psql"));
    beside.filter(|file| file.is_file()).or_else(|| local::find(&["psql"]))
}

/// Of a folder's name: `9.6`, `15`.
fn version(folder: &Path) -> Option<f64> {
    folder.file_name()?.to_str()?.parse().ok()
}

/// Who runs Postgres where this process is root's.
pub(in super::super) fn user() -> Result<Option<User>, BoxError> {
    Ok(User::unless_ordinary(&["postgres", "nobody"])?)
}

/// Makes a data folder below `folder`: a copy of one that initdb has made, which takes longer.
pub(super) async fn fill(folder: &Folder, programs: &Programs) -> Result<(), BoxError> {
    static TEMPLATE: OnceCell<Folder> = OnceCell::const_new();
    let template = TEMPLATE.get_or_try_init(|| initialize(programs)).await?;
    // By the user, to whom all is to belong.
    let from = template.path().join(DATA);
    run(Path::new("cp"), &["-R", "-p"], &[&from, &folder.path().join(DATA)]).await
}

async fn initialize(programs: &Programs) -> Result<Folder, BoxError> {
    let login = login();
    let files = vec![("password".to_owned(), login.password.into_bytes())];
    let folder = Folder::new("initdb", Place::Disk, user()?)?.with(&files)?;
    let password = folder.path().join("password");
    let args = [
        "--no-sync",
        "--no-locale",
        "--encoding=UTF8",
        // Small files, as they are copied.
        "--wal-segsize=1",
        "--auth=scram-sha-256",
        "--username",
        USER,
        "--pwfile",
    ];
    let data = folder.path().join(DATA);
    run(&programs.get("initdb"), &args, &[&password, Path::new("-D"), &data]).await?;
    Ok(folder)
}

/// Runs a program, as the user who runs Postgres, to its success.
async fn run(program: &Path, args: &[&str], more: &[&Path]) -> Result<(), BoxError> {
    let launch = Launch { program: program.to_owned(), user: user()?, ..Launch::default() };
    let mut command = Command::from(launch.command());
    // A folder that all may enter: initdb looks at the one where it starts.
    command.args(args).args(more).current_dir("/").kill_on_drop(true);
    let output = command.stdin(Stdio::null()).output().await;
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {}: {}", program.display(), output.status, errors.trim()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(version(Path::new("/x/15")) > version(Path::new("/x/9.6")));
        assert_eq!(version(Path::new("/x/common")), None);
    }
}
