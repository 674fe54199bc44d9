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
            let Ok(name) = entry.file_name().into_string() else { continue };
            match name.parse::<SegmentId>() {
                Ok(older) if older.epoch < run.epoch => take(&entry.path(), &parent, run).await?,
                // left by an owner that ended while it removed it
                Err(_) if name.starts_with(TAKEN) => remove(&entry.path()).await?,
                _ => {}
            }
        }
        let dir = parent.join(run.to_string());
        tokio::fs::create_dir_all(&dir).await?;
        Ok(Self(Arc::new(Run { dir, files: AtomicU64::new(0) })))
    }

    /// Whether a newer owner has removed this run's directory.
    pub(crate) async fn is_taken(&self) -> bool {
        tokio::fs::try_exists(&self.0.dir).await.is_ok_and(|exists| !exists)
    }

    /// A name that no other file of this run has.
    pub(crate) fn file(&self) -> ScratchFile {
        let number = self.0.files.fetch_add(1, Ordering::Relaxed);
        ScratchFile { path: self.0.dir.join(format!("{number}.seg")), _run: Arc::clone(&self.0) }
    }
}

/// How the names of directories begin that were taken from their owners.
const TAKEN: &str = "taken-";

/// Removes the directory of an older run. It is moved away first: its owner finds its files whole, or finds that its
/// directory is gone and so that it is fenced, and nothing in between.
async fn take(dir: &Path, parent: &Path, by: SegmentId) -> io::Result<()> {
    let Some(name) = dir.file_name().and_then(|name| name.to_str()) else { return Ok(()) };
    let taken = parent.join(format!("{TAKEN}{by}-{name}"));
    match tokio::fs::rename(dir, &taken).await {
        Ok(()) => remove(&taken).await,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes what was taken; what another owner removes too, or fills at this very moment, goes with the next owner.
async fn remove(dir: &Path) -> io::Result<()> {
    match tokio::fs::remove_dir_all(dir).await {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(error)
        }
        _ => Ok(()),
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use sluice_core::{Epoch, Generation, IndexName, PartitionId};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn liv_2_a_run_begins_while_one_that_is_fenced_still_writes() {
        let root = tempfile::tempdir().unwrap();
        let partition = PartitionRef {
            index: IndexName::new("a").unwrap(),
            generation: Generation(1),
            partition: PartitionId(0),
        };
        let stop = AtomicBool::new(false);
        for epoch in 1..60 {
            let old =
                Scratch::open(root.path(), &partition, SegmentId::first_of(Epoch(epoch))).await.unwrap();
            stop.store(false, Ordering::Relaxed);
            std::thread::scope(|scope| {
                let writer = scope.spawn(|| {
                    // the file of a handle goes with it, so that files come and go while the directory is emptied
                    while !stop.load(Ordering::Relaxed) && std::fs::write(old.file().path(), b"x").is_ok() {
                        std::hint::spin_loop();
                    }
                });
                let next = SegmentId::first_of(Epoch(epoch + 1));
                // whatever its owner finds, a file that is gone means that its directory is
                let owner = scope.spawn(|| {
                    let file = old.file();
                    while std::fs::write(file.path(), b"x").is_ok() {
                        if !file.path().exists() {
                            break;
                        }
                    }
                    !old.0.dir.exists()
                });
                let opened = tokio::task::block_in_place(|| {
                    tokio::runtime::Handle::current().block_on(Scratch::open(root.path(), &partition, next))
                });
                stop.store(true, Ordering::Relaxed);
                writer.join().unwrap();
                assert!(owner.join().unwrap(), "a file was gone and its directory was not");
                assert!(opened.is_ok(), "{:?}", opened.err());
            });
        }
    }
}
