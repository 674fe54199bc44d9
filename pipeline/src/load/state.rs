//! The state file of a load: which file, into which index, how far.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sluice_core::IndexName;

use super::LoadError;
use super::rows::Position;

/// Bytes of the file's beginning that tell it from another one of the same name and size.
const HEAD_BYTES: u64 = 1 << 20;

/// What makes a file the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileIdentity {
    path: PathBuf,
    bytes: u64,
    head: String,
}

impl FileIdentity {
    /// # Errors
    /// When the file cannot be read.
    fn of(path: &Path) -> Result<Self, LoadError> {
        let file = File::open(path).map_err(LoadError::io(path))?;
        let bytes = file.metadata().map_err(LoadError::io(path))?.len();
        let mut head = Vec::new();
        file.take(HEAD_BYTES).read_to_end(&mut head).map_err(LoadError::io(path))?;
        let path = path.canonicalize().map_err(LoadError::io(path))?;
        Ok(Self { path, bytes, head: blake3::hash(&head).to_string() })
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    file: FileIdentity,
    position: Position,
    done: bool,
}

/// How far an earlier load of the same file came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resume {
    pub position: Position,
    pub done: bool,
}

/// The state of one load, in a directory of such files.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    identity: FileIdentity,
}

impl StateFile {
    /// The state of loading `file` into `index`.
    ///
    /// # Errors
    /// When the file cannot be read or the directory cannot be made.
    pub fn open(dir: &Path, file: &Path, index: &IndexName) -> Result<Self, LoadError> {
        let identity = FileIdentity::of(file)?;
        std::fs::create_dir_all(dir).map_err(LoadError::io(dir))?;
        let name = blake3::hash(format!("{index}\0{}", identity.path.display()).as_bytes()).to_hex();
        let path = dir.join(format!("{index}-{}.json", name.as_str().get(..16).unwrap_or_default()));
        Ok(Self { path, identity })
    }

    /// Where to go on; the beginning when the file has changed since, or nothing is known.
    pub fn resume(&self) -> Resume {
        let read =
            std::fs::read(&self.path).ok().and_then(|bytes| serde_json::from_slice::<State>(&bytes).ok());
        match read {
            Some(state) if state.file == self.identity => {
                Resume { position: state.position, done: state.done }
            }
            _ => Resume::default(),
        }
    }

    /// Keeps `position`. Nothing is lost when a crash loses it: rows are written again.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, position: Position, done: bool) -> Result<(), LoadError> {
        let state = State { file: self.identity.clone(), position, done };
        let text = serde_json::to_vec(&state).unwrap_or_default();
        let new = self.path.with_extension("new");
        let written = File::create(&new).and_then(|mut f| f.write_all(&text));
        written.and_then(|()| std::fs::rename(&new, &self.path)).map_err(LoadError::io(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_goes_on_only_with_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.jsonl");
        let index = IndexName::new("a").unwrap();
        std::fs::write(&file, "one").unwrap();
        let open = || StateFile::open(&dir.path().join("load"), &file, &index).unwrap();
        assert_eq!(open().resume(), Resume::default());
        let position = Position { rows: 7, bytes: 70 };
        open().save(position, false).unwrap();
        assert_eq!(open().resume(), Resume { position, done: false });
        std::fs::write(&file, "two").unwrap();
        assert_eq!(open().resume(), Resume::default());
    }

    #[test]
    fn a_damaged_state_begins_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.jsonl");
        std::fs::write(&file, "one").unwrap();
        let state = StateFile::open(dir.path(), &file, &IndexName::new("a").unwrap()).unwrap();
        std::fs::write(&state.path, "{").unwrap();
        assert_eq!(state.resume(), Resume::default());
    }
}
