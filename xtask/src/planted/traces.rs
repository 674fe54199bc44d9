//! What a failing property leaves behind: `proptest-regressions` with the case that failed, which a bug that is taken
//! out again must not leave in the sources.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::shell::{command, output, root};

/// The files that git does not have, at one moment.
pub(super) struct Traces(BTreeSet<String>);

impl Traces {
    /// What there is now.
    pub(super) fn now() -> Result<Self> {
        let listed = output(command("git", &["ls-files", "-z", "--others", "--exclude-standard"]))?;
        let ours = listed.split('\0').filter(|path| is_trace(path));
        Ok(Self(ours.map(str::to_owned).collect()))
    }

    /// Removes what came since, and takes back what was added to files that git has.
    pub(super) fn clear(&self) -> Result<()> {
        for path in Self::now()?.0.difference(&self.0) {
            let path = root().join(path);
            fs::remove_file(&path)?;
            remove_if_empty(&path);
        }
        let changed = output(command("git", &["diff", "-z", "--name-only"]))?;
        for path in changed.split('\0').filter(|path| is_trace(path)) {
            output(command("git", &["checkout", "--quiet", "--", path]))?;
        }
        Ok(())
    }
}

/// `.../proptest-regressions/x.txt`, or `x.proptest-regressions` beside an integration test.
fn is_trace(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    path.split('/').any(|part| part == "proptest-regressions") || name.ends_with(".proptest-regressions")
}

/// Removes the folders of `file` up to `proptest-regressions`, as far as nothing else is in them.
fn remove_if_empty(file: &Path) {
    for folder in file.ancestors().skip(1) {
        let inside = folder.components().any(|part| part.as_os_str() == "proptest-regressions");
        if !inside || fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_proptest_leaves_is_a_trace() {
        for path in ["a/proptest-regressions/b/c.txt", "a/tests/fold.proptest-regressions"] {
            assert!(is_trace(path), "{path}");
        }
        for path in ["a/src/lib.rs", "a/proptest-regressions.rs", ""] {
            assert!(!is_trace(path), "{path}");
        }
    }

    #[test]
    fn empty_folders_go_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("proptest-regressions/a");
        fs::create_dir_all(&folder).unwrap();
        fs::write(dir.path().join("proptest-regressions/kept.txt"), "").unwrap();
        remove_if_empty(&folder.join("x.txt"));
        assert!(!folder.exists() && dir.path().join("proptest-regressions/kept.txt").exists());
    }
}
