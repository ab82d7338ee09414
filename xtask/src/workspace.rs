//! What the workspace consists of, as cargo says.

use std::path::PathBuf;

use serde_json::Value;

use crate::Result;
use crate::processes::{cargo, output};

/// A crate of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Without `default`.
    pub(crate) features: Vec<String>,
    /// Others may depend on it.
    pub(crate) published: bool,
}

/// The workspace's folder.
pub(crate) fn root() -> Result<PathBuf> {
    // Of this crate; set by `cargo run`.
    let manifest = std::env::var("CARGO_MANIFEST_DIR").map_err(|_| "run me as cargo xtask")?;
    let root = PathBuf::from(manifest);
    let root = root.parent().ok_or("no folder above xtask")?;
    Ok(root.to_owned())
}

/// Where files may be made that are no part of the repository.
pub(crate) fn scratch() -> Result<PathBuf> {
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => root()?.join(target),
        None => root()?.join("target"),
    };
    let scratch = target.join("xtask");
    std::fs::create_dir_all(&scratch)?;
    Ok(scratch)
}

/// The crates of the workspace.
pub(crate) fn packages() -> Result<Vec<Package>> {
    let metadata = output(
        cargo()?.args(["metadata", "--no-deps", "--locked"]).args(["--format-version", "1"]),
    )?;
    let packages = read(&metadata).ok_or("cannot read what cargo metadata says")?;
    if packages.is_empty() {
        return Err("cargo metadata names no crates".into());
    }
    Ok(packages)
}

fn read(metadata: &str) -> Option<Vec<Package>> {
    let metadata: Value = serde_json::from_str(metadata).ok()?;
    let packages = metadata["packages"].as_array()?.iter();
    packages
        .map(|package| {
            let features = package["features"].as_object()?.keys();
            // Nothing said is everywhere, and no registry is nowhere.
            let nowhere = package["publish"].as_array().is_some_and(Vec::is_empty);
            Some(Package {
                published: !nowhere,
                name: package["name"].as_str()?.to_owned(),
                features: features.filter(|name| *name != "default").cloned().collect(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_and_features_are_found() {
        let metadata = r#"{"packages":[
            {"name":"a","features":{"default":["x"],"x":[],"y":["dep:b"]}},
            {"name":"b","features":{},"publish":[]},
            {"name":"c","features":{},"publish":null}],"version":1}"#;
        let packages = read(metadata).unwrap();
        assert_eq!(packages[0].name, "a");
        assert_eq!(packages[0].features, ["x", "y"]);
        assert_eq!(packages[1].features, [""; 0]);
        let published: Vec<_> = packages.iter().map(|package| package.published).collect();
        assert_eq!(published, [true, false, true]);
    }

    #[test]
    fn this_workspace_has_this_crate() {
        assert!(packages().unwrap().iter().any(|package| package.name == "xtask"));
    }
}
