//! `docs/writing-a-backend.md` leads from an empty crate to a green suite: this follows it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The page says ten lines; more than this would be something else.
const SHORT: usize = 21;

/// A piece of the page that is labelled for this test.
enum Piece {
    /// `<!-- file: PATH -->`, then a fence: a whole file of the crate.
    File { path: String, text: String },
    /// `<!-- add to the harness -->`, then a fence: more methods for it.
    Methods(String),
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}

fn pieces(page: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(label) = line.strip_prefix("<!-- ").and_then(|line| line.strip_suffix(" -->"))
        else {
            continue;
        };
        let fence = lines.next().unwrap_or_default();
        assert!(fence.starts_with("```"), "no code after the label {label:?}");
        let code = lines.by_ref().take_while(|line| !line.starts_with("```"));
        let text: String = code.flat_map(|line| [line, "\n"]).collect();
        pieces.push(match label.strip_prefix("file: ") {
            Some(path) => Piece::File { path: path.to_owned(), text },
            None if label == "add to the harness" => Piece::Methods(text),
            None => panic!("what is {label:?}?"),
        });
    }
    pieces
}

/// The crate of the page, in a folder of its own.
struct Crate {
    folder: PathBuf,
}

impl Crate {
    fn new() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guide").join("crate");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("an empty crate");
        // What the workspace has is there, so nothing has to be fetched.
        fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).expect("a lock file");
        Self { folder }
    }

    fn write(&self, path: &str, text: &str) {
        let file = self.folder.join(path);
        fs::create_dir_all(file.parent().expect("in a folder")).expect("a folder");
        fs::write(file, text).expect("a file");
    }

    /// What an author has from crates.io is this workspace's here.
    fn patch(&self, manifest: &str) {
        let path = |folder: &str| format!("{:?}", root().join(folder).display().to_string());
        let manifest = format!(
            "{manifest}\n[workspace]\n\n[patch.crates-io]\nlockcore = {{ path = {} }}\n\
             lockcore-conformance = {{ path = {} }}\n",
            path("lockcore"),
            path("conformance"),
        );
        self.write("Cargo.toml", &manifest);
    }

    fn test(&self, filter: &[&str]) -> Run {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["test", "--offline", "--test", "conformance", "--target-dir"]);
        // What the workspace has built is not built again.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
        cargo.arg(target).arg("--").args(filter);
        // This run is none of those that a closing report is about.
        cargo.current_dir(&self.folder).env_remove("LOCKCORE_TEST_SUMMARY");
        // Nobody debugs it.
        cargo.env("CARGO_PROFILE_DEV_DEBUG", "0");
        cargo.env_remove("LOCKCORE_TEST_REPORT");
        Run::new(cargo.output().expect("cargo"))
    }
}

struct Run {
    succeeded: bool,
    printed: String,
}

impl Run {
    fn new(output: Output) -> Self {
        let mut printed = String::from_utf8_lossy(&output.stdout).into_owned();
        printed += &String::from_utf8_lossy(&output.stderr);
        Self { succeeded: output.status.success(), printed }
    }

    /// How many passed and failed, as the suite's last line says.
    fn counts(&self) -> (usize, usize) {
        let line = self.printed.lines().find(|line| line.starts_with("conformance of "));
        let line = line.unwrap_or_else(|| panic!("the suite did not run:\n{}", self.printed));
        let before = |word: &str| {
            let (before, _) = line.split_once(word).expect("a count");
            before.rsplit(' ').next().and_then(|count| count.parse().ok()).expect("a number")
        };
        (before(" passed"), before(" failed"))
    }

    fn green(&self) -> usize {
        let (passed, failed) = self.counts();
        assert!(self.succeeded && failed == 0, "{}", self.printed);
        passed
    }
}

/// The lines of code from `struct` to the end: the harness and its `main`.
fn harness_lines(file: &str) -> usize {
    file.lines()
        .skip_while(|line| !line.starts_with("struct "))
        .filter(|line| !line.trim().is_empty())
        .count()
}

/// With more methods before the end of the first `impl`.
fn with_methods(file: &str, methods: &str) -> String {
    let start = file.find("impl Harness").expect("a harness");
    let end = start + file[start..].find("\n}\n").expect("its end") + 1;
    format!("{}\n{methods}{}", &file[..end], &file[end..])
}

#[test]
fn the_page_leads_from_an_empty_crate_to_a_green_suite() {
    let page = fs::read_to_string(root().join("docs/writing-a-backend.md")).expect("the page");
    let package = Crate::new();
    let (mut backend, mut harness, mut methods) = (String::new(), String::new(), Vec::new());
    for piece in pieces(&page) {
        match piece {
            Piece::File { path, text } if path == "Cargo.toml" => package.patch(&text),
            Piece::File { path, text } => {
                package.write(&path, &text);
                match path.as_str() {
                    "src/lib.rs" => backend = text,
                    "tests/conformance.rs" => harness = text,
                    _ => {}
                }
            }
            Piece::Methods(text) => methods.push(text),
        }
    }
    let lines = harness_lines(&harness);
    assert!((1..=SHORT).contains(&lines), "the harness of the page has {lines} lines");

    let run = package.test(&[]);
    let passed = run.green();
    assert!(passed >= 100, "only {passed} cases apply:\n{}", run.printed);
    // cargo says so about this crate; those of the workspace have a check of their own.
    assert!(!run.printed.contains("warning: `file-locks`"), "{}", run.printed);

    // What the harness cannot do is not run, until it says that it can.
    assert!(!methods.is_empty(), "nothing to add to the harness");
    assert_eq!(package.test(&["wipe"]).green(), 0);
    for methods in &methods {
        package.write("tests/conformance.rs", &with_methods(&harness, methods));
    }
    assert!(package.test(&["wipe"]).green() >= 3);

    // And the page's own example of a failure is one.
    let holders = "(record.holder == claim.holder).then_some(record)";
    assert!(backend.contains(holders), "the comparison of holders is written in another way");
    package.write("src/lib.rs", &backend.replace(holders, "Some(record)"));
    let run = package.test(&["ownership"]);
    assert!(!run.succeeded && run.counts().1 > 0, "{}", run.printed);
    assert!(run.printed.contains("ownership::release_needs_the_holder ----"), "{}", run.printed);
    assert!(run.printed.contains("law L4: release by another: got Released"), "{}", run.printed);
}
