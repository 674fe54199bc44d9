//! The cache's directory: whole files named by digest, unfinished ones beside them, room made by age.
//!
//! A directory of many files is slow to look through, so this is not done for each file, but once per sixteenth of the
//! limit that came in; where it is full, the files that were not used for longest make room for the next sixteenth.
//! Each process that shares the directory may pass the limit by that much, since it does not see what the others bring
//! in meanwhile.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sluice_core::{Clock, SystemClock};
use ulid::Ulid;

use crate::error::StoreError;
use crate::metrics;
use crate::store::transfer::local;

const WHOLE: &str = "seg";
const UNFINISHED: &str = "tmp";
/// The directory is looked through again once this part of the limit came in.
const PARTS: u64 = 16;

/// The directory of a cache.
pub(super) struct Disk {
    dir: PathBuf,
    max_bytes: u64,
    /// Bytes that have been given room and are not whole files yet.
    coming: Arc<AtomicU64>,
    /// About the bytes of whole files: those of the last look, and what this process brought in since.
    whole: AtomicU64,
    /// Bytes that may come in before the directory is looked through again; one at a time makes room.
    left: Mutex<u64>,
}

/// Room for a file; given back when it is dropped, by which time the file is whole or gone.
pub(super) struct Room {
    bytes: u64,
    coming: Arc<AtomicU64>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.coming.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A file on its way in, locked while it is, so that others can tell it from what a killed process left.
pub(super) struct TempFile {
    path: PathBuf,
    lock: File,
    room: Room,
}

struct Entry {
    digest: blake3::Hash,
    bytes: u64,
    used: SystemTime,
}

impl Disk {
    pub(super) fn open(dir: &Path, max_bytes: u64) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(|e| local(dir, e))?;
        let disk = Self {
            dir: dir.to_owned(),
            max_bytes,
            coming: Arc::default(),
            whole: AtomicU64::default(),
            left: Mutex::default(),
        };
        disk.remove_leftovers()?;
        disk.counted(disk.bytes()?);
        Ok(disk)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn path(&self, digest: &blake3::Hash) -> PathBuf {
        self.dir.join(format!("{}.{WHOLE}", digest.to_hex()))
    }

    pub(super) fn bytes(&self) -> Result<u64, StoreError> {
        Ok(self.entries()?.iter().map(|e| e.bytes).sum())
    }

    /// Whether the file is there and is what its name says, and protects it; one that is not is removed.
    pub(super) fn is_intact(&self, digest: &blake3::Hash) -> Result<bool, StoreError> {
        let path = self.path(digest);
        if let Err(error) = write_protect(&path) {
            tracing::debug!(%error, "cached segment not write-protected");
        }
        let mut hasher = blake3::Hasher::new();
        let hashed = File::open(&path).and_then(|file| hasher.update_reader(file).map(|_| ()));
        match hashed {
            Ok(()) if hasher.finalize() == *digest => Ok(true),
            Ok(()) => {
                tracing::warn!(path = %path.display(), "cached segment is damaged, it is fetched again");
                self.remove(digest)?;
                Ok(false)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(local(&path, e)),
        }
    }

    /// Notes that a file is used now; the note is for eviction only.
    pub(super) fn touch(&self, digest: &blake3::Hash) {
        let now = UNIX_EPOCH + Duration::from_millis(u64::try_from(SystemClock.now().0).unwrap_or(0));
        // the file is read-only: its times are the owner's to change all the same
        let touched = File::open(self.path(digest)).and_then(|f| f.set_modified(now));
        if let Err(error) = touched {
            tracing::debug!(%error, "cached segment not touched");
        }
    }

    pub(super) fn remove(&self, digest: &blake3::Hash) -> Result<(), StoreError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(local(&path, e)),
            _ => Ok(()),
        }
    }

    /// A new unfinished file.
    pub(super) fn temp(&self, digest: &blake3::Hash, room: Room) -> Result<TempFile, StoreError> {
        let path = self.dir.join(format!("{}.{}.{UNFINISHED}", digest.to_hex(), Ulid::generate()));
        let lock = File::create_new(&path).map_err(|e| local(&path, e))?;
        lock.lock().map_err(|e| local(&path, e))?;
        Ok(TempFile { path, lock, room })
    }

    /// Gives a finished file its name; nobody writes it any more.
    pub(super) fn place(&self, temp: TempFile, digest: &blake3::Hash) -> Result<(), StoreError> {
        write_protect(&temp.path)?;
        fs::rename(&temp.path, self.path(digest)).map_err(|e| local(&temp.path, e))?;
        self.came_in(temp.room.bytes);
        Ok(())
    }

