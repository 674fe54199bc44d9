//! Where segments are built: a directory of this run alone, and files that vanish when nobody holds them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sluice_core::{PartitionRef, SegmentId};

/// The directory of one run of a worker; it is removed with everything in it when the last holder is gone.
#[derive(Clone)]
pub(crate) struct Scratch(Arc<Run>);

struct Run {
    dir: PathBuf,
    files: AtomicU64,
}

/// A file that is removed when this is dropped, unless it was moved away before.
pub(crate) struct ScratchFile {
    path: PathBuf,
    _run: Arc<Run>,
}

impl Scratch {
    /// Makes the directory of `run` below `root`, and removes those of older epochs of the same partition: their
    /// owners are fenced. Another process may share `root`.
    pub(crate) async fn open(root: &Path, partition: &PartitionRef, run: SegmentId) -> io::Result<Self> {
        let mine = format!("{}-g{}-p{}", partition.index, partition.generation, partition.partition);
        let parent = root.join(mine);
        tokio::fs::create_dir_all(&parent).await?;
        let mut entries = tokio::fs::read_dir(&parent).await?;
        while let Some(entry) = entries.next_entry().await? {
            let name = entry.file_name();
            let older = name.to_str().and_then(|n| n.parse::<SegmentId>().ok());
            if older.is_some_and(|older| older.epoch < run.epoch) {
                match tokio::fs::remove_dir_all(entry.path()).await {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
            }
        }
        let dir = parent.join(run.to_string());
        tokio::fs::create_dir_all(&dir).await?;
        Ok(Self(Arc::new(Run { dir, files: AtomicU64::new(0) })))
    }

    /// A name that no other file of this run has.
    pub(crate) fn file(&self) -> ScratchFile {
        let number = self.0.files.fetch_add(1, Ordering::Relaxed);
        ScratchFile { path: self.0.dir.join(format!("{number}.seg")), _run: Arc::clone(&self.0) }
    }
}

impl ScratchFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Ends all writing to the file, which is whole: a mapped file that shrinks ends the process.
    pub(crate) fn write_protect(&self) -> io::Result<()> {
        let mut permissions = std::fs::metadata(&self.path)?.permissions();
        permissions.set_readonly(true);
        std::fs::set_permissions(&self.path, permissions)
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        // most were moved away; what cannot be removed goes with the directory
        std::fs::remove_file(&self.path).ok();
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // what is left behind is removed by the next owner
        std::fs::remove_dir_all(&self.dir).ok();
    }
}
