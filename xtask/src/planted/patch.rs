//! A planted bug as it stands in its file: a head for people and for this program, then the patch.
//!
//! ```text
//! What the bug is, in a line.
//! Breaks: FENCE-4
//! Caught by: -p sluice-snapshotter --lib protocol::commit::tests::the_test
//! Slow: why it does not take part in the rotation        (if so)
//!
//! --- a/..
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{command, root};

/// A test that must see a bug: the program it is in, and its whole name.
#[derive(Debug, PartialEq)]
pub(super) struct Catcher {
    pub(super) program: Program,
    pub(super) test: String,
}

/// A test program: `-p PACKAGE --lib` or `-p PACKAGE --test NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Program {
    pub(super) package: String,
    pub(super) target: Vec<String>,
}

/// One file of `dev/planted`.
#[derive(Debug, PartialEq)]
pub(super) struct Patch {
    /// As the file is called, without its ending: `04-exists-is-mine`.
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) breaks: String,
    pub(super) caught_by: Vec<Catcher>,
    pub(super) slow: bool,
}

/// Every planted bug, in the order of their numbers.
pub(super) fn all() -> Result<Vec<Patch>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(root().join("dev/planted"))? {
        paths.push(entry?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|e| e == "patch"));
    paths.sort();
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path)?;
        Patch::parse(path, &text).with_context(|| path.display().to_string())
    };
    paths.iter().map(read).collect()
}

impl Catcher {
    fn parse(words: &str) -> Result<Self> {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        match words.as_slice() {
            [p, package, target @ .., test] if p == "-p" && !target.is_empty() => Ok(Self {
                program: Program { package: package.clone(), target: target.to_vec() },
                test: test.clone(),
            }),
            _ => bail!("\"Caught by\" is not -p PACKAGE --lib TEST or -p PACKAGE --test NAME TEST"),
        }
    }
}

impl Patch {
    fn parse(path: &Path, text: &str) -> Result<Self> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut patch =
            Self { name, path: path.to_owned(), breaks: String::new(), caught_by: Vec::new(), slow: false };
        for line in text.lines().take_while(|line| !line.starts_with("--- ")) {
            match line.split_once(": ") {
                Some(("Breaks", ids)) => patch.breaks = ids.trim().to_owned(),
                Some(("Slow", _)) => patch.slow = true,
                Some(("Caught by", words)) => {
                    patch.caught_by.push(Catcher::parse(words)?);
                }
                _ => {}
            }
        }
        if patch.breaks.is_empty() || patch.caught_by.is_empty() {
            bail!("the head lacks \"Breaks: ..\" or \"Caught by: ..\"");
        }
        Ok(patch)
    }

    pub(super) fn title(&self) -> String {
        format!("{} ({})", self.name, self.breaks)
    }

    /// Whether `name` is its name, its number, or what follows the number.
    pub(super) fn is_called(&self, name: &str) -> bool {
        let parts = self.name.split_once('-');
        self.name == name || parts.is_some_and(|(number, rest)| number == name || rest == name)
    }

    /// Applies the patch, with further options.
    pub(super) fn git_apply(&self, options: &[&str]) -> Command {
        let mut git = command("git", &["apply", "-p1", "--recount"]);
        git.args(options).arg(&self.path);
        git
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read() {
        let text = "Takes it.\nBreaks: GC-1\nCaught by: -p a --lib x::y\nCaught by: -p b --test c z\n\n--- a/x\nSlow: no\n";
        let patch = Patch::parse(Path::new("/x/07-gc.patch"), text).unwrap();
        assert_eq!((patch.title().as_str(), patch.slow), ("07-gc (GC-1)", false));
        let catcher = |package: &str, target: &[&str], test: &str| Catcher {
            program: Program {
                package: package.into(),
                target: target.iter().map(|w| (*w).to_owned()).collect(),
            },
            test: test.into(),
        };
        assert_eq!(patch.caught_by, [catcher("a", &["--lib"], "x::y"), catcher("b", &["--test", "c"], "z")]);
        assert!(
            patch.is_called("07")
                && patch.is_called("gc")
                && patch.is_called("07-gc")
                && !patch.is_called("7")
        );
        assert!(Patch::parse(Path::new("x.patch"), "Breaks: GC-1\n--- a\nCaught by: x y").is_err());
        assert!(Patch::parse(Path::new("x.patch"), "Breaks: GC-1\nCaught by: x::y\n--- a\n").is_err());
    }
}