    /// Moves a file of this machine in.
    pub(super) fn adopt(&self, from: &Path, digest: &blake3::Hash, room: Room) -> Result<(), StoreError> {
        if fs::rename(from, self.path(digest)).is_ok() {
            write_protect(&self.path(digest))?;
            self.came_in(room.bytes);
            return Ok(());
        }
        // another file system: copy beside, then as a download
        let temp = self.temp(digest, room)?;
        fs::copy(from, &temp.path).map_err(|e| local(from, e))?;
        self.place(temp, digest)?;
        fs::remove_file(from).map_err(|e| local(from, e))
    }

    /// Room for `bytes`. Where they do not fit, the files that were not used for longest are removed, save those in
    /// `busy`, until they do, and a sixteenth of the limit besides. Where those in use leave no room the limit is
    /// passed, with a warning: serving goes first.
    pub(super) fn make_room(
        &self,
        bytes: u64,
        busy: impl FnOnce() -> HashSet<blake3::Hash>,
    ) -> Result<Room, StoreError> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = match left.checked_sub(bytes) {
            Some(left) => left,
            None => self.look(bytes, &busy())?,
        };
        self.coming.fetch_add(bytes, Ordering::Relaxed);
        Ok(Room { bytes, coming: Arc::clone(&self.coming) })
    }

    /// Looks the directory through for room for `bytes`; gives the room that is left beside.
    fn look(&self, bytes: u64, busy: &HashSet<blake3::Hash>) -> Result<u64, StoreError> {
        let part = self.max_bytes / PARTS;
        // before the files: what becomes whole meanwhile counts twice rather than not at all
        let coming = self.coming.load(Ordering::Relaxed);
        let mut entries = self.entries()?;
        let mut whole = entries.iter().map(|e| e.bytes).sum::<u64>();
        let needed = |whole: u64| whole.saturating_add(coming).saturating_add(bytes);
        if needed(whole) > self.max_bytes {
            entries.sort_by_key(|e| e.used);
            for entry in entries.iter().filter(|e| !busy.contains(&e.digest)) {
                if needed(whole).saturating_add(part) <= self.max_bytes {
                    break;
                }
                self.remove(&entry.digest)?;
                metrics::cache_evicted();
                whole = whole.saturating_sub(entry.bytes);
            }
        }
        self.counted(whole);
        let (needed, limit) = (needed(whole), self.max_bytes);
        if needed > limit {
            tracing::warn!(needed, limit, "segments in use are larger than the cache may be");
        }
        Ok(limit.saturating_sub(needed).min(part))
    }

    fn counted(&self, whole: u64) {
        self.whole.store(whole, Ordering::Relaxed);
        metrics::cache_bytes(whole);
    }

    fn came_in(&self, bytes: u64) {
        let before = self.whole.fetch_add(bytes, Ordering::Relaxed);
        metrics::cache_bytes(before.saturating_add(bytes));
    }

    fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        for file in fs::read_dir(&self.dir).map_err(|e| local(&self.dir, e))? {
            let file = file.map_err(|e| local(&self.dir, e))?;
            let name = file.file_name();
            let Some((hex, WHOLE)) = name.to_str().and_then(|n| n.split_once('.')) else { continue };
            let Ok(digest) = blake3::Hash::from_hex(hex) else { continue };
            // one that another process removes meanwhile is not there
            let Ok(metadata) = file.metadata() else { continue };
            let used = metadata.modified().unwrap_or(UNIX_EPOCH);
            entries.push(Entry { digest, bytes: metadata.len(), used });
        }
        Ok(entries)
    }

    fn remove_leftovers(&self) -> Result<(), StoreError> {
        for file in fs::read_dir(&self.dir).map_err(|e| local(&self.dir, e))? {
            let path = file.map_err(|e| local(&self.dir, e))?.path();
            if path.extension().is_none_or(|e| e != UNFINISHED) {
                continue;
            }
            // a lock that can be had is a dead process's
            let dead = File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
            if dead && let Err(error) = fs::remove_file(&path) {
                tracing::debug!(path = %path.display(), %error, "leftover not removed");
            }
        }
        Ok(())
    }
}

impl TempFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A second handle to write with; the first holds the lock.
    pub(super) fn file(&self) -> Result<File, StoreError> {
        self.lock.try_clone().map_err(|e| local(&self.path, e))
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // after a rename there is nothing left to remove under this name
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::debug!(path = %self.path.display(), %error, "unfinished file not removed");
        }
    }
}

/// Takes the permission to write from everybody: a mapped file that is cut short ends the process.
fn write_protect(path: &Path) -> Result<(), StoreError> {
    let mut permissions = fs::metadata(path).map_err(|e| local(path, e))?.permissions();
    if !permissions.readonly() {
        permissions.set_readonly(true);
        fs::set_permissions(path, permissions).map_err(|e| local(path, e))?;
    }
    Ok(())
}
