//! What the documents say about the suite is so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use lockcore_conformance::cases;

/// Sentences that wait for their test, as the beginning of a line's text.
const OPEN: &[&str] = &["| The same over processes |"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The Markdown files directly in a folder.
fn pages(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let files = entries.map(|entry| entry.expect("an entry").path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// All documents: those of the root, of `docs/`, and of each crate.
fn documents() -> Vec<(String, String)> {
    let root = root();
    let mut folders = vec![root.clone(), root.join("docs"), root.join("docs/adr")];
    for parent in [root.clone(), root.join("examples")] {
        let entries = fs::read_dir(parent).expect("a folder");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        folders.extend(paths.filter(|path| path.join("Cargo.toml").is_file()));
    }
    let files: BTreeSet<_> = folders.iter().flat_map(|folder| pages(folder)).collect();
    let name =
        |file: &Path| file.strip_prefix(&root).expect("below the root").display().to_string();
    files.iter().map(|file| (name(file), fs::read_to_string(file).expect("text"))).collect()
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The paths in a text, such as `fencing::rises_over_release`.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    let apart = |c: char| !is_word(c) && c != ':';
    text.split(apart).map(|path| path.trim_matches(':')).filter(|path| path.contains("::"))
}

#[test]
fn the_documents_are_found() {
    let names: Vec<_> = documents().into_iter().map(|(name, _)| name).collect();
    for name in ["README.md", "docs/laws.md", "docs/writing-a-backend.md", "conformance/README.md"]
    {
        assert!(names.iter().any(|found| found == name), "no {name} among {names:?}");
    }
}

#[test]
fn every_case_that_is_named_exists() {
    let known: BTreeSet<_> = cases().map(|case| case.name()).collect();
    let groups: BTreeSet<_> = known.iter().filter_map(|name| name.split("::").next()).collect();
    let (mut named, mut unknown) = (0, Vec::new());
    for (document, text) in documents() {
        for path in paths(&text) {
            let mut parts = path.split("::");
            let (group, name) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
            // A module of some crate may be called as a group is; its tests are no cases.
            if groups.contains(group) && name != "tests" {
                named += 1;
                if !known.contains(path) {
                    unknown.push(format!("{document}: {path}"));
                }
            }
        }
    }
    assert!(unknown.is_empty(), "no such cases: {unknown:#?}");
    assert!(named > 50, "only {named} cases are named, is the pattern right?");
}

/// The tests of a package that a text names, as in ``lockcore: `one`, `another` ``.
fn named_tests<'a>(text: &'a str, package: &str) -> Vec<&'a str> {
    let (mut names, begin) = (Vec::new(), format!("{package}: `"));
    for (at, _) in text.match_indices(&begin) {
        // Else it is the end of a longer name.
        if text[..at].ends_with(|c: char| is_word(c) || c == '-') {
            continue;
        }
        let mut rest = &text[at + begin.len()..];
        while let Some((name, after)) = rest.split_once('`') {
            names.push(name);
            let after = after.strip_prefix(',').map(str::trim_start);
            match after.and_then(|after| after.strip_prefix('`')) {
                Some(next) => rest = next,
                None => break,
            }
        }
    }
    names
}

/// All of a folder's Rust.
fn source(folder: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let text = if path.is_dir() {
            source(&path)
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            fs::read_to_string(&path).expect("text")
        } else {
            continue;
        };
        // A file or a folder is a module, or a test of its own.
        let stem = path.file_stem().expect("a name").to_string_lossy();
        all += &format!("mod {stem} {{\n{text}\n}}\n");
    }
    all
}

/// Whether a macro makes a test of this name, from a line such as `name: what it does;`. A field
/// of a struct ends otherwise.
fn is_made_by_a_macro(source: &str, name: &str) -> bool {
    source.lines().map(str::trim).any(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(": ") && rest.ends_with(';'))
    })
}

#[test]
fn a_field_is_no_test() {
    let source = "struct S {\n    one: u8,\n}\nmutants! {\n    two: Two is found by it;\n}\n";
    assert!(!is_made_by_a_macro(source, "one") && is_made_by_a_macro(source, "two"));
}

#[test]
fn every_test_that_is_named_exists() {
    let folders = [
        ("integration", "integration"),
        ("leaselock", ""),
        ("lockcore", "lockcore"),
        ("lockcore-combinators", "combinators"),
        ("lockcore-etcd", "backend-etcd"),
        ("lockcore-postgres", "backend-postgres"),
        ("lockcore-redis", "backend-redis"),
    ];
    let (mut named, mut unknown) = (0, Vec::new());
    for (package, folder) in folders {
        let folder = root().join(folder);
        let source = source(&folder.join("src")) + &source(&folder.join("tests"));
        for (document, text) in documents() {
            for name in named_tests(&text, package) {
                named += 1;
                let last = name.rsplit("::").next().unwrap_or(name);
                let known = [format!("fn {last}("), format!("mod {last} ")];
                let known = known.iter().any(|known| source.contains(known));
                if !known && !is_made_by_a_macro(&source, last) {
                    unknown.push(format!("{document}: {package}: {name}"));
                }
            }
        }
    }
    assert!(unknown.is_empty(), "no such tests: {unknown:#?}");
    assert!(named > 100, "only {named} tests are named, is the pattern right?");
}

#[test]
fn the_laws_name_cases_of_their_own() {
    let laws: BTreeMap<_, _> = cases().map(|case| (case.name(), case.law())).collect();
    let text = fs::read_to_string(root().join("docs/laws.md")).expect("the laws");
    let mut wrong = Vec::new();
    for section in text.split("\n## ") {
        let law = section.split('.').next().expect("a number");
        let number = law.strip_prefix(['L', 'W']).unwrap_or_default();
        if number.parse::<u32>().is_err() {
            continue;
        }
        let mut proven = false;
        for path in paths(section) {
            proven = true;
            if laws.get(path).is_some_and(|laws| !laws.split(' ').any(|one| one == law)) {
                wrong.push(format!("{law}: {path} is there for {}", laws[path]));
            }
        }
        assert!(proven, "{law} names no case");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_sentence_waits_for_its_test() {
    for (document, text) in documents() {
        for line in text.lines().filter(|line| line.contains("TODO-CASE")) {
            let known = OPEN.iter().any(|open| line.starts_with(open));
            assert!(known, "{document}: a sentence without a test: {line}");
        }
    }
}
