//! The Rust files of the repository: each says its purpose in its first line, and none is long.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell::{command, output, root};

/// Longest file, tests included; most have 150 to 250 lines.
const MAX_LINES: usize = 600;

/// A Rust file of the repository.
pub(crate) struct Source {
    /// Relative to the root.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// Every Rust file that git knows or would add.
pub(crate) fn all() -> Result<Vec<Source>> {
    let listed = output(command("git", &["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"]))?;
    let mut sources = Vec::new();
    for line in listed.lines().filter(|line| root().join(line).exists()) {
        let text = fs::read_to_string(root().join(line)).with_context(|| line.to_owned())?;
        sources.push(Source { path: Path::new(line).to_owned(), text });
    }
    Ok(sources)
}

/// What is wrong with one file.
fn complaint(text: &str) -> Option<String> {
    let head = text.lines().next().unwrap_or_default();
    let purpose = head.strip_prefix("//! ").map_or("", str::trim);
    if purpose.is_empty() {
        return Some("the first line does not say the purpose (`//! ..`)".into());
    }
    let lines = text.lines().count();
    (lines >= MAX_LINES).then(|| format!("{lines} lines, fewer than {MAX_LINES} are allowed"))
}

pub(crate) fn check() -> Result<()> {
    let sources = all()?;
    let complaints =
        sources.iter().filter_map(|s| Some(format!("{}: {}", s.path.display(), complaint(&s.text)?)));
    let found: Vec<String> = complaints.collect();
    if found.is_empty() { Ok(()) } else { bail!("files:\n    {}", found.join("\n    ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_its_purpose_first() {
        assert_eq!(complaint("//! Seals.\n\nuse x;\n"), None);
        for bad in ["", "use x;\n", "// Seals.\n", "//!\n//! Seals.\n"] {
            assert!(complaint(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn a_long_file_is_found() {
        let long = format!("//! Long.\n{}", "\n".repeat(MAX_LINES));
        assert_eq!(complaint(&long).unwrap(), "601 lines, fewer than 600 are allowed");
    }
}
