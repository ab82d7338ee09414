//! The test programs of the workspace: building them, and running them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Result;
use crate::processes::{cargo, find, shown};
use crate::workspace::scratch;

/// No program takes longer, whatever breaks.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// A test program that cargo has built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) package: String,
    /// Of the test; of the package where these are the tests inside its library.
    pub(crate) name: String,
    executable: PathBuf,
    /// The package's, where it runs.
    folder: PathBuf,
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) succeeded: bool,
    /// Standard output and standard error, in the order in which they were written.
    pub(crate) output: String,
    pub(crate) took: Duration,
}

/// Builds tests with these arguments of `cargo test`, and finds their programs.
pub(crate) fn build<A: AsRef<OsStr>>(args: &[A]) -> Result<Vec<Program>> {
    let mut build = cargo()?;
    build.arg("test").args(args);
    build.args(["--no-run", "--message-format", "json-render-diagnostics"]);
    println!("{}", shown(&build));
    let output = build.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err("the tests cannot be built".into());
    }
    Ok(String::from_utf8(output.stdout)?.lines().filter_map(Program::read).collect())
}

impl Program {
    /// From what cargo says when it has built something.
    fn read(line: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(line).ok()?;
        // Programs that tests run are built as well.
        if line["profile"]["test"] != true {
            return None;
        }
        let text = |value: &Value| Some(value.as_str()?.to_owned());
        // `path+file:///…/FOLDER#NAME@VERSION`, or without `NAME@` where the folder has that name.
        let id = text(&line["package_id"])?;
        let (folder, name) = id.rsplit_once('#')?;
        let package = match name.split_once('@') {
            Some((name, _)) => name,
            None => folder.rsplit_once('/')?.1,
        };
        Some(Self {
            package: package.to_owned(),
            name: text(&line["target"]["name"])?,
            executable: text(&line["executable"])?.into(),
            folder: PathBuf::from(text(&line["manifest_path"])?).parent()?.to_owned(),
        })
    }

    /// Runs it with these arguments and this environment.
    pub(crate) fn run(
        &self,
        args: &[String],
        variables: &[(String, String)],
        nice: bool,
    ) -> Result<Ended> {
        let mut command = niced(&self.executable, nice);
        command.args(args).current_dir(&self.folder);
        command.env("CARGO_MANIFEST_DIR", &self.folder);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        run(command, &format!("{}-{}", self.package, self.name))
    }
}

/// A command that leaves the processors to others, if it is to.
pub(crate) fn niced(program: impl AsRef<OsStr>, nice: bool) -> Command {
    if !nice || find(&["nice"]).is_none() {
        return Command::new(program);
    }
    let mut command = Command::new("nice");
    command.arg("-n19").arg(program);
    command
}

/// Runs a command to its end, or to the limit. What it writes goes to a file first: a pipe that is
/// full would stop it, and one that its children keep open would never end.
pub(crate) fn run(mut command: Command, name: &str) -> Result<Ended> {
    let file = log(name)?;
    let log = fs::File::create(&file)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let start = Instant::now();
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", shown(&command)))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if start.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            break None;
        }
        sleep(Duration::from_millis(20));
    };
    let mut output = String::from_utf8_lossy(&fs::read(&file)?).into_owned();
    if status.is_none() {
        output += &format!("\n---- {name} ----\nit was ended: it took longer than {LIMIT:?}\n");
    }
    let succeeded = status.is_some_and(|status| status.success());
    Ok(Ended { succeeded, output, took: start.elapsed() })
}

fn log(name: &str) -> Result<PathBuf> {
    let folder = scratch()?.join("logs");
    fs::create_dir_all(&folder)?;
    Ok(Path::new(&folder).join(format!("{name}.log")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_found_in_what_cargo_says() {
        let line = r#"{"reason":"compiler-artifact","package_id":"path+file:///w/b#lockcore-x@0.1.0",
            "manifest_path":"/w/b/Cargo.toml","target":{"kind":["test"],"name":"conformance"},
            "profile":{"test":true},"executable":"/t/conformance-1"}"#;
        let program = Program::read(line).unwrap();
        assert_eq!((&*program.package, &*program.name), ("lockcore-x", "conformance"));
        assert_eq!(program.folder, PathBuf::from("/w/b"));
        let same = Program::read(&line.replace("b#lockcore-x@", "lockcore-x#")).unwrap();
        assert_eq!(same.package, "lockcore-x");
        assert_eq!(Program::read(&line.replace("\"/t/conformance-1\"", "null")), None);
        assert_eq!(Program::read(&line.replace("true", "false")), None);
    }

    #[test]
    fn a_command_runs_to_its_end() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let ended = run(command, "a-test-of-xtask").unwrap();
        assert_eq!((ended.succeeded, &*ended.output), (false, "out\nerr\n"));
        let ended = run(niced("true", true), "another-test-of-xtask").unwrap();
        assert!(ended.succeeded);
    }
}
