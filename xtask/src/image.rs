//! Container images of stores, from a registry or made here.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::engine::Engine;
use crate::processes::{shown, succeeds};
use crate::servers::Store;
use crate::{Result, debian, workspace};

/// Marks images that were made here. Another number: the recipe has changed, and images of the
/// old one are not used any more.
const RECIPE: &str = "leaselock.image.recipe=1";

/// What no server reads.
const UNUSED: [&str; 7] = ["doc", "info", "lintian", "locale", "man", "perl", "perl5"];

/// Returns the name of an image that is present: the one that the environment names, that of the
/// registry, or one made from Debian packages.
pub(crate) fn obtain(engine: &Engine, store: &Store) -> Result<String> {
    if let Some(image) = env::var(store.image_variable).ok().filter(|image| !image.is_empty()) {
        if !engine.has_image(&image) {
            let (name, tag) = image.rsplit_once(':').unwrap_or((&image, "latest"));
            println!("pulling {image}");
            engine.pull(name, tag)?;
        }
        return Ok(image);
    }
    let (name, tag) = store.image;
    let official = format!("{name}:{tag}");
    if engine.has_image(&official) {
        return Ok(official);
    }
    if let Some(own) = engine.images(store.own_image, RECIPE)?.into_iter().max() {
        return Ok(own);
    }
    println!("pulling {official}");
    match engine.pull(name, tag) {
        Ok(()) => Ok(official),
        Err(error) if debian::is_here() => {
            println!("cannot be pulled ({error}): making an image from Debian packages");
            make(engine, store)
        }
        Err(error) => Err(format!(
            "{official} cannot be pulled ({error}), nor an image be made, as this is not Debian"
        )
        .into()),
    }
}

fn make(engine: &Engine, store: &Store) -> Result<String> {
    let folder = workspace::scratch()?.join(store.own_image);
    // The C library comes as a dependency; the links between folders do not.
    let (root, version) = debian::unpack(&["base-files", store.package], &folder)?;
    let tag = format!("{}-{version}", debian::release()?);
    for unused in UNUSED {
        let _ = fs::remove_dir_all(root.join("usr/share").join(unused));
    }
    fs::create_dir_all(root.join("data"))?;
    let tar = folder.join("image.tar");
    archive(&root, &tar)?;
    let command = format!("CMD [\"{}\"]", store.package);
    let label = format!("LABEL {RECIPE}");
    let changes = ["ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin", "WORKDIR /data", &command, &label];
    engine.import(&tar, (store.own_image, &tag), &changes)?;
    fs::remove_dir_all(&folder)?;
    Ok(format!("{}:{tag}", store.own_image))
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
