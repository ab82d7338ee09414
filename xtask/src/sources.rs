//! Where this machine gets its packages from.

use std::fs;
use std::path::Path;

use crate::Result;
use crate::debian::release;

const LIST: &str = "/etc/apt/sources.list";
const PARTS: &str = "/etc/apt/sources.list.d";

/// An archive of Debian packages, and how its signature is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mirror {
    uri: String,
    /// A keyring, or none for the keys that this machine trusts for everything.
    signed_by: Option<String>,
}

impl Mirror {
    /// The archive from which this machine has its own release.
    pub(crate) fn of_this_machine() -> Result<Self> {
        let release = release()?;
        let mut files = vec![LIST.into()];
        if let Ok(parts) = fs::read_dir(PARTS) {
            files.extend(parts.flatten().map(|entry| entry.path()));
        }
        files.sort();
        let found = files.iter().find_map(|file| {
            let text = fs::read_to_string(file).ok()?;
            match Path::new(file).extension()?.to_str()? {
                "sources" => from_paragraphs(&text, &release),
                "list" => from_lines(&text, &release),
                _ => None,
            }
        });
        found.ok_or_else(|| {
            format!("no source of {release} with the component main in {LIST} or {PARTS}").into()
        })
    }

    /// A file for apt by which packages of a release come from the same archive.
    pub(crate) fn source(&self, suite: &str) -> String {
        let mut source =
            format!("Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n", self.uri);
        if let Some(keys) = &self.signed_by {
            source.push_str(&format!("Signed-By: {keys}\n"));
        }
        source
    }
}

/// `Types: deb`, `URIs: …`, `Suites: …`, `Components: …`, `Signed-By: …`.
fn from_paragraphs(text: &str, suite: &str) -> Option<Mirror> {
    text.split("\n\n").find_map(|paragraph| {
        let field = |name: &str| {
            let mut lines = paragraph.lines().filter(|line| !line.starts_with('#'));
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.unwrap_or_default().split_whitespace().collect::<Vec<_>>()
        };
        let wanted = field("Types").contains(&"deb")
            && field("Suites").contains(&suite)
            && field("Components").contains(&"main")
            && !field("Enabled").contains(&"no");
        // A key in the file itself is in lines of its own.
        let keys = field("Signed-By").first().map(|&keys| keys.to_owned());
        let uri = field("URIs").first()?.to_string();
        wanted.then_some(Mirror { uri, signed_by: keys })
    })
}

/// `deb [signed-by=…] URI SUITE COMPONENT…`.
fn from_lines(text: &str, suite: &str) -> Option<Mirror> {
    text.lines().find_map(|line| {
        let mut rest = line.trim().strip_prefix("deb ")?.trim_start();
        let mut signed_by = None;
        if let Some(bracket) = rest.strip_prefix('[') {
            let (options, after) = bracket.split_once(']')?;
            let keys = options.split_whitespace().find_map(|word| word.strip_prefix("signed-by="));
            signed_by = keys.map(str::to_owned);
            rest = after;
        }
        let words: Vec<_> = rest.split_whitespace().collect();
        let [uri, in_suite, components @ ..] = words.as_slice() else {
            return None;
        };
        let wanted = *in_suite == suite && components.contains(&"main");
        wanted.then(|| Mirror { uri: (*uri).to_owned(), signed_by })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_both_kinds_are_read() {
        let paragraphs = "Types: deb\n# note\nURIs: http://a.example/x\nSuites: old new\n\
                          Components: main\nSigned-By: /k.gpg\n\n\
                          Types: deb\nURIs: http://b.example\nSuites: other\nComponents: main\n";
        let mirror = from_paragraphs(paragraphs, "new").unwrap();
        assert_eq!(
            mirror.source("next"),
            "Types: deb\nURIs: http://a.example/x\nSuites: next\nComponents: main\n\
             Signed-By: /k.gpg\n"
        );
        assert_eq!(from_paragraphs(paragraphs, "ne"), None);
        let off = "Types: deb\nURIs: u\nSuites: new\nComponents: main\nEnabled: no\n";
        assert_eq!(from_paragraphs(off, "new"), None);

        let lines = "# deb http://no.example new main\n\
                     deb-src http://no.example new main\n\
                     deb [arch=amd64 signed-by=/k.gpg] http://a.example/x new contrib main\n";
        assert_eq!(from_lines(lines, "new"), Some(mirror));
        assert_eq!(from_lines("deb http://c.example new main", "new").unwrap().signed_by, None);
    }
}
