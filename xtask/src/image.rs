//! Container images of stores, from a registry or made here.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::engine::Engine;
use crate::processes::{shown, succeeds};
use crate::stores::{Recipe, Store};
use crate::{Result, debian, packages, workspace};

/// Marks images that were made here. Another number: the recipe has changed, and images of the
/// old one are not used any more.
const RECIPE: &str = "leaselock.image.recipe=2";
/// The label that says which package an image is made for.
const PACKAGE: &str = "leaselock.image.package";

/// What no server reads.
const UNUSED: [&str; 7] = ["doc", "info", "lintian", "locale", "man", "perl", "perl5"];

/// Beyond the users of the system.
const UID: u32 = 999;

/// An image that was made from Debian packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    /// `NAME:TAG`.
    pub(crate) image: String,
    /// The package, its name and version.
    pub(crate) package: String,
}

/// Returns the name of an image that is present: the one that the environment names, that of the
/// registry, or one made from Debian packages.
pub(crate) fn obtain(engine: Engine, store: &Store) -> Result<String> {
    if let Some(image) = env::var(store.image_variable).ok().filter(|image| !image.is_empty()) {
        if !engine.has_image(&image) {
            println!("pulling {image}");
            engine.pull(&image)?;
        }
        return Ok(image);
    }
    let (name, tag) = store.image;
    let official = format!("{name}:{tag}");
    if engine.has_image(&official) {
        return Ok(official);
    }
    let own = debian::is_here().then(debian::release).transpose()?;
    if let Some(release) = &own
        && let Some(made) = made(engine, &store.recipe, release)?
    {
        return Ok(made.image);
    }
    println!("pulling {official}");
    match (engine.pull(&official), own) {
        (Ok(()), _) => Ok(official),
        (Err(error), Some(release)) => {
            println!("cannot be pulled ({error}): making an image from Debian packages");
            Ok(make(engine, &store.recipe, &release)?.image)
        }
        (Err(error), None) => Err(format!(
            "{official} cannot be pulled ({error}), nor an image be made, as this is not Debian"
        )
        .into()),
    }
}

/// The image of a recipe and a release, if it was made before.
pub(crate) fn made(engine: Engine, recipe: &Recipe, suite: &str) -> Result<Option<Made>> {
    let prefix = format!("{}:{suite}-", recipe.image);
    let images = engine.images(recipe.image, RECIPE, PACKAGE)?.into_iter();
    let of_suite = images.filter(|(image, _)| image.starts_with(&prefix));
    Ok(of_suite.max().map(|(image, package)| Made { image, package }))
}

/// Makes an image from the packages of a release.
pub(crate) fn make(engine: Engine, recipe: &Recipe, suite: &str) -> Result<Made> {
    let folder = workspace::scratch()?.join(recipe.image);
    // The C library comes as a dependency; the links between folders do not.
    let packages = [&["base-files"], recipe.tools, &[recipe.package]].concat();
    let unpacked = packages::unpack(&packages, suite, &folder)?;
    let root = &unpacked.root;
    for unused in UNUSED {
        let _ = fs::remove_dir_all(root.join("usr/share").join(unused));
    }
    fs::create_dir_all(root.join("data"))?;
    fs::create_dir_all(root.join("tmp"))?;
    let (passwd, group) = users(recipe.user);
    fs::write(root.join("etc/passwd"), passwd)?;
    fs::write(root.join("etc/group"), group)?;
    let tar = folder.join("image.tar");
    archive(root, &tar)?;
    let image = format!("{}:{suite}-{}", recipe.image, unpacked.version);
    let labels = format!("LABEL {RECIPE} {PACKAGE}=\"{}\"", unpacked.package);
    let changes = ["ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin", "WORKDIR /data", &labels];
    engine.import(&tar, &image, &changes)?;
    fs::remove_dir_all(&folder)?;
    Ok(Made { image, package: unpacked.package })
}

/// The files that name users and groups.
fn users(user: Option<&str>) -> (String, String) {
    let mut passwd = "root:x:0:0:root:/root:/bin/sh\n".to_owned();
    let mut group = "root:x:0:\n".to_owned();
    if let Some(user) = user {
        let _ = writeln!(passwd, "{user}:x:{UID}:{UID}::/data:/bin/sh");
        let _ = writeln!(group, "{user}:x:{UID}:");
    }
    (passwd, group)
}

fn archive(root: &Path, tar: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    command.arg("--create").arg("--file").arg(tar);
    command.args(["--numeric-owner", "--owner=0", "--group=0"]);
    command.arg("--directory").arg(root).arg(".");
    if succeeds(&mut command)? {
        Ok(())
    } else {
        Err(format!("failed: {}", shown(&command)).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named_in_both_files() {
        let (passwd, group) = users(Some("postgres"));
        assert!(passwd.ends_with("\npostgres:x:999:999::/data:/bin/sh\n"), "{passwd}");
        assert!(group.ends_with("\npostgres:x:999:\n"), "{group}");
        assert_eq!(users(None).1, "root:x:0:\n");
    }
}
