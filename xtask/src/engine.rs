//! A Docker engine, through the program `docker`.

use std::path::Path;
use std::process::Command;

use crate::Result;
use crate::processes::{find, output};

/// An engine that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Engine(());

impl Engine {
    /// Finds the engine that `docker` talks to, as `DOCKER_HOST` and its contexts say.
    pub(crate) fn find() -> Option<Self> {
        find(&["docker"])?;
        docker(&["version", "--format", "{{.Server.Version}}"]).ok()?;
        Some(Self(()))
    }

    /// Whether an image is present.
    pub(crate) fn has_image(self, image: &str) -> bool {
        docker(&["image", "inspect", image]).is_ok()
    }

    /// The images with this name and label that are present, and what another label of theirs
    /// says.
    pub(crate) fn images(
        self,
        name: &str,
        label: &str,
        says: &str,
    ) -> Result<Vec<(String, String)>> {
        let filter = format!("label={label}");
        let list = ["image", "ls", "--filter", &filter, "--format", "{{.Repository}}:{{.Tag}}"];
        let images = docker(&[&list[..], &[name]].concat())?;
        let what = format!("{{{{index .Config.Labels {says:?}}}}}");
        let labelled = images.lines().map(|image| {
            let said = docker(&["image", "inspect", "--format", &what, image])?;
            Ok((image.to_owned(), said.trim().to_owned()))
        });
        labelled.collect()
    }

    /// Has the engine fetch an image from its registry.
    pub(crate) fn pull(self, image: &str) -> Result<()> {
        docker(&["pull", "--quiet", image]).map(drop)
    }

    /// Makes an image of one layer from a tar archive; `changes` are lines of a Dockerfile.
    pub(crate) fn import(self, tar: &Path, image: &str, changes: &[&str]) -> Result<()> {
        let tar = tar.to_string_lossy();
        let mut args = vec!["import"];
        args.extend(changes.iter().flat_map(|change| ["--change", change]));
        args.extend([&*tar, image]);
        docker(&args).map(drop)
    }

    /// Removes all containers with this label, running or not, and returns how many there were.
    pub(crate) fn remove_containers(self, label: &str) -> Result<usize> {
        let filter = format!("label={label}");
        let ids = docker(&["ps", "--all", "--quiet", "--filter", &filter])?;
        let ids: Vec<_> = ids.lines().collect();
        if !ids.is_empty() {
            docker(&[&["rm", "--force", "--volumes"], &ids[..]].concat())?;
        }
        Ok(ids.len())
    }
}

fn docker(args: &[&str]) -> Result<String> {
    output(Command::new("docker").args(args))
}
