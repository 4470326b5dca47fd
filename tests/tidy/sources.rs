//! The text files of the workspace's own packages.

use std::path::{Path, PathBuf};

/// A file, by its path from the workspace's root.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    /// Whether it holds tests only.
    pub(crate) fn is_test(&self) -> bool {
        let parts: Vec<&str> = self.path.split('/').collect();
        parts.contains(&"tests") || self.path.ends_with("/tests.rs") || self.is_conformance()
    }

    /// The journal's conformance tests stand in the library, for every storage.
    fn is_conformance(&self) -> bool {
        self.path.contains("/conformance")
    }

    /// The text before the tests at its end.
    pub(crate) fn production(&self) -> &str {
        let end = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        &self.text[..end]
    }
}

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests are a folder of the workspace").to_owned()
}

/// All Rust files of the workspace's packages.
pub(crate) fn rust() -> Vec<Source> {
    let mut found = Vec::new();
    for folder in std::fs::read_dir(root()).expect("the root can be read") {
        let folder = folder.expect("the root can be read").path();
        if folder.join("Cargo.toml").is_file() {
            collect(&folder, &mut found);
        }
    }
    assert!(found.len() > 100, "only {} Rust files were found", found.len());
    found.sort_by(|left, right| left.path.cmp(&right.path));
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    for entry in std::fs::read_dir(folder).expect("a folder can be read") {
        let path = entry.expect("a folder can be read").path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source is UTF-8");
            let path = path.strip_prefix(root()).expect("it is below the root");
            found.push(Source { path: path.to_string_lossy().into_owned(), text });
        }
    }
}

/// Fails with all findings at once.
#[track_caller]
pub(crate) fn none(rule: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}
