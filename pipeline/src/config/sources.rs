//! The places that configuration comes from, as figment providers: files, environment, flags.
//!
//! Each brings the tables that are handed on as they stand (`log.kafka`, `store.options`) into one flat form, so
//! that `"sasl.password"`, an unquoted `sasl.password` and `SLUICE__LOG__KAFKA__SASL__PASSWORD` are one key. A
//! malformed file is reported without quoting its text, which may hold a secret.

use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Value};
use figment::{Error, Metadata, Profile, Provider};

/// What configuration variables of the environment begin with.
pub const ENV_PREFIX: &str = "SLUICE__";

/// Tables whose keys and values are somebody else's.
const PASSED_ON: [[&str; 2]; 2] = [["log", "kafka"], ["store", "options"]];

/// TOML text with the name under which errors mention it.
#[derive(Debug)]
pub struct TomlText {
    name: String,
    text: String,
}

impl TomlText {
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A text that names the file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self::new(path.display().to_string(), text))
    }
}

impl Provider for TomlText {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let table: toml::Table = toml::from_str(&self.text).map_err(|e| {
            let line =
                e.span().map_or(0, |s| self.text.bytes().take(s.start).filter(|b| *b == b'\n').count() + 1);
            Error::from(format!("line {line}: {}", e.message()))
        })?;
        let dict = Value::serialize(table)?.into_dict().unwrap_or_default();
        Ok(Profile::Default.collect(flat(dict)))
    }
}

/// The variables that begin with [`ENV_PREFIX`].
#[derive(Debug)]
pub struct Environment(Vec<(String, String)>);

impl Environment {
    /// The process's environment.
    pub fn of_process() -> Self {
        // a variable that is not UTF-8 cannot be one of ours
        Self::from_pairs(
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))),
        )
    }

    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(pairs.into_iter().filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect())
    }
}

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment").interpolater(|_, keys| {
            let path: Vec<_> = keys.iter().map(|k| k.to_ascii_uppercase()).collect();
            format!("{ENV_PREFIX}{}", path.join("__"))
        })
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let mut dict = Dict::new();
        for (name, text) in &self.0 {
            let path = name.trim_start_matches(ENV_PREFIX).to_ascii_lowercase();
            let path: Vec<&str> = path.split("__").collect();
            let passed_on = PASSED_ON.iter().any(|p| path.starts_with(p));
            // what is handed on stays text: a password of digits is no number
            let value = if passed_on { Value::from(text.clone()) } else { parse(text) };
            insert(&mut dict, &path, value);
        }
        Ok(Profile::Default.collect(flat(dict)))
    }
}

fn parse(text: &str) -> Value {
    match text.parse::<Value>() {
        Ok(value) => value,
        Err(never) => match never {},
    }
}

/// Values given by flags.
#[derive(Debug, Default)]
pub struct Flags(pub Vec<(&'static str, String)>);

impl Flags {
    pub fn set(&mut self, key: &'static str, value: Option<String>) {
        self.0.extend(value.map(|v| (key, v)));
    }

    pub fn path(&mut self, key: &'static str, value: Option<&PathBuf>) {
        self.set(key, value.map(|p| p.display().to_string()));
    }
}

impl Provider for Flags {
    fn metadata(&self) -> Metadata {
        Metadata::named("command line")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let mut dict = Dict::new();
        for (key, value) in &self.0 {
            insert(&mut dict, &key.split('.').collect::<Vec<_>>(), Value::from(value.clone()));
        }
        Ok(Profile::Default.collect(dict))
    }
}

fn insert(dict: &mut Dict, path: &[&str], value: Value) {
    let Some((head, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        dict.insert((*head).to_owned(), value);
        return;
    }
    let entry = dict.entry((*head).to_owned()).or_insert_with(|| Value::from(Dict::new()));
    if let Value::Dict(_, inner) = entry {
        insert(inner, rest, value);
    }
}

/// `dict` with the tables of [`PASSED_ON`] flattened to dotted keys.
fn flat(mut dict: Dict) -> Dict {
    for [section, table] in PASSED_ON {
        let Some(Value::Dict(_, inner)) = dict.get_mut(section) else { continue };
        let Some(Value::Dict(tag, nested)) = inner.remove(table) else { continue };
        let mut out = Dict::new();
        flatten("", nested, &mut out);
        inner.insert(table.to_owned(), Value::Dict(tag, out));
    }
    dict
}

fn flatten(prefix: &str, dict: Dict, out: &mut Dict) {
    for (key, value) in dict {
        let path = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        match value {
            Value::Dict(_, inner) => flatten(&path, inner, out),
            other => {
                out.insert(path, other);
            }
        }
    }
}
