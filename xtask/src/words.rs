//! One word per thing: names that the glossary has under another word are found where they are declared.
//!
//! Only words without an honest second meaning are listed. "Event", "row", "buffer" or "token" may be right
//! elsewhere (a membership event, a row of a segment file) and are left to reviewers.

use anyhow::{Result, bail};

use crate::sources::{self, Source};

/// A word to avoid, and the glossary's word.
const AVOID: &[(&str, &str)] = &[
    ("attributes", "metadata"),
    ("checkpoint", "manifest or next offset"),
    ("compaction", "merge (Kafka's own compaction keeps the word, in comments)"),
    ("datapoint", "record"),
    ("memtable", "growing set"),
    ("shard", "partition"),
    ("shards", "partitions"),
];

/// Keywords after which a name is declared.
const DECLARES: &[&str] = &["fn", "struct", "enum", "trait", "type", "const", "static", "mod", "let", "mut"];

/// The names that a line of Rust declares.
fn declared(line: &str) -> Vec<&str> {
    let code = line.split("//").next().unwrap_or_default();
    let mut names = Vec::new();
    let mut declares = false;
    for token in code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|t| !t.is_empty()) {
        if declares && !DECLARES.contains(&token) {
            names.push(token);
        }
        declares = DECLARES.contains(&token);
    }
    names
}

/// The words of a name in snake or camel case, in lower case.
fn words(name: &str) -> Vec<String> {
    if !name.contains(|c: char| c.is_lowercase()) {
        return name.split('_').map(str::to_lowercase).collect();
    }
    let mut words = vec![String::new()];
    for c in name.chars() {
        if (c == '_' || c.is_uppercase()) && words.last().is_some_and(|w| !w.is_empty()) {
            words.push(String::new());
        }
        if let (Some(word), true) = (words.last_mut(), c != '_') {
            word.extend(c.to_lowercase());
        }
    }
    words
}

fn complaints(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        for name in declared(line) {
            let words = words(name);
            for (avoid, instead) in AVOID.iter().filter(|(avoid, _)| words.iter().any(|w| w == avoid)) {
                let at = format!("{}:{}", source.path.display(), number + 1);
                found.push(format!("{at}: `{name}`: for \"{avoid}\" this project says {instead}"));
            }
        }
    }
    found
}

pub(crate) fn check() -> Result<()> {
    let found: Vec<String> = sources::all()?.iter().flat_map(complaints).collect();
    if found.is_empty() { Ok(()) } else { bail!("names:\n    {}", found.join("\n    ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_into_their_words() {
        assert_eq!(words("ShardId"), ["shard", "id"]);
        assert_eq!(words("last_checkpoint"), ["last", "checkpoint"]);
        assert_eq!(words("MAX_LINES"), ["max", "lines"]);
    }

    #[test]
    fn only_declarations_count() {
        assert_eq!(declared("pub fn home_of(key: &str) -> u32 { // let home"), ["home_of"]);
        assert_eq!(declared("let mut total = message.payload();"), ["total"]);
        assert_eq!(declared("client.merge();"), [""; 0]);
    }
}
